//! How an API speaks to its clients, and what it listens to.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// A place where clients may send their token: a header and, for some, the scheme before it.
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
    /// The status for a token that is good but may not do this.
    InsufficientStatus, "status" {
        Forbidden = "403",
        Unauthorized = "401",
    }
}

vocabulary! {
    /// What the backend makes of `Content-Type` before it reads a body.
    ContentTypeUse, "use of Content-Type" {
        Checked = "checked",
        Ignored = "ignored",
    }
}

vocabulary! {
    /// What a request's line may begin with.
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
    /// What a request may be upgraded to.
    Upgrade, "upgrade" {
        Websocket = "websocket",
    }
}

/// How an API speaks to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiStyle {
    /// Where its clients may send their tokens.
    pub sources: TokenSources,
    /// What it answers to a token that may not do this.
    pub insufficient: InsufficientStatus,
}

/// For a request that belongs to no API.
impl Default for ApiStyle {
    fn default() -> Self {
        Self { sources: TokenSources::default(), insufficient: InsufficientStatus::Forbidden }
    }
}

impl Method {
    /// The method of a request, without the words that a mistake deserves.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == word)
    }
}

impl TokenSource {
    /// The header's name, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Bearer | Self::ApiKeyScheme => "authorization",
            Self::XApiKey => "x-api-key",
            Self::ApiKey => "api-key",
            Self::XGoogApiKey => "x-goog-api-key",
            Self::Subprotocol => "sec-websocket-protocol",
        }
    }

    /// The scheme before the token, in `authorization`.
    pub const fn scheme(self) -> Option<TokenScheme> {
        match self {
            Self::Bearer => Some(TokenScheme::Bearer),
            Self::ApiKeyScheme => Some(TokenScheme::ApiKey),
            _ => None,
        }
    }
}

/// The sources of an API, in the order of its table. One of them is in `authorization`.
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

    /// Whether `source` is one of them.
    pub fn contains(&self, source: TokenSource) -> bool {
        self.as_slice().contains(&source)
    }

    /// Adds a source that is not one of them yet.
    #[must_use]
    pub fn with(mut self, source: TokenSource) -> Self {
        if let Some(next) = self.list.get_mut(usize::from(self.length)) {
            (*next, self.length) = (source, self.length + 1);
        }
        self
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = TokenSource> {
        self.as_slice().iter().copied()
    }

    /// The schemes of `authorization`, in order.
    pub fn schemes(&self) -> impl Iterator<Item = TokenScheme> {
        self.iter().filter_map(TokenSource::scheme)
    }

    /// Whether `authorization` may name its scheme like this. The case is ignored.
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

    /// The first of them, in the order of the vocabulary.
    pub(super) fn first(self) -> Option<Method> {
        self.common(self).next()
    }

    /// Whether it holds none but GET and HEAD.
    pub(super) const fn only_read(self) -> bool {
        self.0 & !(1 << Method::Get as u8 | 1 << Method::Head as u8) == 0
    }

    /// What both hold.
    pub(super) fn common(self, other: Self) -> impl Iterator<Item = Method> {
        let both = Self(self.0 & other.0);
        Method::ALL.iter().copied().filter(move |method| both.contains(*method))
    }
}
