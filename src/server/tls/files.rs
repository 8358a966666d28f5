//! The files of TLS: what is in them, and what is wrong with them.

use std::{path::Path, sync::Arc};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use zeroize::Zeroizing;

use super::{client::NamedClients, provider};
use crate::{
    config,
    files::{
        certificate::{self, Validity},
        pem,
        trusted::{self, ReadError},
    },
};

/// Why TLS cannot be used with the files of a listener. It shows nothing of a private key.
#[derive(Debug, thiserror::Error)]
#[error("{key} ({path}): {problem}")]
pub struct TlsError {
    key: String,
    path: String,
    problem: String,
}

impl TlsError {
    fn new(settings: &config::Tls, file: &str, path: &Path, problem: impl ToString) -> Self {
        let key = format!("{}.{file}", settings.key);
        Self { key, path: path.display().to_string(), problem: problem.to_string() }
    }

    /// The certificate and its key cannot be used together.
    pub(super) fn identity(settings: &config::Tls, error: &rustls::Error) -> Self {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the certificate does not belong to the private key in private_key_file".to_owned()
            }
            error => format!("expected a certificate that can be used with its key: {error}"),
        };
        Self::new(settings, CERTIFICATE, &settings.certificate, problem)
    }
}

const CERTIFICATE: &str = "certificate_file";
const PRIVATE_KEY: &str = "private_key_file";
const AUTHORITIES: &str = "client_ca_file";

/// The texts of the files of one TLS setting.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    certificate: String,
    private_key: Zeroizing<String>,
    authorities: Option<String>,
}

impl Pem {
    pub(super) fn read(settings: &config::Tls) -> Result<Self, TlsError> {
        let read = |file, path: &Path| {
            let (text, _mode) = trusted::read(path).map_err(|error| match error {
                ReadError::Io(error) => TlsError::new(settings, file, path, error),
                ReadError::Untrusted(why) => TlsError::new(settings, file, path, why),
            })?;
            Ok::<_, TlsError>(text)
        };
        let certificate = read(CERTIFICATE, &settings.certificate)?.to_string();
        let private_key = read(PRIVATE_KEY, &settings.private_key)?;
        let clients = settings.clients.as_ref();
        let authorities = clients.map(|clients| read(AUTHORITIES, &clients.authorities));
        let authorities = authorities.transpose()?.map(|text| text.to_string());
        Ok(Self { certificate, private_key, authorities })
    }

    /// The listener's certificates, its own first, its key, and when the certificates are valid.
    pub(super) fn identity(
        &self,
        settings: &config::Tls,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Validity), TlsError> {
        let path = &settings.certificate;
        let chain = pem::certificates(&self.certificate)
            .map_err(|problem| TlsError::new(settings, CERTIFICATE, path, problem))?;
        let validity = certificate::first_to_end(&chain)
            .map_err(|problem| TlsError::new(settings, CERTIFICATE, path, problem))?;
        let key = pem::private_key(&self.private_key).map_err(|expected| {
            TlsError::new(settings, PRIVATE_KEY, &settings.private_key, expected)
        })?;
        Ok((chain, key, validity))
    }

    /// What verifies the certificates of clients, if they must have one.
    pub(super) fn clients(
        &self,
        settings: &config::Tls,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some((clients, authorities)) = settings.clients.as_ref().zip(self.authorities.as_ref())
        else {
            return Ok(None);
        };
        let wrong =
            |problem: String| TlsError::new(settings, AUTHORITIES, &clients.authorities, problem);
        let roots = pem::authorities(authorities).map_err(wrong)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Arc::new(NamedClients::new(verifier, Arc::clone(&clients.names)))))
    }
}
