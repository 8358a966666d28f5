//! Takes the token out of a request that goes on, wherever its client has put it.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};

use super::credential::{IN_SUBPROTOCOL, subprotocols};
use crate::token::Tokens;

/// The headers in which clients send a credential and nothing else.
pub const CREDENTIAL_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    // No API takes a token from these two, but backends do take a key from them.
    "x-litellm-api-key",
    "ocp-apim-subscription-key",
];

/// The subprotocols of a WebSocket, one of which may be a credential.
pub const SUBPROTOCOLS: &str = "sec-websocket-protocol";
/// Cookies, one of which may hold a credential.
pub const COOKIES: &str = "cookie";

/// What becomes of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// It goes on as it came.
    #[default]
    Keep,
    /// It does not go on.
    Remove,
    /// It goes on as this.
    Set(String),
}

/// What becomes of a request's own headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Of [`CREDENTIAL_HEADERS`], those that do not go on of a request that is let through without
    /// having been allowed. Of one that was allowed, none does.
    pub with_tokens: Vec<&'static str>,
    /// Of [`SUBPROTOCOLS`].
    pub subprotocols: Change,
    /// Of [`COOKIES`].
    pub cookies: Change,
}

impl Cleaned {
    /// For a backend: it gets no credential of the client's, whether or not it was used. `cookies`
    /// are the names of those that are removed.
    pub fn for_a_backend<'a>(
        header: impl Fn(&str) -> Option<&'a str>,
        cookies: &[Box<str>],
        tokens: &Tokens,
    ) -> Self {
        // One that was not shown may hold a token.
        let subprotocols = header(SUBPROTOCOLS).map_or(Change::Remove, |value| {
            without_tokens(value, tokens).unwrap_or_else(|| Change::Set(value.to_owned()))
        });
        let cookies = without_cookies(header(COOKIES), cookies);
        Self { with_tokens: Vec::new(), subprotocols, cookies }
    }

    /// For what served the request before patgate did, and checks credentials itself: all goes on
    /// but tokens of ours.
    pub fn of_tokens<'a>(
        header: impl Fn(&str) -> Option<&'a str>,
        cookies: &[Box<str>],
        tokens: &Tokens,
    ) -> Self {
        let holds = |name: &&str| header(name).is_some_and(|value| holds_token(value, tokens));
        let subprotocols = header(SUBPROTOCOLS).and_then(|value| without_tokens(value, tokens));
        Self {
            with_tokens: CREDENTIAL_HEADERS.into_iter().filter(holds).collect(),
            subprotocols: subprotocols.unwrap_or_default(),
            cookies: without_cookies(header(COOKIES), cookies),
        }
    }
}

/// As it is, or within `Basic` (RFC 7617).
fn holds_token(value: &str, tokens: &Tokens) -> bool {
    let decoded = |part: &str| BASE64_STANDARD_NO_PAD.decode(part.trim_end_matches('=')).ok();
    let within = |part: &str| {
        let decoded = decoded(part).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        decoded.is_some_and(|text| tokens.found_in(&text))
    };
    tokens.found_in(value) || value.split([' ', ',']).any(within)
}

/// The subprotocols without those that are, or hold, a credential; `None` if there are none such.
fn without_tokens(value: &str, tokens: &Tokens) -> Option<Change> {
    let is_credential = |name: &str| name.starts_with(IN_SUBPROTOCOL) || tokens.found_in(name);
    if !subprotocols(value).any(is_credential) {
        return None;
    }
    let rest: Vec<_> = subprotocols(value).filter(|name| !is_credential(name)).collect();
    Some(if rest.is_empty() { Change::Remove } else { Change::Set(rest.join(", ")) })
}

