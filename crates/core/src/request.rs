//! Parses a request, from borrowed parts, into types that have one meaning.
//!
//! There is no I/O here. Of what a client sends, only host, method, path and credential decide:
//! `x-domain-id`, the query, or the context extensions of the edge are never identity.

mod credential;
mod header_edits;
mod path;

use memchr::memchr;

use crate::{
    api::{ApiStyle, Apis, MatchedApi, MatchedRule},
    body::{self, Body, BodyForm, ModelName, ResourceGate},
    domain::DomainRef,
    principal::Principal,
    refusal::{MalformedPart, NoModel, Refusal},
    token::{Tokens, VerifiedToken},
};

use self::{credential::RefusedCredential, path::canonical_path};
pub use self::{
    credential::behind_scheme,
    header_edits::{COOKIES, CREDENTIAL_HEADERS, HeaderEdit, HeaderEdits, SUBPROTOCOLS},
    path::{Misspelling, misspelling, without_query},
};

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
    /// The id that the proxy itself has given to the request, the same in each of its checks; empty if
    /// it gave none.
    pub stream: &'a [u8],
}

impl<'a, H> RequestParts<'a, H>
where
    H: Fn(&str) -> Option<&'a str>,
{
    /// Returns what distinguishes this request from all others that the proxy has in progress. That is
    /// the proxy's own id. A proxy that has none is identified by the request id, which a client may have
    /// chosen.
    pub fn in_progress(&self) -> (&'a [u8], &'a str) {
        match self.stream {
            [] => (self.stream, self.request_id()),
            stream => (stream, ""),
        }
    }

    /// Checks whether the body could name one model, before any of it is shown.
    ///
    /// # Errors
    ///
    /// Returns the reason why it could not, whatever it contains, as [`model`] would.
    pub fn may_name_a_model(&self, form: BodyForm) -> Result<(), NoModel> {
        if body::in_query(self.target).map_err(NoModel::Excessive)? {
            return Err(NoModel::InQuery);
        }
        self.shown().may_be_read(form)
    }

    /// Returns the length of the body in bytes, as the client states it; `None` if it states none, or
    /// no number.
    pub fn length(&self) -> Option<u64> {
        (self.header)("content-length")?.parse().ok()
    }

    /// Returns the gateway's id of the request, which is the same in each of its steps; an empty text
    /// if the gateway sent none.
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

/// Returns the one model that a body names, if the query of its request names none. `gate` grants
/// the memory and the time that decoding needs.
///
/// # Errors
///
/// Returns the reason why the request does not name exactly one model in its body, or the error of
/// `gate`.
pub fn model(
    target: &str,
    body: Body<'_>,
    form: BodyForm,
    gate: ResourceGate<'_>,
) -> Result<ModelName, NoModel> {
    if body::in_query(target).map_err(NoModel::Excessive)? {
        return Err(NoModel::InQuery);
    }
    body.model_with(form, gate)
}

/// A well-formed request that carries a token which a key of this ring signed. Only [`parse`] makes
/// one.
#[derive(Debug)]
pub struct AuthRequest<'a> {
    token: VerifiedToken,
    parsed: ParsedRequest<'a>,
}

/// What a well-formed request names, without its token. It proves nothing.
#[derive(Debug)]
pub struct ParsedRequest<'a> {
    /// The rule for the request; `None` if no rule names it.
    pub rule: Option<MatchedRule<'a>>,
    /// The API and the path of the request; `None` if its path belongs to no API.
    pub api_path: Option<ApiPath<'a>>,
    /// The domain that the request names. It need not exist.
    pub domain: Option<DomainRef>,
    /// How the API takes tokens and answers refusals.
    pub api_style: ApiStyle,
}

