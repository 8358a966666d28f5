//! What a change returns to its caller.

use std::{sync::Arc, time::Duration};

use super::{CachedCopiesError, Scope};
use crate::{clock::Tick, domain::DomainRef, keyring::KeyId};

/// A change that is committed, with everything that its caller may have to do next.
#[derive(Debug)]
#[must_use = "warnings are for the operator"]
pub struct Outcome<T> {
    /// What the call is for, such as the details of what it created; `()` if it only changes something.
    pub value: T,
    /// What the operator should know. The change is committed all the same.
    pub warnings: Vec<Warning>,
    /// What [`Admin::progress`](super::Admin::progress) follows to the replicas.
    pub committed: CommittedChange,
}

impl<T> Outcome<T> {
    /// The same outcome with another value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { value, warnings, committed } = self;
        Outcome { value: convert(value), warnings, committed }
    }
}

/// A change that replicas may not have applied yet.
#[derive(Clone, Debug)]
pub struct CommittedChange {
    /// The id of its transaction; `None` if nothing was changed.
    pub(super) transaction: Option<String>,
    /// A tick after its commit.
    pub(super) at: Tick,
}

/// Something that an operator should know about a change that is committed.
#[derive(Clone, Debug)]
pub enum Warning {
    /// Outdated copies may still be in Redis. A replica that cannot read the feed of changes may use
    /// them for up to `max_staleness`.
    CopiesNotDeleted {
        /// Why they could not be deleted.
        error: Arc<CachedCopiesError>,
        /// How old a copy may be when a replica uses it.
        max_staleness: Duration,
    },
    /// A scope of the new token grants nothing until a role of its owner permits the operation.
    ScopeNotPermitted {
        /// The scope that grants nothing.
        scope: Scope,
        /// The e-mail address of the token's owner.
        owner: String,
    },
    /// The tokens of a key were revoked, and new ones are still signed with it.
    SignsNewTokens {
        /// The current key of the ring.
        key: KeyId,
    },
    /// The new token has no scope, so it can do nothing.
    NoScopes,
    /// The domain does not list any model any more, so it sees none.
    SeesNoModel {
        /// The domain, as the caller named it.
        domain: DomainRef,
    },
}
