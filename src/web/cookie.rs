//! The cookie of a session.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::{admin::web::SessionSecret, config::SiteUrl};

/// Browsers take a name with this prefix only from the host itself, by TLS, and for all paths.
const SECURE: &str = "__Host-patgate-session";
/// Over plain HTTP on this machine, where browsers refuse the other.
const LOCAL: &str = "patgate-session";

fn name(site: &SiteUrl) -> &'static str {
    if site.is_secure() { SECURE } else { LOCAL }
}

/// The secret of the session in the cookie; `None` if there is no cookie, more than one, or no secret.
pub(super) fn session(site: &SiteUrl, headers: &HeaderMap) -> Option<SessionSecret> {
    let mut found = values(headers, name(site));
    let value = found.next()?;
    if found.next().is_some() {
        return None;
    }
    SessionSecret::parse(value)
}

/// Whether the browser sent any cookie with a session's name.
pub(super) fn is_sent(site: &SiteUrl, headers: &HeaderMap) -> bool {
    values(headers, name(site)).next().is_some()
}

/// The values of all cookies with this name.
pub(super) fn values<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Gives a browser the cookie of a session.
pub(super) fn give(site: &SiteUrl, session: &SessionSecret) -> HeaderValue {
    cookie(site, name(site), &session.expose(), "")
}

/// Takes it back.
pub(super) fn take(site: &SiteUrl) -> HeaderValue {
    cookie(site, name(site), "", "; Max-Age=0")
}

fn cookie(site: &SiteUrl, name: &str, value: &str, more: &str) -> HeaderValue {
    let secure = if site.is_secure() { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}");
    let mut header = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}
