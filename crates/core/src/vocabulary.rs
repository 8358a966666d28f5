//! Closed vocabularies: enums whose words are the same in tables, settings, the database and the CLI.
//!
//! Words are matched exactly. A word outside a vocabulary is an error where it is written.

/// A word that is not in the vocabulary.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what} `{word}`; expected one of: {expected}")]
pub struct UnknownWord {
    what: &'static str,
    word: String,
    expected: String,
}

impl UnknownWord {
    /// Returns the error for `word`, where one of `expected` names a `what`.
    pub fn new(what: &'static str, word: &str, expected: &[&str]) -> Self {
        Self { what, word: word.to_owned(), expected: expected.join(" ") }
    }
}

/// Declares an enum of words, each in one spelling.
#[macro_export]
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All words, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the word, as it is written in the database, in API tables and in the CLI.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::vocabulary::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::vocabulary::UnknownWord::new($what, word, &[$($word),+])),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub use crate::vocabulary;
