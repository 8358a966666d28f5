//! How old an entry may be: part (b) of the rule.

use std::time::Duration;

use crate::clock::Tick;

/// The greatest ages at which cached entries are used.
#[derive(Clone, Copy, Debug)]
pub struct AgeBounds {
    /// The greatest age of an entry that holds a value.
    pub max_staleness: Duration,
    /// The greatest age of an entry that says that something does not exist.
    pub negative_ttl: Duration,
}

impl AgeBounds {
    /// Returns whether an entry that is known to hold at `known` may be used at `now`.
    pub fn permit(&self, has_value: bool, known: Tick, now: Tick) -> bool {
        let bound = if has_value { self.max_staleness } else { self.negative_ttl };
        now.since(known) <= bound
    }
}
