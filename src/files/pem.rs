//! Certificates in PEM.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Returns the certificates, of which there must be one at least, or the problem with them.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    // The reader's error can show a line, and the file may hold a private key as well.
    let certificates = read.map_err(|_| "expected certificates in PEM".to_owned())?;
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

#[cfg(test)]
mod tests {
    use super::certificates;

    /// As a file is that has lost its line breaks.
    #[test]
    fn an_error_shows_nothing_of_a_key_beside_the_certificate() {
        let secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let pem = format!("-----BEGIN PRIVATE KEY-----{secret}-----END PRIVATE KEY-----");
        let error = certificates(&pem).unwrap_err();
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!error.contains(secret) && !error.contains(&bytes[1..40]), "{error}");
    }
}
