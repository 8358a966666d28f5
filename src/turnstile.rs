//! Lets one pass, and the next one only after a while.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Tick;

/// The tick from which on it is open. Nobody waits before it, and of many at a time one passes.
#[derive(Debug)]
pub(crate) struct Turnstile(AtomicI64);

impl Default for Turnstile {
    /// An open one.
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Turnstile {
    /// Whether the caller passes, and closes it for so long behind.
    pub(crate) fn passes(&self, now: Tick, pause: Duration) -> bool {
        let opens = self.0.load(Relaxed);
        now >= Tick::from_micros(opens)
            && self
                .0
                .compare_exchange(opens, now.after(pause).as_micros(), Relaxed, Relaxed)
                .is_ok()
    }

    /// Closes it, with nobody passing.
    pub(crate) fn close(&self, now: Tick, pause: Duration) {
        self.0.store(now.after(pause).as_micros(), Relaxed);
    }

    /// Opens no sooner than the turnstile that this one replaces.
    pub(crate) fn succeed(&self, earlier: &Self) {
        self.0.fetch_max(earlier.0.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_and_the_next_after_a_pause() {
        let (turnstile, pause) = (Turnstile::default(), Duration::from_secs(1));
        let start = Tick::from_micros(77);
        assert!(turnstile.passes(start, pause));
        assert!(!turnstile.passes(start, pause));
        let replacing = Turnstile::default();
        replacing.succeed(&turnstile);
        for turnstile in [turnstile, replacing] {
            assert!(!turnstile.passes(start.after(Duration::from_millis(999)), pause));
            assert!(turnstile.passes(start.after(pause), pause));
            turnstile.close(start.after(pause), pause);
            assert!(!turnstile.passes(start.after(pause), pause));
        }
    }
}
