//! Parses a request, from borrowed parts, into types that have one meaning.
//!
//! There is no I/O here. Of what a client sends, only host, method, path and credential decide:
//! `x-domain-id`, the query, or the context extensions of the edge are never identity.

mod credential;
mod header_edits;

use memchr::memchr;

use crate::{
    api::{Action, ApiStyle, Apis, MatchedSurface},
    body::{self, Body, BodyForm, ModelName, ResourceGate},
    domain::DomainRef,
    refusal::{MalformedPart, NoModel, Refusal},
    token::{Tokens, VerifiedToken},
};

use self::credential::RefusedCredential;
pub use self::{
    credential::behind_scheme,
    header_edits::{COOKIES, CREDENTIAL_HEADERS, HeaderEdit, HeaderEdits, SUBPROTOCOLS},
};

/// The longest path; no protected path is longer.
const MAX_PATH_LEN: usize = 4096;

/// The parts of an HTTP request that an edge lends.
pub struct RequestParts<'a, H> {
    /// The method, as the client sent it.
    pub method: &'a str,
    /// The host, perhaps with a port, by which the proxy will route.
    pub authority: &'a str,
    /// Path and query, by which the proxy will route.
    pub target: &'a str,
    /// Looks up a header by its lower-case name.
    pub header: H,
    /// The part of the body that the edge was shown.
    pub body: &'a [u8],
}

impl<'a, H> RequestParts<'a, H>
where
    H: Fn(&str) -> Option<&'a str>,
{
    /// Returns the one model that the body names, if the query names none.
    ///
    /// # Errors
    ///
    /// Returns the reason why the body does not name exactly one model.
    pub fn model(&self, form: BodyForm) -> Result<ModelName, NoModel> {
        model(self.target, self.shown(), form, &mut |_| Ok(()))
    }

    /// Checks whether the body could name one model, before any of it is shown.
    ///
    /// # Errors
    ///
    /// Returns the reason why it could not, whatever it contains, as [`Self::model`] would.
    pub fn may_name_a_model(&self, form: BodyForm) -> Result<(), NoModel> {
        match body::in_query(self.target).map_err(NoModel::Excessive)? {
            true => Err(NoModel::InQuery),
            false => self.shown().may_be_read(form),
        }
    }

    /// Returns the length of the body, as the client states it.
    pub fn length(&self) -> Option<u64> {
        (self.header)("content-length")?.parse().ok()
    }

    /// Returns the gateway's id of the request, which is the same in each of its steps.
    pub fn request_id(&self) -> &'a str {
        (self.header)("x-request-id").unwrap_or_default()
    }

    /// Returns the body, with the headers that describe it.
    pub fn shown(&self) -> Body<'a> {
        Body {
            bytes: self.body,
            partial: (self.header)("x-envoy-auth-partial-body"),
            length: (self.header)("content-length"),
            encoding: (self.header)("content-encoding"),
            media_type: (self.header)("content-type"),
        }
    }
}

/// Returns the one model that a body names, if the query of its request names none.
pub fn model(
    target: &str,
    body: Body<'_>,
    form: BodyForm,
    gate: ResourceGate<'_>,
) -> Result<ModelName, NoModel> {
    match body::in_query(target).map_err(NoModel::Excessive)? {
        true => Err(NoModel::InQuery),
        false => body.model_with(form, gate),
    }
}

/// A request that is well-formed and carries a token of ours.
#[derive(Debug)]
pub struct AuthRequest<'a> {
    /// The token; its tag verified.
    pub token: VerifiedToken,
    /// What the request does; `None` if no rule names it.
    pub action: Option<Action<'a>>,
    /// Where it goes; `None` if its path belongs to no API.
    pub api_path: Option<ApiPath<'a>>,
    /// The domain that it names, which need not exist.
    pub domain: Option<DomainRef>,
    /// How the API in question answers.
    pub api_style: ApiStyle,
}

