//! The record of changes. It is pure data, so that it can be checked against a model.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{OtherInstallation, RefusedStamp, SupersededServer, Triggers};
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

/// How many statements of this replica are remembered, by which polls of others are dated.
const MAX_OBSERVATIONS: usize = 4;

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
            // If there are more, entries that were not checked lately are read again.
            count: 200_000,
        }
    }
}

/// The history that a snapshot is of. A promoted standby begins a new one, and so does recovery from
/// a crash: in both cases, the transaction ids of lost transactions are given out again. Snapshots
/// can be compared only within one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    /// The installation, which names cluster and database.
    pub installation: Installation,
    /// Postgres's timeline.
    pub timeline: u32,
    /// Since when the server counts its statistics, which do not survive a crash. A crash loses
    /// the transactions that had not reached the disk, though others had seen them end: those that
    /// were rolled back and, under `synchronous_commit = off`, those that were committed. A crash
    /// does not begin a new timeline. Lives are not ordered: this is the server's clock.
    pub life: i64,
}

/// The server that answered a statement, and what the statement saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The history that the snapshot is of.
    pub lineage: Lineage,
    /// Which transactions the statement saw.
    pub snapshot: Snapshot,
}

impl Stamp {
    /// Whether this statement saw all that `other` saw, and more.
    pub fn outdates(&self, other: &Self) -> bool {
        self.lineage == other.lineage
            && self.snapshot.includes(&other.snapshot)
            && !other.snapshot.includes(&self.snapshot)
    }
}

/// One of the things that an entry may rest on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A token, with its scopes.
    Token(TokenId),
    /// An owner of tokens.
    User(UserId),
    /// A domain, with its models.
    Domain(DomainId),
    /// An entry that says "there is no domain of that slug" rests on the slug.
    Slug(Slug),
    /// What roles permit a user in a domain.
    Membership(UserId, DomainId),
    /// A backend, by its name.
    Backend(Box<str>),
}

/// One change that a transaction made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// One subject changed.
    To(Subject),
    /// A table was emptied, or the change is of a kind that this release does not know.
    Everything,
}

/// The answer to one poll.
#[derive(Clone, Debug)]
pub struct Poll {
    /// When the statement was sent.
    pub sent: Tick,
    /// Who answered, and what the poll saw.
    pub stamp: Stamp,
    /// The triggers that record changes.
    pub triggers: Triggers,
    /// Changes that it sees may have been pruned.
    pub horizon: Snapshot,
    /// The poll asked for changes that this snapshot does not see; `None` for all that are retained.
    pub after: Option<Snapshot>,
    /// The changes, each with the transaction that made it.
    pub changes: Vec<(Xid, Change)>,
}

impl Poll {
    /// Whether a command may be waiting for what the poll brings.
    pub fn brings_news(&self) -> bool {
        self.after.is_none() || !self.changes.is_empty()
    }
}

