//! The record of changes: pure data, so that it can be checked against a model.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Elsewhere, Superseded, Triggers, Unheeded};
use crate::{
    clock::Tick,
    domain::{DomainId, Slug},
    installation::Installation,
    principal::UserId,
    snapshot::{Snapshot, Xid},
    token::TokenId,
};

#[cfg(test)]
pub(super) mod tests;

/// Statements of our own that are remembered to date polls by.
const MAX_VISITS: usize = 4;

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

/// Which installation, and which of its histories: a promoted standby begins a new one, and so does
/// recovery from a crash. In both, transaction ids of what was lost are given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) installation: Installation,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Subject {
    Token(TokenId),
    User(UserId),
    Domain(DomainId),
    /// For "there is no domain of that slug".
    Slug(Slug),
    Membership(UserId, DomainId),
    /// By name.
    Backend(Box<str>),
}

/// What a transaction has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Those that record changes.
    pub(crate) triggers: Triggers,
    /// Changes that it sees may have been pruned.
    pub(crate) horizon: Snapshot,
    /// The snapshot whose unseen changes were asked for; nothing for all that are retained.
    pub(crate) after: Option<Snapshot>,
    pub(crate) changes: Vec<(Xid, Change)>,
}

impl Poll {
    /// Whether somebody may wait for what it brings.
    pub(super) fn brings_news(&self) -> bool {
        self.after.is_none() || !self.changes.is_empty()
    }
}

