//! The hosts at which an API is served, and how patgate reads the host of a request.

use std::borrow::Cow;

/// The longest name in DNS, in bytes.
const MAX_HOST_LEN: usize = 253;

/// The text in a table for the label that names the domain.
const DOMAIN: &str = "{domain}.";

/// The hosts at which an API is served.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum HostPattern {
    /// The API is served at every host.
    #[default]
    Any,
    /// The API is served at this host.
    Exact(Box<str>),
    /// The API is served at hosts with one label, which names the domain, before this suffix.
    Under(Box<str>),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (rest, pattern): (&str, fn(Box<str>) -> Self) = match text.strip_prefix(DOMAIN) {
            Some(rest) => (rest, Self::Under),
            None => (text, Self::Exact),
        };
        if rest.contains(['{', '}']) {
            return Err("`{domain}` must be the first label, as in `{domain}.example.com`".into());
        }
        if rest.contains(':') {
            return Err("a host without a port: the port of a request is ignored".into());
        }
        match canonical(rest) {
            Some(Cow::Borrowed(host)) if host.len() == rest.len() => Ok(pattern(host.into())),
            _ => Err("a host name in lower case, without a dot at its end".into()),
        }
    }

    /// Returns whether the API is served at the host of a request.
    pub(super) fn covers(&self, authority: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(host) => canonical(authority).is_some_and(|it| *it == **host),
            Self::Under(suffix) => canonical(authority)
                .is_some_and(|it| it.split_once('.').is_some_and(|(_, rest)| *rest == **suffix)),
        }
    }

    /// Returns whether both patterns cover some host.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(one), Self::Exact(other)) | (Self::Under(one), Self::Under(other)) => {
                one == other
            }
            (Self::Exact(host), Self::Under(suffix)) | (Self::Under(suffix), Self::Exact(host)) => {
                host.split_once('.').is_some_and(|(_, rest)| rest == &**suffix)
            }
        }
    }
}

/// Returns the host of a request in lower case and without its port. Returns `None` if it is not the name
/// of a host in its one spelling. It allocates only if the host has capital letters.
pub(super) fn canonical(authority: &str) -> Option<Cow<'_, str>> {
    let host = match authority.split_once(':') {
        None => authority,
        Some((host, port)) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Some(host).filter(|_| digits && (1..=5).contains(&port.len()))?
        }
    };
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    if host.len() > MAX_HOST_LEN || !host.split('.').all(label) {
        return None;
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_a_host() {
        for (authority, host) in [
            ("acme.example.com", Some("acme.example.com")),
            ("ACME.Example.com:8443", Some("acme.example.com")),
            ("localhost:1", Some("localhost")),
            ("10.0.0.1:65535", Some("10.0.0.1")),
            ("acme.example.com.", None),
            ("acme.example.com.:80", None),
            (".example.com", None),
            ("acme..example.com", None),
            ("acme.example.com:", None),
            ("acme.example.com:123456", None),
            ("acme.example.com:80:80", None),
            ("acme.example.com:+80", None),
            ("user@acme.example.com", None),
            ("acme.example.com,evil", None),
            ("acme.example.com/x", None),
            ("acme%2eexample.com", None),
            ("[::1]:80", None),
            ("äcme.example.com", None),
            ("", None),
        ] {
            assert_eq!(canonical(authority).as_deref(), host, "{authority}");
        }
    }

    #[test]
    fn patterns() {
        let parse = |text| HostPattern::parse(text).unwrap();
        assert_eq!(parse("hub.example.com"), HostPattern::Exact("hub.example.com".into()));
        assert_eq!(parse("{domain}.example.com"), HostPattern::Under("example.com".into()));
        for bad in [
            "",
            "*",
            "*.example.com",
            "{domain}",
            "{domain}.",
            "a.{domain}.com",
            "{tenant}.example.com",
            "{domain}{domain}.com",
            "Example.com",
            "example.com:80",
            "example.com.",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        let overlap = |one, other| parse(one).overlaps(&parse(other));
        assert!(overlap("{domain}.example.com", "hub.example.com"));
        assert!(overlap("hub.example.com", "{domain}.example.com"));
        assert!(!overlap("{domain}.example.com", "a.hub.example.com"));
        assert!(!overlap("{domain}.example.com", "example.com"));
        assert!(!overlap("{domain}.example.com", "{domain}.hub.example.com"));
        assert!(HostPattern::Any.overlaps(&parse("a.b")));
    }
}
