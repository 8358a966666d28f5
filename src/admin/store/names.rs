//! Texts that administrators enter, as types that cannot hold an invalid one. The database checks the
//! same; here, the error says what was expected.

use std::{fmt, str::FromStr};

use uuid::Uuid;

pub use crate::backend::BackendName;
use crate::{
    domain::is_writable_pattern,
    legible::{holds_a_secret, misleads},
    principal::UserId,
};

/// A text that its type does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct InvalidText(&'static str);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the text, which has passed the check of its form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                let parse: fn(&str) -> Option<Box<str>> = $parse;
                parse(text).map(Self).ok_or(InvalidText($expected))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

/// Accepts a text of `least` to `most` characters, none of which makes it look like another text.
fn line(text: &str, least: usize, most: usize) -> Option<Box<str>> {
    let fits = (least..=most).contains(&text.chars().count());
    (fits && !text.contains(misleads)).then(|| text.into())
}

/// Accepts a text that a person made up. It must not hold a token or a key, which would be stored and
/// shown.
fn made_up(text: &str, least: usize, most: usize) -> Option<Box<str>> {
    line(text, least, most).filter(|text| !holds_a_secret(text))
}

/// Accepts an ASCII word of at most `most` bytes.
fn word(text: &str, most: usize, first: fn(u8) -> bool, rest: fn(u8) -> bool) -> Option<Box<str>> {
    let (head, tail) = text.as_bytes().split_first()?;
    (text.len() <= most && first(*head) && tail.iter().all(|byte| rest(*byte))).then(|| text.into())
}

text! {
    /// The author of a change, for the audit log.
    Actor, "an actor's name of 1 to 200 characters, legible and no secret", |text| made_up(text, 1, 200)
}

text! {
    /// A user's address, in lower case: it names the user.
    Email, "an e-mail address of at most 254 characters, such as `ada@example.com`", |text| {
        let (local, host) = text.split_once('@')?;
        let whole = made_up(text, 3, 254)?;
        let odd = |c: char| c == '@' || c.is_whitespace();
        let fits = !local.is_empty() && !host.is_empty() && !local.contains(odd) && !host.contains(odd);
        fits.then(|| whole.to_lowercase().into())
    }
}

text! {
    /// What people call a user or a domain.
    DisplayName, "a name of 1 to 200 characters, without control and bidirectional characters and without secrets", |text| made_up(text, 1, 200)
}

text! {
    /// The name of a token, unique among those of its owner.
    TokenName, "a token's name of 1 to 200 characters, without control and bidirectional characters and without secrets",
    |text| made_up(text, 1, 200)
}

text! {
    /// A description of what a token is for.
    Description, "a description of at most 2000 characters, without control and bidirectional characters and without secrets",
    |text| made_up(text, 0, 2000)
}

text! {
    /// The address of a backend. It is shown in lists, so it must not hold credentials.
    BackendUrl, "a URL such as `http://10.0.0.7:8000`, without spaces and without credentials",
    |text| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let odd = |c: char| c.is_whitespace() || misleads(c);
        (!authority.is_empty() && !authority.contains('@') && !rest.contains(odd)).then(|| text.into())
    }
}

text! {
    /// A provider whose users may sign in: the claim `iss` of its tokens, which is compared as it is.
    Issuer, "the issuer of a provider, such as `https://id.example.com/realms/main`: a URL of at most 500 characters, without credentials, query and fragment",
    |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let odd = |c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#');
        let fits = !rest.is_empty() && !rest.starts_with('/') && !rest.contains(odd);
        made_up(text, 1, 500).filter(|_| fits)
    }
}

text! {
    /// A user as a provider names them: the claim `sub` of its tokens. Some providers make it of 256
    /// random bits, in 43 or 44 characters; what looks like a secret and is longer is taken for one.
    Subject, "the claim `sub` of a user: 1 to 255 characters, without control and bidirectional characters and without secrets",
    |text| line(text, 1, 255).filter(|text| text.len() <= 44 || !holds_a_secret(text))
}

text! {
    /// The name of a role, unique in its domain.
    RoleName, "a role's name: 1 to 63 characters of a-z, 0-9, _ and -, beginning with a letter",
    |text| word(
        text,
        63,
        |byte| byte.is_ascii_lowercase(),
        |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'),
    )
}

text! {
    /// A model as requests name it, or a pattern of such names.
    ListedModel, "a model's name of 1 to 256 characters, without control and bidirectional characters; or, with one `*`, a pattern of letters, digits and `. _ - : / @ +`",
    |text| line(text, 1, 256).filter(|text| !text.contains('*') || is_writable_pattern(text))
}

