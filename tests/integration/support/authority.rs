//! Certificates for tests: an authority, and what it signs.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use patgate_testing::certificates::alternative_names;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

use super::secrets::key_pair;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its chain, the own one first, and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let params = authority_params();
        Self(CertifiedIssuer::self_signed(params, key_pair()).unwrap())
    }

    /// An authority that this one has signed.
    pub(crate) fn intermediate(&self) -> Self {
        let params = authority_params();
        Self(CertifiedIssuer::signed_by(params, key_pair(), &self.0).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub(crate) fn sign(&self, params: CertificateParams) -> Identity {
        let key = key_pair();
        let signed = params.signed_by(&key, &self.0).unwrap();
        Identity { chain: vec![signed.der().clone()], pem: signed.pem(), key }
    }

    /// A certificate for these names.
    pub(crate) fn certify(&self, names: &[&str]) -> Identity {
        self.sign(params(names))
    }
}

impl Identity {
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let key = key_pair();
        let signed = params(names).self_signed(&key).unwrap();
        Self { chain: vec![signed.der().clone()], pem: signed.pem(), key }
    }

    /// With the certificate of the authority that signed it.
    pub(crate) fn by(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.der().clone());
        self.pem.push_str(&authority.pem());
        self
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Writes `<name>.crt` and `<name>.key`.
    pub(crate) fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.crt")), &self.pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), self.key.serialize_pem()).unwrap();
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A certificate whose subject is that of its issuer would pass for one that has signed itself.
    params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
    params
}

/// A certificate for both ends of a connection. A name with a scheme is a URI, a number an address.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if name.contains("://") => SanType::URI((*name).try_into().unwrap()),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same for a certificate that is valid from and until so many days from now.
pub(crate) fn valid(names: &[&str], from: i64, until: i64) -> CertificateParams {
    const DAY: u64 = 86_400;
    let mut params = params(names);
    let epoch = date_time_ymd(1970, 1, 1);
    let now = epoch + UNIX_EPOCH.elapsed().unwrap();
    let day = |days: i64| {
        let distance = Duration::from_secs(DAY * days.unsigned_abs());
        if days < 0 { now - distance } else { now + distance }
    };
    (params.not_before, params.not_after) = (day(from), day(until));
    params
}

/// The same for names of any content, each with its tag.
pub(crate) fn with_names(names: &[(u8, &[u8])]) -> CertificateParams {
    let mut params = params(&[]);
    params.custom_extensions = vec![alternative_names(names)];
    params
}
