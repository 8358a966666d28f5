//! Where a backend is, parsed once from the URL in the database. What is not certainly an address or a
//! DNS name is refused: a gateway, a resolver and patgate must not read the same text differently.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The longest DNS name, in bytes.
const LONGEST_NAME: usize = 253;
/// The longest label of a DNS name, in bytes.
const LONGEST_LABEL: usize = 63;

/// Where a backend is, and whether it is reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// The host.
    pub host: Host,
    /// The port; that of the scheme if the URL names none.
    pub port: u16,
}

/// The host of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name that the gateway resolves.
    Name(DnsName),
}

/// A DNS name in lower case, without a dot at the end, that no resolver can take for an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsName(Box<str>);

/// Why a URL is not the address of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AddressError {
    #[error(
        "the URL must consist of printable ASCII characters; write a name like `xn--…` for others"
    )]
    NotAscii,
    #[error("the URL must begin with `http://` or `https://`, in lower case")]
    Scheme,
    #[error("the URL must not hold a user or a password")]
    UserInfo,
    #[error("the URL must not hold a query or a fragment")]
    Query,
    #[error(
        "the URL must not hold a path: the gateway passes on the path of each request; remove `/v1` or \
         the like"
    )]
    Path,
    #[error("the port must be a number from 1 to 65535, without zeros in front")]
    Port,
    #[error("the host is neither an IP address nor a DNS name")]
    Host,
    #[error("the host must not end with a dot")]
    TrailingDot,
    #[error("an IPv6 address must not have a zone")]
    Zone,
    #[error(
        "the host looks like an IP address, and some resolvers read it as one; write `a.b.c.d`"
    )]
    LooksLikeIp,
    #[error("the host is an IPv4 address within an IPv6 address; write the IPv4 address")]
    EmbeddedIpv4,
    #[error("https needs a DNS name: the certificate of an IP address is not verified everywhere")]
    TlsToAddress,
}

impl Address {
    /// Parses the URL of a backend.
    ///
    /// # Errors
    ///
    /// If it is anything but a scheme, a host and possibly a port.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AddressError::NotAscii);
        }
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(AddressError::Scheme),
        };
        if rest.contains('@') {
            return Err(AddressError::UserInfo);
        }
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let authority = match rest.split_once('/') {
            None => rest,
            Some((authority, "")) => authority,
            Some(_) => return Err(AddressError::Path),
        };
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => Self::port_of_scheme(tls),
        };
        let host = Host::parse(host)?;
        if tls && matches!(host, Host::Ip(_)) {
            return Err(AddressError::TlsToAddress);
        }
        Ok(Self { tls, host, port })
    }

    /// The port of a URL that names none.
    pub(crate) const fn port_of_scheme(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// Returns what a request to this address has as its `Host`: the host, with the port unless it is
    /// that of the scheme. An IPv6 address is in brackets.
    pub(crate) fn authority(&self) -> String {
        let host = match &self.host {
            Host::Ip(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        };
        if self.port == Self::port_of_scheme(self.tls) {
            return host;
        }
        format!("{host}:{}", self.port)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddressError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(AddressError::Host)?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(AddressError::Host),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

pub(crate) fn parse_port(digits: &str) -> Result<u16, AddressError> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or(AddressError::Port)
}

impl Host {
    /// Parses a host as it stands in a URL: an IPv6 address is in brackets.
    ///
    /// # Errors
    ///
    /// If it is neither an address nor a name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            if inner.contains('%') {
                return Err(AddressError::Zone);
            }
            let address: Ipv6Addr = inner.parse().map_err(|_| AddressError::Host)?;
            if holds_ipv4(address) {
                return Err(AddressError::EmbeddedIpv4);
            }
            return Ok(Self::Ip(address.into()));
        }
        // Strict: four decimal numbers without zeros in front.
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(address.into()));
        }
        DnsName::parse(text).map(Self::Name)
    }
}

/// Forms of IPv6 that lead to an IPv4 address: mapped, compatible, translated, NAT64, 6to4 and Teredo.
/// With them, an address could be written that is inside no network by its text, and is inside one on
/// the wire.
fn holds_ipv4(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded =
        segments[..4] == [0; 4] && matches!(segments[4..6], [0, 0xffff] | [0, 0] | [0xffff, 0]);
    let is_short = address.is_unspecified() || address.is_loopback();
    let translated = segments[0] == 0x64 && segments[1] == 0xff9b;
    let tunnelled = segments[0] == 0x2002 || (segments[0] == 0x2001 && segments[1] == 0);
    (embedded && !is_short) || translated || tunnelled
}

