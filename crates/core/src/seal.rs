//! Seals what passes through Redis. So an attacker who can write there can deny service, but never
//! turn a denial into an allow.
//!
//! `version (1 byte) ‖ HMAC-SHA-256 (32) ‖ postcard of the payload`. The key is derived for one
//! purpose. The MAC covers version, vocabulary, the installation, the Redis key, and payload: a
//! genuine value cannot be used under another Redis key, nor by another installation with the same
//! keys.

use std::sync::{Arc, LazyLock};

use hmac::Mac;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    installation::Installation,
    keyring::{DerivedKeys, HmacSha256, KeySerial, LiveRing},
    operation::{EntityType, Operation},
};

/// The version of the sealed form. It increases with every change of a payload's form or of the
/// vocabulary. It is also part of the Redis keys, so that replicas of two releases do not overwrite each other's entries.
pub(crate) const VERSION: u8 = 4;
const MAC_LEN: usize = 32;

/// The purpose of a seal, which decides which key is used.
#[derive(Clone, Copy, Debug)]
pub enum SealPurpose {
    /// Cached tokens and domains.
    Entries,
    /// The relayed change feed, and the leases of replicas.
    Relay,
}

/// Seals and opens what one installation keeps in Redis. Clones share the keys.
#[derive(Clone)]
pub struct Sealer {
    ring: LiveRing,
    installation: Installation,
    prefix: Arc<str>,
}

/// What was behind a seal. It may be used only while the ring holds the key of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed<T> {
    /// The payload, as it was sealed.
    pub payload: T,
    /// The key that sealed it.
    pub key: KeySerial,
}

/// A payload in its seal, for Redis.
#[derive(Clone, Debug)]
pub struct SealedBytes {
    /// The payload and what authenticates it.
    pub bytes: Vec<u8>,
    /// The key that sealed them.
    pub key: KeySerial,
}

impl Sealer {
    /// Returns a sealer with the keys of `ring`, for the entries of one installation.
    pub fn new(ring: impl Into<LiveRing>, installation: Installation) -> Self {
        Self { ring: ring.into(), installation, prefix: installation.redis_prefix().into() }
    }

    /// Returns the ring with which it seals.
    pub fn ring(&self) -> &LiveRing {
        &self.ring
    }

    /// Returns the prefix of all keys in Redis.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Seals a payload for one purpose and one Redis key (`place`), with the current key of the ring.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload cannot be serialized.
    pub fn seal(
        &self,
        purpose: SealPurpose,
        place: &str,
        payload: &impl Serialize,
    ) -> Result<SealedBytes, postcard::Error> {
        let payload = postcard::to_stdvec(payload)?;
        let ring = self.ring.load();
        let key = ring.current();
        let mut bytes = Vec::with_capacity(1 + MAC_LEN + payload.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.mac(key, purpose, place, &payload));
        bytes.extend_from_slice(&payload);
        Ok(SealedBytes { bytes, key: key.serial() })
    }

    /// Opens a sealed payload. Returns `None` unless some key of the ring sealed it for this purpose, this
    /// Redis key (`place`) and this installation.
    pub fn open<T: DeserializeOwned>(
        &self,
        purpose: SealPurpose,
        place: &str,
        sealed: &[u8],
    ) -> Option<Unsealed<T>> {
        let (version, rest) = sealed.split_first()?;
        let (claimed, payload) = rest.split_at_checked(MAC_LEN)?;
        if *version != VERSION {
            return None;
        }
        let genuine =
            |key: &&DerivedKeys| bool::from(self.mac(key, purpose, place, payload).ct_eq(claimed));
        let ring = self.ring.load();
        let key = ring.keys().iter().find(genuine)?.serial();
        let (payload, rest) = postcard::take_from_bytes(payload).ok()?;
        rest.is_empty().then_some(Unsealed { payload, key })
    }

    /// Computes the MAC. The length of the Redis key is part of the input, so that no two inputs
    /// are equal; everything before it has a fixed length.
    fn mac(
        &self,
        key: &DerivedKeys,
        purpose: SealPurpose,
        place: &str,
        payload: &[u8],
    ) -> [u8; MAC_LEN] {
        let mac: HmacSha256 = match purpose {
            SealPurpose::Entries => key.entries.clone(),
            SealPurpose::Relay => key.relay.clone(),
        };
        mac.chain_update([VERSION])
            .chain_update(*VOCABULARY)
            .chain_update(self.installation.to_bytes())
            .chain_update((place.len() as u64).to_be_bytes())
            .chain_update(place)
            .chain_update(payload)
            .finalize()
            .into_bytes()
            .into()
    }
}