impl<'a> AuthRequest<'a> {
    /// Returns the token. Its tag is verified; whether it is live is not known yet.
    pub fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Returns the rule for the request; `None` if no rule names it.
    pub fn rule(&self) -> Option<&MatchedRule<'a>> {
        self.parsed.rule.as_ref()
    }

    /// Returns the API and the path of the request; `None` if its path belongs to no API.
    pub fn api_path(&self) -> Option<&ApiPath<'a>> {
        self.parsed.api_path.as_ref()
    }

    /// Returns the domain that the request names. It need not exist.
    pub fn domain(&self) -> Option<&DomainRef> {
        self.parsed.domain.as_ref()
    }

    /// Returns how the API takes tokens and answers refusals.
    pub fn api_style(&self) -> ApiStyle {
        self.parsed.api_style
    }

    /// Returns what the request names, and drops its token.
    pub fn into_parsed(self) -> ParsedRequest<'a> {
        self.parsed
    }

    /// Continues as if the client had sent the genuine token of `principal`. This proves nothing: it
    /// exists for `patgate check` and for self-service, which only show the decision, and a lint refuses
    /// any other use.
    pub fn presume_possession(&mut self, principal: &Principal) {
        self.token = VerifiedToken::presumed(self.token.id(), principal.digest.clone());
    }
}

/// A request that was refused before any lookup.
#[derive(Debug)]
pub struct RejectedRequest<'a> {
    /// The reason of the refusal.
    pub refusal: Refusal,
    /// The API and the path of the request; `None` if its path belongs to no API, or has another
    /// spelling.
    pub api_path: Option<ApiPath<'a>>,
    /// How the API takes tokens and answers refusals.
    pub api_style: ApiStyle,
    /// If the request has several credentials that differ, the only token among them. It proves
    /// nothing about the others.
    pub among: Option<Box<VerifiedToken>>,
}

impl<'a> RejectedRequest<'a> {
    fn new(refusal: Refusal, api_path: Option<ApiPath<'a>>, api_style: ApiStyle) -> Self {
        Self { refusal, api_path, api_style, among: None }
    }
}

/// An API, and a canonical path in it: what a request names, even if other parts of the request are
/// wrong. It is found once, for the decision, the mode and the record. It grants nothing.
#[derive(Clone, Debug)]
pub struct ApiPath<'a> {
    api: MatchedApi<'a>,
    path: &'a str,
    /// The query with its `?`; empty if there is none.
    query: &'a str,
}

impl<'a> ApiPath<'a> {
    /// Returns the domain that the request names, which need not exist.
    pub fn domain(&self) -> Option<DomainRef> {
        DomainRef::parse(&self.api.domain(self.path)?)
    }

    /// Returns the rule for a request with this method.
    pub fn rule(&self, method: &str) -> Option<MatchedRule<'a>> {
        self.api.rule_with_query(method, self.path, self.query)
    }

    /// Returns whether the rule for a request with this method permits a WebSocket.
    pub fn may_become_websocket(&self, method: &str) -> bool {
        self.api.may_become_websocket(method, self.path)
    }

    /// Returns the names of the cookies that must not reach a backend.
    pub fn cookies(&self) -> &'a [Box<str>] {
        self.api.cookies()
    }

    /// Finds the API and the path of a request, without reading its credential.
    pub fn of(authority: &'a str, target: &'a str, apis: &'a Apis) -> Option<Self> {
        let as_sent = without_query(target);
        let api = apis.find(authority, as_sent)?;
        let path = canonical_path(target, api.root(as_sent).unwrap_or(as_sent)).ok()?;
        Some(Self { api, path, query: target.get(as_sent.len()..).unwrap_or_default() })
    }
}

/// Parses a request: finds its API, its rule and its token. A malformed request is refused before a
/// missing or wrong credential is.
///
/// # Errors
///
/// Returns `BadRequest`, `MissingCredential`, `NotAToken` or `InvalidToken`, with what was found
/// before the refusal.
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
    // The API is found before anything is refused, so that every refusal has the API's form.
    let api = apis.find(parts.authority, as_sent);
    let api_style = api.as_ref().map_or_else(ApiStyle::default, |api| api.api_style());
    let root = api.as_ref().and_then(|api| api.root(as_sent));
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
    let api_path = api.map(|api| ApiPath { api, path, query });
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
            let served = api_path.as_ref().filter(served);
            let rule = served.and_then(|api_path| api_path.rule(parts.method));
            let domain = api_path.as_ref().and_then(ApiPath::domain);
            let parsed = ParsedRequest { rule, api_path, domain, api_style };
            Ok(AuthRequest { token, parsed })
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

#[cfg(test)]
mod tests {
    use super::*;

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
                stream: b"",
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
}
