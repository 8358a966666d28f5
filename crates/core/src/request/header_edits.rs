//! Removes the client's token from a request that is forwarded, wherever it is.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use memchr::{memchr, memmem};

use super::credential::{IN_SUBPROTOCOL, subprotocols};
use crate::token::Tokens;

/// The headers in which clients send only a credential.
pub const CREDENTIAL_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    // No API takes a token from these two, but backends take a key from them.
    "x-litellm-api-key",
    "ocp-apim-subscription-key",
];

/// The subprotocols of a WebSocket, one of which may be a credential.
pub const SUBPROTOCOLS: &str = "sec-websocket-protocol";
/// Cookies, one of which may hold a credential.
pub const COOKIES: &str = "cookie";

/// White space around a cookie.
const BLANKS: [char; 2] = [' ', '\t'];
/// Decodes everything that some server decodes as base64.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The change of one header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeaderEdit {
    /// The header is forwarded unchanged.
    #[default]
    Keep,
    /// The header is removed.
    Remove,
    /// The header is forwarded with this value.
    Set(String),
}

/// The changes of a request's own headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Members of [`CREDENTIAL_HEADERS`] to remove from a request that passes without being
    /// allowed. From an allowed request, all of them are removed.
    pub with_tokens: Vec<&'static str>,
    /// The change of [`SUBPROTOCOLS`].
    pub subprotocols: HeaderEdit,
    /// The change of [`COOKIES`].
    pub cookies: HeaderEdit,
}

impl HeaderEdits {
    /// Returns the changes for a backend: it gets no credential from the client, whether or not
    /// patgate used it. `cookies` are the names of cookies to remove.
    pub fn for_a_backend<'a>(
        header: impl Fn(&str) -> Option<&'a str>,
        cookies: &[Box<str>],
        tokens: &Tokens,
    ) -> Self {
        // A header that was not shown may hold a token.
        let subprotocols = header(SUBPROTOCOLS).map_or(HeaderEdit::Remove, |value| {
            without_tokens(value, tokens).unwrap_or_else(|| HeaderEdit::Set(value.to_owned()))
        });
        let cookies = without_cookies(header(COOKIES), cookies, tokens);
        Self { with_tokens: Vec::new(), subprotocols, cookies }
    }

    /// Returns the headers that are forwarded with another value.
    #[inline]
    pub fn headers_set(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.changes().into_iter().filter_map(|(name, change)| match change {
            HeaderEdit::Set(value) => Some((name, value.as_str())),
            HeaderEdit::Keep | HeaderEdit::Remove => None,
        })
    }

    /// Returns the names of the headers that are removed.
    #[inline]
    pub fn headers_removed(&self) -> impl DoubleEndedIterator<Item = &str> {
        let removed =
            self.changes().into_iter().filter(|(_, change)| **change == HeaderEdit::Remove);
        self.with_tokens.iter().copied().chain(removed.map(|(name, _)| name))
    }

    fn changes(&self) -> [(&str, &HeaderEdit); 2] {
        [(SUBPROTOCOLS, &self.subprotocols), (COOKIES, &self.cookies)]
    }

    /// Returns the changes for the service that served the request before patgate, and checks
    /// credentials itself: everything is forwarded except patgate's tokens.
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
            cookies: without_cookies(header(COOKIES), cookies, tokens),
        }
    }
}

/// Returns whether the edge could not show the value: several values, or bytes that are not text.
/// It may hold anything.
fn is_opaque(value: &str) -> bool {
    // 0xef is the first byte of U+FFFD; few headers have it, and a search for one byte is cheap.
    value == "," || memchr(0xef, value.as_bytes()).is_some() && value.contains('\u{fffd}')
}

/// Returns whether a value holds a token, directly or within `Basic` (RFC 7617), or may hold one.
fn holds_token(value: &str, tokens: &Tokens) -> bool {
    let within = |part: &str| {
        let decoded = LENIENT.decode(part.trim_end_matches('=')).ok();
        decoded.is_some_and(|bytes| tokens.found_in(&String::from_utf8_lossy(&bytes)))
    };
    is_opaque(value) || tokens.found_in(value) || value.split([' ', '\t', ',']).any(within)
}

/// Returns the subprotocols without those that are, or hold, a credential; `None` if there are
/// none.
fn without_tokens(value: &str, tokens: &Tokens) -> Option<HeaderEdit> {
    if is_opaque(value) {
        return Some(HeaderEdit::Remove);
    }
    let is_key = |name: &str| {
        let beginning = name.get(..IN_SUBPROTOCOL.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(IN_SUBPROTOCOL))
    };
    let is_credential = |name: &str| is_key(name) || tokens.found_in(name);
    if !subprotocols(value).any(is_credential) {
        return None;
    }
    let rest: Vec<_> = subprotocols(value).filter(|name| !is_credential(name)).collect();
    Some(if rest.is_empty() { HeaderEdit::Remove } else { HeaderEdit::Set(rest.join(", ")) })
}