/// See the module above for what it is for.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Record {
    /// Nothing of any other is used.
    installation: Installation,
    retention: Retention,
    history: Option<History>,
    /// Goes up whenever an entry may have to be compared again.
    version: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct History {
    server: Server,
    /// When the statement was sent by which it was met.
    met: Tick,
    /// Every change that it does not see, and `seen` does, is recorded.
    floor: Snapshot,
    /// The version at which the floor was set; entries checked before it are below the floor.
    floor_version: u64,
    /// That of the latest poll, or of the statement by which the server was met.
    seen: Snapshot,
    /// Whether there was a poll: the first one asks for all that is retained.
    polled: bool,
    /// The triggers as polls have seen them ever since the first one, and what that saw.
    triggers: Option<(Triggers, Snapshot)>,
    /// The latest statements by which polls of others are dated.
    visits: VecDeque<(Tick, Snapshot)>,
    /// Each with the version that brought it, in that order.
    changes: HashMap<Subject, VecDeque<(Xid, u64)>>,
    everything: VecDeque<(Xid, u64)>,
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
    pub(super) fn of(installation: Installation) -> Self {
        Self { installation, retention: Retention::default(), history: None, version: 0 }
    }

    pub(super) fn installation(&self) -> Installation {
        self.installation
    }

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

    pub(super) fn triggers(&self) -> Option<Triggers> {
        self.history.as_ref()?.triggers.as_ref().map(|(triggers, _)| *triggers)
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
        if since.is_none()
            && !(stamp.snapshot.includes(&history.floor) && history.sees_all_recorded(stamp))
        {
            return None;
        }
        let since = since.unwrap_or(0);
        // The latest are at the end.
        let seen = |changes: &VecDeque<(Xid, u64)>| {
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

    /// A statement that was sent then was answered by this server. The first one, one on a later
    /// timeline, and one after a crash, begins the record anew, without anything from before.
    /// One of another installation is not met at all.
    pub(super) fn meet(&mut self, stamp: &Stamp, sent: Tick) -> Result<(), Unheeded> {
        let (expected, found) = (self.installation, stamp.server.installation);
        if found != expected {
            return Err(Elsewhere { expected, found }.into());
        }
        let (server, superseded) = (stamp.server, Superseded(stamp.server.timeline));
        if let Some(History { server: known, met, .. }) = &self.history {
            if *known == server {
                return Ok(());
            }
            // Timelines are ordered. Lives are not: a late answer from before the crash is told by
            // its sending.
            let ordered = known.timeline != server.timeline;
            if if ordered { known.timeline > server.timeline } else { sent < *met } {
                return Err(superseded.into());
            }
        }
        self.begin(stamp, stamp.snapshot.clone(), sent);
        Ok(())
    }

    /// Records a poll of our own; false when it leaves a gap.
    pub(super) fn apply(&mut self, poll: Poll) -> bool {
        if self.meet(&poll.stamp, poll.sent).is_err() {
            return false;
        }
        let Some(history) = &self.history else { return false };
        match &poll.after {
            Some(after) => {
                // Not where we stand, a server that went back in time, pruned under our feet, or
                // with changes that were not recorded.
                let joins = history.polled
                    && self.triggers() == Some(poll.triggers)
                    && history.seen.includes(after)
                    && poll.stamp.snapshot.includes(&history.seen)
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
                self.begin(&stamp, floor, poll.sent);
                if let Some(history) = &mut self.history {
                    history.triggers = Some((poll.triggers, stamp.snapshot));
                }
            }
        }
        self.add(poll);
        true
    }

    /// Records a poll that another replica made, at whatever time; false when it leaves a gap. Which
    /// server is the current one, only statements of our own tell.
    pub(super) fn follow(&mut self, poll: Poll) -> bool {
        let Some(history) = self.history.as_ref().filter(|history| history.polled) else {
            return false;
        };
        if history.server != poll.stamp.server {
            return false;
        }
        let snapshot = &poll.stamp.snapshot;
        history.seen.includes(snapshot) || (snapshot.includes(&history.seen) && self.apply(poll))
    }

    /// A statement of our own, sent then, saw this.
    pub(super) fn visit(&mut self, stamp: &Stamp, sent: Tick) {
        if let Some(history) = self.history.as_mut().filter(|h| h.server == stamp.server) {
            history.visits.push_back((sent, stamp.snapshot.clone()));
            if history.visits.len() > MAX_VISITS {
                history.visits.pop_front();
            }
        }
    }

    /// A tick before which no change was committed that is not recorded. A snapshot that includes
    /// that of a statement sees all that was committed before this was sent.
    pub(super) fn reaches(&self) -> Option<Tick> {
        let history = self.history.as_ref().filter(|history| history.polled)?;
        let mut visits = history.visits.iter().rev();
        visits.find(|(_, snapshot)| history.seen.includes(snapshot)).map(|(sent, _)| *sent)
    }

    fn begin(&mut self, stamp: &Stamp, floor: Snapshot, sent: Tick) {
        self.version += 1;
        let known = self.history.as_ref().filter(|history| history.server == stamp.server);
        let met = known.map_or(sent, |history| history.met);
        self.history = Some(History {
            server: stamp.server,
            met,
            floor,
            floor_version: self.version,
            seen: stamp.snapshot.clone(),
            polled: false,
            triggers: None,
            visits: VecDeque::new(),
            changes: HashMap::new(),
            everything: VecDeque::new(),
            arrivals: VecDeque::new(),
            count: 0,
        });
    }

    fn add(&mut self, mut poll: Poll) {
        let Some(history) = &mut self.history else { return };
        let known = history.polled.then(|| history.seen.clone());
        history.seen = poll.stamp.snapshot;
        // A row that is there before its transaction has ended came with a dump from another
        // cluster. It would be read again with every poll, and no entry could ever see it.
        poll.changes.retain(|(xid, _)| {
            history.seen.sees(*xid) && known.as_ref().is_none_or(|known| !known.sees(*xid))
        });
        history.polled = true;
        if !poll.changes.is_empty() {
            self.version += 1;
            let version = self.version;
            history.count += poll.changes.len();
            let mut changes = Vec::with_capacity(poll.changes.len());
            for (xid, change) in poll.changes {
                match &change {
                    Change::To(subject) => {
                        history
                            .changes
                            .entry(subject.clone())
                            .or_default()
                            .push_back((xid, version));
                    }
                    Change::Everything => history.everything.push_back((xid, version)),
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
    /// Whether the snapshot sees what was changed while triggers were off.
    fn sees_all_recorded(&self, stamp: &Stamp) -> bool {
        self.triggers.as_ref().is_none_or(|(triggers, seen)| {
            triggers.switched < stamp.snapshot.xmin() || stamp.snapshot.includes(seen)
        })
    }

    /// Drops what is old, and raises the floor to where that leaves it.
    fn forget(&mut self, now: Tick, retention: Retention) {
        let old = |arrival: &Arrival, count| {
            count > retention.count || now.since(arrival.at) > retention.age
        };
        while self.arrivals.front().is_some_and(|arrival| old(arrival, self.count)) {
            let Some(arrival) = self.arrivals.pop_front() else { return };
            self.count -= arrival.changes.len();
            for change in arrival.changes {
                // What a poll brought is older than what later ones did, so it stands in front.
                match change {
                    Change::Everything => drop(self.everything.pop_front()),
                    Change::To(subject) => {
                        if let Entry::Occupied(mut changes) = self.changes.entry(subject) {
                            changes.get_mut().pop_front();
                            if changes.get().is_empty() {
                                changes.remove();
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
