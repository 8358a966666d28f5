//! Seals what self-service leaves with a browser for the time in which a provider signs a user in.
//!
//! `version (1 byte) ‖ salt (32) ‖ ciphertext ‖ tag (16)`, by ChaCha20-Poly1305. Each cookie has a key
//! of its own, HMAC-SHA-256 of the salt, because anybody may ask for any number of cookies: with one
//! key for all, random nonces would repeat some day. The tag also covers the version and the context,
//! so a cookie of another site or another provider does not open.

use hmac::Mac as _;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::keyring::{DerivedKeys, KeyRing};

const VERSION: u8 = 1;
const SALT_LEN: usize = 32;

/// The operating system has no random numbers, or encryption failed.
#[derive(Debug, thiserror::Error)]
#[error("the cookie could not be sealed")]
pub struct CookieSealError;

/// Seals a text with the current key of the ring.
///
/// # Errors
///
/// Returns an error if there are no random numbers for a salt.
pub fn seal(ring: &KeyRing, context: &[u8], text: &[u8]) -> Result<Vec<u8>, CookieSealError> {
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).map_err(|_| CookieSealError)?;
    let mut sealed = Zeroizing::new(text.to_vec());
    let tag = key(ring.current(), &salt)
        .and_then(|key| {
            key.seal_in_place_separate_tag(nonce(), covered(context), sealed.as_mut()).ok()
        })
        .ok_or(CookieSealError)?;
    Ok([&[VERSION][..], &salt, &sealed, tag.as_ref()].concat())
}

/// Opens what a key of the ring has sealed in the same context. Returns `None` for anything else.
pub fn open(ring: &KeyRing, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (version, rest) = sealed.split_first()?;
    let (salt, sealed) = rest.split_first_chunk::<SALT_LEN>()?;
    if *version != VERSION {
        return None;
    }
    ring.keys().iter().find_map(|derived| {
        let mut text = Zeroizing::new(sealed.to_vec());
        let key = key(derived, salt)?;
        let length = key.open_in_place(nonce(), covered(context), text.as_mut()).ok()?.len();
        text.truncate(length);
        Some(text)
    })
}

fn key(derived: &DerivedKeys, salt: &[u8; SALT_LEN]) -> Option<LessSafeKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(&derived.sign_ins.clone().chain_update(salt).finalize().into_bytes());
    UnboundKey::new(&CHACHA20_POLY1305, bytes.as_ref()).ok().map(LessSafeKey::new)
}

/// Each key seals one text.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn covered(context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[VERSION], context].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn ring(lines: &[&str]) -> KeyRing {
        KeyRing::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn only_what_was_sealed_here_opens() {
        let old = ring(&[OLD]);
        let sealed = seal(&old, b"here", b"text").unwrap();
        assert_eq!(open(&old, b"here", &sealed).unwrap().as_slice(), b"text");
        // While keys rotate, and no longer.
        assert!(open(&ring(&[NEW, OLD]), b"here", &sealed).is_some());
        assert!(open(&ring(&[NEW]), b"here", &sealed).is_none());
        assert!(open(&old, b"elsewhere", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&old, b"here", &changed).is_none(), "{at}");
            assert!(open(&old, b"here", &sealed[..at]).is_none(), "{at}");
        }
        assert_ne!(seal(&old, b"here", b"text").unwrap(), sealed);
    }
}
