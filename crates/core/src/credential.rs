//! A backend's own credential, which patgate puts into one header of the request to it.
//!
//! Postgres and Redis store it encrypted with ChaCha20-Poly1305: `version (1 byte) ‖ nonce (12) ‖
//! ciphertext ‖ tag (16)`. The key is derived from the key ring for this one purpose. The tag also
//! covers version, key id and the backend's name, so a sealed credential cannot be used in another
//! backend's row.
//!
//! The version says which header it is for, and the tag covers it. So an attacker who can write to
//! a store cannot have the credential sent in a header that a backend repeats to its clients.

use std::{fmt, str::FromStr, sync::Arc};

use ring::aead::{Aad, NONCE_LEN, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    keyring::{KeyBasis, KeyId, KeyRing, KeySerial, LiveRing},
    vocabulary::vocabulary,
};

/// Longer than any key or signed token that a backend accepts, and short enough for any server.
const MAX_LEN: usize = 4096;

vocabulary! {
    /// A header that may carry a backend's credential. Other headers are not possible, because some
    /// backends write them into logs and answers.
    CredentialHeader, "header for a credential" {
        Authorization = "authorization",
        XApiKey = "x-api-key",
        ApiKey = "api-key",
    }
}

impl CredentialHeader {
    /// Returns the version of the sealed form. Each header has its own version, which never changes.
    const fn version(self) -> u8 {
        match self {
            Self::Authorization => 1,
            Self::XApiKey => 2,
            Self::ApiKey => 3,
        }
    }
}

/// A header that a backend trusts, and its value. Clones share the value; it is wiped with the last
/// one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    header: CredentialHeader,
    value: Arc<Zeroizing<String>>,
}

/// How a key is written into `authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialScheme {
    /// The value is `Bearer <key>`.
    Bearer,
    /// The value is `Basic <key>`.
    Basic,
    /// The value is `Api-Key <key>`.
    ApiKey,
}

impl FromStr for CredentialScheme {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "bearer" => Ok(Self::Bearer),
            "basic" => Ok(Self::Basic),
            "api-key" => Ok(Self::ApiKey),
            _ => Err("expected `bearer`, `basic` or `api-key`"),
        }
    }
}

/// A value that cannot be in the header. The error never shows it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a credential is 1 to {MAX_LEN} visible ASCII characters, its scheme included if it has one; \
     without spaces and without the scheme's name"
)]
pub struct CredentialError;

impl Credential {
    /// Makes a credential for `authorization`, with its scheme.
    ///
    /// # Errors
    ///
    /// Returns an error if the key contains what would end the header, or what a server might read
    /// in two ways.
    pub fn new(scheme: CredentialScheme, key: &str) -> Result<Self, CredentialError> {
        let scheme = match scheme {
            CredentialScheme::Bearer => "Bearer",
            CredentialScheme::Basic => "Basic",
            CredentialScheme::ApiKey => "Api-Key",
        };
        Self::parse(CredentialHeader::Authorization, format!("{scheme} {key}").into())
            .ok_or(CredentialError)
    }

    /// Makes a credential that is the whole value of a header other than `authorization`.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn bare(header: CredentialHeader, key: &str) -> Result<Self, CredentialError> {
        Self::parse(header, key.to_owned().into()).ok_or(CredentialError)
    }

    fn parse(header: CredentialHeader, value: Zeroizing<String>) -> Option<Self> {
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let well_formed = match header {
            CredentialHeader::Authorization => {
                value.split_once(' ').is_some_and(|(scheme, key)| visible(scheme) && visible(key))
            }
            CredentialHeader::XApiKey | CredentialHeader::ApiKey => visible(&value),
        };
        let fits = value.len() <= MAX_LEN && well_formed;
        fits.then(|| Self { header, value: Arc::new(value) })
    }

    /// Returns the header that carries it.
    pub fn header(&self) -> CredentialHeader {
        self.header
    }

    /// Returns the value, for the one place that sends it to Envoy.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A credential in its stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The id of the key of the ring that opens it.
    pub key_id: Box<str>,
    /// The version, the nonce, the encrypted value and the tag.
    pub bytes: Box<[u8]>,
}

