//! Seals what passes through Redis. So an attacker who can write there can deny service, but never
//! turn a denial into an allow.
//!
//! `version (1 byte) ‖ length of the key's name (1 byte) ‖ name ‖ HMAC-SHA-256 (32) ‖ postcard of the
//! payload`. The key is derived for one purpose. The MAC covers version, vocabulary, the installation,
//! the name, the Redis key, and payload: a genuine value cannot be used under another Redis key, nor by
//! another installation with the same keys.
//!
//! What does not open is not used, whatever the reason. The reason only decides whether it is reported.
//! After a rotation, entries are left under the key that was dropped. They must not look like those of
//! a stranger, so the ring remembers for a while how to recognize them ([`LiveRing`]). A replica that has
//! just started does not have that key; it takes the name for it, which anybody can write. So for that
//! while, a stranger can write entries there that are not reported. They do no more than deleting the
//! entries would, which nothing reports either.

use std::sync::{Arc, LazyLock};

use hmac::Mac;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    clock::Tick,
    installation::Installation,
    keyring::{HmacSha256, KeyId, KeySerial, LiveRing, RETIRED_FOR, SealKeys},
    operation::{EntityType, Operation},
};

/// The version of the sealed form. It increases with every change of a payload's form or of the
/// vocabulary. It is also part of the Redis keys, so that replicas of two releases do not overwrite each other's entries.
pub(crate) const VERSION: u8 = 5;
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

/// Why something was not opened. It is not used, whatever the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// A key sealed it that has left the ring at that tick.
    Retired {
        /// The key.
        key: KeyId,
        /// When it left the ring.
        left: Tick,
    },
    /// It names a key that neither is in the ring nor has left it lately. Anybody can write a name.
    UnknownKey(KeyId),
    /// The key that it names did not seal it for this purpose, place and installation, or it has
    /// another form.
    Forged,
}

/// What is reported of something that was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealFault {
    /// It was left by a key that is no longer in the ring, as after each rotation.
    Retired(KeyId),
    /// Another key ring sealed it, or a stranger wrote it. The key that it names, if the ring has no
    /// such key.
    Refused(Option<KeyId>),
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
        let name = key.id.as_str().as_bytes();
        let mac = self.mac(&key.id, &key.seals, purpose, place, &payload);
        let mut bytes = Vec::with_capacity(2 + name.len() + MAC_LEN + payload.len());
        bytes.push(VERSION);
        // A name has at most 32 bytes.
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(&payload);
        Ok(SealedBytes { bytes, key: key.serial() })
    }

    /// Opens a sealed payload.
    ///
    /// # Errors
    ///
    /// Unless the key of the ring that it names sealed it for this purpose, this Redis key (`place`) and
    /// this installation. Says why, for the report.
    pub fn open<T: DeserializeOwned>(
        &self,
        purpose: SealPurpose,
        place: &str,
        sealed: &[u8],
    ) -> Result<Unsealed<T>, NotOpened> {
        let Parts { name, claimed, payload } = Parts::of(sealed).ok_or(NotOpened::Forged)?;
        let genuine = |seals: &SealKeys| {
            let mac = self.mac(&name, seals, purpose, place, payload);
            bool::from(mac.ct_eq(claimed))
        };
        let ring = self.ring.load();
        let named = ring.keys().iter().find(|key| key.id == name);
        if let Some(key) = named.filter(|key| genuine(&key.seals)) {
            let (payload, rest) =
                postcard::take_from_bytes(payload).map_err(|_| NotOpened::Forged)?;
            let opened = Unsealed { payload, key: key.serial() };
            return rest.is_empty().then_some(opened).ok_or(NotOpened::Forged);
        }
        let retired = self.ring.retired();
        let retired = retired.iter().find(|key| key.id == name && genuine(&key.seals));
        Err(match (retired, named) {
            (Some(key), _) => NotOpened::Retired { key: name, left: key.left },
            (None, Some(_)) => NotOpened::Forged,
            (None, None) => NotOpened::UnknownKey(name),
        })
    }

    /// Computes the MAC. The lengths of the key's name and of the Redis key are part of the input, so
    /// that no two inputs are equal; everything before them has a fixed length.
    fn mac(
        &self,
        name: &KeyId,
        seals: &SealKeys,
        purpose: SealPurpose,
        place: &str,
        payload: &[u8],
    ) -> [u8; MAC_LEN] {
        let mac: HmacSha256 = match purpose {
            SealPurpose::Entries => seals.entries.clone(),
            SealPurpose::Relay => seals.relay.clone(),
        };
        mac.chain_update([VERSION])
            .chain_update(*VOCABULARY)
            .chain_update(self.installation.to_bytes())
            .chain_update((name.as_str().len() as u64).to_be_bytes())
            .chain_update(name.as_str())
            .chain_update((place.len() as u64).to_be_bytes())
            .chain_update(place)
            .chain_update(payload)
            .finalize()
            .into_bytes()
            .into()
    }
}

