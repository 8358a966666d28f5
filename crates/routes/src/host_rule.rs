//! One entry of `routes.hosts`: a DNS name or a zone, with its scheme and its port.
//!
//! Whoever may change a backend's URL keeps its credential. So an entry admits one scheme and, unless it
//! says otherwise, one port: `https` cannot become `http`, which would show the credential to the network,
//! and no other server on the same host receives it.

use std::str::FromStr;

use crate::{
    address::{Address, DnsName, parse_port},
    rules::InvalidRule,
};

/// Where backends with a DNS name may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    tls: bool,
    name: Named,
    /// `None` admits all.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// This name.
    Exact(DnsName),
    /// All names below this one, and not this one itself.
    Below(DnsName),
}

impl HostRule {
    /// Whether the rule is about this name: exactly, or only by its zone.
    pub(crate) fn names(&self, name: &DnsName) -> Option<Match> {
        match &self.name {
            Named::Exact(exact) => (exact == name).then_some(Match::Exact),
            Named::Below(zone) => is_below(name, zone.as_str()).then_some(Match::Zone),
        }
    }

    /// Whether scheme and port of an address are those of the rule.
    pub(crate) fn fits(&self, address: &Address) -> bool {
        self.tls == address.tls && self.port.is_none_or(|port| port == address.port)
    }
}

/// How a rule is about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    Zone,
}

pub(crate) fn is_below(name: &DnsName, zone: &str) -> bool {
    name.as_str().strip_suffix(zone).is_some_and(|front| front.ends_with('.'))
}

const HOST: &str = "a DNS name such as `api.example.org`, or `*.` and one for all names below it; before \
                    it, `http://` unless backends there have https; behind it, `:8443` for another port \
                    than that of the scheme, or `:*` for all";

impl FromStr for HostRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => (true, text),
        };
        let (name, port) = match rest.split_once(':') {
            None => (rest, Some(Address::port_of_scheme(tls))),
            Some((name, "*")) => (name, None),
            Some((name, digits)) => {
                (name, Some(parse_port(digits).map_err(|_| InvalidRule(HOST))?))
            }
        };
        let parse = |text| DnsName::parse(text).map_err(|_| InvalidRule(HOST));
        let name = match name.strip_prefix("*.") {
            Some(zone) => Named::Below(parse(zone)?),
            None => Named::Exact(parse(name)?),
        };
        Ok(Self { tls, name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Host;

    fn admits(rule: &str, url: &str) -> bool {
        let rule: HostRule = rule.parse().unwrap();
        let address = Address::parse(url).unwrap();
        let Host::Name(name) = &address.host else { return false };
        rule.names(name).is_some() && rule.fits(&address)
    }

    #[test]
    fn scheme_and_port() {
        for (rule, url, inside) in [
            ("a.example", "https://a.example", true),
            ("a.example", "https://a.example:443", true),
            ("a.example", "https://a.example:8443", false),
            ("a.example", "http://a.example", false),
            ("a.example", "http://a.example:443", false),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://a.example:8443", "https://a.example", false),
            ("a.example:8443", "https://a.example:8443", true),
            ("a.example:8443", "http://a.example:8443", false),
            ("http://a.example", "http://a.example", true),
            ("http://a.example", "http://a.example:8000", false),
            ("http://a.example", "https://a.example", false),
            ("http://*.example:8000", "http://a.example:8000", true),
            ("http://*.example:8000", "http://a.example:8001", false),
            ("http://*.example:*", "http://a.example:8001", true),
            ("http://*.example:*", "https://a.example", false),
            ("*.example:*", "https://b.a.example:1", true),
            ("*.example:*", "http://a.example", false),
            ("*.example:*", "https://example", false),
        ] {
            assert_eq!(admits(rule, url), inside, "{rule} {url}");
        }
    }

    #[test]
    fn texts_that_are_no_rules() {
        for bad in [
            "",
            "*",
            "*.",
            "*a.b",
            "a.*",
            "10.0.0.1",
            "a b",
            "a.",
            "*.*.a",
            "http://",
            "ftp://a",
            "HTTP://a",
            "a:",
            "a:0",
            "a:080",
            "a:**",
            "a:1:1",
            "a/",
            "http://a/",
            "http://u@a",
            "http://http://a",
            "//a",
            "http://10.0.0.1:80",
            "[fd00::1]",
        ] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }
}