/// The result of opening a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedCredential {
    credential: Option<Credential>,
    /// What this rests on; `None` if the result is presumed.
    basis: Option<KeyBasis>,
}

impl OpenedCredential {
    /// Presumes a result, for commands and tests that have no key ring.
    pub fn presumed(credential: Option<Credential>) -> Self {
        Self { credential, basis: None }
    }

    /// Returns the credential; `None` if no key of the ring has opened it.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Returns what the result rests on: the key that opened it, or the ring that could not. `None` if it
    /// is presumed.
    pub fn basis(&self) -> Option<KeyBasis> {
        self.basis
    }
}

/// The operating system has no random numbers, or encryption failed.
#[derive(Debug, thiserror::Error)]
#[error("the credential could not be sealed")]
pub struct SealError;

impl Sealed {
    /// Seals a credential for one backend, with the current key.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no random numbers for a nonce.
    pub fn seal(ring: &KeyRing, backend: &str, credential: &Credential) -> Result<Self, SealError> {
        let key = ring.current();
        // Random, not counted: a key seals a few credentials, not the billions after which 96
        // random bits are likely to repeat.
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError)?;
        let mut text = Zeroizing::new(credential.expose().as_bytes().to_vec());
        let tag = key
            .credentials
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                context(credential.header, &key.id, backend),
                &mut text,
            )
            .map_err(|_| SealError)?;
        let bytes =
            [&[credential.header.version()][..], &nonce, &text, tag.as_ref()].concat().into();
        Ok(Self { key_id: key.id.as_str().into(), bytes })
    }

    /// Opens the credential if it was sealed for this backend by a key that is in force.
    pub fn open_live(&self, ring: &LiveRing, backend: &str) -> OpenedCredential {
        let unopened = ring.as_basis();
        match self.open_under(&ring.load(), backend) {
            Some((credential, key)) => {
                OpenedCredential { credential: Some(credential), basis: Some(KeyBasis::Key(key)) }
            }
            None => OpenedCredential { credential: None, basis: Some(unopened) },
        }
    }

    /// Opens the credential if it was sealed for this backend by a key that is in the ring.
    pub fn open(&self, ring: &KeyRing, backend: &str) -> Option<Credential> {
        self.open_under(ring, backend).map(|(credential, _)| credential)
    }

    fn open_under(&self, ring: &KeyRing, backend: &str) -> Option<(Credential, KeySerial)> {
        let key = ring.keys().iter().find(|key| key.id.as_str() == &*self.key_id)?;
        let (version, rest) = self.bytes.split_first()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let header =
            CredentialHeader::ALL.iter().copied().find(|header| header.version() == *version)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut text = Zeroizing::new(text.to_vec());
        let text = key
            .credentials
            .open_in_place(nonce, context(header, &key.id, backend), &mut text)
            .ok()?;
        let text = Zeroizing::new(str::from_utf8(text).ok()?.to_owned());
        Some((Credential::parse(header, text)?, key.serial()))
    }
}

