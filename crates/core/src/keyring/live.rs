//! The ring that is in force, in one place for all its users, and the rule about keys that left it.
//!
//! A replica verifies tokens, and opens entries of Redis, frames of the relay and credentials of
//! backends. It uses some of this long afterwards: memory keeps entries and opened credentials, the
//! record of changes keeps what frames said, and a lookup in progress has a result that was opened
//! before. If a key was stolen, none of this can be trusted, whoever made it: the thief may have
//! sealed the entry that memory holds by now. The rule:
//!
//! **What was verified, opened or received under a key is used only while the ring holds that key.**
//!
//! So everything that rests on a key carries its [`KeySerial`], and its user asks [`LiveRing::holds`]
//! or [`LiveRing::permits`] when it uses it, not when it was opened. There is no list of what rests on
//! which key, and nothing to clear: a result of a lookup in progress and a write in a queue are judged
//! like an entry in memory.
//!
//! # Why this is enough
//!
//! A key leaves the ring when [`LiveRing::replace`] clears its place. Let a user ask about its serial
//! later than that. No place has this serial: a serial is given once, a place is filled only with keys
//! of the ring that is put in force, and only a key with the same name and the same secret keeps its
//! serial. So what rests on the key is not used.
//!
//! The new ring is published before the places are cleared. So a user that was refused finds the new
//! ring when it opens the same thing again, and what another one opens with the old ring, which it had
//! loaded before, carries the serial. A check asks once more after its last lookup, and waits for
//! nothing between that and its decision.
//!
//! A key that stays in the ring keeps its place throughout, so what rests on it is used without a
//! pause. There are twice as many places as a ring has keys, so that a new key has a place before the
//! first token can be verified with it.
//!
//! For a credential that no key of the ring opens, it is the reverse: it becomes usable when its key is
//! added. So it rests on the ring as a whole, and is opened again after the ring was replaced.
//!
//! # What is remembered of a key that left
//!
//! How to recognize its seals, for [`RETIRED_FOR`]: what it has sealed stays in Redis for some minutes
//! after a rotation, and must not be reported as the work of a stranger. It is not used either.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};

use super::{DerivedKeys, KeyId, KeyRing, KeySerial, MAX_KEYS, SealKeys};
use crate::clock::Tick;

/// How long something may be left in Redis under a key that has left the ring: twice the life of an
/// entry, as the replicas get the new ring one after the other.
pub const RETIRED_FOR: Duration = Duration::from_secs(10 * 60);

/// The ring in force. Clones share it.
#[derive(Clone)]
pub struct LiveRing(Arc<RingInForce>);

struct RingInForce {
    ring: ArcSwap<KeyRing>,
    /// The serials of the keys of the ring; 0 is an empty place.
    places: [AtomicU64; 2 * MAX_KEYS],
    /// The number of rings before this one.
    generation: AtomicU64,
    /// Keys that have left the ring lately, the last one first; at most as many as there are places.
    retired: ArcSwap<Vec<RetiredKey>>,
    /// Held while the ring is replaced.
    replacing: Mutex<()>,
}

/// What is remembered of a key that has left the ring. It opens nothing.
#[derive(Clone)]
pub(crate) struct RetiredKey {
    pub(crate) id: KeyId,
    pub(crate) seals: SealKeys,
    /// When it left.
    pub(crate) left: Tick,
}

/// What the result of opening something rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyBasis {
    /// The key that opened it.
    Key(KeySerial),
    /// The ring that could not open it, as the number of rings before it.
    Ring(u64),
}

/// How a ring differs from the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingChange {
    /// The names of the keys that were added.
    pub added: Vec<KeyId>,
    /// The names of the keys that left. If a secret has changed, its name is in both lists.
    pub removed: Vec<KeyId>,
}

impl LiveRing {
    /// Puts a ring in force.
    pub fn new(ring: KeyRing) -> Self {
        let places: [AtomicU64; 2 * MAX_KEYS] = Default::default();
        for (place, key) in places.iter().zip(ring.keys()) {
            place.store(key.serial.0.get(), Release);
        }
        Self(Arc::new(RingInForce {
            ring: ArcSwap::from_pointee(ring),
            places,
            generation: AtomicU64::new(0),
            retired: ArcSwap::default(),
            replacing: Mutex::default(),
        }))
    }

    /// Returns the ring that is in force now. What is opened with it rests on its keys.
    pub fn load(&self) -> Guard<Arc<KeyRing>> {
        self.0.ring.load()
    }

    /// Returns whether the ring holds the key with this serial.
    pub fn holds(&self, key: KeySerial) -> bool {
        self.0.places.iter().any(|place| place.load(Acquire) == key.0.get())
    }

