//! Lanes in which lookups wait for a store: those of one owner in one lane, if the owner is known.
//!
//! Before a lookup, only the token's id is known. The domain in the path says nothing: a client that
//! names the domain of another tenant would take that tenant's lane. The id proves that patgate made
//! the token, but not for whom. So the owner is remembered from the lookup before, under a hash of
//! the id. A token that this replica has not seen lately gets a lane by its id alone. Thus the
//! lookups of an owner wait in one lane, however many tokens the owner has, except for the first
//! lookup of each token.
//!
//! The tables are of fixed size, and hashed under a key that no client knows. Two owners may share a
//! lane, and a token may be taken for that of another owner: both cost fairness, and nothing else.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// How many lanes there are.
pub(super) const LANES: usize = 64;
/// The first lanes are those of keys whose owner is not known; the rest are those of owners.
const UNKNOWN: usize = LANES / 2;
/// How many keys have a place for the lane of their owner; 256 KiB.
const REMEMBERED: usize = 1 << 18;

/// One of [`LANES`] lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane(pub(super) usize);

/// The lanes of the keys of one kind.
pub(super) struct Lanes {
    hashes: RandomState,
    /// The lane of a key's owner; 0 if that is not known. Empty if keys have no owners.
    owners: Vec<AtomicU8>,
}

impl Lanes {
    /// Lanes for keys that have owners, or have none.
    pub(super) fn new(owned: bool) -> Self {
        let remembered = if owned { REMEMBERED } else { 0 };
        let owners = (0..remembered).map(|_| AtomicU8::new(0)).collect();
        Self { hashes: RandomState::new(), owners }
    }

    /// The lane in which a lookup of this key waits.
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
        if let (Some(slot), Ok(lane)) =
            (self.owner(self.hashes.hash_one(key) as usize), u8::try_from(lane))
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
        // Keys of others are not taken for this owner's, except the few that share a place.
        let taken = (1000..2000).filter(|token: &u32| lanes.of(token).0 >= UNKNOWN).count();
        assert!(taken < 50, "{taken} of 1000");
        assert!(parts(&Lanes::new(false)).iter().all(|part| *part < UNKNOWN));
    }
}