/// Returns what a sealed credential is bound to. Neither name can have a zero byte.
fn context(header: CredentialHeader, key_id: &KeyId, backend: &str) -> Aad<Vec<u8>> {
    Aad::from([&[header.version()], key_id.as_str().as_bytes(), &[0], backend.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).unwrap()
    }

    fn credential() -> Credential {
        Credential::new(CredentialScheme::Bearer, "sk-1").unwrap()
    }

    fn sealed() -> Sealed {
        Sealed::seal(&ring(A), "vllm", &credential()).unwrap()
    }

    #[test]
    fn opens_for_its_backend_by_its_key_wherever_that_stands() {
        let sealed = sealed();
        let opened = sealed.open(&ring(&format!("{B}\n{A}")), "vllm").unwrap();
        assert_eq!(opened.expose(), "Bearer sk-1");
        assert_eq!(sealed.open(&ring(A), "vllm2"), None);
        assert_eq!(sealed.open(&ring(B), "vllm"), None);
        // The same key under another name, and another key under the same name.
        let renamed = Sealed { key_id: "b".into(), ..sealed.clone() };
        assert_eq!(renamed.open(&ring(&A.replace("a:", "b:")), "vllm"), None);
        assert_eq!(sealed.open(&ring(&B.replace("b:", "a:")), "vllm"), None);
    }

    #[test]
    fn what_was_opened_counts_while_its_key_is_in_force_and_what_was_not_until_the_ring_changes() {
        let live = LiveRing::new(ring(&format!("{A}\n{B}")));
        let by_a = sealed();
        let by_b = Sealed::seal(&ring(B), "vllm", &credential()).unwrap();
        let open = || [&by_a, &by_b].map(|sealed| sealed.open_live(&live, "vllm"));
        let opened = open();
        let count = |these: &[OpenedCredential; 2]| {
            these.each_ref().map(|it| live.permits(it.basis().unwrap()))
        };
        assert!(opened.iter().all(|opened| opened.credential() == Some(&credential())));
        live.replace(ring(&format!("{B}\n{A}")), crate::clock::Tick::from_micros(0));
        assert_eq!(count(&opened), [true, true]);
        live.replace(ring(B), crate::clock::Tick::from_micros(0));
        assert_eq!(count(&opened), [false, true]);
        let without = open();
        assert_eq!(without.each_ref().map(|it| it.credential().is_some()), [false, true]);
        assert_eq!(count(&without), [true, true]);
        // The key comes back, so that it can be opened.
        live.replace(ring(&format!("{B}\n{A}")), crate::clock::Tick::from_micros(0));
        assert_eq!((count(&opened), count(&without)), ([false, true], [false, true]));
        assert!(open().iter().all(|opened| opened.credential().is_some()));
    }

    /// A database login can change every stored byte.
    #[test]
    fn opens_for_the_header_that_it_was_sealed_for_and_for_no_other() {
        for header in CredentialHeader::ALL {
            let credential = match header {
                CredentialHeader::Authorization => credential(),
                CredentialHeader::XApiKey | CredentialHeader::ApiKey => {
                    Credential::bare(*header, "sk-1").unwrap()
                }
            };
            let sealed = Sealed::seal(&ring(A), "vllm", &credential).unwrap();
            let opened = sealed.open(&ring(A), "vllm").unwrap();
            assert_eq!((opened.header(), &opened), (*header, &credential));
            for version in 0..=u8::MAX {
                let mut moved = sealed.clone();
                moved.bytes[0] = version;
                let opened = moved.open(&ring(A), "vllm");
                assert_eq!(opened.is_some(), version == header.version(), "{header} {version}");
            }
        }
    }

    #[test]
    fn no_two_are_alike_and_none_holds_the_text() {
        let one = sealed();
        let two = sealed();
        assert_ne!(one, two);
        assert!(!one.bytes.windows(4).any(|window| window == b"sk-1"));
    }

    #[test]
    fn only_what_one_header_can_hold() {
        let longest = "k".repeat(MAX_LEN - "Bearer ".len());
        for good in ["k", "sk-proj_a.b~c+d/e==", "!#$%&'*:,;", &longest] {
            assert!(Credential::new(CredentialScheme::Bearer, good).is_ok(), "{good}");
        }
        for bad in
            ["", " ", "a b", " a", "a\t", "a\r\nx: y", "a\0", "a\x7f", "ä", &format!("{longest}k")]
        {
            assert_eq!(
                Credential::new(CredentialScheme::Bearer, bad),
                Err(CredentialError),
                "{bad}"
            );
        }
        for bad in ["", " ", "Bearer k", " a", "a\r\nx: y", "ä", &"k".repeat(MAX_LEN + 1)] {
            assert_eq!(
                Credential::bare(CredentialHeader::ApiKey, bad),
                Err(CredentialError),
                "{bad}"
            );
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", credential()), "Credential(…)");
        assert!(!format!("{:?} {CredentialError}", sealed()).contains("sk-1"));
    }

    proptest! {
        #[test]
        fn a_changed_byte_opens_nothing(at: usize, flip in 1u8..) {
            let mut sealed = sealed();
            let at = at % sealed.bytes.len();
            sealed.bytes[at] ^= flip;
            prop_assert_eq!(sealed.open(&ring(A), "vllm"), None);
        }

        #[test]
        fn garbage_opens_nothing(bytes: Vec<u8>) {
            let sealed = Sealed { key_id: "a".into(), bytes: bytes.into() };
            prop_assert_eq!(sealed.open(&ring(A), "vllm"), None);
        }
    }
}
