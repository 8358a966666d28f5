//! The key ring: up to four keys of 32 bytes, from each of which one key per purpose is derived.
//!
//! A file holds one `<key id>:<base64>` per line. The first key signs and seals, all of them
//! verify. To rotate: add the new key as the second line on every replica, then move it to the top;
//! drop the old line when no live token needs it. [`LiveRing`] is the ring that is in force, and says
//! what becomes of everything that rests on a key that has left it.

mod live;

use std::{
    fmt,
    num::NonZeroU64,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit};
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

pub use self::live::{KeyBasis, LiveRing, RETIRED_FOR, RingChange};

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// Most keys in a ring. Each is tried on a token, so their number bounds the work that a forged
/// token can cause.
pub const MAX_KEYS: usize = 4;

/// The name of a key: `[a-z0-9][a-z0-9-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyRingError;

    fn from_str(text: &str) -> Result<Self, KeyRingError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        match text.as_bytes() {
            [first, rest @ ..]
                if plain(*first)
                    && rest.len() < 32
                    && rest.iter().all(|byte| plain(*byte) || *byte == b'-') =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(KeyRingError::Id),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is wrong with a key ring. The error never shows key material.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeyRingError {
    #[error("a key id is 1 to 32 characters of a-z, 0-9 and -, and does not begin with -")]
    Id,
    #[error("line {0}: expected `<key id>:<base64 of 32 bytes>`")]
    Line(usize),
    #[error("line {0}: this key id occurs twice")]
    Repeated(usize),
    #[error("no key")]
    Empty,
    #[error("more than {MAX_KEYS} keys; drop the ones that no live token needs")]
    TooMany,
}

/// Distinguishes a key from every other one that this process has read, those of the same name and
/// those that are no longer there included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySerial(NonZeroU64);

impl KeySerial {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // A process that reads a billion keys per second runs out of them after 584 years.
        Self(NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Relaxed)))
    }
}

/// The keys of one deployment, the current one first. Two rings are equal if they have the same keys
/// under the same names in the same order.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<DerivedKeys>,
}

/// One key, in the form of the keys that are derived from it.
#[derive(Clone)]
pub struct DerivedKeys {
    /// The name of the key, under which tokens and credentials are stored.
    pub id: KeyId,
    serial: KeySerial,
    /// Equal for equal keys. It is derived from the key, and never shown.
    fingerprint: Zeroizing<[u8; 32]>,
    /// The key that signs tokens.
    pub(crate) tokens: HmacSha256,
    /// The keys that seal what passes through Redis.
    pub(crate) seals: SealKeys,
    /// The key that encrypts the credentials of backends.
    pub(crate) credentials: LessSafeKey,
    /// The key from which those of the cookies of sign-ins are derived.
    pub(crate) sign_ins: HmacSha256,
}

/// The keys that seal what passes through Redis.
#[derive(Clone)]
pub(crate) struct SealKeys {
    /// The key that seals entries.
    pub(crate) entries: HmacSha256,
    /// The key that seals what replicas send one another.
    pub(crate) relay: HmacSha256,
}

impl KeyRing {
    /// Reads the text of a key-ring file. Empty lines and `#` comments are skipped.
    ///
    /// # Errors
    ///
    /// Returns the number of the first line that is not a key.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<DerivedKeys> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = DerivedKeys::parse(line).ok_or(KeyRingError::Line(index + 1))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyRingError::Repeated(index + 1));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err(KeyRingError::Empty),
            1..=MAX_KEYS => Ok(Self { keys }),
            _ => Err(KeyRingError::TooMany),
        }
    }

    /// Returns the ids of the keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|key| &key.id)
    }

    /// Returns the key that signs and seals what is new.
    pub fn current(&self) -> &DerivedKeys {
        &self.keys[0]
    }

    /// Returns what distinguishes the key of this name from all others.
    pub fn serial_of(&self, id: &str) -> Option<KeySerial> {
        self.keys.iter().find(|key| key.id.as_str() == id).map(DerivedKeys::serial)
    }

    pub(crate) fn keys(&self) -> &[DerivedKeys] {
        &self.keys
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// Two keys are equal if they have the same name and the same secret.
impl PartialEq for DerivedKeys {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && bool::from(self.fingerprint.ct_eq(&*other.fingerprint))
    }
}

