//! A backend: its name, which is that of an Envoy cluster, and its own credential.

use std::{fmt, str::FromStr, sync::OnceLock};

use crate::credential::{Credential, Sealed};

/// How long a name may be.
const MAX_NAME_LEN: usize = 63;

/// A backend's name: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(Box<str>);

/// A text that cannot be a backend's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a backend's name: 1 to {MAX_NAME_LEN} characters of a-z, 0-9, ., _ and -, beginning \
     with a letter or digit"
)]
pub struct BackendNameError;

impl BackendName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackendName {
    type Err = BackendNameError;

    fn from_str(text: &str) -> Result<Self, BackendNameError> {
        let first = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        let fits = text.len() <= MAX_NAME_LEN
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(|byte| first(byte) || matches!(byte, b'.' | b'_' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(BackendNameError) }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A backend as of one moment.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Backend {
    name: Box<str>,
    credential: Option<Sealed>,
    /// Filled once, when the backend is taken into memory; no opened credential goes anywhere else.
    #[serde(skip)]
    opened: OnceLock<Option<Credential>>,
}

/// A backend has a credential, and it is not open: nothing may be sent there.
#[derive(Debug, PartialEq, Eq)]
pub struct Unopened;

impl Backend {
    /// A backend, with its credential if it has one.
    pub fn new(name: Box<str>, credential: Option<Sealed>) -> Self {
        Self { name, credential, opened: OnceLock::new() }
    }

    /// The name of its Envoy cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens its credential unless that is done already, or finds that it cannot be opened.
    pub fn open_credential(&self, open: impl FnOnce(&str, &Sealed) -> Option<Credential>) {
        if let Some(sealed) = &self.credential {
            self.opened.get_or_init(|| open(&self.name, sealed));
        }
    }

    /// What the backend wants to see in `Authorization`, if anything.
    ///
    /// # Errors
    ///
    /// When it has a credential that is not open.
    pub fn credential(&self) -> Result<Option<&Credential>, Unopened> {
        match (&self.credential, self.opened.get()) {
            (None, _) => Ok(None),
            (Some(_), Some(Some(opened))) => Ok(Some(opened)),
            (Some(_), _) => Err(Unopened),
        }
    }

    /// Bytes beside its own that it occupies, for the bound of the memory tier.
    pub(crate) fn heap_size(&self) -> usize {
        let credential = self.credential.as_ref();
        // Once sealed, once opened.
        self.name.len() + credential.map_or(0, |it| it.key_id.len() + 2 * it.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["vllm", "0.a_b-c", &"a".repeat(MAX_NAME_LEN)] {
            assert_eq!(good.parse::<BackendName>().unwrap().to_string(), good);
        }
        let longer = "a".repeat(MAX_NAME_LEN + 1);
        for bad in ["", "-a", ".a", "A", "aB", "a/b", "a b", "a\"b", "ä", "a\n", &longer] {
            assert_eq!(bad.parse::<BackendName>(), Err(BackendNameError), "{bad:?}");
        }
    }
}