/// A request that was refused before any lookup.
#[derive(Debug)]
pub struct RejectedRequest<'a> {
    /// The reason of the refusal.
    pub refusal: Refusal,
    /// The API and the path of the request; `None` if its path belongs to no API, or has another
    /// spelling.
    pub api_path: Option<ApiPath<'a>>,
    /// How the API answers.
    pub api_style: ApiStyle,
    /// If several credentials differ, the only token among them. It proves nothing about the
    /// others.
    pub among: Option<Box<VerifiedToken>>,
}

impl<'a> RejectedRequest<'a> {
    fn new(refusal: Refusal, api_path: Option<ApiPath<'a>>, api_style: ApiStyle) -> Self {
        Self { refusal, api_path, api_style, among: None }
    }
}

/// An API, and a canonical path in it: what a request names, even if other parts of it are wrong.
/// It is found once, for the decision, the mode and the record. It grants nothing.
#[derive(Clone, Debug)]
pub struct ApiPath<'a> {
    surface: MatchedSurface<'a>,
    path: &'a str,
    /// The query with its `?`; empty if there is none.
    query: &'a str,
}

impl<'a> ApiPath<'a> {
    /// Returns the domain that the request names, which need not exist.
    pub fn domain(&self) -> Option<DomainRef> {
        DomainRef::parse(&self.surface.domain(self.path)?)
    }

    /// Returns the rule for a request with this method.
    pub fn action(&self, method: &str) -> Option<Action<'a>> {
        self.surface.action_with(method, self.path, self.query)
    }

    /// Returns whether the rule for a request with this method permits a WebSocket.
    pub fn may_become_websocket(&self, method: &str) -> bool {
        self.surface.may_become_websocket(method, self.path)
    }

    /// Returns the names of the cookies that must not reach a backend.
    pub fn cookies(&self) -> &'a [Box<str>] {
        self.surface.cookies()
    }

    /// Finds the API and the path of a request, without reading its credential.
    pub fn of(authority: &'a str, target: &'a str, apis: &'a Apis) -> Option<Self> {
        let as_sent = without_query(target);
        let surface = apis.surface(authority, as_sent)?;
        let path = canonical_path(target, surface.root(as_sent).unwrap_or(as_sent)).ok()?;
        Some(Self { surface, path, query: target.get(as_sent.len()..).unwrap_or_default() })
    }
}

/// Parses a request. Malformed comes before unauthenticated.
///
/// # Errors
///
/// Returns `BadRequest`, `MissingCredential`, `NotAToken` or `InvalidToken`.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub fn parse<'r, 'a: 'r, H>(
    parts: &RequestParts<'a, H>,
    apis: &'r Apis,
    tokens: &Tokens,
) -> Result<AuthRequest<'r>, RejectedRequest<'r>>
where
    H: Fn(&str) -> Option<&'a str>,
{
    let as_sent = without_query(parts.target);
    // Found before anything is refused, so that every refusal has the form of the API.
    let surface = apis.surface(parts.authority, as_sent);
    let api_style = surface.as_ref().map_or_else(ApiStyle::default, |surface| surface.api_style());
    let root = surface.as_ref().and_then(|surface| surface.root(as_sent));
    let path = match canonical_path(parts.target, root.unwrap_or(as_sent)) {
        Ok(path) => path,
        Err(refusal) => return Err(RejectedRequest::new(refusal, None, api_style)),
    };
    if memchr(b',', parts.authority.as_bytes()).is_some() {
        // A comma joins repeated headers: another reader might take the other host.
        let refusal = Refusal::BadRequest(MalformedPart::Authority);
        return Err(RejectedRequest::new(refusal, None, api_style));
    }
    let query = &parts.target[as_sent.len()..];
    let api_path = surface.map(|surface| ApiPath { surface, path, query });
    if !query.is_empty() && credential::in_query(query, tokens) {
        let refusal = Refusal::BadRequest(MalformedPart::TokenInQuery);
        return Err(RejectedRequest::new(refusal, api_path, api_style));
    }
    let upgrade = (parts.header)("upgrade");
    if upgrade.is_some() && !names_no_header((parts.header)("connection")) {
        let refusal = Refusal::BadRequest(MalformedPart::Connection);
        return Err(RejectedRequest::new(refusal, api_path, api_style));
    }
    match credential::find(&parts.header, &api_style.sources, tokens) {
        Ok(token) => {
            let served = |api_path: &&ApiPath<'_>| {
                upgrade.is_none_or(|to| {
                    to.eq_ignore_ascii_case("websocket")
                        && api_path.may_become_websocket(parts.method)
                })
            };
            let action = api_path.as_ref().filter(served);
            let action = action.and_then(|api_path| api_path.action(parts.method));
            let domain = api_path.as_ref().and_then(ApiPath::domain);
            Ok(AuthRequest { token, action, api_path, domain, api_style })
        }
        Err(RefusedCredential { refusal, among }) => {
            Err(RejectedRequest { refusal, api_path, api_style, among })
        }
    }
}

