//! The files of a Postgres URL's TLS. patgate reads them itself: sqlx would read them for each
//! connection, so a file with an error would replace one that works.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

use super::values::ExpectedValue;
use crate::files::certificate;

/// The paths that a URL names.
#[derive(Clone, Default)]
pub(super) struct TlsFiles {
    /// The authorities that sign the server's certificate.
    pub(super) authorities: Option<PathBuf>,
    /// The client's certificate, with its chain.
    pub(super) certificate: Option<PathBuf>,
    /// The key of the client's certificate.
    pub(super) private_key: Option<PathBuf>,
}

/// The content of these files, as far as the URL names them.
#[derive(Default)]
pub(super) struct TlsContent {
    authorities: Option<String>,
    client: Option<(String, Zeroizing<String>)>,
}

impl TlsFiles {
    pub(super) fn are_named(&self) -> bool {
        [&self.authorities, &self.certificate, &self.private_key].iter().any(|path| path.is_some())
    }

    /// Reads the files, and checks them.
    pub(super) fn read(
        &self,
        read: fn(&Path) -> io::Result<String>,
    ) -> Result<TlsContent, ExpectedValue> {
        let text = |parameter: &str, path: &Path| {
            read(path).map_err(|error| {
                format!("a readable file in {parameter}, `{}`: {error}", path.display())
            })
        };
        let authorities = self.authorities.as_deref();
        let authorities = authorities.map(|path| {
            let text = text("sslrootcert", path)?;
            certificates("sslrootcert", path, &text)?;
            Ok::<_, ExpectedValue>(text)
        });
        let client = match (&self.certificate, &self.private_key) {
            (None, None) => None,
            (Some(certificate), Some(private_key)) => {
                let chain = text("sslcert", certificate)?;
                let key = Zeroizing::new(text("sslkey", private_key)?);
                let certificates = certificates("sslcert", certificate, &chain)?;
                certificate::first_to_end(&certificates).map_err(|_| {
                    let path = certificate.display();
                    format!("certificates of X.509 with a time of validity in sslcert, `{path}`")
                })?;
                let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
                    format!(
                        "a private key in PEM in sslkey, `{}`: PKCS #8, PKCS #1 or SEC 1, not \
                         encrypted",
                        private_key.display()
                    )
                })?;
                CertifiedKey::from_der(certificates, parsed, &ring::default_provider()).map_err(
                    |error| {
                        let path = certificate.display();
                        format!(
                            "a certificate in sslcert, `{path}`, that goes with sslkey: {error}"
                        )
                    },
                )?;
                Some((chain, key))
            }
            _ => return Err("sslcert and sslkey together: one needs the other".into()),
        };
        Ok(TlsContent { authorities: authorities.transpose()?, client })
    }
}

impl TlsContent {
    pub(super) fn add_to(&self, mut options: PgConnectOptions) -> PgConnectOptions {
        if let Some(authorities) = &self.authorities {
            options = options.ssl_root_cert_from_pem(authorities.clone().into_bytes());
        }
        if let Some((chain, key)) = &self.client {
            options =
                options.ssl_client_cert_from_pem(chain).ssl_client_key_from_pem(key.as_bytes());
        }
        options
    }

    /// The client's certificate, with its chain.
    pub(super) fn certificate(&self) -> Option<String> {
        self.client.as_ref().map(|(chain, _)| chain.clone())
    }

    /// Everything in one text, by which a change is noticed.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let (chain, key) =
            self.client.as_ref().map_or(("", ""), |(chain, key)| (chain.as_str(), key.as_str()));
        let authorities = self.authorities.as_deref().unwrap_or_default();
        Zeroizing::new([authorities, chain, key].join("\0"))
    }
}

fn certificates(
    parameter: &str,
    path: &Path,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, ExpectedValue> {
    let path = path.display();
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("a certificate in PEM in {parameter}, `{path}`; found none")),
        Err(error) => Err(format!("certificates in PEM in {parameter}, `{path}`: {error}")),
    }
}
