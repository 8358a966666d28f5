//! A circuit breaker: after some failures in a row, one attempt per pause.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::{clock::Tick, throttle::Throttle};

/// Failures in a row that open the circuit.
const THRESHOLD: u32 = 5;
/// How long to wait between attempts while it is open.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    probes: Throttle,
}

impl Breaker {
    /// Returns whether an attempt is permitted now. While the circuit is open, one per pause is.
    pub(super) fn admits(&self, now: Tick) -> bool {
        !self.is_open() || self.probes.passes(now, PAUSE)
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures.load(Relaxed) >= THRESHOLD
    }

    pub(super) fn succeeded(&self) {
        self.failures.store(0, Relaxed);
    }

    /// Counts a failure. Returns whether it is the one that opens the circuit.
    pub(super) fn failed(&self, now: Tick) -> bool {
        let opens = self.failures.fetch_add(1, Relaxed) + 1 == THRESHOLD;
        if opens {
            self.probes.close(now, PAUSE);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_and_closes() {
        let breaker = Breaker::default();
        let start = Tick::from_micros(0);
        for count in 1..=THRESHOLD {
            assert!(breaker.admits(start));
            assert_eq!(breaker.failed(start), count == THRESHOLD);
        }
        assert!(!breaker.admits(start));
        let later = start.after(PAUSE);
        assert!(breaker.admits(later), "one probe");
        assert!(!breaker.admits(later), "and no second");
        assert!(!breaker.failed(later), "it is open");
        assert!(!breaker.admits(later));
        assert!(breaker.admits(later.after(PAUSE)));
        breaker.succeeded();
        assert!(breaker.admits(later) && breaker.admits(later));
    }
}