/// The changes that polls have brought, and how far back they reach. The rule that it serves is
/// stated in `freshness.rs`.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct ChangeRecord {
    /// Nothing of any other installation is used.
    installation: Installation,
    retention: Retention,
    history: Option<History>,
    /// Goes up whenever an entry may have to be compared again.
    version: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct History {
    lineage: Lineage,
    /// When the first statement that this server answered was sent.
    met: Tick,
    /// Every change that the floor does not see, and `seen` does, is recorded.
    floor: Snapshot,
    /// The version at which the floor was set; entries checked before it are below the floor.
    floor_version: u64,
    /// The snapshot of the latest poll, or else of the first statement that this server answered.
    seen: Snapshot,
    /// Whether there was a poll. The first one asks for all that is retained.
    polled: bool,
    /// The triggers as polls have seen them since the first one, and the snapshot of that one.
    triggers: Option<(Triggers, Snapshot)>,
    /// The latest statements of this replica, by which polls of others are dated.
    observations: VecDeque<(Tick, Snapshot)>,
    /// By subject, each with the version that brought it, in that order.
    changes: HashMap<Subject, VecDeque<(Xid, u64)>>,
    everything: VecDeque<(Xid, u64)>,
    /// One entry per poll that brought changes, oldest first.
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

impl ChangeRecord {
    pub(super) fn of(installation: Installation) -> Self {
        Self { installation, retention: Retention::default(), history: None, version: 0 }
    }

    pub(super) fn installation(&self) -> Installation {
        self.installation
    }

    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.history.as_ref().map(|history| history.lineage)
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

    /// Returns the version up to which an entry is found to hold, or `None` if it does not. `since`
    /// is the result of an earlier comparison.
    pub(super) fn judge(
        &self,
        stamp: &Stamp,
        since: Option<u64>,
        subjects: impl FnOnce(&mut dyn FnMut(Subject)),
    ) -> Option<u64> {
        let history = self.history.as_ref().filter(|history| history.lineage == stamp.lineage)?;
        // An earlier result counts from the floor on; before it, the snapshot decides alone.
        let since = since.filter(|version| *version >= history.floor_version);
        if since.is_none()
            && !(stamp.snapshot.includes(&history.floor) && history.sees_all_recorded(stamp))
        {
            return None;
        }
        let since = since.unwrap_or(0);
        // The latest changes are at the end.
        let seen = |changes: &VecDeque<(Xid, u64)>| {
            let mut new = changes.iter().rev().take_while(|(_, version)| *version > since);
            new.all(|(xid, _)| stamp.snapshot.sees(*xid))
        };
        let mut holds = seen(&history.everything);
        if !history.changes.is_empty() {
            subjects(&mut |subject| {
                holds = holds && history.changes.get(&subject).is_none_or(seen);
            });
        }
        holds.then_some(self.version)
    }

    /// Takes note of the server that answered a statement, which was sent at `sent`. The first
    /// server, one on a later timeline, and one after a crash begin the record again, without
    /// anything from before. A server of another installation changes nothing.
    pub(super) fn meet(&mut self, stamp: &Stamp, sent: Tick) -> Result<(), RefusedStamp> {
        let lineage = stamp.lineage;
        if lineage.installation != self.installation {
            let found = lineage.installation;
            return Err(OtherInstallation { expected: self.installation, found }.into());
        }
        if let Some(History { lineage: known, met, .. }) = &self.history {
            if *known == lineage {
                return Ok(());
            }
            // Timelines are ordered. Lives are not: a late answer from before the crash is
            // recognized by when its statement was sent.
            let superseded = if known.timeline == lineage.timeline {
                sent < *met
            } else {
                known.timeline > lineage.timeline
            };
            if superseded {
                return Err(SupersededServer(lineage.timeline).into());
            }
        }
        self.begin(stamp, stamp.snapshot.clone(), sent);
        Ok(())
    }

    /// Records a poll of this replica. Returns false if it leaves a gap.
    pub(super) fn apply(&mut self, poll: Poll) -> bool {
        if self.meet(&poll.stamp, poll.sent).is_err() {
            return false;
        }
        let Some(history) = &self.history else { return false };
        match &poll.after {
            Some(after) => {
                // A poll does not join if it begins elsewhere, if the server went back in time, if
                // changes were pruned that it asked for, or if changes were not recorded.
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
                // of the past came from another cluster with a dump, and says nothing.
                let snapshot = &poll.stamp.snapshot;
                let floor = if snapshot.includes(&poll.horizon) { &poll.horizon } else { snapshot };
                self.begin(&poll.stamp, floor.clone(), poll.sent);
                if let Some(history) = &mut self.history {
                    history.triggers = Some((poll.triggers, poll.stamp.snapshot.clone()));
                }
            }
        }
        self.add(poll);
        true
    }

    /// Records a poll that another replica made, at whatever time. Returns false if it leaves a gap.
    /// Which server is the current one, only statements of this replica show.
    pub(super) fn follow(&mut self, poll: Poll) -> bool {
        let Some(history) = self.history.as_ref().filter(|history| history.polled) else {
            return false;
        };
        if history.lineage != poll.stamp.lineage {
            return false;
        }
        let snapshot = &poll.stamp.snapshot;
        history.seen.includes(snapshot) || (snapshot.includes(&history.seen) && self.apply(poll))
    }

    /// Takes note of what a statement of this replica saw, which was sent at `sent`.
    pub(super) fn observe(&mut self, stamp: &Stamp, sent: Tick) {
        if let Some(history) = self.history.as_mut().filter(|h| h.lineage == stamp.lineage) {
            history.observations.push_back((sent, stamp.snapshot.clone()));
            if history.observations.len() > MAX_OBSERVATIONS {
                history.observations.pop_front();
            }
        }
    }

    /// A tick before which every committed change is recorded. A snapshot that includes that of a
    /// statement sees all that was committed before the statement was sent.
    pub(super) fn reaches(&self) -> Option<Tick> {
        let history = self.history.as_ref().filter(|history| history.polled)?;
        let mut latest_first = history.observations.iter().rev();
        latest_first.find(|(_, snapshot)| history.seen.includes(snapshot)).map(|(sent, _)| *sent)
    }

    fn begin(&mut self, stamp: &Stamp, floor: Snapshot, sent: Tick) {
        self.version += 1;
        let known = self.history.as_ref().filter(|history| history.lineage == stamp.lineage);
        let met = known.map_or(sent, |history| history.met);
        self.history = Some(History {
            lineage: stamp.lineage,
            met,
            floor,
            floor_version: self.version,
            seen: stamp.snapshot.clone(),
            polled: false,
            triggers: None,
            observations: VecDeque::new(),
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

    /// Drops what is old, and raises the floor to what is left.
    fn forget(&mut self, now: Tick, retention: Retention) {
        let old = |arrival: &Arrival, count| {
            count > retention.count || now.since(arrival.at) > retention.age
        };
        while self.arrivals.front().is_some_and(|arrival| old(arrival, self.count)) {
            let Some(arrival) = self.arrivals.pop_front() else { return };
            self.count -= arrival.changes.len();
            for change in arrival.changes {
                // What a poll brought is older than what later polls brought, so it is in front.
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
