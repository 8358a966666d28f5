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

/// The clusters of the shipped configurations of Envoy that are no backends. A request that names one of
/// them in `x-upstream-cluster` would reach it: patgate itself, or the collector of traces.
const SHIPPED_CLUSTERS: [&str; 2] = ["otlp", "patgate"];

/// The names that no backend may have, because the gateway has clusters of its own under them: those of
/// the shipped configurations, and those that the operator adds. patgate makes no backend of such a name,
/// gives it no route, and lets no request through to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedNames(Vec<Box<str>>);

/// The error for a name that no backend may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is the name of one of the gateway's own clusters, so no backend may have it; choose another \
     name (routes.reserved)"
)]
pub struct ReservedName(BackendName);

impl ReservedNames {
    /// Adds names to those that are always reserved.
    pub fn with(more: impl IntoIterator<Item = String>) -> Self {
        let shipped = SHIPPED_CLUSTERS.into_iter().map(Box::from);
        Self(shipped.chain(more.into_iter().map(String::into_boxed_str)).collect())
    }

    /// Returns whether a name is reserved.
    pub fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|reserved| **reserved == *name)
    }

    /// Checks the name of a backend that shall be made.
    ///
    /// # Errors
    ///
    /// If the name is reserved.
    pub fn admit(&self, name: &BackendName) -> Result<(), ReservedName> {
        if self.holds(name.as_str()) { Err(ReservedName(name.clone())) } else { Ok(()) }
    }
}

impl Default for ReservedNames {
    fn default() -> Self {
        Self::with([])
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

    /// Every cluster of the shipped configurations is a backend of the examples, reserved, or has a name
    /// that no backend can have; or the guard refuses what patgate has let through to it.
    #[test]
    fn clusters_that_are_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../envoy");
        let reserved = ReservedNames::default();
        let mut seen = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            // With what the document switches on by removing these marks.
            let text = std::fs::read_to_string(&path).unwrap().replace("\n#~", "\n");
            let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            let clusters = read["static_resources"]["clusters"].as_array();
            for cluster in clusters.into_iter().flatten() {
                let name = cluster["name"].as_str().unwrap();
                let is_backend = name.starts_with("model-");
                let cannot_be = name.parse::<BackendName>().is_err();
                let is_exception = path.ends_with("other-authentication.yaml")
                    && ["login", "orders"].contains(&name);
                assert!(
                    is_backend || cannot_be || is_exception || reserved.holds(name),
                    "{name} of {path:?}"
                );
                seen += 1;
            }
        }
        assert!(seen >= 12, "{seen}");
    }

    #[test]
    fn reserved_names() {
        let name = |text: &str| text.parse::<BackendName>().unwrap();
        let some = ReservedNames::with(["internal-api".to_owned()]);
        for reserved in ["patgate", "otlp", "internal-api"] {
            let told = some.admit(&name(reserved)).unwrap_err().to_string();
            assert!(told.contains(reserved) && told.contains("routes.reserved"), "{told}");
        }
        for free in ["patgate-1", "patgat", "model-acme", "internal"] {
            assert_eq!(some.admit(&name(free)), Ok(()));
        }
        assert!(!ReservedNames::default().holds("internal-api"));
    }

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
