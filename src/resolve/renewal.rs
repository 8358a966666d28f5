//! Decides when an entry in use is renewed after the answer.

use std::time::Duration;

use crate::{clock::Tick, throttle::Throttle};

/// How soon after an attempt to renew an entry the next one may follow.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds the attempts to renew an entry.
#[derive(Debug, Default)]
pub(crate) struct Renewal(Throttle);

impl Renewal {
    /// Returns whether this use should start a renewal; true for one use at a time. The entry was
    /// filled as of `filled` and is known to be true as of `known`: while the feed runs, that is
    /// never long ago.
    pub(super) fn due(
        &self,
        filled: Tick,
        known: Tick,
        now: Tick,
        max_staleness: Duration,
    ) -> bool {
        let age = now.since(known);
        // The second condition implies the first, but costs more.
        age >= max_staleness / 2
            && age >= patience(filled, max_staleness)
            && self.0.passes(now, RETRY_AFTER)
    }
}

/// Half of the bound and up to a quarter more, so that entries that were filled together are not
/// renewed together.
fn patience(filled: Tick, max_staleness: Duration) -> Duration {
    let spread = u32::from(filled.as_micros() as u8);
    max_staleness / 2 + max_staleness / 1024 * spread
}
