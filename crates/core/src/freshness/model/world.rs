//! The world around the feed: Postgres with its failures, reduced to what a statement can show.

use crate::{
    clock::Tick,
    freshness::{Change, Dependency, Lineage, Poll, Stamp, Triggers},
    snapshot::{Snapshot, Xid},
    token::TokenId,
};

/// A set of writing transactions, one bit each. Unlike an xid, a bit is never reused: the properties are
/// stated in bits, so they do not depend on what the rule depends on.
pub(super) type Writes = u16;

/// Returns the one token about which all transactions write.
pub(super) fn token() -> Dependency {
    Dependency::Token(TokenId(uuid::Uuid::nil()))
}

const FIRST_XID: u64 = 10;

/// One server that considers itself the primary.
#[derive(Clone, Debug, Hash)]
pub(super) struct SimulatedPostgres {
    pub(super) lineage: Lineage,
    next: u64,
    /// The highest xid that has ended, by a commit or by an abort.
    ended: u64,
    running: Vec<Running>,
    log: Vec<Logged>,
}

/// A transaction that has not ended.
#[derive(Clone, Copy, Debug, Hash)]
struct Running {
    xid: u64,
    write: Writes,
    /// Whether the transaction switched triggers off and on again, within a savepoint, whose id is the
    /// next one. What it wrote in between is not recorded.
    switches: bool,
}

impl Running {
    /// Returns the highest id that ends with the transaction.
    fn last(&self) -> u64 {
        self.xid + u64::from(self.switches)
    }
}

/// An entry of the log, from which a standby and crash recovery learn what happened.
#[derive(Clone, Debug, Hash)]
enum Logged {
    Committed { xid: u64, write: Writes, at: i64, switches: bool },
    Pruned { xid: u64, horizon: Snapshot },
}

impl Logged {
    fn xid(&self) -> u64 {
        match self {
            Self::Committed { xid, switches, .. } => *xid + u64::from(*switches),
            Self::Pruned { xid, .. } => *xid,
        }
    }
}

impl SimulatedPostgres {
    pub(super) fn new(lineage: Lineage) -> Self {
        let next = FIRST_XID;
        let ended = FIRST_XID - 1;
        Self { lineage, next, ended, running: Vec::new(), log: Vec::new() }
    }

    /// Returns a server of another database of the same cluster, which had the same history until it was
    /// made. Since then, other transactions have run there.
    pub(super) fn elsewhere(ours: Lineage) -> Self {
        let theirs = "7/16385/00000000-0000-0000-0000-000000000001".parse().unwrap();
        let mut elsewhere = Self::new(Lineage { installation: theirs, timeline: 2, ..ours });
        (elsewhere.next, elsewhere.ended) = (FIRST_XID + 8, FIRST_XID + 7);
        elsewhere
    }

    pub(super) fn begin(&mut self, write: Writes, switches: bool) {
        let running = Running { xid: self.next, write, switches };
        self.next = running.last() + 1;
        self.running.push(running);
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn logged(&self) -> usize {
        self.log.len()
    }

    pub(super) fn commit(&mut self, index: usize, at: i64) {
        let running = self.running.remove(index);
        self.ended = self.ended.max(running.last());
        let Running { xid, write, switches } = running;
        self.log.push(Logged::Committed { xid, write, at, switches });
    }

    pub(super) fn abort(&mut self, index: usize) {
        let running = self.running.remove(index);
        self.ended = self.ended.max(running.last());
    }

    /// Prunes changes without the delay of an hour, which only makes it less likely that a replica misses
    /// a change.
    pub(super) fn prune(&mut self) {
        let xid = self.next;
        let horizon = self.snapshot();
        self.next += 1;
        self.ended = self.ended.max(xid);
        self.log.push(Logged::Pruned { xid, horizon });
    }

    /// Returns a server whose past is the first `logged` entries of the log. Other transactions never
    /// happened, and their xids are reused.
    pub(super) fn recovered(&self, lineage: Lineage, logged: usize) -> Self {
        let log: Vec<Logged> = self.log[..logged].to_vec();
        let ended = log.iter().map(Logged::xid).max().unwrap_or(FIRST_XID - 1);
        Self { lineage, next: ended + 1, ended, running: Vec::new(), log }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { lineage: self.lineage, snapshot: self.snapshot() }
    }

    fn snapshot(&self) -> Snapshot {
        let xmax = self.ended + 1;
        let running: Vec<u64> =
            self.running.iter().map(|one| one.xid).filter(|xid| *xid < xmax).collect();
        let xmin = running.first().copied().unwrap_or(xmax);
        let running: Vec<String> = running.iter().map(u64::to_string).collect();
        format!("{xmin}:{xmax}:{}", running.join(",")).parse().unwrap()
    }

    /// Returns the writes that a statement sees now.
    pub(super) fn visible(&self) -> Writes {
        self.commits().fold(0, |writes, (_, write, _, _)| writes | write)
    }

    /// Returns the writes that committed before `tick`.
    pub(super) fn committed_before(&self, tick: i64) -> Writes {
        let before = self.commits().filter(|(_, _, at, _)| *at < tick);
        before.fold(0, |writes, (_, write, _, _)| writes | write)
    }

    /// Returns the answer to a poll, and the writes in it.
    pub(super) fn answer(&self, sent: Tick, after: Option<Snapshot>) -> (Poll, Writes) {
        let first = format!("{FIRST_XID}:{FIRST_XID}:").parse().unwrap();
        let pruned = self.log.iter().rev().find_map(|logged| match logged {
            Logged::Pruned { horizon, .. } => Some(horizon.clone()),
            Logged::Committed { .. } => None,
        });
        let horizon = pruned.unwrap_or(first);
        let mut changes = Vec::new();
        let mut writes = 0;
        let mut triggers = Triggers { state: 0, switched: Xid(0) };
        for (xid, write, _, switches) in self.commits() {
            if switches {
                // The rows are rewritten one after another, and none returns to an earlier state.
                triggers.state = triggers.state * 100 + xid.0.cast_signed();
                triggers.switched = triggers.switched.max(Xid(xid.0 + 1));
                continue;
            }
            let asked_for = after.as_ref().is_none_or(|after| !after.sees(xid));
            if asked_for && !horizon.sees(xid) {
                changes.push((xid, Change::To(token())));
                writes |= write;
            }
        }
        (Poll { sent, stamp: self.stamp(), triggers, horizon, after, changes }, writes)
    }

    fn commits(&self) -> impl Iterator<Item = (Xid, Writes, i64, bool)> {
        self.log.iter().filter_map(|logged| match logged {
            Logged::Committed { xid, write, at, switches } => {
                Some((Xid(*xid), *write, *at, *switches))
            }
            Logged::Pruned { .. } => None,
        })
    }
}
