//! The record of changes: pure data, so that it can be checked against a model.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Superseded;
use crate::{
    clock::Tick,
    domain::{DomainId, Slug},
    principal::UserId,
    snapshot::{Snapshot, Xid},
    token::TokenId,
};

#[cfg(test)]
pub(super) mod tests;

/// How many changes are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
struct Retention {
    age: Duration,
    count: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            // Longer than an entry lives in Redis.
            age: Duration::from_secs(15 * 60),
            // Beyond, entries that were not checked lately are read again.
            count: 200_000,
        }
    }
}

/// Which Postgres, and which of its histories: a promoted standby begins a new one, and so does
/// recovery from a crash. In both, transaction ids of what was lost are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) system: i64,
    pub(crate) timeline: u32,
    /// Since when the server counts its statistics, which do not survive a crash. A crash loses
    /// the transactions that had not reached the disk, though they had ended for all to see: those
    /// that were rolled back and, under `synchronous_commit = off`, those that were committed. And
    /// it does not begin a new timeline. Not ordered: it is the server's clock.
    pub(crate) life: i64,
}

/// Where a statement was answered, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) server: Server,
    pub(crate) snapshot: Snapshot,
}

impl Stamp {
    /// Whether this one saw all that `other` saw, and more.
    pub(crate) fn outdates(&self, other: &Self) -> bool {
        self.server == other.server
            && self.snapshot.includes(&other.snapshot)
            && !other.snapshot.includes(&self.snapshot)
    }
}

/// What an entry may rest on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Token(TokenId),
    User(UserId),
    Domain(DomainId),
    /// For "there is no domain of that slug".
    Slug(Slug),
    Membership(UserId, DomainId),
}

/// What a transaction has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    To(Subject),
    /// A table was emptied, or the change is of a kind that this release does not know.
    Everything,
}

/// The answer to one poll.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) sent: Tick,
    pub(crate) stamp: Stamp,
    /// Changes that it sees may have been pruned.
    pub(crate) horizon: Snapshot,
    /// The snapshot whose unseen changes were asked for; nothing for all that are retained.
    pub(crate) after: Option<Snapshot>,
    pub(crate) changes: Vec<(Xid, Change)>,
}

