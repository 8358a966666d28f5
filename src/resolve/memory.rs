//! The memory tier: bounded by bytes, negatives in a space of their own.

use std::{sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use moka::sync::Cache;

use super::{Found, Freshness, Kind};

/// What an entry costs besides its key and value: the cache's own book-keeping.
const OVERHEAD: usize = 256;
/// Entries that nobody asks for give their room back.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// Entries of one kind.
pub(crate) struct Memory<K: Kind> {
    known: Cache<K::Key, Arc<Found<K::Value>>, RandomState>,
    /// "There is no such thing". Apart, so that a flood of unknown keys evicts nothing real.
    unknown: Cache<K::Key, Arc<Found<K::Value>>, RandomState>,
}

impl<K: Kind> Memory<K> {
    /// Up to `bytes` of entries, and up to `negatives` keys that lead nowhere. Entries that
    /// nobody uses are dropped after a while, or when room is needed.
    pub(crate) fn new(bytes: u64, negatives: u64, freshness: Freshness) -> Self {
        let known = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, found: &Arc<Found<K::Value>>| {
                let value = found.value.as_deref().map_or(0, K::size);
                u32::try_from(OVERHEAD + size_of::<K::Key>() + value).unwrap_or(u32::MAX)
            })
            .time_to_idle(IDLE)
            .build_with_hasher(RandomState::default());
        let unknown = Cache::builder()
            .max_capacity(negatives)
            .time_to_live(freshness.negative_ttl)
            .build_with_hasher(RandomState::default());
        Self { known, unknown }
    }

    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(super) fn get(&self, key: &K::Key) -> Option<Arc<Found<K::Value>>> {
        self.known.get(key).or_else(|| self.unknown.get(key))
    }

    /// How many entries there are, and how many of unknown keys; about.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.known.entry_count(), self.unknown.entry_count())
    }

    pub(crate) fn insert(&self, key: K::Key, found: Arc<Found<K::Value>>) {
        if let Some(held) = self.get(&key) {
            // Two look-ups may end out of order. What saw less does not replace what saw more.
            if held.stamp.outdates(&found.stamp) {
                return;
            }
            found.noted.succeed(&held.noted);
        }
        let (to, from) = match found.value {
            Some(_) => (&self.known, &self.unknown),
            None => (&self.unknown, &self.known),
        };
        from.invalidate(&key);
        to.insert(key, found);
    }
}
