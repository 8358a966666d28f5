//! The names of domains in requests: an id or a slug, each in exactly one spelling.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The most characters of a slug.
const MAX_SLUG_LEN: usize = 63;
/// How long a uuid is in its hyphenated form.
const UUID_LEN: usize = 36;

/// Identifies a domain for good. Public: it stands in paths, logs and headers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DomainId(pub Uuid);

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A domain's name in paths: `[a-z][a-z0-9-]{1,62}`, and never shaped like an id.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(Box<str>);

/// A text that cannot be a slug.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a domain's slug is 2 to {MAX_SLUG_LEN} characters of a-z, 0-9 and -, begins with a letter \
     and is not shaped like a uuid"
)]
pub struct SlugError;

impl Slug {
    /// Returns the slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_slug(text: &str) -> bool {
        (2..=MAX_SLUG_LEN).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && uuid_as_printed(text).is_none()
    }
}

impl FromStr for Slug {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        if Self::is_slug(text) { Ok(Self(text.into())) } else { Err(SlugError) }
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        if Self::is_slug(&text) { Ok(Self(text.into())) } else { Err(SlugError) }
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0.into()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How a request names a domain.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum DomainRef {
    /// By id, which never changes.
    Id(DomainId),
    /// By slug, which people read, and which an administrator may change.
    Slug(Slug),
}

impl DomainRef {
    /// What [`DomainRef::parse`] reads, for the error about any other text.
    pub const EXPECTED: &'static str = "expected a domain's slug, which is 2 to 63 characters of \
                                        a-z, 0-9 and - and begins with a letter, or its id in \
                                        lower case with hyphens";

    /// Reads an id in lower-case hyphenated form, or a slug. No text is both.
    pub fn parse(text: &str) -> Option<Self> {
        match uuid_as_printed(text) {
            Some(id) => Some(Self::Id(DomainId(id))),
            None => text.parse().ok().map(Self::Slug),
        }
    }
}

impl fmt::Display for DomainRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(slug) => slug.fmt(f),
        }
    }
}

/// Parses a uuid in the one form in which it is printed. The uuid crate also reads capitals, braces,
/// `urn:uuid:` and missing hyphens, which would give one domain many names.
fn uuid_as_printed(text: &str) -> Option<Uuid> {
    let well_formed = text.len() == UUID_LEN
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    if well_formed { Uuid::try_parse(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

    #[test]
    fn slugs() {
        for good in ["ab", "acme", "a1", "a-", "a--b", &"a".repeat(63)] {
            assert_eq!(good.parse::<Slug>().unwrap().as_str(), good);
        }
        for bad in ["", "a", "1a", "-a", "Acme", "ac me", "acme.", "äb", &"a".repeat(64), ID] {
            assert_eq!(bad.parse::<Slug>(), Err(SlugError), "{bad}");
            assert!(serde_json::from_value::<Slug>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_is_an_id_or_a_slug() {
        assert!(matches!(DomainRef::parse(ID), Some(DomainRef::Id(id)) if id.to_string() == ID));
        assert!(matches!(DomainRef::parse("acme"), Some(DomainRef::Slug(_))));
        // One hyphen aside, this is a slug like any other.
        let moved = "aaaaaaaab-bbb-4ccc-8ddd-eeeeeeeeeeee";
        assert!(matches!(DomainRef::parse(moved), Some(DomainRef::Slug(_))));
        for bad in [
            "",
            "AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE",
            "{aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee}",
            "urn:uuid:aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
            "01234567-89ab-4cde-8f01-23456789abc",
            "0123456789ab4cde8f0123456789abcd",
            " acme",
        ] {
            assert_eq!(DomainRef::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn prints_what_it_read() {
        for text in [ID, "acme"] {
            assert_eq!(DomainRef::parse(text).unwrap().to_string(), text);
        }
    }
}
