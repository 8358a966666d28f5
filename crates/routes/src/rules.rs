//! Where the operator lets backends be. Whoever may make a backend cannot send requests, and the
//! credentials in them, to any other place.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use patgate_core::backend::ReservedNames;

use crate::{
    address::{Address, DnsName, Host},
    host_rule::{HostRule, Match, is_below},
};

/// What the operator has named. By default nothing is inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Where the IP addresses of backends are.
    pub networks: Vec<Network>,
    /// Where the DNS names of backends are.
    pub hosts: Vec<HostRule>,
    /// Names that no backend has: those of the gateway's own clusters.
    pub reserved: ReservedNames,
}

/// A network of IP addresses, such as `10.20.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is not a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct InvalidRule(pub(crate) &'static str);

/// Why an address is not inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Outside {
    #[error("{0} is in no network of routes.networks; if backends may be there, add its network")]
    Network(IpAddr),
    #[error(
        "{0} is {1}, which only a network within {2} in routes.networks admits; no wider one does"
    )]
    Special(IpAddr, &'static str, &'static str),
    #[error(
        "{0} is no name of routes.hosts; if backends may be there, add it, or `*.` and its zone"
    )]
    Host(DnsName),
    #[error("{0} is {1}, which only its full name in routes.hosts admits")]
    SpecialHost(DnsName, &'static str),
    #[error(
        "routes.hosts admits {0} with another scheme or port; `https` is meant unless an entry begins with \
         `http://`, and the scheme's own port unless it ends with another one"
    )]
    SchemeOrPort(DnsName),
}

/// Networks whose addresses are more than they seem. One of the operator's networks counts for them
/// only if it is inside, so that `0.0.0.0/0` or `fd00::/8` does not open them by accident.
const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this machine"),
    ("127.0.0.0/8", "this machine"),
    ("169.254.0.0/16", "link-local, where clouds serve metadata and credentials"),
    ("100.100.100.200/32", "a metadata server"),
    ("168.63.129.16/32", "a metadata server"),
    ("192.0.0.192/32", "a metadata server"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "this machine"),
    ("::1/128", "this machine"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("fd00:ec2::/32", "where a cloud serves metadata and credentials"),
    ("fd20:ce::254/128", "a metadata server"),
    ("fd00:c1::a9fe:a9fe/128", "a metadata server"),
    ("fd00:42::42/128", "a metadata server"),
    ("ff00::/8", "multicast"),
];

impl Rules {
    /// Checks that an address is where the operator lets backends be.
    ///
    /// # Errors
    ///
    /// If it is not; the message names the setting that admits it.
    pub fn admit(&self, address: &Address) -> Result<(), Outside> {
        match &address.host {
            Host::Ip(ip) => self.admit_ip(*ip),
            Host::Name(name) => self.admit_name(name, address),
        }
    }

    fn admit_ip(&self, ip: IpAddr) -> Result<(), Outside> {
        let mut special = SPECIAL.iter().filter_map(|(text, what)| {
            let network: Network = text.parse().ok()?;
            network.holds(ip).then_some((network, *text, *what))
        });
        let mut inside = self.networks.iter().filter(|network| network.holds(ip));
        match special.next() {
            None if inside.next().is_some() => Ok(()),
            None => Err(Outside::Network(ip)),
            Some((network, _, _)) if inside.any(|named| named.is_within(&network)) => Ok(()),
            Some((_, text, what)) => Err(Outside::Special(ip, what, text)),
        }
    }

    fn admit_name(&self, name: &DnsName, address: &Address) -> Result<(), Outside> {
        let special = special_name(name);
        let about: Vec<_> = self
            .hosts
            .iter()
            .filter(|rule| match rule.names(name) {
                None => false,
                Some(Match::Exact) => true,
                Some(Match::Zone) => special.is_none(),
            })
            .collect();
        if about.iter().any(|rule| rule.fits(address)) {
            return Ok(());
        }
        Err(match special {
            _ if !about.is_empty() => Outside::SchemeOrPort(name.clone()),
            Some(what) => Outside::SpecialHost(name.clone(), what),
            None => Outside::Host(name.clone()),
        })
    }
}

/// Names that lead to this machine, to metadata, or to the API of Kubernetes, in any zone that an
/// operator may have named for models.
fn special_name(name: &DnsName) -> Option<&'static str> {
    let text = name.as_str();
    let first = text.split('.').next().unwrap_or_default();
    if text == "localhost" || is_below(name, "localhost") || first == "localhost" {
        return Some("this machine");
    }
    if matches!(first, "metadata" | "instance-data") {
        return Some("the name of a metadata server");
    }
    if text == "kubernetes"
        || text == "kubernetes.default"
        || text.starts_with("kubernetes.default.")
    {
        return Some("the API server of Kubernetes");
    }
    // `10-0-0-7.any.pod.cluster.local`: the DNS of a cluster makes an address of it, whatever it is.
    if text.split('.').skip(1).any(|label| label == "pod") {
        return Some("an IP address that is written as a name");
    }
    None
}

impl Network {
    /// Whether an address is in it. No IPv4 address is in a network of IPv6, or the reverse.
    pub fn holds(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => same(
                u32::from(network).into(),
                u32::from(ip).into(),
                u32::from(self.prefix),
                Ipv4Addr::BITS,
            ),
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                same(network.into(), ip.into(), u32::from(self.prefix), Ipv6Addr::BITS)
            }
            _ => false,
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        self.prefix >= other.prefix && other.holds(self.address)
    }

    fn width(address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(_) => Ipv4Addr::BITS,
            IpAddr::V6(_) => Ipv6Addr::BITS,
        }
    }
}

