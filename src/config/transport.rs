//! Settings of TLS, and of the secret that Envoy sends.

use std::{fmt, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use super::values::ExpectedValue;

/// The certificate of a listener, and the clients that it accepts.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The setting in front of `.certificate_file`, such as `grpc.tls`.
    pub key: &'static str,
    /// The path of the certificate chain, in PEM, the listener's own certificate first.
    pub certificate: PathBuf,
    /// The path of its private key, in PEM.
    pub private_key: PathBuf,
    /// The clients that are accepted; `None` if any client is.
    pub clients: Option<ClientCertificates>,
}

/// The certificates that clients must present.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The path of the authorities, in PEM, one of which must have signed the client's certificate.
    pub authorities: PathBuf,
    /// The certificate must hold one of these names; there is at least one.
    pub names: Arc<[ClientName]>,
}

/// A name in a client's certificate. It must be equal; wildcards do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A SPIFFE id, such as `spiffe://cluster.local/ns/gateway/sa/envoy`.
    Spiffe(String),
}

impl ClientName {
    fn parse(text: &str) -> Option<Self> {
        const SCHEME: &str = "spiffe://";
        if let Some(rest) = text.strip_prefix(SCHEME) {
            let (domain, path) = rest.split_once('/')?;
            let is_segment = |segment: &str| {
                !["", ".", ".."].contains(&segment)
                    && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            };
            let domain_byte = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
            let known = !domain.is_empty()
                && domain.bytes().all(domain_byte)
                && path.split('/').all(is_segment)
                && text.len() <= 2048;
            return known.then(|| Self::Spiffe(text.to_owned()));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        (text.len() <= 253 && text.split('.').all(label)).then(|| Self::Dns(text.to_owned()))
    }
}

/// Shown as an operator writes it.
impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Dns(name) | Self::Spiffe(name)) = self;
        f.write_str(name)
    }
}

pub(super) fn client_names(text: &str) -> Result<Vec<ClientName>, ExpectedValue> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|name| ClientName::parse(name.trim())).collect::<Option<_>>().ok_or_else(
        || {
            "names separated by commas, each a DNS name in lower case such as `envoy.gateway.svc` or a \
             SPIFFE id such as `spiffe://cluster.local/ns/gateway/sa/envoy`, without wildcards"
                .into()
        },
    )
}

/// The fewest characters of a secret: 128 bits, if it is written in hexadecimal.
const SHORTEST_SECRET: usize = 32;

/// One secret, or two while it is replaced; none if it is off.
pub(super) fn secrets(text: &str) -> Result<Vec<SecretString>, ExpectedValue> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let secrets: Vec<SecretString> = text.split(',').map(|secret| secret.trim().into()).collect();
    let known = |secret: &SecretString| {
        let secret = secret.expose_secret();
        (SHORTEST_SECRET..=256).contains(&secret.len())
            && secret.bytes().all(|b| b.is_ascii_graphic())
    };
    if secrets.len() > 2 || !secrets.iter().all(known) {
        return Err(format!(
            "one secret, or two separated by a comma, each of {SHORTEST_SECRET} to 256 printable \
             ASCII characters without spaces and commas; `openssl rand -hex 32` makes one"
        ));
    }
    Ok(secrets)
}

/// The owner of a socket's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The id of the user, if it shall be another one than that of the process.
    pub user: Option<u32>,
    /// The id of the group, if it shall be another one than that of the process.
    pub group: Option<u32>,
}

/// Parses `user:group`; each may be missing. Numbers, because containers rarely have names.
pub(super) fn owner(text: &str) -> Result<Owner, ExpectedValue> {
    let id = |text: &str| match text {
        "" => Some(None),
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    id(user).zip(id(group)).map(|(user, group)| Owner { user, group }).ok_or_else(|| {
        "ids of a user and a group such as `101:101`, `101` or `:101`, or nothing".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_whole_and_in_one_spelling() {
        let spiffe = "spiffe://cluster.local/ns/gateway/sa/envoy";
        assert_eq!(
            client_names(&format!("envoy.gateway.svc, {spiffe}")),
            Ok(vec![
                ClientName::Dns("envoy.gateway.svc".into()),
                ClientName::Spiffe(spiffe.into())
            ])
        );
        assert_eq!(client_names(""), Ok(Vec::new()));
        for bad in [
            "*",
            "*.gateway.svc",
            "Envoy.gateway.svc",
            "envoy..svc",
            "-a.svc",
            "a,",
            "spiffe://",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe://Cluster.local/a",
            "spiffe://cluster.local/a//b",
            "spiffe://cluster.local/a/../b",
            "spiffe://cluster.local/a?b",
            "SPIFFE://cluster.local/a",
            "https://envoy/",
        ] {
            assert!(client_names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_long_and_at_most_two() {
        let [one, two] = ["a".repeat(32), "b".repeat(64)];
        for (text, count) in [(String::new(), 0), (one.clone(), 1), (format!("{one},{two}"), 2)] {
            assert_eq!(secrets(&text).unwrap().len(), count);
        }
        for bad in [
            "short".into(),
            format!("{one},"),
            format!("{one},{two},{one}"),
            "ü".repeat(32),
            format!("{one} {two}"),
        ] {
            let refused = secrets(&bad).unwrap_err();
            assert!(!refused.contains(&bad), "{refused}");
        }
    }

    #[test]
    fn owners_are_numbers() {
        let both = Owner { user: Some(101), group: Some(102) };
        assert_eq!(owner("101:102"), Ok(both));
        assert_eq!(owner(":102"), Ok(Owner { user: None, ..both }));
        assert_eq!(owner("101"), Ok(Owner { group: None, ..both }));
        assert_eq!(owner(""), Ok(Owner::default()));
        for bad in ["envoy", "1:2:3", "-1", "4294967296", "1 : 2", "+1"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }
}
