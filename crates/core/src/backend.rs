//! A backend: its name, which is the name of an Envoy cluster, and its own credential.

use std::{fmt, str::FromStr, sync::OnceLock};

use crate::{
    credential::{Credential, OpenedCredential, Sealed},
    keyring::KeyBasis,
};

/// The longest name of a backend, in bytes.
const MAX_NAME_LEN: usize = 63;

/// A backend's name: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(Box<str>);

/// The error for a text that cannot be the name of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a backend's name: 1 to {MAX_NAME_LEN} characters of a-z, 0-9, ., _ and -, beginning \
     with a letter or digit"
)]
pub struct BackendNameError;

impl BackendName {
    /// Returns the name as text.
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

/// A backend, as it was when it was read from Postgres.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Backend {
    name: Box<str>,
    credential: Option<Sealed>,
    /// Filled once, when the backend enters memory; the opened credential is stored nowhere else.
    #[serde(skip)]
    opened: OnceLock<OpenedCredential>,
}

/// The error for a backend whose credential could not be opened. No request must be sent to it.
#[derive(Debug, PartialEq, Eq)]
pub struct UnopenedCredential;

impl Backend {
    /// Makes a backend, with its credential if it has one.
    pub fn new(name: Box<str>, credential: Option<Sealed>) -> Self {
        Self { name, credential, opened: OnceLock::new() }
    }

    /// Returns the name of its Envoy cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens its credential, or records that it cannot be opened, unless that was done already.
    pub fn open_credential(&self, open: impl FnOnce(&str, &Sealed) -> OpenedCredential) {
        if let Some(sealed) = &self.credential {
            self.opened.get_or_init(|| open(&self.name, sealed));
        }
    }

    /// Returns the credential that the backend gets, if it has one.
    ///
    /// # Errors
    ///
    /// Returns an error if its credential could not be opened.
    pub fn credential(&self) -> Result<Option<&Credential>, UnopenedCredential> {
        match &self.credential {
            None => Ok(None),
            Some(_) => {
                let opened = self.opened.get().and_then(OpenedCredential::credential);
                opened.map(Some).ok_or(UnopenedCredential)
            }
        }
    }

    /// Returns what the result of opening its credential rests on, if it has one and that was tried.
    pub fn basis(&self) -> Option<KeyBasis> {
        self.opened.get().and_then(OpenedCredential::basis)
    }

    /// Returns the bytes on the heap, for the limit of the memory tier.
    pub fn heap_size(&self) -> usize {
        let credential = self.credential.as_ref();
        // The credential is there twice: sealed and opened.
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