/// See the module above for what it is for.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Record {
    retention: Retention,
    history: Option<History>,
    /// Goes up whenever an entry may have to be compared again.
    version: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct History {
    server: Server,
    /// Every change that it does not see, and `seen` does, is recorded.
    floor: Snapshot,
    /// The version at which the floor was set; entries checked before it are below the floor.
    floor_version: u64,
    /// That of the latest poll, or of the statement by which the server was met.
    seen: Snapshot,
    /// Whether there was a poll: the first one asks for all that is retained.
    polled: bool,
    /// Each with the version that brought it.
    changes: HashMap<Subject, Vec<(Xid, u64)>>,
    everything: Vec<(Xid, u64)>,
    /// One entry a poll that brought changes, oldest first.
    arrivals: VecDeque<Arrival>,
    count: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Arrival {
    version: u64,
    at: Tick,
    seen: Snapshot,
    changes: Vec<Change>,
}

impl Record {
    pub(super) fn server(&self) -> Option<Server> {
        self.history.as_ref().map(|history| history.server)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn polled_to(&self) -> Option<Snapshot> {
        let history = self.history.as_ref().filter(|history| history.polled)?;
        Some(history.seen.clone())
    }

    /// The version up to which an entry is found to hold, or nothing. `since` is the result of an
    /// earlier comparison.
    pub(super) fn judge(
        &self,
        stamp: &Stamp,
        since: Option<u64>,
        subjects: impl FnOnce(&mut dyn FnMut(Subject)),
    ) -> Option<u64> {
        let history = self.history.as_ref().filter(|history| history.server == stamp.server)?;
        // An earlier result counts from the floor on; before it, the snapshot decides alone.
        let since = since.filter(|version| *version >= history.floor_version);
        if since.is_none() && !stamp.snapshot.includes(&history.floor) {
            return None;
        }
        let since = since.unwrap_or(0);
        // The latest are at the end.
        let seen = |changes: &Vec<(Xid, u64)>| {
            let new = changes.iter().rev().take_while(|(_, version)| *version > since);
            { new }.all(|(xid, _)| stamp.snapshot.sees(*xid))
        };
        let mut holds = seen(&history.everything);
        if !history.changes.is_empty() {
            subjects(&mut |subject| {
                holds = holds && history.changes.get(&subject).is_none_or(seen);
            });
        }
        holds.then_some(self.version)
    }

    /// A statement was answered by this server. The first one, one on a later timeline, and one
    /// after a crash, begins the record anew, without anything from before.
    pub(super) fn meet(&mut self, stamp: &Stamp) -> Result<(), Superseded> {
        match self.server() {
            Some(known) if known == stamp.server => return Ok(()),
            Some(known)
                if known.system == stamp.server.system
                    && known.timeline > stamp.server.timeline =>
            {
                return Err(Superseded(stamp.server.timeline));
            }
            _ => {}
        }
        self.begin(stamp, stamp.snapshot.clone());
        Ok(())
    }

    /// Records a poll; false when it leaves a gap.
    pub(super) fn apply(&mut self, poll: Poll) -> bool {
        if self.meet(&poll.stamp).is_err() {
            return false;
        }
        let Some(history) = &mut self.history else { return false };
        match &poll.after {
            Some(after) => {
                // Not where we stand, a server that went back in time, or pruned under our feet.
                let joins = history.polled
                    && *after == history.seen
                    && poll.stamp.snapshot.includes(after)
                    && after.includes(&poll.horizon);
                if !joins {
                    return false;
                }
            }
            None => {
                // All that is retained is all that the horizon does not see. A horizon that is not
                // of the past came from another cluster with a dump, and tells nothing.
                let snapshot = &poll.stamp.snapshot;
                let floor = if snapshot.includes(&poll.horizon) { &poll.horizon } else { snapshot };
                let (stamp, floor) = (poll.stamp.clone(), floor.clone());
                self.begin(&stamp, floor);
            }
        }
        self.add(poll);
        true
    }

    fn begin(&mut self, stamp: &Stamp, floor: Snapshot) {
        self.version += 1;
        self.history = Some(History {
            server: stamp.server,
            floor,
            floor_version: self.version,
            seen: stamp.snapshot.clone(),
            polled: false,
            changes: HashMap::new(),
            everything: Vec::new(),
            arrivals: VecDeque::new(),
            count: 0,
        });
    }

    fn add(&mut self, mut poll: Poll) {
        let Some(history) = &mut self.history else { return };
        history.seen = poll.stamp.snapshot;
        // A row that is there before its transaction has ended came with a dump from another
        // cluster. It would be read again with every poll, and no entry could ever see it.
        poll.changes.retain(|(xid, _)| history.seen.sees(*xid));
        history.polled = true;
        if !poll.changes.is_empty() {
            self.version += 1;
            let version = self.version;
            history.count += poll.changes.len();
            let mut changes = Vec::with_capacity(poll.changes.len());
            for (xid, change) in poll.changes {
                match &change {
                    Change::To(subject) => {
                        history.changes.entry(subject.clone()).or_default().push((xid, version));
                    }
                    Change::Everything => history.everything.push((xid, version)),
                }
                changes.push(change);
            }
            let seen = history.seen.clone();
            history.arrivals.push_back(Arrival { version, at: poll.sent, seen, changes });
        }
        history.forget(poll.sent, self.retention);
    }
}

impl History {
    /// Drops what is old, and raises the floor to where that leaves it.
    fn forget(&mut self, now: Tick, retention: Retention) {
        let old = |arrival: &Arrival, count| {
            count > retention.count || now.since(arrival.at) > retention.age
        };
        while self.arrivals.front().is_some_and(|arrival| old(arrival, self.count)) {
            let Some(arrival) = self.arrivals.pop_front() else { return };
            self.count -= arrival.changes.len();
            for change in arrival.changes {
                match change {
                    Change::Everything => {
                        self.everything.retain(|(_, version)| *version > arrival.version);
                    }
                    Change::To(subject) => {
                        if let Some(changes) = self.changes.get_mut(&subject) {
                            changes.retain(|(_, version)| *version > arrival.version);
                            if changes.is_empty() {
                                self.changes.remove(&subject);
                            }
                        }
                    }
                }
            }
            // What remains is all that this poll's snapshot did not see.
            self.floor = arrival.seen;
            self.floor_version = arrival.version;
        }
    }
}
