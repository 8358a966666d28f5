//! The memory tier: bounded by bytes, negatives in a space of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use moka::sync::Cache;

use super::{Found, Freshness, Kind};
use crate::clock::Tick;

/// What an entry costs besides its key and value: the cache's own book-keeping.
const OVERHEAD: usize = 256;
/// Entries that nobody asks for give their room back.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How soon after an attempt to refresh an entry the next one may follow.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Entries of one kind.
pub(crate) struct Memory<K: Kind> {
    known: Cache<K::Key, Hit<K::Value>>,
    /// "There is no such thing". Apart, so that a flood of unknown keys evicts nothing real.
    unknown: Cache<K::Key, Hit<K::Value>>,
}

/// An entry in use.
#[derive(Debug)]
pub(super) struct Hit<V> {
    pub(super) found: Found<V>,
    /// How old its knowledge may grow before a use renews it behind the answer.
    patience: Duration,
    /// The tick before which it is not renewed, whatever its age.
    not_before: Arc<AtomicI64>,
}

impl<V> Clone for Hit<V> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), not_before: Arc::clone(&self.not_before), ..*self }
    }
}

impl<V> Hit<V> {
    /// Whether this use should start a refresh; true for one use at a time. `known` is the tick
    /// as of which the entry is known to hold: while the feed runs, that is never long ago.
    pub(super) fn wants_refresh(&self, now: Tick, known: Tick) -> bool {
        if now.since(known) < self.patience || self.found.value.is_none() {
            return false;
        }
        let due = self.not_before.load(Relaxed);
        now >= Tick::from_micros(due)
            && self
                .not_before
                .compare_exchange(due, now.after(RETRY_AFTER).as_micros(), Relaxed, Relaxed)
                .is_ok()
    }
}

impl<K: Kind> Memory<K> {
    /// Up to `bytes` of entries, and up to `negatives` keys that lead nowhere. Entries that
    /// nobody uses are dropped after a while, or when room is needed.
    pub(crate) fn new(bytes: u64, negatives: u64, freshness: Freshness) -> Self {
        let known = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, hit: &Hit<K::Value>| {
                let value = hit.found.value.as_deref().map_or(0, K::size);
                u32::try_from(OVERHEAD + size_of::<K::Key>() + value).unwrap_or(u32::MAX)
            })
            .time_to_idle(IDLE)
            .build();
        let unknown =
            Cache::builder().max_capacity(negatives).time_to_live(freshness.negative_ttl).build();
        Self { known, unknown }
    }

    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(super) fn get(&self, key: &K::Key) -> Option<Hit<K::Value>> {
        self.known.get(key).or_else(|| self.unknown.get(key))
    }

    /// How many entries there are, and how many of unknown keys; about.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.known.entry_count(), self.unknown.entry_count())
    }

    pub(crate) fn insert(&self, key: K::Key, found: Found<K::Value>, freshness: &Freshness) {
        if let Some(held) = self.get(&key) {
            // Two look-ups may end out of order. What saw less does not replace what saw more.
            if held.found.stamp.outdates(&found.stamp) {
                return;
            }
            found.noted.succeed(&held.found.noted);
        }
        let (to, from) = match found.value {
            Some(_) => (&self.known, &self.unknown),
            None => (&self.unknown, &self.known),
        };
        from.invalidate(&key);
        let patience = patience(found.as_of, freshness);
        let not_before = Arc::new(AtomicI64::new(i64::MIN));
        to.insert(key, Hit { found, patience, not_before });
    }
}

/// Half of the bound and up to a quarter more, so that what was filled together is not renewed
/// together.
fn patience(filled: Tick, freshness: &Freshness) -> Duration {
    let spread = u32::from(filled.as_micros() as u8);
    freshness.max_staleness / 2 + freshness.max_staleness / 1024 * spread
}
