//! The rule on freshness: what this replica knows of changes, and how old an entry may be.
//!
//! This module has no I/O: it reads no clock, logs nothing and counts nothing. `feed` reads the
//! changes and hands them over; the tiers of `resolve` ask whether an entry may be used.
//!
//! An entry has dependencies: its token, the token's owner, each domain and the slug by which it was
//! looked up, each (owner, domain) membership, and each backend.
//! It carries the snapshot of the statement that read it, and the lineage of that snapshot: its
//! installation, timeline and life. It may be used only if
//!
//! - (a) its snapshot sees every change of its dependencies that is known here, it is of the current
//!   lineage, and its snapshot is not older than the floor of the record; **and**
//! - (b) `now - max(as of, watermark) <= max_staleness`.
//!
//! # Why this is enough
//!
//! Let an entry be used at tick `t`, and let `c` be a change of one of its dependencies that its
//! snapshot `S` does not see. Claim: `c` committed no earlier than `max_staleness` before `t`.
//!
//! `S` was taken after the tick `as of`, and sees all that committed before it was taken; so `c`
//! committed after `as of`. If (b) holds by `as of`, that is the claim. Otherwise (b) holds by the
//! watermark.
//!
//! Let `P` be the snapshot of the latest poll that is recorded. The watermark is the tick at which
//! that poll was sent or, if another replica made the poll, the tick at which this replica sent a
//! statement whose snapshot `P` includes. So `P` sees all that committed before the watermark.
//! Suppose `c` is among that. The record holds every change that `P` sees and the floor `F` does
//! not: it began with all that the table retained, which is all that the horizon does not see, and
//! each poll added what the snapshot of the previous one did not see; where that would leave a gap,
//! the record begins again. By (a), `S` includes `F`. `S` does not see `c`, so `F` does not see it
//! either; hence `c` is recorded, and (a) refuses the entry. So `c` committed after the watermark,
//! which again is the claim.
//!
//! # What the argument rests on
//!
//! - Entries, polls and this replica's own statements are all of one database. Two databases of one
//!   cluster share transaction ids: by its numbers, the snapshot of one sees changes of the other,
//!   and a poll of one knows of none of them. So each statement says which database answers it, and
//!   its installation, which changes when a copy of the files is renewed ([`Installation`]). The answer of
//!   another installation is refused before anything else in it is read, and changes neither record
//!   nor watermark.
//! - Snapshots of one lineage are ordered, because what is visible only grows until a standby is
//!   promoted or a crash takes away what was not on disk. So lineages are compared first.
//! - The watermark is read before the version of the record is, and published after it, so a reader
//!   that sees a watermark sees its changes. It is read after the version that the entry was
//!   compared with, or under the record's lock, so it is never the watermark of a server that the
//!   record had left when the two were compared.
//! - A change carries the id of its own top-level transaction. So it becomes visible together with
//!   what it describes, however late that commits.
//! - Every change is recorded, unless its trigger was off. While a trigger is off, no poll is used;
//!   when it is on again, an entry is not used unless it sees that it was switched on
//!   (`freshness/triggers.rs`).
//! - Polls of other replicas are believed only while the key ring holds the key that sealed them
//!   ([`LiveRing`]): the thief of a key can seal a poll that hides changes. So the record keeps the
//!   keys on which it rests. Once one of them has left the ring, there is no watermark until this
//!   replica has polled all that is retained. Meanwhile (b) holds by `as of` alone, and no change that
//!   the record knows of is forgotten: a poll of another replica never takes a change away, except
//!   together with all entries that do not see it. A poll that arrives at that time is either recorded
//!   with its key before the record is asked about its keys, or it finds that its key has left.

mod bounds;
#[cfg(test)]
mod model;
mod poll;
mod record;
#[cfg(test)]
mod tests;
mod triggers;

use std::{
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{
            AtomicI64, AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::Duration,
};

use self::record::ChangeRecord;
pub use self::{
    bounds::AgeBounds,
    poll::{Change, Dependency, Lineage, Poll, Stamp},
    triggers::{Triggers, TriggersOff},
};
use crate::{
    clock::Tick,
    installation::Installation,
    keyring::{KeySerial, LiveRing},
    snapshot::Snapshot,
};

/// The version of an entry that was never compared with the record.
const UNCHECKED: u64 = u64::MAX;

/// The version of the record up to which an entry is known to hold. Each cached entry has one.
#[derive(Debug)]
pub struct CheckedVersion(AtomicU64);

impl Default for CheckedVersion {
    fn default() -> Self {
        Self(AtomicU64::new(UNCHECKED))
    }
}

/// What one replica knows of the changes in Postgres. It can be shared between threads.
#[derive(Debug)]
pub struct KnownChanges {
    record: RwLock<ChangeRecord>,
    /// The version of the record, readable without its lock while nothing changes.
    version: AtomicU64,
    /// A tick in microseconds: every change that was committed before it is recorded.
    watermark: AtomicI64,
}

/// The effect of a poll on the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedPoll {
    /// Whether the poll continues the record. If not, it was not used, and the next poll must ask for all
    /// changes that are retained.
    pub joined: bool,
    /// Whether triggers were switched off or created again since the last poll.
    pub triggers_switched: bool,
    /// The watermark before the poll, by which entries were judged until now; `None` if there was none.
    pub earlier_watermark: Option<Tick>,
}

impl KnownChanges {
    /// Makes the knowledge of one installation, which is empty at first.
    pub fn of(installation: Installation) -> Self {
        Self {
            record: RwLock::new(ChangeRecord::of(installation)),
            version: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
        }
    }

    /// Returns the installation whose changes this is about.
    pub fn installation(&self) -> Installation {
        self.read().installation()
    }