/// Payloads hold operations and entity types by their position, so an entry can be read only by a
/// release with the same vocabulary in the same order.
static VOCABULARY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let operations = Operation::ALL.iter().map(|word| word.as_str());
    let types = EntityType::ALL.iter().map(|word| word.as_str());
    let words: Vec<_> = operations.chain(["/"]).chain(types).collect();
    Sha256::digest(words.join(" ")).into()
});

impl Installation {
    /// Returns the prefix of this installation's keys in Redis. It has 64 bits of a hash: it is only a
    /// name. The seals protect the entries, and each seal covers the whole identity.
    pub fn redis_prefix(&self) -> String {
        let hash = Sha256::digest(self.to_string());
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("patgate:{}:{hash}:", VERSION)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SealPurpose::*, *};
    use crate::{keyring::KeyRing, testing::OURS};

    const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "b:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    type Payload = (u8, String, Option<u32>);

    fn with(ring: &str) -> Sealer {
        Sealer::new(KeyRing::parse(ring).unwrap(), OURS)
    }

    fn sealed() -> Vec<u8> {
        with(A).seal(Entries, "k", &(7u8, "some", Some(1u32))).unwrap().bytes
    }

    fn open<T: DeserializeOwned>(by: &Sealer, purpose: SealPurpose, sealed: &[u8]) -> Option<T> {
        by.open(purpose, "k", sealed).map(|unsealed| unsealed.payload)
    }

    #[test]
    fn opens_in_its_own_place_for_its_purpose_and_by_any_key_of_the_ring() {
        let sealed = sealed();
        let both = with(&format!("{B}\n{A}"));
        let payload = (7, "some".to_owned(), Some(1));
        assert_eq!(open::<Payload>(&both, Entries, &sealed), Some(payload));
        assert_eq!(both.open::<Payload>(Entries, "l", &sealed), None);
        assert_eq!(open::<Payload>(&both, Relay, &sealed), None);
        assert_eq!(open::<Payload>(&with(B), Entries, &sealed), None);
    }

    /// A clone of the sealer, such as that of the relay, has the same ring.
    #[test]
    fn after_a_ring_is_replaced_its_keys_open_nothing_and_what_they_opened_is_known_by_its_key() {
        let ring = |text: &str| KeyRing::parse(text).unwrap();
        let both = Sealer::new(ring(&format!("{A}\n{B}")), OURS);
        let by_a = both.seal(Entries, "k", &7u8).unwrap();
        let opened = both.clone().open::<u8>(Entries, "k", &by_a.bytes).unwrap();
        assert_eq!((opened.payload, opened.key), (7, by_a.key));
        both.ring().replace(ring(&format!("{B}\n{A}")));
        let by_b = both.seal(Entries, "k", &8u8).unwrap();
        assert!(both.ring().holds(by_a.key) && both.ring().holds(by_b.key));
        assert_eq!(open(&both, Entries, &by_a.bytes), Some(7u8));
        both.ring().replace(ring(B));
        assert!(!both.ring().holds(opened.key) && both.ring().holds(by_b.key));
        assert_eq!(open::<u8>(&both.clone(), Entries, &by_a.bytes), None);
        assert_eq!(open(&both, Entries, &by_b.bytes), Some(8u8));
    }

    /// If this fails, raise [`VERSION`], once per release, and write the new hash of the vocabulary
    /// here.
    #[test]
    fn a_vocabulary_has_a_version_of_its_own() {
        assert_eq!((VERSION, VOCABULARY[..4].to_vec()), (4, vec![7, 177, 27, 171]));
    }

    /// Also where the Redis key is the same, as if an attacker had copied it from one to the other.
    #[test]
    fn opens_for_no_other_installation_with_the_same_keys() {
        for other in [
            "8/16384/00000000-0000-0000-0000-000000000001",
            "7/16385/00000000-0000-0000-0000-000000000001",
            "7/16384/00000000-0000-0000-0000-000000000002",
        ] {
            let other = Sealer::new(KeyRing::parse(A).unwrap(), other.parse().unwrap());
            for purpose in [Entries, Relay] {
                let sealed = with(A).seal(purpose, "k", &7u8).unwrap().bytes;
                assert_eq!(open(&with(A), purpose, &sealed), Some(7u8));
                assert_eq!(open::<u8>(&other, purpose, &sealed), None);
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_opens_nothing(at in 0usize..64, flip in 1u8..) {
            let mut sealed = sealed();
            let at = at % sealed.len();
            sealed[at] ^= flip;
            prop_assert_eq!(open::<Payload>(&with(A), Entries, &sealed), None);
        }

        #[test]
        fn garbage_opens_nothing(bytes: Vec<u8>) {
            prop_assert_eq!(open::<u32>(&with(A), Entries, &bytes), None);
        }
    }
}
