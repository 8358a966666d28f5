//! Which clients may connect: those with a certificate of a known authority that holds a known name.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::EndEntityCert;

use crate::{config::ClientName, files::certificate::Certificate};

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

    /// Returns whether the certificate holds a known name.
    ///
    /// # Errors
    ///
    /// If any of its names cannot be read. The reader that verifies chains skips such a name, so it
    /// would take a certificate with two ids, one of them unreadable, for one with a single id.
    fn knows(&self, der: &CertificateDer<'_>) -> Result<bool, CertificateError> {
        let verified = EndEntityCert::try_from(der).map_err(|_| CertificateError::BadEncoding)?;
        let certificate = Certificate::parse(der).ok_or(CertificateError::BadEncoding)?;
        let names = certificate.names().ok_or(CertificateError::BadEncoding)?;
        let (uris, dns) = (verified.valid_uri_names(), verified.valid_dns_names());
        if !uris.eq(names.uris.iter().copied()) || !dns.eq(names.dns.iter().copied()) {
            return Err(CertificateError::BadEncoding);
        }
        // A SPIFFE certificate has one id. One with several could be taken for whichever suits it.
        let id = match names.uris[..] {
            [id] => Some(id),
            _ => None,
        };
        Ok(self.names.iter().any(|name| match name {
            ClientName::Spiffe(allowed) => id == Some(allowed),
            // Names of DNS have no case. A wildcard in a certificate equals no name.
            ClientName::Dns(allowed) => {
                names.dns.iter().any(|name| name.eq_ignore_ascii_case(allowed))
            }
        }))
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
        match self.knows(end_entity).map_err(Error::InvalidCertificate)? {
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
