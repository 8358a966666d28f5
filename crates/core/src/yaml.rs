//! Reads a YAML document as text and structure, each with its line. The callers decide what a value
//! means, so that they can report all errors at once, each with its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value, and the line where it begins.
pub type Placed = Spanned<YamlNode>;

/// A node of a YAML document. Scalars are text. There is no `Debug`, because the text may be a secret.
pub enum YamlNode {
    /// A scalar, as it is spelled.
    Text(String),
    /// A sequence of nodes.
    List(Vec<Placed>),
    /// Pairs of a key and a node, in their order.
    Map(Vec<(Spanned<String>, Placed)>),
}

/// The place where a text stops being a document, and the reason.
pub struct YamlError {
    /// The number of the line, from 1.
    pub line: u64,
    /// The number of the column in characters, from 1.
    pub column: u64,
    /// The reason for the error.
    pub kind: YamlErrorKind,
}

/// The reason why a text is not a document.
pub enum YamlErrorKind {
    /// A map has a key twice.
    KeyTwice,
    /// The parser's message, which may quote the document.
    Malformed(String),
}

/// Reads one YAML document.
///
/// # Errors
///
/// Returns the place of the first error and its reason.
pub fn read(text: &str) -> Result<Placed, YamlError> {
    // A number keeps its spelling, if it could be written in more than one way.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location();
        let (line, column) = place.map_or((1, 1), |place| (place.line(), place.column()));
        let kind = match error {
            serde_saphyr::Error::DuplicateMappingKey { .. } => YamlErrorKind::KeyTwice,
            _ => YamlErrorKind::Malformed(error.to_string()),
        };
        YamlError { line, column, kind }
    })
}

pub(crate) fn line<T>(placed: &Spanned<T>) -> u64 {
    placed.referenced.line()
}

impl YamlNode {
    /// Returns the scalar; `None` for a list or a map.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Returns what the node is, in words for an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlNodeVisitor)
    }
}

struct YamlNodeVisitor;

impl<'de> Visitor<'de> for YamlNodeVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_str<E>(self, text: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<YamlNode, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(YamlNode::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlNode, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlNode::Map(entries))
    }
}