    /// Returns whether something that rests on this may be used.
    pub fn permits(&self, basis: KeyBasis) -> bool {
        match basis {
            KeyBasis::Key(key) => self.holds(key),
            KeyBasis::Ring(generation) => self.0.generation.load(Acquire) == generation,
        }
    }

    /// Returns the ring as the basis of what it cannot open. It must be taken before the ring is loaded,
    /// so that it never stands for a later ring.
    pub(crate) fn as_basis(&self) -> KeyBasis {
        KeyBasis::Ring(self.0.generation.load(Acquire))
    }

    /// Returns whether the ring in force and this one have a key in common.
    pub fn shares_a_key_with(&self, ring: &KeyRing) -> bool {
        self.load().keys().iter().any(|key| ring.keys().contains(key))
    }

    /// Returns the name of a key of this ring that is the name of another key in force.
    pub fn namesake_in(&self, ring: &KeyRing) -> Option<KeyId> {
        let held = self.load();
        let namesake = |key: &&KeyId| held.ids().any(|id| id == *key);
        ring.keys()
            .iter()
            .filter(|key| !held.keys().contains(key))
            .map(|key| &key.id)
            .find(namesake)
            .cloned()
    }

    /// Returns what is remembered of keys that have left the ring.
    pub(crate) fn retired(&self) -> Guard<Arc<Vec<RetiredKey>>> {
        self.0.retired.load()
    }

    /// Forgets the keys that have left the ring too long ago to have left anything in Redis. Call it now
    /// and then.
    pub fn forget_retired(&self, now: Tick) {
        let is_due = |key: &RetiredKey| now.since(key.left) >= RETIRED_FOR;
        if self.retired().iter().any(is_due) {
            self.0.retired.rcu(|retired| {
                retired.iter().filter(|key| !is_due(key)).cloned().collect::<Vec<_>>()
            });
        }
    }

    /// Puts another ring in force at `now`. From then on, nothing that rests on a key that only the previous ring
    /// had is permitted. Keys that both have stay in force throughout, in whichever order.
    pub fn replace(&self, ring: KeyRing, now: Tick) -> RingChange {
        let RingInForce { ring: in_force, places, generation, retired, replacing } = &*self.0;
        // No code that can panic runs under this lock.
        let _one_at_a_time = replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = in_force.load_full();
        let kept = |key: DerivedKeys| {
            let same = old.keys().iter().find(|held| **held == key);
            same.cloned().unwrap_or(key)
        };
        let new = KeyRing { keys: ring.keys.into_iter().map(kept).collect() };
        let only_in = |ring: &KeyRing, other: &KeyRing| -> Vec<DerivedKeys> {
            let only = ring.keys().iter().filter(|key| !other.keys().contains(key));
            only.cloned().collect()
        };
        let added = only_in(&new, &old);
        let removed = only_in(&old, &new);
        let free = places.iter().filter(|place| place.load(Acquire) == 0);
        for (place, key) in free.zip(&added) {
            place.store(key.serial.0.get(), Release);
        }
        // Before the ring is replaced, so that at every moment one of the two knows the key.
        retired.rcu(|earlier| {
            let remembered = |key: &DerivedKeys| RetiredKey {
                id: key.id.clone(),
                seals: key.seals.clone(),
                left: now,
            };
            let all = removed.iter().map(remembered).chain(earlier.iter().cloned());
            all.take(places.len()).collect::<Vec<_>>()
        });
        in_force.store(Arc::new(new));
        for place in places {
            let held = place.load(Acquire);
            if removed.iter().any(|key| key.serial.0.get() == held) {
                place.store(0, Release);
            }
        }
        generation.fetch_add(1, AcqRel);
        let names = |keys: Vec<DerivedKeys>| keys.into_iter().map(|key| key.id).collect();
        RingChange { added: names(added), removed: names(removed) }
    }
}

impl From<KeyRing> for LiveRing {
    fn from(ring: KeyRing) -> Self {
        Self::new(ring)
    }
}

