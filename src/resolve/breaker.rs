//! A circuit breaker: after some failures in a row, one attempt a while.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Tick;

/// Failures in a row that open the circuit.
const THRESHOLD: u32 = 5;
/// How long after an attempt the next one may follow, while it is open.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    next_attempt: AtomicI64,
}

impl Breaker {
    /// Whether an attempt may be made now. While open, one caller a pause is the probe.
    pub(super) fn admits(&self, now: Tick) -> bool {
        if self.failures.load(Relaxed) < THRESHOLD {
            return true;
        }
        let due = self.next_attempt.load(Relaxed);
        now >= Tick::from_micros(due)
            && self
                .next_attempt
                .compare_exchange(due, now.after(PAUSE).as_micros(), Relaxed, Relaxed)
                .is_ok()
    }

    pub(super) fn succeeded(&self) {
        self.failures.store(0, Relaxed);
    }

    pub(super) fn failed(&self, now: Tick) {
        if self.failures.fetch_add(1, Relaxed) + 1 == THRESHOLD {
            self.next_attempt.store(now.after(PAUSE).as_micros(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_and_closes() {
        let (breaker, start) = (Breaker::default(), Tick::from_micros(0));
        for _ in 0..THRESHOLD {
            assert!(breaker.admits(start));
            breaker.failed(start);
        }
        assert!(!breaker.admits(start));
        let later = start.after(PAUSE);
        assert!(breaker.admits(later), "one probe");
        assert!(!breaker.admits(later), "and no second");
        breaker.failed(later);
        assert!(!breaker.admits(later));
        assert!(breaker.admits(later.after(PAUSE)));
        breaker.succeeded();
        assert!(breaker.admits(later) && breaker.admits(later));
    }
}