/// The cookies without those of these names.
fn without_cookies(value: Option<&str>, names: &[Box<str>]) -> Change {
    let Some(value) = value.filter(|_| !names.is_empty()) else { return Change::Keep };
    let is_named = |cookie: &str| {
        let name = cookie.split('=').next().unwrap_or_default().trim_matches([' ', '\t']);
        names.iter().any(|known| **known == *name)
    };
    let mut rest = Vec::new();
    for pair in value.split(';') {
        // Envoy joins repeated headers of HTTP/1.1 with a comma, which some values hold, too.
        let mut dropped = false;
        let kept = pair.split(',').filter(|part| {
            // What has no name of its own goes with the part before it.
            dropped = is_named(part) || dropped && !part.contains('=');
            !dropped
        });
        let kept = kept.collect::<Vec<_>>().join(",");
        let pair = kept.trim_matches([' ', '\t']);
        if !pair.is_empty() {
            rest.push(pair.to_owned());
        }
    }
    let rest = rest.join("; ");
    match rest.is_empty() {
        true => Change::Remove,
        false if rest == value => Change::Keep,
        false => Change::Set(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::CredentialSource,
        keyring::KeyRing,
        token::{Prefixes, TokenId},
    };

    fn ours() -> (Tokens, String) {
        let ring = KeyRing::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let tokens = Tokens::new(Prefixes::default(), ring);
        let token = tokens.mint(TokenId(uuid::Uuid::from_u128(1))).unwrap();
        let text = token.plain.expose().to_owned();
        (tokens, text)
    }

    #[test]
    fn every_source_is_removed() {
        for source in CredentialSource::ALL {
            let header = source.header();
            assert!(CREDENTIAL_HEADERS.contains(&header) || header == SUBPROTOCOLS, "{source}");
        }
    }

    #[test]
    fn subprotocols_go_on_without_credentials() {
        let (tokens, text) = ours();
        let set = |rest: &str| Change::Set(rest.to_owned());
        for (value, backend, before) in [
            (None, Change::Remove, Change::Keep),
            (Some("graphql-ws".to_owned()), set("graphql-ws"), Change::Keep),
            (Some(format!("{IN_SUBPROTOCOL}sk-1")), Change::Remove, Change::Remove),
            (
                Some(format!("realtime,{IN_SUBPROTOCOL}{text} , v1")),
                set("realtime, v1"),
                set("realtime, v1"),
            ),
            (Some(format!("bearer, {text}")), set("bearer"), set("bearer")),
        ] {
            let header = |name: &str| value.as_deref().filter(|_| name == SUBPROTOCOLS);
            let cleaned = Cleaned::for_a_backend(header, &[], &tokens);
            assert_eq!(cleaned.subprotocols, backend, "{value:?}");
            let cleaned = Cleaned::of_tokens(header, &[], &tokens);
            assert_eq!(cleaned.subprotocols, before, "{value:?}");
        }
    }

    #[test]
    fn cookies_are_removed_by_their_names() {
        let names = ["pat".into(), "api_key".into()];
        for (value, expected) in [
            ("a=1; b=2", Change::Keep),
            ("xpat=1; pat2=1; PAT=1", Change::Keep),
            ("pat=1", Change::Remove),
            ("pat", Change::Remove),
            ("pat=1; api_key=2", Change::Remove),
            ("a=1; pat=x=y; b=2", Change::Set("a=1; b=2".to_owned())),
            ("a=1;pat = x;b=2;", Change::Set("a=1; b=2".to_owned())),
            ("a=1,pat=x; b=2", Change::Set("a=1; b=2".to_owned())),
            ("pat=x,y; b=2", Change::Set("b=2".to_owned())),
            ("a=1, pat=x, b=2; c=3", Change::Set("a=1, b=2; c=3".to_owned())),
            ("a=1,2; pat=x", Change::Set("a=1,2".to_owned())),
            ("pat=x; a=1; pat=y", Change::Set("a=1".to_owned())),
        ] {
            assert_eq!(without_cookies(Some(value), &names), expected, "{value}");
        }
        assert_eq!(without_cookies(Some("pat=1"), &[]), Change::Keep);
        assert_eq!(without_cookies(None, &names), Change::Keep);
    }

    #[test]
    fn what_holds_a_token_is_told_from_what_does_not() {
        let (tokens, text) = ours();
        let basic = BASE64_STANDARD_NO_PAD.encode(format!("ann:{text}"));
        for (value, holds) in [
            (format!("Bearer {text}"), true),
            (text.clone(), true),
            (format!("Bearer {text}trailing"), true),
            (format!("Token token=\"{text}\""), true),
            (format!("Basic {basic}"), true),
            (format!("basic {basic}=="), true),
            ("Bearer sk-1".to_owned(), false),
            ("Basic YW5uOnBhc3N3b3Jk".to_owned(), false),
        ] {
            assert_eq!(holds_token(&value, &tokens), holds, "{value}");
        }
    }
}