impl fmt::Debug for LiveRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
    };

    use super::*;

    const AT: Tick = Tick::from_micros(7);

    /// Makes a ring of keys that each have a name and a digit in their secret.
    fn ring(keys: &[(&str, u8)]) -> KeyRing {
        let line = |(id, digit): &(&str, u8)| {
            format!("{id}:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH{digit}8=")
        };
        KeyRing::parse(&keys.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap()
    }

    fn serial(live: &LiveRing, id: &str) -> KeySerial {
        live.load().serial_of(id).unwrap()
    }

    fn names(ids: &[KeyId]) -> Vec<&str> {
        ids.iter().map(KeyId::as_str).collect()
    }

    #[test]
    fn what_rests_on_a_key_that_left_is_not_permitted_and_all_else_is() {
        let live = LiveRing::new(ring(&[("a", 1), ("b", 2)]));
        let (a, b) = (serial(&live, "a"), serial(&live, "b"));
        let change = live.replace(ring(&[("c", 3), ("b", 2)]), AT);
        assert_eq!((names(&change.added), names(&change.removed)), (vec!["c"], vec!["a"]));
        assert_eq!([a, b].map(|key| live.permits(KeyBasis::Key(key))), [false, true]);
        assert!(live.holds(serial(&live, "c")));
        assert_eq!(serial(&live, "b"), b);
        // If a key comes back, what was opened under it before stays unusable.
        live.replace(ring(&[("a", 1), ("b", 2)]), AT);
        assert_eq!([live.holds(a), live.holds(b)], [false, true]);
        assert!(live.holds(serial(&live, "a")));
    }

    #[test]
    fn adding_and_promoting_take_nothing_away() {
        let live = LiveRing::new(ring(&[("a", 1)]));
        let a = serial(&live, "a");
        let added = live.replace(ring(&[("a", 1), ("b", 2)]), AT);
        assert_eq!((names(&added.added), names(&added.removed)), (vec!["b"], vec![]));
        let b = serial(&live, "b");
        assert_eq!(live.replace(ring(&[("b", 2), ("a", 1)]), AT), RingChange::default());
        assert_eq!(live.load().current().id.as_str(), "b");
        assert!(live.holds(a) && live.holds(b));
        assert_eq!([serial(&live, "a"), serial(&live, "b")], [a, b]);
    }

    /// A thief knows the names of the keys.
    #[test]
    fn another_secret_under_the_same_name_is_another_key_and_so_is_another_name() {
        let live = LiveRing::new(ring(&[("a", 1)]));
        let before = serial(&live, "a");
        let namesake = ring(&[("b", 1), ("a", 2)]);
        assert!(!live.shares_a_key_with(&namesake));
        assert_eq!(live.namesake_in(&namesake).unwrap().as_str(), "a");
        assert_eq!(live.namesake_in(&ring(&[("b", 1), ("a", 1)])), None);
        let change = live.replace(ring(&[("a", 2)]), AT);
        assert_eq!((names(&change.added), names(&change.removed)), (vec!["a"], vec!["a"]));
        assert!(!live.holds(before));
        let renamed = serial(&live, "a");
        live.replace(ring(&[("b", 2)]), AT);
        assert!(!live.holds(renamed));
    }

    #[test]
    fn what_a_ring_could_not_open_is_judged_again_after_a_change() {
        let live = LiveRing::new(ring(&[("a", 1)]));
        let unopened = live.as_basis();
        assert!(live.permits(unopened));
        live.replace(ring(&[("a", 1), ("b", 2)]), AT);
        assert!(!live.permits(unopened) && live.permits(live.as_basis()));
    }

    #[test]
    fn there_is_always_a_place_for_every_key() {
        let live = LiveRing::new(ring(&[("z", 0)]));
        let names: Vec<String> = (0..10).map(|at| format!("k{at}")).collect();
        for round in 0..100_usize {
            // Rings of one to four keys, of which none, some or all were there before.
            let size = 1 + round % 4;
            let at = |key: usize| (round * (1 + round % 5) + key) % names.len();
            let keys: Vec<_> =
                (0..size).map(|key| (names[at(key)].as_str(), at(key) as u8)).collect();
            live.replace(ring(&keys), AT);
            assert!(keys.iter().all(|(id, _)| live.holds(serial(&live, id))), "{round}");
            let held = live.0.places.iter().filter(|place| place.load(Relaxed) != 0).count();
            assert_eq!(held, size, "{round}");
        }
    }

    /// Readers race with replacements. A key that stays is never missed, and a key with which a reader has
    /// opened something is in force, or the reader finds another ring.
    #[test]
    fn a_reader_never_misses_a_key_that_stays() {
        let live = LiveRing::new(ring(&[("a", 1), ("b", 2)]));
        let stays = serial(&live, "b");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        assert!(live.holds(stays));
                        let opened = live.load().current().serial();
                        if !live.holds(opened) {
                            assert_ne!(live.load().current().serial(), opened);
                            assert!(!live.holds(opened));
                        }
                    }
                });
            }
            for round in 0..1_000 {
                let first = if round % 2 == 0 { "c" } else { "a" };
                live.replace(ring(&[(first, 1), ("b", 2)]), AT);
            }
            done.store(true, Relaxed);
        });
    }

    #[test]
    fn debug_shows_ids_only() {
        assert_eq!(format!("{:?}", LiveRing::new(ring(&[("a", 1)]))), r#"[KeyId("a")]"#);
    }
}
