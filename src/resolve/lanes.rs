//! Lanes in which lookups wait for a store. Lookups of one owner wait in one lane, if the owner is
//! known.
//!
//! Before a lookup, only the token's id is known. The domain in the path says nothing: a client
//! that names the domain of another tenant would take that tenant's lane. The id proves that
//! patgate made the token, but not for which owner. So the owner is remembered from the previous
//! lookup, under a hash of the id. The lane of a token that this replica has not seen lately
//! depends on its id alone. So the lookups of an owner wait in one lane, however many tokens the
//! owner has, except the first lookup of each token.
//!
//! The tables have a fixed size, and are hashed under a key that no client knows. Two owners may
//! share a lane, and a token may be assigned to another owner's lane. Both affect fairness only.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// How many lanes there are.
pub(super) const LANES: usize = 64;
/// The first lanes are for keys with an unknown owner; the rest are for owners.
const UNKNOWN: usize = LANES / 2;
/// How many keys the table of owners' lanes can hold; 256 KiB.
const REMEMBERED: usize = 1 << 18;

/// One of [`LANES`] lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane(pub(super) usize);

/// The lanes of the keys of one kind.
pub(super) struct Lanes {
    hashes: RandomState,
    /// The lane of a key's owner; 0 if it is not known. Empty if keys have no owners.
    owners: Vec<AtomicU8>,
}

impl Lanes {
    /// Makes the lanes for keys that have owners, or have none.
    pub(super) fn new(owned: bool) -> Self {
        let remembered = if owned { REMEMBERED } else { 0 };
        let owners = (0..remembered).map(|_| AtomicU8::new(0)).collect();
        Self { hashes: RandomState::new(), owners }
    }

    /// Returns the lane in which a lookup of this key waits.
    pub(super) fn of(&self, key: &impl Hash) -> Lane {
        let hash = self.hashes.hash_one(key) as usize;
        match self.owner(hash).map_or(0, |owner| owner.load(Relaxed)) {
            0 => Lane((hash >> 32) % UNKNOWN),
            owner => Lane(usize::from(owner)),
        }
    }

    /// Remembers the owner of a key.
    pub(super) fn learn(&self, key: &impl Hash, owner: &impl Hash) {
        let lane = UNKNOWN + self.hashes.hash_one(owner) as usize % (LANES - UNKNOWN);
        if let Some(slot) = self.owner(self.hashes.hash_one(key) as usize)
            && let Ok(lane) = u8::try_from(lane)
        {
            slot.store(lane, Relaxed);
        }
    }

    fn owner(&self, hash: usize) -> Option<&AtomicU8> {
        self.owners.get(hash % REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_one_owner_share_one_lane_once_they_are_known() {
        let lanes = Lanes::new(true);
        let parts = |of: &Lanes| {
            let parts = (0..1000).map(|token: u32| of.of(&token).0);
            parts.collect::<std::collections::BTreeSet<_>>()
        };
        let before = parts(&lanes);
        assert!(before.len() > UNKNOWN / 2 && before.iter().all(|part| *part < UNKNOWN));
        (0..1000).for_each(|token: u32| lanes.learn(&token, &"owner"));
        let after = parts(&lanes);
        assert_eq!(after.len(), 1);
        assert!(after.iter().all(|part| (UNKNOWN..LANES).contains(part)));
        // Other keys do not get this owner's lane, except the few that share a place in the table.
        let taken = (1000..2000).filter(|token: &u32| lanes.of(token).0 >= UNKNOWN).count();
        assert!(taken < 50, "{taken} of 1000");
        assert!(parts(&Lanes::new(false)).iter().all(|part| *part < UNKNOWN));
    }
}
