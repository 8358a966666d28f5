//! The settings of self-service.

pub(crate) mod oidc;

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use http::uri::{Authority, Uri};

use self::oidc::OidcSettings;
use super::{
    load::SettingsReader,
    values::{ExpectedValue, address, count, count_or_none},
};

/// Where self-service listens, and how people reach it.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// The address of the listener.
    pub listen: SocketAddr,
    /// The address at which Prometheus reads metrics, if it does.
    pub metrics: Option<SocketAddr>,
    /// The URL under which browsers reach it.
    pub url: SiteUrl,
    /// The URL under which clients reach the gateway, for examples; may be empty.
    pub gateway_url: String,
    /// The trusted proxies in front, each of which appends to `x-forwarded-for`.
    pub proxies: usize,
    /// The requests of one client per second.
    pub requests_per_second: u32,
    /// The attempts of one client to sign in, per minute.
    pub sign_ins_per_minute: u32,
    /// The provider of OpenID Connect, if there is one.
    pub oidc: Option<OidcSettings>,
}

/// A scheme with a host and possibly a port, as a browser sends it in `Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteUrl {
    origin: String,
    authority: String,
    secure: bool,
}

const LISTEN: &str = "web.listen";
const URL: &str = "web.url";
const EXPECTED_URL: &str = "`https://` and a host, such as `https://tokens.example.org`, without a path; \
                            `http://` only for `localhost`, `127.0.0.1` or `[::1]`";
const NEEDS_A_LISTENER: &str = "an address and a port to serve self-service";
const NEEDS_A_URL: &str = "the URL under which browsers reach self-service, because web.listen is not an \
                           address of this machine alone";

impl WebSettings {
    /// Returns `None` after an error.
    pub(super) fn read(reader: &mut SettingsReader) -> Option<Self> {
        let listen = reader.get(LISTEN, address);
        let metrics = reader.get("web.metrics.listen", address);
        let url = reader.get(URL, site_url);
        let gateway_url = reader.get("web.gateway_url", gateway_url);
        let proxies = reader.get("web.proxies", count_or_none);
        let requests_per_second = reader.get("web.requests_per_second", count);
        let sign_ins_per_minute = reader.get("web.sign_ins_per_minute", count);
        let oidc = OidcSettings::read(reader);
        let Some(listen) = listen? else { return reader.refuse(LISTEN, NEEDS_A_LISTENER) };
        let Some(url) = url?.or_else(|| SiteUrl::of_this_machine(listen)) else {
            return reader.refuse(URL, NEEDS_A_URL);
        };
        Some(Self {
            listen,
            metrics: metrics?,
            url,
            gateway_url: gateway_url?,
            proxies: usize::try_from(proxies?).ok()?,
            requests_per_second: requests_per_second?,
            sign_ins_per_minute: sign_ins_per_minute?,
            oidc: oidc?,
        })
    }
}

/// Returns `None` after an error. Does not need the other settings of self-service.
pub(super) fn read_url(reader: &mut SettingsReader) -> Option<SiteUrl> {
    let listen = reader.get(LISTEN, address);
    let url = reader.get(URL, site_url);
    match url?.or_else(|| listen.flatten().and_then(SiteUrl::of_this_machine)) {
        Some(url) => Some(url),
        None => reader.refuse(URL, NEEDS_A_URL),
    }
}

impl SiteUrl {
    /// Of a listener, if only this machine can reach it.
    fn of_this_machine(listen: SocketAddr) -> Option<Self> {
        listen.ip().is_loopback().then(|| Self::of(listen))
    }

    /// Of a listener that only this machine can reach.
    pub fn of(listen: SocketAddr) -> Self {
        let authority = listen.to_string();
        Self { origin: format!("http://{authority}"), authority, secure: false }
    }

    /// What a browser sends in `Origin` on the pages of this site.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What a browser sends in `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether browsers reach the site by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

impl FromStr for SiteUrl {
    type Err = ExpectedValue;

    fn from_str(text: &str) -> Result<Self, ExpectedValue> {
        site_url(text)?.ok_or_else(|| EXPECTED_URL.to_owned())
    }
}

pub(super) fn site_url(text: &str) -> Result<Option<SiteUrl>, ExpectedValue> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = parts(text).ok_or(EXPECTED_URL)?;
    let host = parsed.authority.host().to_ascii_lowercase();
    if !parsed.secure && !is_this_machine(&host) {
        return Err(EXPECTED_URL.to_owned());
    }
    let usual = if parsed.secure { 443 } else { 80 };
    let authority = match parsed.authority.port_u16() {
        Some(port) if port != usual => format!("{host}:{port}"),
        _ => host,
    };
    let scheme = if parsed.secure { "https" } else { "http" };
    let origin = format!("{scheme}://{authority}");
    Ok(Some(SiteUrl { origin, authority, secure: parsed.secure }))
}

/// Whether no other machine hears what is sent to this host.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

struct Parts {
    authority: Authority,
    secure: bool,
}

fn parts(text: &str) -> Option<Parts> {
    let uri: Uri = text.parse().ok()?;
    let secure = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?.clone();
    let plain = !authority.as_str().contains('@') && uri.path() == "/" && uri.query().is_none();
    plain.then_some(Parts { authority, secure })
}

fn gateway_url(text: &str) -> Result<String, ExpectedValue> {
    let expected = || "the URL of the gateway, such as `https://ai.example.org`, without a path";
    if text.is_empty() {
        return Ok(String::new());
    }
    let parsed = parts(text).ok_or_else(expected)?;
    let scheme = if parsed.secure { "https" } else { "http" };
    Ok(format!("{scheme}://{}", parsed.authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_origin() {
        for (text, origin, authority) in [
            ("https://Tokens.example.org", "https://tokens.example.org", "tokens.example.org"),
            ("https://tokens.example.org:443/", "https://tokens.example.org", "tokens.example.org"),
            ("https://a.example:8443", "https://a.example:8443", "a.example:8443"),
            ("http://localhost:9193", "http://localhost:9193", "localhost:9193"),
            ("http://[::1]:9193", "http://[::1]:9193", "[::1]:9193"),
        ] {
            let url = site_url(text).unwrap().unwrap();
            assert_eq!((url.origin(), url.authority()), (origin, authority), "{text}");
            assert_eq!(url.is_secure(), text.starts_with("https"));
        }
        for text in [
            "tokens.example.org",
            "http://tokens.example.org",
            "http://127.0.0.1.example.org",
            "https://tokens.example.org/path",
            "https://tokens.example.org?x",
            "https://user@tokens.example.org",
            "ftp://localhost",
            "https://",
            "/",
        ] {
            assert_eq!(site_url(text).unwrap_err(), EXPECTED_URL, "{text}");
        }
        assert_eq!(site_url("").unwrap(), None);
    }
}