    /// Returns the latest tick at which an entry is known to hold: `as_of`, when its statement was sent, or
    /// the watermark if it is later. `dependencies` visits all dependencies of the entry. Returns `None`
    /// if a change has outdated the entry, or if too little is known to exclude this.
    pub fn holds_as_of(
        &self,
        stamp: &Stamp,
        checked: &CheckedVersion,
        as_of: Tick,
        dependencies: impl FnOnce(&mut dyn FnMut(Dependency)),
    ) -> Option<Tick> {
        // The order of these loads matters: see the module's documentation.
        let known = checked.0.load(Acquire);
        let mut watermark = self.watermark.load(Acquire);
        if known == UNCHECKED || known != self.version.load(Acquire) {
            let since = (known != UNCHECKED).then_some(known);
            let record = self.read();
            watermark = self.watermark.load(Acquire);
            let version = record.judge(stamp, since, dependencies)?;
            checked.0.store(version, Release);
        }
        Some(as_of.max(Tick::from_micros(watermark)))
    }

    /// Records the server that answered a statement, which was sent at `sent`.
    ///
    /// # Errors
    ///
    /// Returns an error if the server belongs to another installation, or to a superseded lineage: an
    /// earlier timeline, or the time before a crash that a later statement has noticed.
    pub fn meet(&self, stamp: &Stamp, sent: Tick) -> Result<(), RefusedStamp> {
        if self.read().lineage() == Some(stamp.lineage) {
            return Ok(());
        }
        let mut record = self.write();
        record.meet(stamp, sent)?;
        self.publish(&record);
        // The watermark of another server says nothing about this one.
        self.watermark.store(i64::MIN, Release);
        Ok(())
    }

    /// Returns whether the current server is on a later timeline than this lineage.
    pub fn is_behind(&self, lineage: &Lineage) -> bool {
        self.read().lineage().is_some_and(|known| known.timeline > lineage.timeline)
    }

    /// Returns the snapshot from which the next poll must continue; `None` before the first poll.
    pub fn polled_to(&self) -> Option<Snapshot> {
        self.read().polled_to()
    }

    /// Records a poll of this replica.
    pub fn apply(&self, poll: Poll) -> AppliedPoll {
        let sent = poll.sent;
        let mut record = self.write();
        let earlier_watermark = self.watermark();
        let triggers_switched =
            record.triggers().is_some_and(|known| known.state != poll.triggers.state);
        let lineage = record.lineage();
        let joined = record.apply(poll);
        self.publish(&record);
        if record.lineage() != lineage {
            self.watermark.store(i64::MIN, Release);
        }
        if joined {
            // Published after the changes: see the module's documentation.
            self.watermark.fetch_max(sent.as_micros(), AcqRel);
        }
        AppliedPoll { joined, triggers_switched, earlier_watermark }
    }

    /// Records a poll that another replica made, and that came under the seal of `seal`. Returns false
    /// if it does not continue what is recorded, or if the ring no longer holds that key: then only a
    /// poll of this replica shows how far it is.
    pub fn follow(&self, poll: Poll, seal: KeySerial, ring: &LiveRing) -> bool {
        let mut record = self.write();
        // Under the lock: see the module's documentation.
        if !ring.holds(seal) {
            return false;
        }
        let joined = record.follow(poll, seal);
        self.publish(&record);
        self.advance(&record);
        joined
    }

    /// Records a statement of this replica, which dates the polls of other replicas.
    pub fn observe(&self, stamp: &Stamp, sent: Tick) {
        let mut record = self.write();
        record.observe(stamp, sent);
        self.advance(&record);
    }

    /// Stops to rest on polls of other replicas whose seals are of keys that the ring no longer holds.
    /// To be called after the ring was replaced. Returns whether the record rested on any: then this
    /// replica has to poll.
    pub fn distrust_keys_outside(&self, ring: &LiveRing) -> bool {
        let mut record = self.write();
        let distrusted = record.distrust(|seal| ring.holds(seal));
        if distrusted {
            self.watermark.store(i64::MIN, Release);
        }
        distrusted
    }

    fn advance(&self, record: &ChangeRecord) {
        if let Some(reaches) = record.reaches() {
            self.watermark.fetch_max(reaches.as_micros(), AcqRel);
        }
    }

    /// Returns the tick before which every committed change is recorded; `None` before the first poll.
    pub(crate) fn watermark(&self) -> Option<Tick> {
        match self.watermark.load(Acquire) {
            i64::MIN => None,
            watermark => Some(Tick::from_micros(watermark)),
        }
    }

    /// Returns the age of the watermark; `None` before the first poll.
    pub fn watermark_age(&self, now: Tick) -> Option<Duration> {
        self.watermark().map(|watermark| now.since(watermark))
    }

    fn publish(&self, record: &ChangeRecord) {
        self.version.store(record.version(), Release);
    }

    // No code that can panic runs under these locks.
    fn read(&self) -> RwLockReadGuard<'_, ChangeRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ChangeRecord> {
        self.record.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason for which the answer of a server is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub enum RefusedStamp {
    /// A server that another one has superseded answered.
    Superseded(#[from] SupersededServer),
    /// A server of another installation answered.
    OtherInstallation(#[from] OtherInstallation),
}

/// The error for an answer of another installation than this replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another installation of patgate answered: expected {expected}, found {found} \
     (system/database/installation)"
)]
pub struct OtherInstallation {
    /// The installation of this replica.
    pub expected: Installation,
    /// The installation of the server that answered.
    pub found: Installation,
}

/// The error for an answer of a server that is no longer the primary, although it may still answer as
/// one. It holds the server's timeline.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is of a server, on timeline {0}, that another has superseded")]
pub struct SupersededServer(u32);
