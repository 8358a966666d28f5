//! The memory tier: bounded by bytes, negatives in a space of their own.

use std::{marker::PhantomData, sync::Arc};

use foldhash::fast::RandomState;
use quick_cache::{UnitWeighter, Weighter, sync::Cache};

use super::{Found, LookupKind};

/// Bytes that an entry takes besides its key and value: its place in the cache, what is known beside
/// the value, and what the allocator adds to both.
const OVERHEAD: usize = 160;
/// A first guess at the bytes per entry. Only the initial size of the table follows from it.
const TYPICAL: u64 = 512;

/// Entries of one kind.
pub(crate) struct MemoryTier<K: LookupKind> {
    known: Bounded<K, Bytes<K>>,
    /// "There is no such thing". Apart, so that a flood of unknown keys evicts nothing real.
    unknown: Bounded<K, UnitWeighter>,
}

/// A cache that is bounded by what `W` counts.
type Bounded<K, W> =
    Cache<<K as LookupKind>::Key, Arc<Found<<K as LookupKind>::Value>>, W, RandomState>;

impl<K: LookupKind> MemoryTier<K> {
    /// Holds up to `bytes` of entries, and up to `negatives` keys that lead nowhere. If room is needed,
    /// the entries that were not used lately go first.
    pub(crate) fn new(bytes: u64, negatives: u64) -> Self {
        let guess = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX);
        let number = usize::try_from(negatives).unwrap_or(usize::MAX);
        Self {
            known: Cache::with(
                guess,
                bytes,
                Bytes(PhantomData),
                RandomState::default(),
                Default::default(),
            ),
            unknown: Cache::with(
                number,
                negatives,
                UnitWeighter,
                RandomState::default(),
                Default::default(),
            ),
        }
    }

    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(super) fn get(&self, key: &K::Key) -> Option<Arc<Found<K::Value>>> {
        self.known.get(key).or_else(|| self.unknown.get(key))
    }

    /// The number of entries, and that of unknown keys.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.known.len() as u64, self.unknown.len() as u64)
    }

    pub(crate) fn insert(&self, key: K::Key, found: Arc<Found<K::Value>>) {
        if let Some(held) = self.get(&key) {
            // Two lookups may end out of order. What saw less does not replace what saw more.
            if held.stamp.outdates(&found.stamp) {
                return;
            }
            found.use_notes.succeed(&held.use_notes);
        }
        if found.value.is_some() {
            self.unknown.remove(&key);
            self.known.insert(key, found);
        } else {
            self.known.remove(&key);
            self.unknown.insert(key, found);
        }
    }
}

/// Counts the bytes of entries.
struct Bytes<K>(PhantomData<fn() -> K>);

impl<K> Clone for Bytes<K> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<K: LookupKind> Weighter<K::Key, Arc<Found<K::Value>>> for Bytes<K> {
    fn weight(&self, _: &K::Key, found: &Arc<Found<K::Value>>) -> u64 {
        let value = found.value.as_deref().map_or(0, K::size);
        (OVERHEAD + size_of::<K::Key>() + value) as u64
    }
}
