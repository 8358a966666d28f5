//! The record of changes: pure data, so that a model can check it.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use super::{
    Change, Dependency, Lineage, OtherInstallation, Poll, RefusedStamp, Stamp, SupersededServer,
    Triggers,
};
use crate::{
    clock::Tick,
    installation::Installation,
    keyring::KeySerial,
    snapshot::{Snapshot, Xid},
};

#[cfg(test)]
pub(super) mod tests;

/// The number of statements of this replica that are remembered, to date the polls of other replicas.
const MAX_OBSERVATIONS: usize = 4;

/// The number of changes that are remembered, and the time for which they are.
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

/// The changes that polls have brought, and how far back they reach. `freshness.rs` states the rule for
/// which they are recorded.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct ChangeRecord {
    /// The installation whose changes are recorded. Answers of another one are refused.
    installation: Installation,
    retention: Retention,
    history: Option<History>,
    /// Increases whenever an entry may have to be compared again.
    version: u64,
}

/// The changes of one lineage.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct History {
    lineage: Lineage,
    /// The tick at which the first statement that this server answered was sent.
    met: Tick,
    /// Every change that `seen` sees and the floor does not is recorded.
    floor: Snapshot,
    /// The version at which the floor was set. An entry that was checked before this version is checked
    /// again from the floor.
    floor_version: u64,
    /// The snapshot of the latest poll or, before the first poll, of the first statement that this server
    /// answered.
    seen: Snapshot,
    /// Whether there was a poll. The first one asks for all changes that are retained.
    polled: bool,
    /// The state of the triggers, which all polls since the first one have found, and the first poll's
    /// snapshot.
    triggers: Option<(Triggers, Snapshot)>,
    /// The latest statements of this replica, which date the polls of other replicas.
    observations: VecDeque<(Tick, Snapshot)>,
    /// The keys that sealed the polls of other replicas on which `seen` rests, each once.
    seals: Vec<KeySerial>,
    /// The changes by dependency, each with the version that brought it, in the order of versions.
    changes: HashMap<Dependency, VecDeque<(Xid, u64)>>,
    everything: VecDeque<(Xid, u64)>,
    /// One entry per poll that brought changes, oldest first.
    arrivals: VecDeque<Arrival>,
    count: usize,
}

/// The changes that one poll brought.
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

    /// Returns the version up to which an entry holds, or `None` if it does not hold. `since` is the result
    /// of an earlier comparison.
    pub(super) fn judge(
        &self,
        stamp: &Stamp,
        since: Option<u64>,
        dependencies: impl FnOnce(&mut dyn FnMut(Dependency)),
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
            dependencies(&mut |dependency| {
                holds = holds && history.changes.get(&dependency).is_none_or(seen);
            });
        }
        holds.then_some(self.version)
    }

    /// Records the server that answered a statement, which was sent at `sent`. The first server, a server on
    /// a later timeline, and a server after a crash begin an empty record. A server of another
    /// installation changes nothing.
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
            // Timelines are ordered, lives are not: the tick at which its statement was sent shows that a
            // late answer is from before a crash.
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

    /// Records a poll that another replica made at some earlier time, and that came under the seal of
    /// `seal`. Returns false if it leaves a gap. Only statements of this replica show which server is the
    /// current one.
    pub(super) fn follow(&mut self, mut poll: Poll, seal: KeySerial) -> bool {
        let Some(history) = self.history.as_ref().filter(|history| history.polled) else {
            return false;
        };
        if history.lineage != poll.stamp.lineage {
            return false;
        }
        let snapshot = &poll.stamp.snapshot;
        if history.seen.includes(snapshot) {
            return true;
        }
        if !snapshot.includes(&history.seen) {
            return false;
        }
        let mut seals = history.seals.clone();
        if !seals.contains(&seal) {
            seals.push(seal);
        }
        if poll.after.is_none() {
            // The record begins again, and the poll need not bring what is recorded here. With this
            // horizon, only entries that see all of it remain usable.
            poll.horizon = snapshot.clone();
        }
        let joined = self.apply(poll);
        if joined && let Some(history) = &mut self.history {
            history.seals = seals;
        }
        joined
    }

    /// Stops to rest on polls that came under the seal of a key that does not hold. Returns whether the
    /// record did. Then it has not been polled: nothing says how far it reaches, and the next poll asks
    /// for all changes that are retained. Changes that it knows of stay recorded, whoever reported them.
    pub(super) fn distrust(&mut self, holds: impl Fn(KeySerial) -> bool) -> bool {
        let Some(history) = &mut self.history else { return false };
        if history.seals.iter().all(|seal| holds(*seal)) {
            return false;
        }
        history.polled = false;
        history.seals.clear();
        true
    }

    /// Records what a statement of this replica saw. The statement was sent at `sent`.
    pub(super) fn observe(&mut self, stamp: &Stamp, sent: Tick) {
        if let Some(history) = self.history.as_mut().filter(|h| h.lineage == stamp.lineage) {
            history.observations.push_back((sent, stamp.snapshot.clone()));
            if history.observations.len() > MAX_OBSERVATIONS {
                history.observations.pop_front();
            }
        }
    }

    /// Returns a tick before which every committed change is recorded. A snapshot that includes the snapshot
    /// of a statement sees everything that was committed before the statement was sent.
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
            seals: Vec::new(),
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
        // A row whose transaction has not ended came with a dump from another cluster. Every poll would
        // read it again, and no entry could ever see it.
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
                    Change::To(dependency) => {
                        history
                            .changes
                            .entry(dependency.clone())
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
    /// Returns whether the snapshot sees all changes that were made while triggers were off.
    fn sees_all_recorded(&self, stamp: &Stamp) -> bool {
        self.triggers.as_ref().is_none_or(|(triggers, seen)| {
            triggers.switched < stamp.snapshot.xmin() || stamp.snapshot.includes(seen)
        })
    }

    /// Drops old changes, and raises the floor accordingly.
    fn forget(&mut self, now: Tick, retention: Retention) {
        let old = |arrival: &Arrival, count| {
            count > retention.count || now.since(arrival.at) > retention.age
        };
        while self.arrivals.front().is_some_and(|arrival| old(arrival, self.count)) {
            let Some(arrival) = self.arrivals.pop_front() else { return };
            self.count -= arrival.changes.len();
            for change in arrival.changes {
                // Each poll brings newer changes than the previous one, so the oldest are in front.
                match change {
                    Change::Everything => drop(self.everything.pop_front()),
                    Change::To(dependency) => {
                        if let Entry::Occupied(mut changes) = self.changes.entry(dependency) {
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
