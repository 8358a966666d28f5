//! What a certificate says of itself.

use std::ops::RangeInclusive;

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// A certificate that can be read to its end.
pub(crate) struct Certificate<'c>(X509Certificate<'c>);

/// The names in a certificate, each as its text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names<'c> {
    pub(crate) uris: Vec<&'c str>,
    pub(crate) dns: Vec<&'c str>,
}

/// When a certificate is valid, in Unix seconds.
pub(crate) type Validity = RangeInclusive<i64>;

impl<'c> Certificate<'c> {
    /// Returns `None` if these bytes are not one certificate of X.509.
    pub(crate) fn parse(der: &'c CertificateDer<'_>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        rest.is_empty().then_some(Self(certificate))
    }

    pub(crate) fn validity(&self) -> Validity {
        let validity = self.0.validity();
        validity.not_before.timestamp()..=validity.not_after.timestamp()
    }

    /// Returns the alternative names that are URIs or names of DNS; `None` if any alternative name,
    /// of whatever kind, cannot be read.
    pub(crate) fn names(&self) -> Option<Names<'_>> {
        let mut names = Names::default();
        let Some(alternatives) = self.0.subject_alternative_name().ok()? else {
            return Some(names);
        };
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push(text(uri)?),
                GeneralName::DNSName(name) => names.dns.push(text(name)?),
                GeneralName::IPAddress(address) if ![4, 16].contains(&address.len()) => {
                    return None;
                }
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
        Some(names)
    }
}

/// The parser accepts any UTF-8, and RFC 5280 only ASCII (section 4.2.1.6). Neither a URI nor a name
/// of DNS has blanks or control characters.
fn text(name: &str) -> Option<&str> {
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(name)
}

/// Returns the validity of the certificate of a chain that ends first.
///
/// # Errors
///
/// Returns the problem if a certificate cannot be read.
pub(crate) fn first_to_end(chain: &[CertificateDer<'_>]) -> Result<Validity, &'static str> {
    let validity = |der| Certificate::parse(der).map(|certificate| certificate.validity());
    let validities: Option<Vec<_>> = chain.iter().map(validity).collect();
    let first = validities.and_then(|all| all.into_iter().min_by_key(|one| *one.end()));
    first.ok_or("expected certificates of X.509 with a time of validity")
}

#[cfg(test)]
mod tests {
    use patgate_testing::certificates::alternative_names;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const DAY: i64 = 86_400;

    fn signed(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_chain_ends_with_the_certificate_that_ends_first() {
        let [long, short] = [2, 3].map(|day| {
            signed(|params| {
                params.not_before = date_time_ymd(1970, 1, day);
                params.not_after = date_time_ymd(1970, 2, 10 - day);
            })
        });
        let [long_valid, short_valid] = [DAY..=38 * DAY, 2 * DAY..=37 * DAY];
        assert_eq!(first_to_end(std::slice::from_ref(&long)), Ok(long_valid));
        assert_eq!(first_to_end(&[long.clone(), short.clone()]), Ok(short_valid.clone()));
        assert_eq!(first_to_end(&[short, long.clone()]), Ok(short_valid));
        let cut = CertificateDer::from(long[..long.len() - 1].to_vec());
        let longer = CertificateDer::from([&long[..], &[0]].concat());
        for bad in [cut, longer, CertificateDer::from(vec![])] {
            assert!(first_to_end(&[long.clone(), bad]).is_err());
        }
        assert!(first_to_end(&[]).is_err());
    }

    fn named(names: &[(u8, &[u8])]) -> CertificateDer<'static> {
        signed(|params| params.custom_extensions = vec![alternative_names(names)])
    }

    #[test]
    fn a_name_that_cannot_be_read_is_not_passed_over() {
        let (mail, dns, uri, address) = (1, 2, 6, 7);
        let good: &[(u8, &[u8])] =
            &[(uri, b"spiffe://a/b"), (dns, b"*.a.b"), (address, &[1; 4]), (mail, b"a@b")];
        let der = named(good);
        let certificate = Certificate::parse(&der).unwrap();
        let names = Names { uris: vec!["spiffe://a/b"], dns: vec!["*.a.b"] };
        assert_eq!(certificate.names(), Some(names));
        for bad in [
            (uri, &b"spiffe://a/\xff"[..]),
            (uri, "spiffe://a/é".as_bytes()),
            (uri, b"spiffe://a/ b"),
            (uri, b"spiffe://a/b\0"),
            (uri, b""),
            (dns, b"a.\xff"),
            (dns, b"a b"),
            (mail, b"\xff"),
            (address, &[1; 5]),
            (4, b"\x30"),
            (9, b"a"),
        ] {
            let der = named(&[good, &[bad]].concat());
            let certificate = Certificate::parse(&der).unwrap();
            assert_eq!(certificate.names(), None, "{bad:?}");
        }
        let der = signed(|_| {});
        assert_eq!(Certificate::parse(&der).unwrap().names(), Some(Names::default()));
    }
}
