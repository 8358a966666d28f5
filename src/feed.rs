//! What this replica knows of changes, and how fresh that makes an entry.
//!
//! An entry rests on subjects: the token, its owner, each domain, each (owner, domain) membership.
//! It carries the snapshot of the statement that read it, and the installation, timeline and life of
//! that snapshot. It may be used only if
//!
//! - (a) its snapshot sees every change of its subjects that is known here, it is of this
//!   installation and its current timeline and life, and its snapshot is not older than the floor of
//!   the record; **and**
//! - (b) `now - max(as of, watermark) <= max_staleness`.
//!
//! # Why this is enough
//!
//! Let an entry be used at tick `t`, and let `c` be a change of one of its subjects that its
//! snapshot `S` does not see. Claim: `c` committed no earlier than `max_staleness` before `t`.
//!
//! `S` was taken after the tick `as of`, and sees all that committed before it was taken; so `c`
//! committed after `as of`. If (b) holds by `as of`, that is the claim. Otherwise (b) holds by the
//! watermark. Let `P` be the snapshot of the latest poll that is recorded. The watermark is the tick
//! at which that poll was sent or, when another replica made it, at which a statement of our own was
//! sent whose snapshot `P` includes; so `P` sees all that committed before it. Suppose `c` is among
//! that. The record holds every change that `P` sees and the floor `F` does not: it began with all
//! that the table retained, which is all that the horizon does not see, and each poll added what the
//! previous one's snapshot did not see; where that would leave a gap, the record begins anew. By (a)
//! `S` includes `F`, and `S` does not see `c`, so `F` does not see it either; hence `c` is recorded,
//! and (a) refuses the entry. So `c` committed after the watermark, which again is the claim.
//!
//! Five things this leans on. Entries, polls and our own statements are all of one database: two of
//! one cluster share transaction ids, so that the snapshot of one sees, by its numbers, changes of
//! the other, and a poll of one knows of none of them. So each statement tells which database
//! answers it, and its installation, which a copy of the files is given anew
//! ([`Installation`]); what another one answers is refused before anything else is read of it, and
//! moves neither record nor watermark. Snapshots of one timeline and life are ordered, because what
//! is visible only grows until a standby is promoted or a crash takes away what was not on disk; so
//! these are compared first. The watermark is read before the version of the record is, and
//! published after it, so a reader who sees a watermark sees its changes; it is read after what the
//! entry was compared with, or under the record's lock, so it is not that of a server which the
//! record had left when the two were compared. And a change carries the id of its own top-level
//! transaction, so it becomes visible together with what it describes, however late that commits. And
//! every change is recorded, unless its trigger was off: then no poll is used, and when it is on
//! again, an entry that does not see it switched on is not (`recording.rs`).

mod follower;
mod leader;
mod lease;
#[cfg(test)]
mod model;
mod reader;
mod record;
mod recording;
mod relay;
#[cfg(test)]
mod tests;

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

use self::record::Record;
pub(crate) use self::{
    lease::Lease,
    reader::Reader,
    record::{Change, Poll, Server, Stamp, Subject},
    recording::{Triggers, Unrecorded},
    relay::Relay,
};
use crate::{clock::Tick, installation::Installation, snapshot::Snapshot};

/// A finding that was never compared with the record.
const UNCHECKED: u64 = u64::MAX;

/// Up to which version of the record a finding is known to hold. Clones share it.
#[derive(Debug)]
pub(crate) struct Checked(AtomicU64);

impl Default for Checked {
    fn default() -> Self {
        Self(AtomicU64::new(UNCHECKED))
    }
}

/// The knowledge of one replica.
#[derive(Debug)]
pub(crate) struct Feed {
    record: RwLock<Record>,
    /// That of the record; read without its lock while nothing changes.
    version: AtomicU64,
    /// What was committed before this tick is recorded.
    watermark: AtomicI64,
}

impl Feed {
    /// For what is known of this installation, of which nothing is known yet.
    pub(crate) fn of(installation: Installation) -> Self {
        Self {
            record: RwLock::new(Record::of(installation)),
            version: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
        }
    }

    /// Whose knowledge this is.
    pub(crate) fn installation(&self) -> Installation {
        self.read().installation()
    }

