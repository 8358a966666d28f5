//! Seals what passes through Redis, so that whoever can write there can deny service but never turn
//! a denial into an allow.
//!
//! `version (1 byte) ‖ HMAC-SHA-256 (32) ‖ postcard of the payload`. The key is derived for one
//! purpose. The MAC covers version, vocabulary, the place in Redis, and payload: a genuine value is
//! worth nothing in another place.

use std::sync::LazyLock;

use hmac::Mac;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    keyring::{HmacSha256, Key, KeyRing},
    operation::{EntityType, Operation},
};

/// Goes up with every change of a payload's form; part of the Redis keys, too, so that replicas of
/// two releases do not undo each other's entries.
pub(crate) const VERSION: u8 = 3;
const MAC_LEN: usize = 32;

/// What is sealed, which decides by which key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// What a token or a domain resolves to.
    Entries,
    /// The feed of changes on its way from one replica to the others, and their leases.
    Relay,
}

/// Seals with the current key.
pub(crate) fn seal(
    ring: &KeyRing,
    purpose: Purpose,
    place: &str,
    payload: &impl Serialize,
) -> Result<Vec<u8>, postcard::Error> {
    let payload = postcard::to_stdvec(payload)?;
    let mut sealed = Vec::with_capacity(1 + MAC_LEN + payload.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&mac(ring.current(), purpose, place, &payload));
    sealed.extend_from_slice(&payload);
    Ok(sealed)
}

/// Opens what any key of the ring sealed for this purpose and place; nothing else.
pub(crate) fn open<T: DeserializeOwned>(
    ring: &KeyRing,
    purpose: Purpose,
    place: &str,
    sealed: &[u8],
) -> Option<T> {
    let (version, rest) = sealed.split_first()?;
    let (claimed, payload) = rest.split_at_checked(MAC_LEN)?;
    let genuine = |key: &Key| bool::from(mac(key, purpose, place, payload).ct_eq(claimed));
    if *version != VERSION || !ring.keys().iter().any(genuine) {
        return None;
    }
    let (payload, rest) = postcard::take_from_bytes(payload).ok()?;
    rest.is_empty().then_some(payload)
}

/// Payloads hold operations and entity types by their position, so an entry means something only
/// to a release with the same vocabulary in the same order.
static VOCABULARY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let operations = Operation::ALL.iter().map(|word| word.as_str());
    let types = EntityType::ALL.iter().map(|word| word.as_str());
    let words: Vec<_> = operations.chain(["/"]).chain(types).collect();
    Sha256::digest(words.join(" ")).into()
});

/// The length of the place is part of the input, so that no two inputs read alike.
fn mac(key: &Key, purpose: Purpose, place: &str, payload: &[u8]) -> [u8; MAC_LEN] {
    let mac: HmacSha256 = match purpose {
        Purpose::Entries => key.entries.clone(),
        Purpose::Relay => key.relay.clone(),
    };
    mac.chain_update([VERSION])
        .chain_update(*VOCABULARY)
        .chain_update((place.len() as u64).to_be_bytes())
        .chain_update(place)
        .chain_update(payload)
        .finalize()
        .into_bytes()
        .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Purpose::*, *};

    const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).unwrap()
    }

    fn sealed() -> Vec<u8> {
        seal(&ring(A), Entries, "k", &(7u8, "some", Some(1u32))).unwrap()
    }

    #[test]
    fn opens_in_its_own_place_for_its_purpose_and_by_any_key_of_the_ring() {
        type Payload = (u8, String, Option<u32>);
        let (sealed, both) = (sealed(), ring(&format!("{B}\n{A}")));
        let payload = (7, "some".to_owned(), Some(1));
        assert_eq!(open::<Payload>(&both, Entries, "k", &sealed), Some(payload));
        assert_eq!(open::<Payload>(&both, Entries, "l", &sealed), None);
        assert_eq!(open::<Payload>(&both, Relay, "k", &sealed), None);
        assert_eq!(open::<Payload>(&ring(B), Entries, "k", &sealed), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_opens_nothing(at in 0usize..64, flip in 1u8..) {
            let mut sealed = sealed();
            let at = at % sealed.len();
            sealed[at] ^= flip;
            prop_assert_eq!(open::<(u8, String, Option<u32>)>(&ring(A), Entries, "k", &sealed), None);
        }

        #[test]
        fn garbage_opens_nothing(bytes: Vec<u8>) {
            prop_assert_eq!(open::<u32>(&ring(A), Entries, "k", &bytes), None);
        }
    }
}
