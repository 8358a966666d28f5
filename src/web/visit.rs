//! Who asks: the client's address, and the session that the request proves.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderMap, header, request::Parts},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use uuid::Uuid;

use super::{Provider, Site, cookie, problem::Problem};
use crate::admin::web::{Caller, Error, Origin, SessionSecret};

const FORWARDED_FOR: &str = "x-forwarded-for";
const REQUEST_ID: &str = "x-request-id";

/// The id of a request, for the client and for the audit log.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    /// That of the proxy in front, if there is one, and a new one otherwise.
    pub(super) fn of(headers: &HeaderMap, proxies: usize) -> Self {
        let plain = |id: &&str| {
            (1..=100).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
        match given.filter(|_| proxies > 0) {
            Some(id) => Self(id.to_owned()),
            None => Self(Uuid::new_v4().to_string()),
        }
    }
}

/// Where the connection comes from, which the listener has added.
pub(super) fn peer(of: &Extensions) -> IpAddr {
    of.get::<SocketAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip)
}

/// The client's address: the peer's, or what the outermost trusted proxy has seen.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, proxies: usize) -> IpAddr {
    if proxies == 0 {
        return peer;
    }
    let lines = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|line| line.to_str().ok());
    let seen: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    // Fewer than there are proxies: the request did not pass all of them.
    let at = seen.len().checked_sub(proxies);
    at.and_then(|at| seen.get(at)).and_then(|text| text.parse().ok()).unwrap_or(peer)
}

/// A request, with or without a session.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) address: IpAddr,
    pub(super) origin: Origin,
    session: Option<SessionSecret>,
}

impl Visit {
    /// The caller, if the request proves a session. Whether that has ended, only the database knows.
    pub(super) fn caller(&self) -> Option<Caller> {
        let session = self.session.clone()?;
        Some(Caller { session, origin: self.origin.clone() })
    }
}

impl FromRequestParts<Arc<Site>> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Infallible> {
        let settings = &site.settings;
        let address = client_address(peer(&parts.extensions), &parts.headers, settings.proxies);
        let id = parts.extensions.get::<RequestId>().map(|id| id.0.as_str());
        let session = match bearer(&parts.headers) {
            Some(bearer) => SessionSecret::parse(bearer),
            None => cookie::session(&settings.url, &parts.headers),
        };
        Ok(Self { address, origin: Origin::new(Some(address), id), session })
    }
}

/// What the request proves itself with, if it is not a cookie.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::AUTHORIZATION).into_iter();
    let line = lines.next()?.to_str().unwrap_or_default();
    if lines.next().is_some() {
        return Some("");
    }
    let is_bearer = line.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("bearer "));
    Some(if is_bearer { line[7..].trim() } else { "" })
}

/// Whether it begins as every JWT does, and no secret of a session with its 43 characters is meant.
pub(super) fn is_jwt(bearer: &str) -> bool {
    bearer.starts_with("eyJ") && bearer.contains('.')
}

/// A caller of the API, who must prove a session.
pub(super) struct ApiCaller(pub(super) Caller);

impl FromRequestParts<Arc<Site>> for ApiCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Problem> {
        let Ok(visit) = Visit::from_request_parts(parts, site).await;
        visit.caller().map(Self).ok_or_else(|| match bearer(&parts.headers) {
            Some(token) if is_jwt(token) => {
                let takes = |provider: &Provider| provider.takes_access_tokens();
                Problem::not_exchanged(site.provider.as_ref().is_some_and(takes))
            }
            Some(token) if !token.is_empty() => Problem::not_a_session(),
            _ => Error::NotSignedIn.into(),
        })
    }
}

/// What a form of a page must send back, which another site cannot know.
pub(super) fn form_proof(session: &SessionSecret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&form_key(session), FORM))
}

/// Checks what a form has sent back.
pub(super) fn proves_form(session: &SessionSecret, sent: &str) -> bool {
    let Ok(sent) = BASE64_URL_SAFE_NO_PAD.decode(sent) else { return false };
    hmac::verify(&form_key(session), FORM, &sent).is_ok()
}

const FORM: &[u8] = b"patgate form";

fn form_key(session: &SessionSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, session.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_address_is_the_one_that_a_trusted_proxy_has_seen() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let forged = headers(&[(FORWARDED_FOR, "198.51.100.1, 192.0.2.7")]);
        let address = |proxies| client_address(peer, &forged, proxies).to_string();
        assert_eq!(address(0), "10.0.0.1");
        assert_eq!(address(1), "192.0.2.7");
        assert_eq!(address(2), "198.51.100.1");
        assert_eq!(address(3), "10.0.0.1");
        let text = headers(&[(FORWARDED_FOR, "unknown")]);
        assert_eq!(client_address(peer, &text, 1), peer);
    }

    #[test]
    fn a_request_id_is_taken_from_a_proxy_only() {
        let given = headers(&[(REQUEST_ID, "abc-1")]);
        assert_eq!(RequestId::of(&given, 1).0, "abc-1");
        assert_ne!(RequestId::of(&given, 0).0, "abc-1");
        assert_ne!(RequestId::of(&headers(&[(REQUEST_ID, "a\"b")]), 1).0, "a\"b");
    }

    #[test]
    fn a_form_proves_its_own_session() {
        let (one, other) = (SessionSecret::random().unwrap(), SessionSecret::random().unwrap());
        assert!(proves_form(&one, &form_proof(&one)));
        for wrong in ["", "AAAA", &form_proof(&other), &one.expose()] {
            assert!(!proves_form(&one, wrong));
        }
    }

    #[test]
    fn one_authorization_is_read() {
        assert_eq!(bearer(&headers(&[])), None);
        assert_eq!(bearer(&headers(&[("authorization", "bearer  x")])), Some("x"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic x")])), Some(""));
        let mut two = headers(&[("authorization", "Bearer x")]);
        two.append("authorization", "Bearer y".parse().unwrap());
        assert_eq!(bearer(&two), Some(""));
    }
}
