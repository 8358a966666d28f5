//! How an API speaks to its clients, and what it listens to.

use crate::operation::vocabulary;

vocabulary! {
    /// How an API words its errors.
    ErrorStyle, "error style" {
        Openai = "openai",
        Aigne = "aigne",
        Scim = "scim",
        Problem = "problem",
    }
}

vocabulary! {
    /// How a token may be sent: `Authorization: <scheme> <token>`.
    Scheme, "scheme" {
        Bearer = "Bearer",
        ApiKey = "Api-Key",
    }
}

vocabulary! {
    /// The status for a token that is good but may not do this.
    Insufficient, "status" {
        Forbidden = "403",
        Unauthorized = "401",
    }
}

vocabulary! {
    /// What the backend makes of `Content-Type` before it reads a body.
    ContentType, "use of Content-Type" {
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

/// How an API speaks to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How it words its errors.
    pub errors: ErrorStyle,
    /// How its clients may send their tokens.
    pub schemes: Schemes,
    /// What it answers to a token that may not do this.
    pub insufficient: Insufficient,
}

/// For a request that belongs to no API.
impl Default for Manner {
    fn default() -> Self {
        Self {
            errors: ErrorStyle::Openai,
            schemes: Schemes::default(),
            insufficient: Insufficient::Forbidden,
        }
    }
}

impl Method {
    /// The method of a request, without the words that a mistake deserves.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == word)
    }
}

/// A set of schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schemes(u8);

impl Default for Schemes {
    fn default() -> Self {
        Self::NONE.with(Scheme::Bearer)
    }
}

impl Schemes {
    pub(super) const NONE: Self = Self(0);

    /// Whether the set holds `scheme`.
    pub const fn contains(self, scheme: Scheme) -> bool {
        self.0 & (1 << scheme as u8) != 0
    }

    /// This set and `scheme`.
    #[must_use]
    pub const fn with(self, scheme: Scheme) -> Self {
        Self(self.0 | 1 << scheme as u8)
    }

    /// The members, `Bearer` first.
    pub fn iter(self) -> impl Iterator<Item = Scheme> {
        Scheme::ALL.iter().copied().filter(move |scheme| self.contains(*scheme))
    }

    /// Whether a client that names its scheme like this is listened to. Their case is ignored.
    pub fn accepts(self, name: &str) -> bool {
        self.iter().any(|scheme| scheme.as_str().eq_ignore_ascii_case(name))
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

    /// What both hold.
    pub(super) fn common(self, other: Self) -> impl Iterator<Item = Method> {
        let both = Self(self.0 & other.0);
        Method::ALL.iter().copied().filter(move |method| both.contains(*method))
    }
}
