//! The cookies of a session, and of a sign-in that a provider has not answered yet.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::{admin::web::SessionSecret, config::SiteUrl};

/// Browsers take a name with this prefix only from the host itself, by TLS, and for all paths.
const SECURE: &str = "__Host-patgate-session";
/// Over plain HTTP on this machine, where browsers refuse the other.
const LOCAL: &str = "patgate-session";

/// The same for a sign-in.
const SECURE_SIGN_IN: &str = "__Host-patgate-sign-in";
const LOCAL_SIGN_IN: &str = "patgate-sign-in";

fn sign_in_name(site: &SiteUrl) -> &'static str {
    if site.is_secure() { SECURE_SIGN_IN } else { LOCAL_SIGN_IN }
}

fn name(site: &SiteUrl) -> &'static str {
    if site.is_secure() { SECURE } else { LOCAL }
}

/// The secret of the session in the cookie; `None` if there is no cookie, more than one, or no secret.
pub(super) fn session(site: &SiteUrl, headers: &HeaderMap) -> Option<SessionSecret> {
    only(headers, name(site)).and_then(SessionSecret::parse)
}

/// What the browser keeps of a sign-in; `None` if there is no cookie, or more than one.
pub(super) fn sign_in<'h>(site: &SiteUrl, headers: &'h HeaderMap) -> Option<&'h str> {
    only(headers, sign_in_name(site))
}

fn only<'h>(headers: &'h HeaderMap, name: &'h str) -> Option<&'h str> {
    let mut found = values(headers, name);
    let value = found.next()?;
    found.next().is_none().then_some(value)
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
    cookie(site, name(site), &session.expose(), "Strict")
}

/// Takes it back.
pub(super) fn take(site: &SiteUrl) -> HeaderValue {
    cookie(site, name(site), "", "Strict; Max-Age=0")
}

/// Lets a browser keep a sign-in for so many seconds. The provider sends the browser back, which is a
/// navigation from another site.
pub(super) fn give_sign_in(site: &SiteUrl, sealed: &str, seconds: u64) -> HeaderValue {
    cookie(site, sign_in_name(site), sealed, &format!("Lax; Max-Age={seconds}"))
}

/// Takes it back.
pub(super) fn take_sign_in(site: &SiteUrl) -> HeaderValue {
    cookie(site, sign_in_name(site), "", "Lax; Max-Age=0")
}

fn cookie(site: &SiteUrl, name: &str, value: &str, same_site: &str) -> HeaderValue {
    let secure = if site.is_secure() { "Secure; " } else { "" };
    let text = format!("{name}={value}; Path=/; HttpOnly; {secure}SameSite={same_site}");
    let mut header = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}
