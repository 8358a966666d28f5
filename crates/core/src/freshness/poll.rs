//! What one poll brings: the server that answered, and the changes since the previous poll.

use serde::{Deserialize, Serialize};

use super::Triggers;
use crate::{
    clock::Tick,
    domain::{DomainId, Slug},
    installation::Installation,
    principal::UserId,
    snapshot::{Snapshot, Xid},
    token::TokenId,
};

/// The history to which a snapshot belongs. A promoted standby begins a new one, and so does recovery
/// from a crash: in both cases, the server reuses the transaction ids of lost transactions. Snapshots
/// can be compared only within one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    /// The installation, which identifies cluster and database.
    pub installation: Installation,
    /// The timeline of the Postgres server.
    pub timeline: u32,
    /// The time since which the server counts its statistics, which do not survive a crash. A crash
    /// loses the transactions that had not reached the disk, although others had seen them end:
    /// transactions that were rolled back and, under `synchronous_commit = off`, committed ones. A
    /// crash does not begin a new timeline. Lives are not ordered, because this is the server's clock.
    pub life: i64,
}

/// The server that answered a statement, and what the statement saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The history to which the snapshot belongs.
    pub lineage: Lineage,
    /// The transactions that the statement saw.
    pub snapshot: Snapshot,
}

impl Stamp {
    /// Returns whether this statement saw everything that `other` saw, and more.
    pub fn outdates(&self, other: &Self) -> bool {
        self.lineage == other.lineage
            && self.snapshot.includes(&other.snapshot)
            && !other.snapshot.includes(&self.snapshot)
    }
}

/// Something on which a cached entry is based. A change to it outdates the entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dependency {
    /// A token and its scopes.
    Token(TokenId),
    /// A user who owns tokens.
    User(UserId),
    /// A domain and its models.
    Domain(DomainId),
    /// A slug. An entry that says that no domain has this slug is based on it.
    Slug(Slug),
    /// The roles of a user in a domain.
    Membership(UserId, DomainId),
    /// A backend, by name.
    Backend(Box<str>),
}

/// One change that a transaction made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The change concerns the entries with this dependency.
    To(Dependency),
    /// The change concerns every entry: a table was emptied, or this release does not know the kind of
    /// change.
    Everything,
}

/// The answer to one poll.
#[derive(Clone, Debug)]
pub struct Poll {
    /// The tick at which the statement was sent.
    pub sent: Tick,
    /// The server that answered, and what the poll saw.
    pub stamp: Stamp,
    /// The state of the triggers that record changes.
    pub triggers: Triggers,
    /// The snapshot up to which changes may have been pruned.
    pub horizon: Snapshot,
    /// The snapshot from which the poll continues: it asked for changes that this snapshot does not see.
    /// `None` if it asked for all changes that are retained.
    pub after: Option<Snapshot>,
    /// The changes, each with the transaction that made it.
    pub changes: Vec<(Xid, Change)>,
}

impl Poll {
    /// Returns whether a command may be waiting for the contents of the poll.
    pub fn brings_news(&self) -> bool {
        self.after.is_none() || !self.changes.is_empty()
    }
}