/// Sealed bytes by their form.
struct Parts<'b> {
    name: KeyId,
    claimed: &'b [u8],
    payload: &'b [u8],
}

impl<'b> Parts<'b> {
    fn of(sealed: &'b [u8]) -> Option<Self> {
        let [VERSION, name_len, rest @ ..] = sealed else { return None };
        let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
        let name = std::str::from_utf8(name).ok()?.parse().ok()?;
        let (claimed, payload) = rest.split_at_checked(MAC_LEN)?;
        Some(Self { name, claimed, payload })
    }
}

impl NotOpened {
    /// Returns what is reported of it, by a replica that has started at `started`.
    pub fn reported(self, started: Tick, now: Tick) -> SealFault {
        match self {
            Self::Retired { key, left } if now.since(left) < RETIRED_FOR => SealFault::Retired(key),
            Self::UnknownKey(key) if now.since(started) < RETIRED_FOR => SealFault::Retired(key),
            Self::Retired { key, .. } | Self::UnknownKey(key) => SealFault::Refused(Some(key)),
            Self::Forged => SealFault::Refused(None),
        }
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

    const AT: Tick = Tick::from_micros(7);

    type Payload = (u8, String, Option<u32>);

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).unwrap()
    }

    fn id(name: &str) -> KeyId {
        name.parse().unwrap()
    }

    fn with(ring: &str) -> Sealer {
        Sealer::new(KeyRing::parse(ring).unwrap(), OURS)
    }

    fn sealed() -> Vec<u8> {
        with(A).seal(Entries, "k", &(7u8, "some", Some(1u32))).unwrap().bytes
    }

    fn open<T: DeserializeOwned>(by: &Sealer, purpose: SealPurpose, sealed: &[u8]) -> Option<T> {
        by.open(purpose, "k", sealed).ok().map(|unsealed| unsealed.payload)
    }

    #[test]
    fn opens_in_its_own_place_for_its_purpose_and_by_any_key_of_the_ring() {
        let sealed = sealed();
        let both = with(&format!("{B}\n{A}"));
        let payload = (7, "some".to_owned(), Some(1));
        assert_eq!(open::<Payload>(&both, Entries, &sealed), Some(payload));
        assert_eq!(both.open::<Payload>(Entries, "l", &sealed), Err(NotOpened::Forged));
        assert_eq!(open::<Payload>(&both, Relay, &sealed), None);
        assert_eq!(open::<Payload>(&with(B), Entries, &sealed), None);
    }

    /// A clone of the sealer, such as that of the relay, has the same ring.
    #[test]
    fn after_a_ring_is_replaced_its_keys_open_nothing_and_what_they_opened_is_known_by_its_key() {
        let both = Sealer::new(ring(&format!("{A}\n{B}")), OURS);
        let by_a = both.seal(Entries, "k", &7u8).unwrap();
        let opened = both.clone().open::<u8>(Entries, "k", &by_a.bytes).unwrap();
        assert_eq!((opened.payload, opened.key), (7, by_a.key));
        both.ring().replace(ring(&format!("{B}\n{A}")), AT);
        let by_b = both.seal(Entries, "k", &8u8).unwrap();
        assert!(both.ring().holds(by_a.key) && both.ring().holds(by_b.key));
        assert_eq!(open(&both, Entries, &by_a.bytes), Some(7u8));
        both.ring().replace(ring(B), AT);
        assert!(!both.ring().holds(opened.key) && both.ring().holds(by_b.key));
        assert_eq!(open::<u8>(&both.clone(), Entries, &by_a.bytes), None);
        assert_eq!(open(&both, Entries, &by_b.bytes), Some(8u8));
    }

    /// What a rotation leaves is distinguished from what a stranger writes. Without the key, a name does
    /// not make the difference, except on a replica that has just started.
    #[test]
    fn what_a_dropped_key_sealed_is_recognized_and_what_a_stranger_wrote_is_not() {
        const STRANGER: &str = "b:HgECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let replica = with(A);
        replica.ring().replace(ring(&format!("{B}\n{A}")), Tick::from_micros(1));
        replica.ring().replace(ring(B), AT);
        let by = |sealer: &Sealer| sealer.seal(Entries, "k", &7u8).unwrap().bytes;
        let fault = |sealed: &[u8]| replica.open::<u8>(Entries, "k", sealed).unwrap_err();
        let old = by(&with(A));
        assert_eq!(fault(&old), NotOpened::Retired { key: id("a"), left: AT });
        let namesake = by(&with(STRANGER));
        assert_eq!(fault(&namesake), NotOpened::Forged);
        // The old key did not seal this: the name alone says nothing.
        let relabelled = by(&with(&STRANGER.replace("b:", "a:")));
        assert_eq!(fault(&relabelled), NotOpened::UnknownKey(id("a")));
        let unknown = by(&with(&STRANGER.replace("b:", "c:")));
        assert_eq!(fault(&unknown), NotOpened::UnknownKey(id("c")));
        // Genuine, but not for this place.
        assert_ne!(
            replica.open::<u8>(Entries, "l", &old).unwrap_err(),
            NotOpened::Retired { key: id("a"), left: AT }
        );
        for form in [&b""[..], b"forged", &[VERSION, 1, b'a'], &[VERSION, 200, b'a']] {
            assert_eq!(fault(form), NotOpened::Forged);
        }

        let started = Tick::from_micros(0);
        let soon = AT.after(RETIRED_FOR / 2);
        let late = AT.after(RETIRED_FOR);
        let reported = |sealed: &[u8], now| fault(sealed).reported(started, now);
        assert_eq!(reported(&old, soon), SealFault::Retired(id("a")));
        assert_eq!(reported(&old, late), SealFault::Refused(Some(id("a"))));
        assert_eq!(reported(&namesake, soon), SealFault::Refused(None));
        assert_eq!(reported(&unknown, soon), SealFault::Retired(id("c")));
        assert_eq!(reported(&unknown, late), SealFault::Refused(Some(id("c"))));
        // It is forgotten with time.
        replica.ring().forget_retired(soon);
        assert!(!replica.ring().retired().is_empty());
        replica.ring().forget_retired(late);
        assert!(replica.ring().retired().is_empty());
        assert_eq!(fault(&old), NotOpened::UnknownKey(id("a")));
    }

    /// If this fails, raise [`VERSION`], once per release, and write the new hash of the vocabulary
    /// here.
    #[test]
    fn a_vocabulary_has_a_version_of_its_own() {
        assert_eq!((VERSION, VOCABULARY[..4].to_vec()), (5, vec![7, 177, 27, 171]));
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
