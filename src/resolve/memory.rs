//! The memory tier: limited by bytes, with a separate limit for negatives.

use std::{marker::PhantomData, sync::Arc};

use foldhash::fast::RandomState;
use quick_cache::{UnitWeighter, Weighter, sync::Cache};

use super::{Found, LookupKind};

/// The bytes of an entry in addition to its key and value: its place in the cache, the facts about
/// the value, and the overhead of the allocator for both.
const OVERHEAD: usize = 192;
/// A first estimate of the bytes per entry. It only determines the initial size of the table.
const TYPICAL: u64 = 512;

/// The entries of one kind that this process holds, within bounds on their size and number.
pub(crate) struct MemoryTier<K: LookupKind> {
    known: Bounded<K, Bytes<K>>,
    /// Keys that do not exist. They are separate, so that a flood of unknown keys evicts no value.
    unknown: Bounded<K, UnitWeighter>,
}

/// A cache with a limit on the weight that `W` computes.
type Bounded<K, W> =
    Cache<<K as LookupKind>::Key, Arc<Found<<K as LookupKind>::Value>>, W, RandomState>;

impl<K: LookupKind> MemoryTier<K> {
    /// Holds up to `bytes` of entries, and up to `negatives` unknown keys. If space is needed, the
    /// entries that were not used lately are evicted first.
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

    /// Keeps a result, unless memory holds a newer one. `in_force` says whether what it holds can still
    /// be used.
    pub(crate) fn insert(
        &self,
        key: K::Key,
        found: Arc<Found<K::Value>>,
        in_force: impl FnOnce(&Found<K::Value>) -> bool,
    ) {
        if let Some(held) = self.get(&key) {
            // Two lookups may end in another order. A result with an older snapshot does not
            // replace a newer one. But the thief of a key may have sealed one that is newer than all.
            if held.stamp.outdates(&found.stamp) && in_force(&held) {
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