/// Returns the cookies without those of these names, and without those that hold a token.
fn without_cookies(value: Option<&str>, names: &[Box<str>], tokens: &Tokens) -> HeaderEdit {
    let Some(value) = value else { return HeaderEdit::Keep };
    if is_opaque(value) {
        return HeaderEdit::Remove;
    }
    let with_token = tokens.found_in(value);
    let occurs = |name: &str| memmem::find(value.as_bytes(), name.as_bytes()).is_some();
    if !with_token && !names.iter().any(|name| occurs(name)) {
        return HeaderEdit::Keep;
    }
    let goes = |cookie: &str| {
        let name = cookie.split('=').next().unwrap_or_default().trim_matches(BLANKS);
        names.iter().any(|known| **known == *name) || with_token && tokens.found_in(cookie)
    };
    let mut rest = String::with_capacity(value.len());
    for pair in value.split(';') {
        let before = rest.len();
        // Envoy joins repeated headers of HTTP/1.1 with a comma, which some values also contain.
        let mut dropped = false;
        let kept = pair.split(',').filter(|part| {
            // A part without a name of its own belongs to the part before it.
            dropped = goes(part) || dropped && !part.contains('=');
            !dropped
        });
        for (at, part) in kept.enumerate() {
            match (at, before) {
                (0, 0) => rest.push_str(part.trim_start_matches(BLANKS)),
                (0, _) => rest.extend(["; ", part.trim_start_matches(BLANKS)]),
                _ => rest.extend([",", part]),
            }
        }
        rest.truncate(rest.trim_end_matches(BLANKS).len());
        // A blank part leaves only the `;` before it, which is removed.
        if before > 0 && rest.len() == before + 1 {
            rest.truncate(before);
        }
    }
    if rest.is_empty() {
        HeaderEdit::Remove
    } else if rest == value {
        HeaderEdit::Keep
    } else {
        HeaderEdit::Set(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::TokenSource,
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
        for source in TokenSource::ALL {
            let header = source.header();
            assert!(CREDENTIAL_HEADERS.contains(&header) || header == SUBPROTOCOLS, "{source}");
        }
    }

    #[test]
    fn subprotocols_go_on_without_credentials() {
        let (tokens, text) = ours();
        let set = |rest: &str| HeaderEdit::Set(rest.to_owned());
        for (value, backend, before) in [
            (None, HeaderEdit::Remove, HeaderEdit::Keep),
            (Some("graphql-ws".to_owned()), set("graphql-ws"), HeaderEdit::Keep),
            (Some(format!("{IN_SUBPROTOCOL}sk-1")), HeaderEdit::Remove, HeaderEdit::Remove),
            (
                Some(format!("realtime,{IN_SUBPROTOCOL}{text} , v1")),
                set("realtime, v1"),
                set("realtime, v1"),
            ),
            (Some(format!("bearer, {text}")), set("bearer"), set("bearer")),
            (
                Some("OpenAI-Insecure-API-Key.sk-1".to_owned()),
                HeaderEdit::Remove,
                HeaderEdit::Remove,
            ),
            (Some(",".to_owned()), HeaderEdit::Remove, HeaderEdit::Remove),
        ] {
            let header = |name: &str| value.as_deref().filter(|_| name == SUBPROTOCOLS);
            let edits = HeaderEdits::for_a_backend(header, &[], &tokens);
            assert_eq!(edits.subprotocols, backend, "{value:?}");
            let edits = HeaderEdits::of_tokens(header, &[], &tokens);
            assert_eq!(edits.subprotocols, before, "{value:?}");
        }
    }

    #[test]
    fn cookies_are_removed_by_their_names() {
        let (tokens, text) = ours();
        let names = ["pat".into(), "api_key".into()];
        for (value, expected) in [
            ("a=1; b=2", HeaderEdit::Keep),
            ("xpat=1; pat2=1; PAT=1", HeaderEdit::Keep),
            ("pat=1", HeaderEdit::Remove),
            ("pat", HeaderEdit::Remove),
            ("pat=1; api_key=2", HeaderEdit::Remove),
            ("a=1; pat=x=y; b=2", HeaderEdit::Set("a=1; b=2".to_owned())),
            ("a=1;pat = x;b=2;", HeaderEdit::Set("a=1; b=2".to_owned())),
            ("a=1,pat=x; b=2", HeaderEdit::Set("a=1; b=2".to_owned())),
            ("pat=x,y; b=2", HeaderEdit::Set("b=2".to_owned())),
            ("a=1, pat=x, b=2; c=3", HeaderEdit::Set("a=1, b=2; c=3".to_owned())),
            ("a=1,2; pat=x", HeaderEdit::Set("a=1,2".to_owned())),
            ("pat=x; a=1; pat=y", HeaderEdit::Set("a=1".to_owned())),
            ("pat=x; ; a=1;; ", HeaderEdit::Set("a=1".to_owned())),
            (",", HeaderEdit::Remove),
            ("pat=1; x=\u{fffd}", HeaderEdit::Remove),
        ] {
            assert_eq!(without_cookies(Some(value), &names, &tokens), expected, "{value}");
        }
        assert_eq!(without_cookies(Some("pat=1"), &[], &tokens), HeaderEdit::Keep);
        assert_eq!(without_cookies(None, &names, &tokens), HeaderEdit::Keep);
        // Whatever the name of the cookie is.
        let value = format!("a=1; session={text}; b=\"x {text}\"; c=3");
        let expected = HeaderEdit::Set("a=1; c=3".to_owned());
        assert_eq!(without_cookies(Some(&value), &[], &tokens), expected);
    }

    #[test]
    fn what_holds_a_token_is_told_from_what_does_not() {
        let (tokens, text) = ours();
        let basic = LENIENT.encode(format!("ann:{text}")).trim_end_matches('=').to_owned();
        for (value, holds) in [
            (format!("Bearer {text}"), true),
            (text.clone(), true),
            (format!("Bearer {text}trailing"), true),
            (format!("Token token=\"{text}\""), true),
            (format!("Basic {basic}"), true),
            (format!("basic\t{basic}="), true),
            (format!("Bearer {}\u{fffd}", "x"), true),
            (",".to_owned(), true),
            ("Bearer sk-1".to_owned(), false),
            ("Basic YW5uOnBhc3N3b3Jk".to_owned(), false),
        ] {
            assert_eq!(holds_token(&value, &tokens), holds, "{value}");
        }
    }
}
