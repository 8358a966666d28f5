//! Seals what is kept in Redis, so that whoever can write there can deny service but never turn a
//! denial into an allow.
//!
//! `version (1 byte) ‖ HMAC-SHA-256 (32) ‖ postcard of (moment of verification, value)`. The MAC
//! covers version, kind, Redis key and payload: a genuine value is worth nothing under another key.

use hmac::Mac;
use serde::{Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;

use crate::{
    clock::Moment,
    keyring::{Key, KeyRing},
};

/// Goes up with every change of the payload's form; part of the Redis key, too, so that replicas
/// of two releases do not undo each other's entries.
pub(super) const VERSION: u8 = 1;
const MAC_LEN: usize = 32;

/// Seals with the current key. `None` is "there is no such thing".
pub(super) fn seal<V: Serialize>(
    ring: &KeyRing,
    redis_key: &str,
    verified: Moment,
    value: Option<&V>,
) -> Result<Vec<u8>, postcard::Error> {
    let payload = postcard::to_stdvec(&(verified, value))?;
    let mut sealed = Vec::with_capacity(1 + MAC_LEN + payload.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&mac(ring.current(), redis_key, &payload));
    sealed.extend_from_slice(&payload);
    Ok(sealed)
}

/// Opens what any key of the ring sealed for this `redis_key`; nothing else.
pub(super) fn open<V: DeserializeOwned>(
    ring: &KeyRing,
    redis_key: &str,
    sealed: &[u8],
) -> Option<(Moment, Option<V>)> {
    let (version, rest) = sealed.split_first()?;
    let (claimed, payload) = rest.split_at_checked(MAC_LEN)?;
    let genuine = |key: &Key| bool::from(mac(key, redis_key, payload).ct_eq(claimed));
    if *version != VERSION || !ring.keys().iter().any(genuine) {
        return None;
    }
    let (entry, rest) = postcard::take_from_bytes(payload).ok()?;
    rest.is_empty().then_some(entry)
}

/// The key names its kind. Its length is part of the input, so that no two inputs read alike.
fn mac(key: &Key, redis_key: &str, payload: &[u8]) -> [u8; MAC_LEN] {
    let mac = key.entries.clone();
    mac.chain_update([VERSION])
        .chain_update((redis_key.len() as u64).to_be_bytes())
        .chain_update(redis_key)
        .chain_update(payload)
        .finalize()
        .into_bytes()
        .into()
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

    #[test]
    fn opens_under_its_own_key_and_any_key_of_the_ring() {
        let sealed = seal(&ring(A), "k", Moment(7), Some(&1u32)).unwrap();
        let both = ring(&format!("{B}\n{A}"));
        assert_eq!(open(&both, "k", &sealed), Some((Moment(7), Some(1u32))));
        assert_eq!(open::<u32>(&both, "l", &sealed), None);
        assert_eq!(open::<u32>(&ring(B), "k", &sealed), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_opens_nothing(at in 0usize..64, flip in 1u8..) {
            let mut sealed = seal(&ring(A), "k", Moment(7), Some(&1u32)).unwrap();
            let at = at % sealed.len();
            sealed[at] ^= flip;
            prop_assert_eq!(open::<u32>(&ring(A), "k", &sealed), None);
        }

        #[test]
        fn garbage_opens_nothing(bytes: Vec<u8>) {
            prop_assert_eq!(open::<u32>(&ring(A), "k", &bytes), None);
        }
    }
}