impl Eq for DerivedKeys {}

impl DerivedKeys {
    /// Returns what distinguishes this key from all others.
    pub fn serial(&self) -> KeySerial {
        self.serial
    }

    fn parse(line: &str) -> Option<Self> {
        let (id, encoded) = line.split_once(':')?;
        let id = id.parse().ok()?;
        let mut secret = Zeroizing::new([0; 32]);
        let mut decoded = Zeroizing::new(BASE64_STANDARD.decode(encoded).ok()?);
        if decoded.len() != secret.len() {
            return None;
        }
        secret.copy_from_slice(&decoded);
        decoded.zeroize();
        Some(Self {
            id,
            serial: KeySerial::next(),
            fingerprint: derive(&secret, "patgate v1 key ring"),
            tokens: hmac(&secret, "patgate v1 tokens"),
            seals: SealKeys {
                entries: hmac(&secret, "patgate v1 redis entries"),
                relay: hmac(&secret, "patgate v1 relay"),
            },
            credentials: aead(&secret, "patgate v1 backend credentials"),
            sign_ins: hmac(&secret, "patgate v1 sign-ins"),
        })
    }
}

/// Derives a key by HKDF-SHA-256 (RFC 5869) without salt; `label` is the info.
fn derive(secret: &[u8; 32], label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "fails for more than 255 * 32 bytes only")]
    Hkdf::<Sha256>::new(None, secret).expand(label.as_bytes(), key.as_mut()).expect("32 bytes");
    key
}

fn hmac(secret: &[u8; 32], label: &str) -> HmacSha256 {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    HmacSha256::new_from_slice(derive(secret, label).as_ref()).expect("any length")
}

fn aead(secret: &[u8; 32], label: &str) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "ChaCha20-Poly1305 takes a key of 32 bytes")]
    let key = UnboundKey::new(&CHACHA20_POLY1305, derive(secret, label).as_ref()).expect("32");
    LessSafeKey::new(key)
}

/// Returns a new line for a key-ring file, from the operating system's random numbers.
///
/// # Errors
///
/// Returns an error if the operating system has no random numbers.
pub fn new_line(id: &KeyId) -> Result<Zeroizing<String>, getrandom::Error> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut())?;
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(secret.as_ref()));
    Ok(Zeroizing::new(format!("{id}:{}", encoded.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn reads_lines_and_names_the_bad_one() {
        let ring = KeyRing::parse(&format!("# current\n{A}\n\n  {B}  \n")).unwrap();
        assert_eq!(ring.ids().map(KeyId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        for (text, error) in [
            ("", KeyRingError::Empty),
            (&format!("{A}\nnonsense"), KeyRingError::Line(2)),
            (&format!("{A}\n{A}"), KeyRingError::Repeated(2)),
            ("a:AAEC", KeyRingError::Line(1)),
            ("A:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", KeyRingError::Line(1)),
            (
                &"abcde".chars().map(|id| format!("{id}{A}\n")).collect::<String>(),
                KeyRingError::TooMany,
            ),
        ] {
            assert_eq!(KeyRing::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_new_line_is_a_key_and_no_two_are_alike() {
        let id: KeyId = "k1".parse().unwrap();
        let one = new_line(&id).unwrap();
        let two = new_line(&id).unwrap();
        assert!(KeyRing::parse(&one).is_ok());
        assert_ne!(one, two);
    }

    /// A key is another one if its secret changes, even under the same name; comments and white space
    /// do not count.
    #[test]
    fn equal_rings_have_equal_keys_in_the_same_order() {
        let ring = |lines: &[&str]| KeyRing::parse(&lines.join("\n")).unwrap();
        assert_eq!(ring(&[A, B]), ring(&["# text", A, "", B]));
        let renamed = A.replace("a:", "b:");
        let namesake = B.replace("b:", "a:");
        for other in [&[B, A][..], &[A], &[A, &renamed], &[&namesake, B]] {
            assert_ne!(ring(&[A, B]), ring(other), "{other:?}");
        }
    }

    #[test]
    fn debug_shows_ids_only() {
        assert_eq!(format!("{:?}", KeyRing::parse(A).unwrap()), r#"[KeyId("a")]"#);
    }
}
