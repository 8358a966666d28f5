//! A replica: the real record of known changes and, around it, what a lookup and the feed do, step
//! by step.

use std::{
    hash::{Hash, Hasher},
    rc::Rc,
    sync::{LazyLock, atomic::Ordering::Relaxed},
};

use super::{
    super::*,
    MAX_STALENESS, OURS, TICK, fingerprint,
    world::{SimulatedPostgres, Writes, token},
};
use crate::keyring::KeyRing;

/// The ring of all replicas, which no key leaves in the model.
static RING: LazyLock<LiveRing> = LazyLock::new(|| {
    LiveRing::new(KeyRing::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap())
});
static SEAL: LazyLock<KeySerial> = LazyLock::new(|| RING.load().current().serial());

/// A cached entry about the token, with the writes that it includes.
#[derive(Clone, Debug, Hash)]
pub(super) struct CachedEntry {
    pub(super) stamp: Stamp,
    pub(super) as_of: i64,
    pub(super) knows: Writes,
}

pub(super) struct SimulatedReplica {
    pub(super) changes: KnownChanges,
    /// The entry in memory, with the contents of its `CheckedVersion`.
    pub(super) memory: Option<(Rc<CachedEntry>, u64)>,
    /// The answer to a lookup, which has not arrived.
    pub(super) fill: Option<Rc<CachedEntry>>,
    /// The answer to a poll, which has not arrived, and the writes in it.
    pub(super) poll: Option<(Poll, Writes)>,
    /// Whether the last poll did not join, so that the next one asks for everything.
    pub(super) again: bool,
    /// The latest server that the replica has met, with the time at which the statement was sent.
    pub(super) met: Option<(Lineage, i64)>,
    /// The writes on that server that polls have brought.
    pub(super) told: Writes,
}

pub(super) fn tick(at: i64) -> Tick {
    Tick::from_micros(0).after(TICK * u32::try_from(at).unwrap())
}

fn checked(version: u64) -> CheckedVersion {
    CheckedVersion(AtomicU64::new(version))
}

impl SimulatedReplica {
    pub(super) fn new(remembered: usize) -> Self {
        let record = ChangeRecord::retaining(TICK, remembered);
        let changes = KnownChanges { record: RwLock::new(record), ..KnownChanges::of(OURS) };
        Self { changes, memory: None, fill: None, poll: None, again: false, met: None, told: 0 }
    }

    /// Returns whether the rule permits the use of the entry now, and the version with which it was
    /// compared.
    pub(super) fn admits(&self, entry: &CachedEntry, version: u64, now: i64) -> (bool, u64) {
        let checked = checked(version);
        let known = self.changes.holds_as_of(&entry.stamp, &checked, tick(entry.as_of), |visit| {
            visit(token());
        });
        let fresh = |known| tick(now).since(known) <= TICK * u32::try_from(MAX_STALENESS).unwrap();
        (known.is_some_and(fresh), checked.0.load(Relaxed))
    }

    pub(super) fn fill_arrives(&mut self, entry: &Rc<CachedEntry>) -> bool {
        let met = self.meets(&entry.stamp, entry.as_of);
        if met && self.memory.as_ref().is_none_or(|(held, _)| held.as_of <= entry.as_of) {
            self.memory = Some((Rc::clone(entry), UNCHECKED));
        }
        met
    }

    /// Applies the poll that was on its way. Returns whether it joins.
    pub(super) fn poll_arrives(&mut self, (poll, writes): (Poll, Writes)) -> bool {
        // A fill may meet another server between these two.
        let met = self.meets(&poll.stamp, poll.sent.since(tick(0)).as_secs().cast_signed());
        let joined = self.changes.apply(poll).joined;
        self.again = met && !joined;
        if joined {
            self.told |= writes;
        }
        joined
    }

    /// Applies a poll of another replica, possibly an old one, which arrives through the relay.
    pub(super) fn frame_arrives(&mut self, (poll, writes): &(Poll, Writes), now: i64) {
        if self.changes.follow(Poll { sent: tick(now), ..poll.clone() }, *SEAL, &RING) {
            self.told |= writes;
        }
    }

    /// Asks a server only for its current snapshot.
    pub(super) fn observe(&mut self, server: &SimulatedPostgres, now: i64) {
        let stamp = server.stamp();
        if self.meets(&stamp, now) {
            self.changes.observe(&stamp, tick(now));
        }
    }

    fn meets(&mut self, stamp: &Stamp, sent: i64) -> bool {
        // The model decides this independently, so that the rule is not tested against itself.
        let left_behind = |(met, at): (Lineage, i64)| {
            met.timeline > stamp.lineage.timeline
                || (met.timeline == stamp.lineage.timeline && met != stamp.lineage && sent < at)
        };
        let known = self.met.is_some_and(|(met, _)| met == stamp.lineage);
        let ours = stamp.lineage.installation == OURS;
        if ours && !known && !self.met.is_some_and(left_behind) {
            self.met = Some((stamp.lineage, sent));
            self.told = 0;
        }
        self.changes.meet(stamp, tick(sent)).is_ok()
    }

    pub(super) fn poll(&mut self, server: &SimulatedPostgres, now: i64) {
        let after = if self.again { None } else { self.changes.polled_to() };
        self.again = false;
        self.poll = Some(server.answer(tick(now), after));
    }
}

impl Clone for SimulatedReplica {
    fn clone(&self) -> Self {
        let record = self.changes.read().clone();
        Self {
            changes: KnownChanges {
                version: AtomicU64::new(self.changes.version.load(Relaxed)),
                watermark: AtomicI64::new(self.changes.watermark.load(Relaxed)),
                record: RwLock::new(record),
            },
            memory: self.memory.clone(),
            fill: self.fill.clone(),
            poll: self.poll.clone(),
            ..*self
        }
    }
}

impl Hash for SimulatedReplica {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let record = self.changes.read();
        assert_eq!(record.version(), self.changes.version.load(Relaxed));
        let mut versions: Vec<u64> = self.memory.iter().map(|(_, version)| *version).collect();
        record.versions(&mut versions);
        versions.sort_unstable();
        versions.dedup();
        let order = |version| versions.binary_search(&version).unwrap_or(usize::MAX);
        record.hash(to, order);
        self.changes.watermark.load(Relaxed).hash(to);
        self.memory.as_ref().map(|(entry, version)| (entry, order(*version))).hash(to);
        self.fill.hash(to);
        self.poll.as_ref().map(of_poll).hash(to);
        (self.again, self.met, self.told).hash(to);
    }
}

pub(super) fn of_poll((poll, writes): &(Poll, Writes)) -> u64 {
    let sent = poll.sent.as_micros();
    let changes = &poll.changes;
    fingerprint(&(sent, &poll.stamp, poll.triggers, &poll.horizon, &poll.after, changes, writes))
}
