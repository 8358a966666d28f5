//! How an API takes tokens and answers refusals, and the words of the tables for it.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// A header in which clients may send their token and, for `authorization`, the scheme before it.
    TokenSource, "source of credentials" {
        Bearer = "authorization.Bearer",
        ApiKeyScheme = "authorization.Api-Key",
        XApiKey = "x-api-key",
        ApiKey = "api-key",
        XGoogApiKey = "x-goog-api-key",
        Subprotocol = "sec-websocket-protocol",
    }
}

vocabulary! {
    /// How a token may be sent in `Authorization`: `<scheme> <token>`.
    TokenScheme, "scheme" {
        Bearer = "Bearer",
        ApiKey = "Api-Key",
    }
}

vocabulary! {
    /// The status of the answer if the token is good, but does not permit the request.
    InsufficientStatus, "status" {
        Forbidden = "403",
        Unauthorized = "401",
    }
}

vocabulary! {
    /// Whether the backend checks `Content-Type` before it reads a body as JSON.
    ContentTypeUse, "use of Content-Type" {
        Checked = "checked",
        Ignored = "ignored",
    }
}

vocabulary! {
    /// The method of a request. Rules name no others.
    Method, "method" {
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
        Options = "OPTIONS",
    }
}

vocabulary! {
    /// A protocol to which a request may be upgraded.
    Upgrade, "upgrade" {
        Websocket = "websocket",
    }
}

/// How an API takes tokens and answers refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiStyle {
    /// The headers in which clients may send their tokens.
    pub sources: TokenSources,
    /// The status of the answer if the token does not permit the request.
    pub insufficient: InsufficientStatus,
}

/// Returns the style for a request that belongs to no API.
impl Default for ApiStyle {
    fn default() -> Self {
        Self { sources: TokenSources::default(), insufficient: InsufficientStatus::Forbidden }
    }
}

impl Method {
    /// Returns the method of a request; `None` for one that no rule can name.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == word)
    }
}

impl TokenSource {
    /// Returns the name of the header, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Bearer | Self::ApiKeyScheme => "authorization",
            Self::XApiKey => "x-api-key",
            Self::ApiKey => "api-key",
            Self::XGoogApiKey => "x-goog-api-key",
            Self::Subprotocol => "sec-websocket-protocol",
        }
    }

    /// Returns the scheme before the token, for a source in `authorization`.
    pub const fn scheme(self) -> Option<TokenScheme> {
        match self {
            Self::Bearer => Some(TokenScheme::Bearer),
            Self::ApiKeyScheme => Some(TokenScheme::ApiKey),
            _ => None,
        }
    }
}

/// The sources from which an API takes tokens, in the order of its table. At least one of them is in
/// `authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSources {
    list: [TokenSource; TokenSource::ALL.len()],
    length: u8,
}

impl Default for TokenSources {
    fn default() -> Self {
        Self { length: 1, ..Self::NONE }
    }
}

impl TokenSources {
    pub(super) const NONE: Self =
        Self { list: [TokenSource::Bearer; TokenSource::ALL.len()], length: 0 };

    fn as_slice(&self) -> &[TokenSource] {
        self.list.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Returns whether `source` is one of them.
    pub fn contains(&self, source: TokenSource) -> bool {
        self.as_slice().contains(&source)
    }

    /// Adds a source, which must not be one of them yet.
    #[must_use]
    pub fn with(mut self, source: TokenSource) -> Self {
        if let Some(next) = self.list.get_mut(usize::from(self.length)) {
            (*next, self.length) = (source, self.length + 1);
        }
        self
    }

    /// Returns the sources, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = TokenSource> {
        self.as_slice().iter().copied()
    }

    /// Returns the schemes of `authorization`, in the order of the table.
    pub fn schemes(&self) -> impl Iterator<Item = TokenScheme> {
        self.iter().filter_map(TokenSource::scheme)
    }

    /// Returns whether `name` is one of the schemes, ignoring case.
    pub fn accept_scheme(&self, name: &str) -> bool {
        self.schemes().any(|scheme| scheme.as_str().eq_ignore_ascii_case(name))
    }
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Methods(u8);

impl Methods {
    pub(super) const fn contains(self, method: Method) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    pub(super) const fn insert(&mut self, method: Method) {
        self.0 |= 1 << method as u8;
    }

    /// Returns the first method of the set, in the order of the vocabulary.
    pub(super) fn first(self) -> Option<Method> {
        self.common(self).next()
    }

    /// Returns whether the set has no methods except GET and HEAD.
    pub(super) const fn only_read(self) -> bool {
        self.0 & !(1 << Method::Get as u8 | 1 << Method::Head as u8) == 0
    }

    /// Returns the methods that are in both sets.
    pub(super) fn common(self, other: Self) -> impl Iterator<Item = Method> {
        let both = Self(self.0 & other.0);
        Method::ALL.iter().copied().filter(move |method| both.contains(*method))
    }
}
