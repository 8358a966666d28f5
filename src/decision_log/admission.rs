//! Decides what is recorded, and counts what is not.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicI64, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

use crate::{clock::Tick, refusal::Refusal};

/// A random share of the decisions.
pub(super) struct Sample {
    /// A draw of 64 bits is in the sample if it is below this value; the maximum means that all
    /// are.
    below: u64,
}

thread_local! {
    /// Never 0, because xorshift would then return only 0.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// Returns the next number of a sequence, by xorshift64*. Each thread has its own sequence, so no
/// thread waits for another.
fn draw() -> u64 {
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next >> 12;
        next ^= next << 25;
        next ^= next >> 27;
        state.set(next);
        next.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

impl Sample {
    /// Makes a sample with a share from 0, nothing, to 1, everything.
    pub(super) fn new(share: f64) -> Self {
        // The conversion saturates: 1 gives the maximum.
        Self { below: (share * 2f64.powi(64)) as u64 }
    }

    /// Draws a number, and returns whether the next decision is in the sample.
    pub(super) fn draws(&self) -> bool {
        self.below == u64::MAX || draw() < self.below
    }
}

const SECOND: i64 = 1_000_000_000;

/// Permits so many per second, and as many at once after a second without any.
pub(super) struct Pace {
    /// Nanoseconds between two.
    interval: i64,
    /// The time of the next one if they came evenly, in nanoseconds of a tick.
    next: AtomicI64,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { interval: SECOND / i64::from(per_second.max(1)), next: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn admits(&self, at: Tick) -> bool {
        let now = at.as_micros().saturating_mul(1000);
        let step = |next: i64| {
            let next = next.max(now) + self.interval;
            (next - now <= SECOND).then_some(next)
        };
        self.next.fetch_update(AcqRel, Relaxed, step).is_ok()
    }
}

/// Counts what was not recorded since the last summary.
#[derive(Default)]
pub(super) struct Omissions {
    /// One counter per code, in the order of [`Refusal::CODES`].
    left_out: [AtomicU64; Refusal::CODES.len()],
    dropped: AtomicU64,
}

impl Omissions {
    /// Counts a denial that the rate limit excluded.
    pub(super) fn left_out(&self, code: &str) {
        if let Some(at) = Refusal::CODES.iter().position(|known| *known == code) {
            self.left_out[at].fetch_add(1, Relaxed);
        }
    }

    /// Counts a record that was dropped because the queue was full.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Returns both counts, and resets them.
    pub(super) fn take(&self) -> (Vec<(&'static str, u64)>, u64) {
        let counts = Refusal::CODES.iter().zip(&self.left_out);
        let counts = counts.map(|(code, count)| (*code, count.swap(0, Relaxed)));
        (counts.filter(|(_, count)| *count > 0).collect(), self.dropped.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DRAWS: u32 = 100_000;

    /// Within five standard deviations of a fair draw.
    #[test]
    fn a_sample_is_of_the_size_that_was_asked_for() {
        for share in [0.0, 0.001, 0.01, 0.5, 1.0] {
            let sample = Sample::new(share);
            let drawn = (0..DRAWS).filter(|_| sample.draws()).count() as f64;
            let expected = f64::from(DRAWS) * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            assert!((drawn - expected).abs() <= 5.0 * deviation, "{share}: {drawn}");
        }
    }

    #[test]
    fn so_many_a_second_and_no_more() {
        let (pace, start) = (Pace::new(10), Tick::from_micros(77));
        let admitted = |at: Tick| (0..100).filter(|_| pace.admits(at)).count();
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start.after(Duration::from_millis(99))), 0);
        assert_eq!(admitted(start.after(Duration::from_millis(100))), 1);
        assert_eq!(admitted(start.after(Duration::from_secs(60))), 10, "a second's worth");
    }

    #[test]
    fn what_is_omitted_is_told_once() {
        let omissions = Omissions::default();
        for code in ["invalid_token", "missing_credential", "invalid_token", "none of ours"] {
            omissions.left_out(code);
        }
        omissions.dropped();
        assert_eq!(omissions.take(), (vec![("missing_credential", 1), ("invalid_token", 2)], 1));
        assert_eq!(omissions.take(), (vec![], 0));
    }
}