impl DnsName {
    /// Parses a name, and puts it in lower case.
    ///
    /// # Errors
    ///
    /// If it is no host name of letters, digits and hyphens, or could be read as an IP address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.ends_with('.') && text.len() > 1 {
            return Err(AddressError::TrailingDot);
        }
        if text.len() > LONGEST_NAME || !text.split('.').all(is_label) {
            return Err(AddressError::Host);
        }
        let name = text.to_ascii_lowercase();
        // `127.1`, `2130706433`, `0x7f000001`, `0177.0.0.1`: what ends in a number is an address for
        // inet_aton and for browsers.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hexadecimal = last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::LooksLikeIp);
        }
        Ok(Self(name.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(known)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, tls, host, port, authority) in [
            ("http://10.0.0.7:8000", false, "10.0.0.7", 8000, "10.0.0.7:8000"),
            ("http://10.0.0.7:80/", false, "10.0.0.7", 80, "10.0.0.7"),
            ("http://model", false, "model", 80, "model"),
            ("http://model:443", false, "model", 443, "model:443"),
            ("https://model:80", true, "model", 80, "model:80"),
            ("https://API.Example.org", true, "api.example.org", 443, "api.example.org"),
            ("https://xn--b-a.example:8443", true, "xn--b-a.example", 8443, "xn--b-a.example:8443"),
            ("http://[fd00::7]:8000", false, "fd00::7", 8000, "[fd00::7]:8000"),
            ("http://[fd00:0:0::0007]", false, "fd00::7", 80, "[fd00::7]"),
            ("http://model.0x7g", false, "model.0x7g", 80, "model.0x7g"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.tls, address.port), (tls, port), "{url}");
            assert_eq!(address.host.to_string(), host, "{url}");
            assert_eq!(address.authority(), authority, "{url}");
        }
    }

    #[test]
    fn hostile_urls() {
        use AddressError as E;
        let long_label = format!("http://{}", "a".repeat(64));
        let long_name = format!("http://{}a", "a.".repeat(127));
        for (url, error) in [
            ("", E::Scheme),
            ("10.0.0.7:8000", E::Scheme),
            ("HTTP://h", E::Scheme),
            ("ftp://h", E::Scheme),
            ("unix:///run/x", E::Scheme),
            (" http://h", E::NotAscii),
            ("http://h\n", E::NotAscii),
            ("http://h\0", E::NotAscii),
            ("http://b\u{fc}cher.example", E::NotAscii),
            ("http://\u{ff11}27.0.0.1", E::NotAscii),
            ("http://127\u{3002}0.0.1", E::NotAscii),
            ("http://u:p@h", E::UserInfo),
            ("http://h/@", E::UserInfo),
            ("http://10.0.0.7:80@169.254.169.254", E::UserInfo),
            ("http://h?x", E::Query),
            ("http://h#x", E::Query),
            ("http://h/v1", E::Path),
            ("http://h//", E::Path),
            ("http://h/..", E::Path),
            ("http://h:", E::Port),
            ("http://h:0", E::Port),
            ("http://h:080", E::Port),
            ("http://h:+80", E::Port),
            ("http://h:65536", E::Port),
            ("http://h:80:80", E::Port),
            ("http://", E::Host),
            ("http://:80", E::Host),
            ("http:///x", E::Path),
            ("http://h\\x", E::Host),
            ("http://h%2e", E::Host),
            ("http://a..b", E::Host),
            ("http://.a", E::Host),
            ("http://-a", E::Host),
            ("http://a-", E::Host),
            ("http://a_b", E::Host),
            ("http://*.a", E::Host),
            ("http://\"", E::Host),
            ("http://${x}", E::Host),
            ("http://%REQ(x)%", E::Host),
            (&long_label, E::Host),
            (&long_name, E::Host),
            ("http://a.", E::TrailingDot),
            ("http://127.0.0.1.", E::TrailingDot),
            ("http://[fe80::1%eth0]", E::Zone),
            ("http://[fe80::1%25eth0]", E::Zone),
            ("http://[::1", E::Host),
            ("http://[::1]x", E::Host),
            ("http://[127.0.0.1]", E::Host),
            ("http://::1", E::Port),
            ("http://127.1", E::LooksLikeIp),
            ("http://0x7f.1", E::LooksLikeIp),
            ("http://0x7f000001", E::LooksLikeIp),
            ("http://0X7F000001", E::LooksLikeIp),
            ("http://a.0x", E::LooksLikeIp),
            ("http://2130706433", E::LooksLikeIp),
            ("http://0177.0.0.1", E::LooksLikeIp),
            ("http://127.0.0.01", E::LooksLikeIp),
            ("http://127.0.0.256", E::LooksLikeIp),
            ("http://1.2.3.4.5", E::LooksLikeIp),
            ("http://example.1", E::LooksLikeIp),
            ("http://[::ffff:127.0.0.1]", E::EmbeddedIpv4),
            ("http://[::ffff:7f00:1]", E::EmbeddedIpv4),
            ("http://[::127.0.0.1]", E::EmbeddedIpv4),
            ("http://[64:ff9b::169.254.169.254]", E::EmbeddedIpv4),
            ("http://[64:ff9b:1::a9fe:a9fe]", E::EmbeddedIpv4),
            ("http://[::ffff:0:127.0.0.1]", E::EmbeddedIpv4),
            ("http://[::ffff:0:a9fe:a9fe]", E::EmbeddedIpv4),
            ("http://[2002:7f00:1::]", E::EmbeddedIpv4),
            ("http://[2001:0:1::]", E::EmbeddedIpv4),
            ("https://10.0.0.7", E::TlsToAddress),
            ("https://[fd00::7]", E::TlsToAddress),
        ] {
            assert_eq!(Address::parse(url), Err(error), "{url:?}");
        }
    }
}
