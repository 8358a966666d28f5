//! Seals what is kept in Redis, so that whoever can write there can deny service but never turn a
//! denial into an allow.
//!
//! `version (1 byte) ‖ HMAC-SHA-256 (32) ‖ postcard of an [`Entry`]`. The MAC covers version,
//! vocabulary, Redis key, which names the kind, and payload: a genuine value is worth nothing under another key.

use std::sync::LazyLock;

use hmac::Mac;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    clock::Moment,
    feed::Stamp,
    keyring::{Key, KeyRing},
    operation::{EntityType, Operation},
};

/// Goes up with every change of the payload's form; part of the Redis key, too, so that replicas
/// of two releases do not undo each other's entries.
pub(super) const VERSION: u8 = 1;
const MAC_LEN: usize = 32;

/// A finding as Redis holds it. `None` is "there is no such thing".
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry<V, S = Stamp> {
    pub(super) verified: Moment,
    pub(super) stamp: S,
    pub(super) value: Option<V>,
}

/// Seals with the current key.
pub(super) fn seal<V: Serialize>(
    ring: &KeyRing,
    redis_key: &str,
    entry: &Entry<&V, &Stamp>,
) -> Result<Vec<u8>, postcard::Error> {
    let payload = postcard::to_stdvec(entry)?;
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
) -> Option<Entry<V>> {
    let (version, rest) = sealed.split_first()?;
    let (claimed, payload) = rest.split_at_checked(MAC_LEN)?;
    let genuine = |key: &Key| bool::from(mac(key, redis_key, payload).ct_eq(claimed));
    if *version != VERSION || !ring.keys().iter().any(genuine) {
        return None;
    }
    let (entry, rest) = postcard::take_from_bytes(payload).ok()?;
    rest.is_empty().then_some(entry)
}

/// Payloads hold operations and entity types by their position, so an entry means something only
/// to a release with the same vocabulary in the same order.
static VOCABULARY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let operations = Operation::ALL.iter().map(|word| word.as_str());
    let types = EntityType::ALL.iter().map(|word| word.as_str());
    let words: Vec<_> = operations.chain(["/"]).chain(types).collect();
    Sha256::digest(words.join(" ")).into()
});

/// The key names its kind. Its length is part of the input, so that no two inputs read alike.
fn mac(key: &Key, redis_key: &str, payload: &[u8]) -> [u8; MAC_LEN] {
    let mac = key.entries.clone();
    mac.chain_update([VERSION])
        .chain_update(*VOCABULARY)
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
    use crate::feed::Server;

    const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).unwrap()
    }

    fn stamp() -> Stamp {
        let server = Server { system: 1, timeline: 1, life: 1 };
        Stamp { server, snapshot: "10:20:12".parse().unwrap() }
    }

    fn sealed(redis_key: &str) -> Vec<u8> {
        let (stamp, value) = (&stamp(), Some(&1u32));
        seal(&ring(A), redis_key, &Entry { verified: Moment(7), stamp, value }).unwrap()
    }

    #[test]
    fn opens_under_its_own_key_and_any_key_of_the_ring() {
        let sealed = sealed("k");
        let both = ring(&format!("{B}\n{A}"));
        let entry = Entry { verified: Moment(7), stamp: stamp(), value: Some(1u32) };
        assert_eq!(open(&both, "k", &sealed), Some(entry));
        assert_eq!(open::<u32>(&both, "l", &sealed), None);
        assert_eq!(open::<u32>(&ring(B), "k", &sealed), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_opens_nothing(at in 0usize..64, flip in 1u8..) {
            let mut sealed = sealed("k");
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