    /// The tick as of which a finding still holds, as far as is known here; nothing when a change
    /// has outdated it, or when what would tell is not known.
    pub(crate) fn holds_as_of(
        &self,
        stamp: &Stamp,
        checked: &Checked,
        as_of: Tick,
        subjects: impl FnOnce(&mut dyn FnMut(Subject)),
    ) -> Option<Tick> {
        // In this order, see above.
        let known = checked.0.load(Acquire);
        let mut watermark = self.watermark.load(Acquire);
        if known == UNCHECKED || known != self.version.load(Acquire) {
            let since = (known != UNCHECKED).then_some(known);
            let record = self.read();
            watermark = self.watermark.load(Acquire);
            let version = record.judge(stamp, since, subjects)?;
            checked.0.store(version, Release);
        }
        Some(as_of.max(Tick::from_micros(watermark)))
    }

    /// Takes note of where a statement that was sent then was answered.
    ///
    /// # Errors
    ///
    /// When it is a place that the server has left behind (an earlier timeline, or a life from
    /// before a crash that a later statement has noticed), or another installation.
    pub(crate) fn meet(&self, stamp: &Stamp, sent: Tick) -> Result<(), Unheeded> {
        if self.read().server() == Some(stamp.server) {
            return Ok(());
        }
        let mut record = self.write();
        record.meet(stamp, sent)?;
        self.publish(&record);
        // What was known of another server says nothing about this one.
        self.watermark.store(i64::MIN, Release);
        Ok(())
    }

    /// Whether the server is one that the current one has left behind.
    pub(crate) fn is_behind(&self, server: &Server) -> bool {
        self.read().server().is_some_and(|known| known.timeline > server.timeline)
    }

    /// The triggers as the latest poll saw them.
    pub(crate) fn triggers(&self) -> Option<Triggers> {
        self.read().triggers()
    }

    /// The snapshot from which the next poll has to go on; nothing before the first.
    pub(crate) fn polled_to(&self) -> Option<Snapshot> {
        self.read().polled_to()
    }

    /// Records a poll. False when it does not join on to what is recorded: the next one has to
    /// ask for everything that is retained.
    pub(crate) fn apply(&self, poll: Poll) -> bool {
        let sent = poll.sent;
        let mut record = self.write();
        let server = record.server();
        let joined = record.apply(poll);
        self.publish(&record);
        if record.server() != server {
            self.watermark.store(i64::MIN, Release);
        }
        if joined {
            // After the changes, see above.
            self.watermark.fetch_max(sent.as_micros(), AcqRel);
        }
        joined
    }

    /// Records a poll that another replica made. False when it does not join on to what is
    /// recorded: it takes a poll of our own to know how far we are.
    pub(crate) fn follow(&self, poll: Poll) -> bool {
        let mut record = self.write();
        let joined = record.follow(poll);
        self.publish(&record);
        self.advance(&record);
        joined
    }

    /// Takes note of a statement of our own, by which polls that others made are dated.
    pub(crate) fn visit(&self, stamp: &Stamp, sent: Tick) {
        let mut record = self.write();
        record.visit(stamp, sent);
        self.advance(&record);
    }

    fn advance(&self, record: &Record) {
        if let Some(reaches) = record.reaches() {
            self.watermark.fetch_max(reaches.as_micros(), AcqRel);
        }
    }

    /// The age of the watermark; nothing before the first poll.
    pub(crate) fn watermark_age(&self, now: Tick) -> Option<Duration> {
        match self.watermark.load(Acquire) {
            i64::MIN => None,
            watermark => Some(now.since(Tick::from_micros(watermark))),
        }
    }

    fn publish(&self, record: &Record) {
        self.version.store(record.version(), Release);
    }

    // No code that can panic runs under these locks.
    fn read(&self) -> RwLockReadGuard<'_, Record> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Record> {
        self.record.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose answer is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) enum Unheeded {
    Superseded(#[from] Superseded),
    Elsewhere(#[from] Elsewhere),
}

/// Another installation, where ours was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another installation of patgate answered: expected {expected}, found {found} \
     (system/database/installation)"
)]
pub(crate) struct Elsewhere {
    pub(crate) expected: Installation,
    pub(crate) found: Installation,
}

/// A server that is no longer the primary, whatever it believes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is of a server, on timeline {0}, that another has superseded")]
pub(crate) struct Superseded(u32);