/// Whether two numbers of `width` bits begin with the same `prefix` bits.
fn same(one: u128, other: u128, prefix: u32, width: u32) -> bool {
    (one ^ other).checked_shr(width - prefix).unwrap_or(0) == 0
}

const NETWORK: &str =
    "a network such as `10.20.0.0/16` or `fd00:20::/32`, without bits behind its prefix";

impl FromStr for Network {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let parse = || {
            let (address, digits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let prefix: u8 = digits.parse().ok().filter(|_| plain)?;
            let width = Self::width(address);
            let number = match address {
                IpAddr::V4(address) => u128::from(u32::from(address)),
                IpAddr::V6(address) => address.into(),
            };
            let rest = width.checked_sub(prefix.into())?;
            let is_whole =
                number.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0) == number;
            is_whole.then_some(Self { address, prefix })
        };
        parse().ok_or(InvalidRule(NETWORK))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(networks: &[&str], hosts: &[&str]) -> Rules {
        Rules {
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            hosts: hosts.iter().map(|text| text.parse().unwrap()).collect(),
            reserved: ReservedNames::default(),
        }
    }

    fn admits(rules: &Rules, url: &str) -> bool {
        rules.admit(&Address::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn by_default_nothing_is_inside() {
        let none = Rules::default();
        for url in ["http://10.0.0.1", "http://8.8.8.8", "http://[fd00::1]", "https://example.org"]
        {
            let refused = none.admit(&Address::parse(url).unwrap()).unwrap_err().to_string();
            assert!(refused.contains("routes."), "{refused}");
        }
    }

    #[test]
    fn networks() {
        let some = rules(&["10.20.0.0/16", "192.168.7.9/32", "fd00:20::/32"], &[]);
        for (url, inside) in [
            ("http://10.20.0.0", true),
            ("http://10.20.255.255", true),
            ("http://10.21.0.0", false),
            ("http://10.19.255.255", false),
            ("http://192.168.7.9", true),
            ("http://192.168.7.8", false),
            ("http://[fd00:20:ffff::1]", true),
            ("http://[fd00:21::1]", false),
            ("http://10.20.0.1.example", false),
        ] {
            assert_eq!(admits(&some, url), inside, "{url}");
        }
        for bad in
            ["10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "a/8", "/8", ""]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.holds("255.1.1.1".parse().unwrap()) && !all.holds("::1".parse().unwrap()));
    }

    #[test]
    fn special_addresses_need_a_network_of_their_own() {
        let everything = rules(&["0.0.0.0/0", "::/0", "fd00::/8", "100.64.0.0/10"], &[]);
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fd00:ec2::23]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fd00:c1::a9fe:a9fe]",
            "[fd00:42::42]",
            "[ff02::1]",
        ] {
            assert!(!admits(&everything, &format!("http://{ip}")), "{ip}");
            let bare = ip.trim_matches(['[', ']']);
            let width = Network::width(bare.parse().unwrap());
            let exact = rules(&[&format!("{bare}/{width}")], &[]);
            assert!(admits(&exact, &format!("http://{ip}")), "{ip}");
        }
        assert!(admits(&everything, "http://100.100.100.201"));
        assert!(admits(&rules(&["127.0.0.0/8"], &[]), "http://127.0.0.1:8001"));
        assert!(!admits(&rules(&["126.0.0.0/7"], &[]), "http://127.0.0.1:8001"));
    }

    #[test]
    fn names() {
        let some = rules(&[], &["api.example.org", "*.models.example", "*.cluster.local"]);
        for (host, inside) in [
            ("api.example.org", true),
            ("API.example.ORG", true),
            ("x.api.example.org", false),
            ("example.org", false),
            ("apiexample.org", false),
            ("a.models.example", true),
            ("a.b.models.example", true),
            ("models.example", false),
            ("evilmodels.example", false),
            ("a.models.example.evil", false),
            ("vllm.models.svc.cluster.local", true),
            ("kubernetes.default.svc.cluster.local", false),
            ("127-0-0-1.x.pod.cluster.local", false),
            ("127-0-0-1.pod.cluster.local", false),
            ("pod.models.svc.cluster.local", true),
            ("metadata.models.example", false),
            ("localhost.models.example", false),
        ] {
            assert_eq!(admits(&some, &format!("https://{host}")), inside, "{host}");
        }
        // Another scheme or another port is not admitted by a rule that is about the name.
        for url in ["http://api.example.org", "https://api.example.org:8443"] {
            let refused = some.admit(&Address::parse(url).unwrap()).unwrap_err();
            assert!(matches!(refused, Outside::SchemeOrPort(_)), "{refused}");
        }
        let both = rules(&[], &["http://api.example.org:8000", "api.example.org"]);
        assert!(admits(&both, "http://api.example.org:8000"));
        assert!(admits(&both, "https://api.example.org"));
        assert!(!admits(&both, "https://api.example.org:8000"));
        let exact = rules(&[], &["http://localhost:*", "http://metadata.google.internal"]);
        assert!(admits(&exact, "http://localhost:8001"));
        assert!(admits(&exact, "http://metadata.google.internal"));
        assert!(!admits(&rules(&[], &["http://*.internal"]), "http://metadata.google.internal"));
        assert!(!admits(&rules(&["0.0.0.0/0"], &[]), "http://localhost"));
    }
}
