//! When an entry in use is renewed behind the answer.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Tick;

/// How soon after an attempt to renew an entry the next one may follow.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The tick before which an entry is not renewed, whatever its age.
#[derive(Debug)]
pub(crate) struct Renewal(AtomicI64);

impl Default for Renewal {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Renewal {
    /// Whether this use should start one; true for one use at a time. The entry was filled as of
    /// `filled` and is known to hold as of `known`: while the feed runs, that is never long ago.
    pub(super) fn due(
        &self,
        filled: Tick,
        known: Tick,
        now: Tick,
        max_staleness: Duration,
    ) -> bool {
        let age = now.since(known);
        if age < max_staleness / 2 || age < patience(filled, max_staleness) {
            return false;
        }
        let due = self.0.load(Relaxed);
        now >= Tick::from_micros(due)
            && self
                .0
                .compare_exchange(due, now.after(RETRY_AFTER).as_micros(), Relaxed, Relaxed)
                .is_ok()
    }
}

/// Half of the bound and up to a quarter more, so that what was filled together is not renewed
/// together.
fn patience(filled: Tick, max_staleness: Duration) -> Duration {
    let spread = u32::from(filled.as_micros() as u8);
    max_staleness / 2 + max_staleness / 1024 * spread
}
