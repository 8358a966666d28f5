//! The memory tier: bounded by bytes, negatives in a space of their own.

use std::{marker::PhantomData, sync::Arc};

use foldhash::fast::RandomState;
use quick_cache::{UnitWeighter, Weighter, sync::Cache};

use super::{Found, Kind};

/// What an entry costs besides its key and value: its place in the cache, what is known beside the
/// value, and what the allocator adds to both.
const OVERHEAD: usize = 160;
/// For a first guess at how many there will be; what it is used for grows with the entries.
const TYPICAL: u64 = 512;

/// Entries of one kind.
pub(crate) struct Memory<K: Kind> {
    known: Bounded<K, Bytes<K>>,
    /// "There is no such thing". Apart, so that a flood of unknown keys evicts nothing real.
    unknown: Bounded<K, UnitWeighter>,
}

/// Bounded by what `W` counts.
type Bounded<K, W> = Cache<<K as Kind>::Key, Arc<Found<<K as Kind>::Value>>, W, RandomState>;

impl<K: Kind> Memory<K> {
    /// Up to `bytes` of entries, and up to `negatives` keys that lead nowhere. When room is needed,
    /// those that were not used lately go first.
    pub(crate) fn new(bytes: u64, negatives: u64) -> Self {
        let guess = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX);
        let number = usize::try_from(negatives).unwrap_or(usize::MAX);
        let (hasher, order) = (RandomState::default, Default::default);
        Self {
            known: Cache::with(guess, bytes, Bytes(PhantomData), hasher(), order()),
            unknown: Cache::with(number, negatives, UnitWeighter, hasher(), order()),
        }
    }

    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub(super) fn get(&self, key: &K::Key) -> Option<Arc<Found<K::Value>>> {
        self.known.get(key).or_else(|| self.unknown.get(key))
    }

    /// How many entries there are, and how many of unknown keys.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.known.len() as u64, self.unknown.len() as u64)
    }

    pub(crate) fn insert(&self, key: K::Key, found: Arc<Found<K::Value>>) {
        if let Some(held) = self.get(&key) {
            // Two look-ups may end out of order. What saw less does not replace what saw more.
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

/// Counts what entries occupy.
struct Bytes<K>(PhantomData<fn() -> K>);

impl<K> Clone for Bytes<K> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<K: Kind> Weighter<K::Key, Arc<Found<K::Value>>> for Bytes<K> {
    fn weight(&self, _: &K::Key, found: &Arc<Found<K::Value>>) -> u64 {
        let value = found.value.as_deref().map_or(0, K::size);
        (OVERHEAD + size_of::<K::Key>() + value) as u64
    }
}
