//! The content of the files of logins and certificates.

use std::{path::Path, sync::Arc};

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use zeroize::Zeroizing;

use crate::{
    config::{RedisFiles, redis_file_keys as keys},
    files::{
        certificate::{self, Validity},
        pem,
        secret::{self, SecretFileError},
        trusted,
    },
};

/// Why a file cannot be used. It shows nothing of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{key} ({path}): {problem}")]
pub struct RedisFileError {
    key: &'static str,
    path: String,
    problem: String,
}

/// What the files hold. It has no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct FileContents {
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) sentinel_password: Option<Zeroizing<String>>,
    authorities: Option<String>,
    identity: Option<IdentityPem>,
}

/// A certificate chain and its key.
#[derive(Clone, PartialEq, Eq)]
struct IdentityPem {
    certificate: String,
    private_key: Zeroizing<String>,
    validity: Validity,
}

impl FileContents {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Returns the first file that cannot be read, trusted or used.
    pub(super) fn read(files: &RedisFiles) -> Result<Self, RedisFileError> {
        let RedisFiles { password, sentinel_password, authorities, identity } = files;
        let secret = |key, path: &Option<_>| {
            let read = path.as_deref().map(|path| {
                secret::read(path)
                    .map_err(|error: SecretFileError| RedisFileError::new(key, path, error))
            });
            read.transpose()
        };
        let authorities = authorities.as_deref().map(|path| {
            let text = text(keys::AUTHORITIES, path)?;
            pem::authorities(&text)
                .map_err(|problem| RedisFileError::new(keys::AUTHORITIES, path, problem))?;
            Ok(text.to_string())
        });
        let identity = identity
            .as_ref()
            .map(|identity| IdentityPem::read(&identity.certificate, &identity.private_key));
        Ok(Self {
            password: secret(keys::PASSWORD, password)?,
            sentinel_password: secret(keys::SENTINEL_PASSWORD, sentinel_password)?,
            authorities: authorities.transpose()?,
            identity: identity.transpose()?,
        })
    }

    /// The certificates, in the form that the redis crate takes; `None` if there are no files of
    /// certificates.
    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        if self.authorities.is_none() && self.identity.is_none() {
            return None;
        }
        let client_tls = self.identity.as_ref().map(|identity| ClientTlsConfig {
            client_cert: identity.certificate.clone().into_bytes(),
            client_key: identity.private_key.as_bytes().to_vec(),
        });
        let root_cert = self.authorities.clone().map(String::into_bytes);
        Some(TlsCertificates { client_tls, root_cert })
    }

    /// When the client's certificate is valid, if there is one.
    pub(super) fn validity(&self) -> Option<Validity> {
        Some(self.identity.as_ref()?.validity.clone())
    }

    /// Whether a login with these would send another password.
    pub(super) fn logs_in_as(&self, other: &Self) -> bool {
        self.password == other.password && self.sentinel_password == other.sentinel_password
    }
}

impl IdentityPem {
    /// Reads a certificate and a key that belong together.
    fn read(certificate: &Path, private_key: &Path) -> Result<Self, RedisFileError> {
        let wrong = |problem: String| RedisFileError::new(keys::CERTIFICATE, certificate, problem);
        let chain_pem = text(keys::CERTIFICATE, certificate)?;
        let key_pem = text(keys::PRIVATE_KEY, private_key)?;
        let chain = pem::certificates(&chain_pem).map_err(wrong)?;
        let validity =
            certificate::first_to_end(&chain).map_err(|problem| wrong(problem.into()))?;
        let key = pem::private_key(&key_pem)
            .map_err(|problem| RedisFileError::new(keys::PRIVATE_KEY, private_key, problem))?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_root_certificates(RootCertStore::empty())
                    .with_client_auth_cert(chain, key)
            })
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => wrong(
                    "the certificate does not belong to the private key in private_key_file".into(),
                ),
                error => wrong(format!("expected a certificate that can be used: {error}")),
            })?;
        Ok(Self { certificate: chain_pem.to_string(), private_key: key_pem, validity })
    }
}

impl RedisFileError {
    fn new(key: &'static str, path: &Path, problem: impl ToString) -> Self {
        Self { key, path: path.display().to_string(), problem: problem.to_string() }
    }
}

fn text(key: &'static str, path: &Path) -> Result<Zeroizing<String>, RedisFileError> {
    let (text, _mode) =
        trusted::read(path).map_err(|error| RedisFileError::new(key, path, error))?;
    Ok(text)
}
