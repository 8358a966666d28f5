//! How old an entry may be: part (b) of the rule.

use std::time::Duration;

use crate::clock::Tick;

/// The greatest ages at which entries are used.
#[derive(Clone, Copy, Debug)]
pub struct AgeBounds {
    /// For an entry that holds a value.
    pub max_staleness: Duration,
    /// For an entry that says "there is no such thing".
    pub negative_ttl: Duration,
}

impl AgeBounds {
    /// Whether an entry that is known to hold as of `known` may be used at `now`.
    pub fn permit(&self, has_value: bool, known: Tick, now: Tick) -> bool {
        let bound = if has_value { self.max_staleness } else { self.negative_ttl };
        now.since(known) <= bound
    }
}