text! {
    /// One entity, or `*` for all. A pattern is not accepted, because it would not match anything.
    EntityId, "`*` or an entity's id of 1 to 256 characters, without control and bidirectional characters and without `*`",
    |text| line(text, 1, 256).filter(|text| &**text == "*" || !text.contains('*'))
}

/// The API that a backend offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// A vLLM server.
    Vllm,
    /// An Ollama server.
    Ollama,
    /// Any other server with the API of OpenAI.
    Openai,
}

impl BackendKind {
    /// Returns the word for the kind in commands and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::Openai => "openai",
        }
    }
}

impl FromStr for BackendKind {
    type Err = InvalidText;

    fn from_str(word: &str) -> Result<Self, InvalidText> {
        [Self::Vllm, Self::Ollama, Self::Openai]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or(InvalidText("`vllm`, `ollama` or `openai`"))
    }
}

/// A user, as an operator names one to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    /// By id, which never changes.
    Id(UserId),
    /// By e-mail address.
    Email(Email),
}

impl UserRef {
    pub(super) fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(id.0),
            Self::Email(_) => None,
        }
    }

    pub(super) fn email(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Email(email) => Some(email.as_str()),
        }
    }
}

impl FromStr for UserRef {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        match text.parse() {
            Ok(email) => Ok(Self::Email(email)),
            Err(_) => Uuid::try_parse(text)
                .map(|id| Self::Id(UserId(id)))
                .map_err(|_| InvalidText("a user's e-mail address or id")),
        }
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Email(email) => email.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = InvalidText> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(
                text.parse::<T>().map_or_else(|error| error.to_string(), |t| t.to_string()),
                *text
            );
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn texts() {
        let long = "n ".repeat(100);
        let longer = "n ".repeat(101);
        let token = format!("pat_{}", "aB3".repeat(25));
        check::<DisplayName>(
            &["Ada", "Ångström & Söhne", &long],
            &[
                "",
                "a\nb",
                "a\x1b[2J",
                "a\0",
                &longer,
                "a\u{202e}b",
                "a\u{2066}",
                "\u{feff}a",
                &token,
            ],
        );
        check::<TokenName>(&["laptop"], &["a\u{202e}b", &token]);
        check::<Description>(&["", "for ci"], &["a\u{2067}b", &format!("has {token}")]);
        check::<Actor>(&["cli:ops"], &["cli:\u{200f}", &token]);
        check::<Email>(
            &["ada@example.com", "a@b"],
            &["", "ada", "@b", "a@", "a@b@c", "a b@c", "a@b\n", "a\u{202e}@b"],
        );
        check::<RoleName>(&["admin", "a-1_b"], &["", "1a", "_a", "Admin", "a b", &"a".repeat(64)]);
        check::<BackendUrl>(
            &["http://h", "https://h:8000/v1?x=@"],
            &[
                "",
                "h:8000",
                "ftp://h",
                "http://",
                "http:///x",
                "http://u:p@h",
                "http://h x",
                "http://h\n",
            ],
        );
        check::<Issuer>(
            &["https://id.example.com", "https://a.b/x/", "http://127.0.0.1:8080/realms/main"],
            &[
                "",
                "id.example.com",
                "https://",
                "https:///a",
                "https://u:p@h",
                "https://h?x",
                "https://h#x",
                "https://h x",
                "ldap://h",
                &format!("https://h/{token}"),
            ],
        );
        check::<Subject>(
            &["a", "auth0|5f7c", "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ"],
            &["", "a\nb", "a\u{202e}b", &"a".repeat(256), &token],
        );
        check::<ListedModel>(
            &["qwen2.5:7b", "org/model", "*", "qwen2.5-*", "org/*-7b", "a,b \u{fc}", "a_b:c@+*"],
            &[
                "",
                "a\tb",
                "a\u{202e}b",
                "**",
                "a*b*",
                "a,*",
                "* b",
                "*;b",
                "a|*",
                "\u{fc}*",
                "a\\*",
            ],
        );
        check::<EntityId>(&["*", "org/model"], &["", "**", "qwen*", "*a"]);
    }

    #[test]
    fn an_address_has_one_spelling() {
        assert_eq!("Ada@Example.COM".parse::<Email>().unwrap().as_str(), "ada@example.com");
    }

    #[test]
    fn users_by_id_or_address() {
        assert!(matches!("a@b".parse(), Ok(UserRef::Email(_))));
        assert!(matches!("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee".parse(), Ok(UserRef::Id(_))));
        assert!("ada".parse::<UserRef>().is_err());
    }
}
