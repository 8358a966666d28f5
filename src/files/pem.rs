//! Certificates in PEM.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Returns the certificates, of which there must be one at least, or the problem with them.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = read.map_err(|error| format!("expected certificates in PEM: {error}"))?;
    match certificates.is_empty() {
        true => Err("expected a certificate in PEM, found none".to_owned()),
        false => Ok(certificates),
    }
}

/// Returns the certificates as authorities.
pub(crate) fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Returns the private key. The problem says nothing of the content.
pub(crate) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "expected a private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted")
}