/// Returns whether a `Connection` of an upgrade names no header. Envoy forwards its list unchanged,
/// and the next hop drops the headers that it names (RFC 9110, section 7.6.1), possibly patgate's.
fn names_no_header(connection: Option<&str>) -> bool {
    connection.unwrap_or_default().split(',').all(|name| {
        let name = name.trim_matches([' ', '\t']);
        ["upgrade", "keep-alive"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// Returns the path of a target, as the client sent it.
pub fn without_query(target: &str) -> &str {
    memchr(b'?', target.as_bytes()).map_or(target, |at| &target[..at])
}

/// Returns the path, if it is the only spelling of itself.
///
/// It refuses everything that a server behind the proxy might read differently: empty and dot
/// segments, backslashes, path parameters, percent-encoding, bytes outside visible ASCII.
fn canonical_path<'a>(target: &str, path: &'a str) -> Result<&'a str, Refusal> {
    let malformed = Refusal::BadRequest(MalformedPart::Path);
    let segments = path.strip_prefix('/').ok_or(malformed)?;
    // A fold, not a search: without an exit from the loop, the compiler checks many bytes at a
    // time.
    let visible = |byte: u8| byte.is_ascii_graphic() & (byte != b'#');
    let literal = |byte: u8| (byte != b'%') & (byte != b';') & (byte != b'\\');
    let visible = target.bytes().fold(true, |all, byte| all & visible(byte));
    let literal = path.bytes().fold(true, |all, byte| all & literal(byte));
    if !visible || !literal || path.len() > MAX_PATH_LEN {
        return Err(malformed);
    }
    let named = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    // The root path has no segments.
    let canonical =
        segments.is_empty() || segments.as_bytes().split(|byte| *byte == b'/').all(named);
    if canonical { Ok(path) } else { Err(malformed) }
}

/// What makes a target another spelling of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misspelling {
    /// A character that has more than one spelling, or that only some servers read.
    Character(char),
    /// It does not begin with `/`.
    NotRooted,
    /// Its path is longer than any that we protect.
    TooLong,
    /// It ends with `/`.
    TrailingSlash,
    /// It has a segment `.` or `..`.
    DotSegment,
    /// It has an empty segment.
    EmptySegment,
}

/// Returns why [`parse`] refuses a target; `None` if it does not. Slow, because only people read
/// it.
pub fn misspelling(target: &str) -> Option<Misspelling> {
    let path = without_query(target);
    let invisible = target.chars().find(|c| !c.is_ascii_graphic() || *c == '#');
    let ambiguous = || path.chars().find(|c| matches!(c, '%' | ';' | '\\'));
    if let Some(found) = invisible.or_else(ambiguous) {
        return Some(Misspelling::Character(found));
    }
    let Some(segments) = path.strip_prefix('/') else { return Some(Misspelling::NotRooted) };
    if path.len() > MAX_PATH_LEN {
        return Some(Misspelling::TooLong);
    }
    match segments {
        "" => None,
        _ if segments.ends_with('/') => Some(Misspelling::TrailingSlash),
        _ => segments.split('/').find_map(|segment| match segment {
            "" => Some(Misspelling::EmptySegment),
            "." | ".." => Some(Misspelling::DotSegment),
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(target: &str) -> Result<&str, Refusal> {
        canonical_path(target, without_query(target))
    }

    #[test]
    fn a_host_has_one_value() {
        let ring = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let ring = crate::keyring::KeyRing::parse(ring).unwrap();
        let tokens = Tokens::new(crate::token::Prefixes::default(), ring);
        let apis = Apis::embedded().unwrap();
        let refusal = |authority| {
            let target = "/proxy/acme/v1/models";
            let parts = RequestParts {
                method: "GET",
                authority,
                target,
                header: |_: &str| None,
                body: b"",
            };
            parse(&parts, &apis, &tokens).unwrap_err().refusal
        };
        for host in ["a", "a:80", "", "[::1]:80"] {
            assert_eq!(refusal(host), Refusal::MissingCredential, "{host}");
        }
        for host in ["a,b", "a,", ",", "a, b:80"] {
            assert_eq!(refusal(host), Refusal::BadRequest(MalformedPart::Authority), "{host}");
        }
    }

    #[test]
    fn one_spelling_of_a_path() {
        for path in ["/", "/a", "/a/b", "/a.b/..c/c..", "/a:b@c!$&'()*+=~_-", "/a?b=%2F//..;"] {
            let expected = path.split('?').next().unwrap();
            assert_eq!(canonical(path), Ok(expected), "{path}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH_LEN));
        for path in [
            "",
            "a",
            "*",
            "//",
            "/a/",
            "/a//b",
            "//a",
            "/.",
            "/a/.",
            "/./a",
            "/..",
            "/a/../b",
            "/%61",
            "/a%2Fb",
            "/a;b",
            "/a\\b",
            "/a#b",
            "/a?b#c",
            "/a b",
            "/a\tb",
            "/a\0b",
            "/ä",
            "/a\u{7f}",
            "http://x/a",
            &long,
        ] {
            assert_eq!(canonical(path), Err(Refusal::BadRequest(MalformedPart::Path)), "{path:?}");
        }
    }

    #[test]
    fn each_misspelling_has_its_name() {
        use Misspelling::*;
        let long = format!("/{}", "a".repeat(MAX_PATH_LEN));
        for (target, expected) in [
            ("/", None),
            ("/a/b?c=%2F//", None),
            ("/a#b", Some(Character('#'))),
            ("/a?b#c", Some(Character('#'))),
            ("/ä", Some(Character('ä'))),
            ("/a%2Fb", Some(Character('%'))),
            ("/a;b", Some(Character(';'))),
            ("a/b", Some(NotRooted)),
            ("", Some(NotRooted)),
            (&long, Some(TooLong)),
            ("/a/", Some(TrailingSlash)),
            ("//", Some(TrailingSlash)),
            ("/a//b", Some(EmptySegment)),
            ("/a/../b", Some(DotSegment)),
        ] {
            assert_eq!(misspelling(target), expected, "{target:.40}");
        }
    }

    /// Targets around the longest path, and with everything that gives a path another spelling.
    fn any_target() -> impl Strategy<Value = String> {
        let near_the_limit = (MAX_PATH_LEN - 3..MAX_PATH_LEN + 3, "[a/.?]{0,3}")
            .prop_map(|(length, rest)| format!("/{}{rest}", "a".repeat(length)));
        prop_oneof![".{0,12}", "/?[a-c./%;\\\\2eEfF?# ]{0,12}", "(/[a.]{0,2}){0,4}", near_the_limit]
    }

    proptest! {
        #[test]
        fn a_misspelling_is_found_in_what_is_refused_and_in_nothing_else(target in any_target()) {
            prop_assert_eq!(misspelling(&target).is_some(), canonical(&target).is_err());
        }

        /// A path that passes means the same to a server that collapses, decodes or strips.
        #[test]
        fn a_canonical_path_survives_normalisation(target in "/[a-c./%;\\\\2eEfF?# ]{0,12}") {
            if let Ok(path) = canonical(&target) {
                prop_assert!(!path.contains("//") && !path.contains(['%', ';', '\\', '?', '#']));
                prop_assert!(path.split('/').skip(1).all(|s| s != "." && s != ".."));
            }
        }
    }
}
