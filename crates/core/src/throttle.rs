//! A throttle: lets one caller pass, and the next one only after a pause.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Tick;

/// The tick from which it is open. Callers never wait; of several at the same time, one passes.
#[derive(Debug)]
pub struct Throttle(AtomicI64);

impl Default for Throttle {
    /// Returns a throttle that is open.
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Throttle {
    /// Returns whether the caller passes, and if so, closes the throttle for `pause`.
    pub fn passes(&self, now: Tick, pause: Duration) -> bool {
        let opens = self.0.load(Relaxed);
        now >= Tick::from_micros(opens)
            && self
                .0
                .compare_exchange(opens, now.after(pause).as_micros(), Relaxed, Relaxed)
                .is_ok()
    }

    /// Closes the throttle for `pause` without a caller that passes.
    pub fn close(&self, now: Tick, pause: Duration) {
        self.0.store(now.after(pause).as_micros(), Relaxed);
    }

    /// Takes over from the throttle that this one replaces: it opens no earlier.
    pub fn succeed(&self, earlier: &Self) {
        self.0.fetch_max(earlier.0.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_and_the_next_after_a_pause() {
        let throttle = Throttle::default();
        let pause = Duration::from_secs(1);
        let start = Tick::from_micros(77);
        assert!(throttle.passes(start, pause));
        assert!(!throttle.passes(start, pause));
        let replacing = Throttle::default();
        replacing.succeed(&throttle);
        for throttle in [throttle, replacing] {
            assert!(!throttle.passes(start.after(Duration::from_millis(999)), pause));
            assert!(throttle.passes(start.after(pause), pause));
            throttle.close(start.after(pause), pause);
            assert!(!throttle.passes(start.after(pause), pause));
        }
    }
}
