//! Which clients may connect: those with a certificate of a known authority that holds a known name.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::EndEntityCert;

use crate::config::ClientName;

/// Verifies a client's certificate as rustls does, and then its name.
#[derive(Debug)]
pub(super) struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    names: Arc<[ClientName]>,
}

impl NamedClients {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, names: Arc<[ClientName]>) -> Self {
        Self { chain, names }
    }

    fn knows(&self, certificate: &EndEntityCert<'_>) -> bool {
        // A SPIFFE certificate has one id. One with several could be taken for whichever suits it.
        let mut ids = certificate.valid_uri_names();
        let (first, second) = (ids.next(), ids.next());
        let id = first.filter(|_| second.is_none());
        self.names.iter().any(|name| match name {
            ClientName::Spiffe(allowed) => id == Some(allowed),
            // Names of DNS have no case. A wildcard in a certificate equals no name.
            ClientName::Dns(allowed) => {
                certificate.valid_dns_names().any(|name| name.eq_ignore_ascii_case(allowed))
            }
        })
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match self.knows(&certificate) {
            true => Ok(verified),
            false => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
