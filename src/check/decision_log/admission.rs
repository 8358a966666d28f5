//! Decides what is recorded, and counts what is not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::refusal::Refusal;

/// A random share of the decisions.
pub(super) struct Sample {
    /// A draw of 64 bits is in the sample if it is below this value; the maximum means that all
    /// are.
    below: u64,
}

impl Sample {
    /// Makes a sample with a share from 0, nothing, to 1, everything.
    pub(super) fn new(share: f64) -> Self {
        // The conversion saturates: 1 gives the maximum.
        Self { below: (share * 2f64.powi(64)) as u64 }
    }

    /// Draws a number, and returns whether the next decision is in the sample.
    pub(super) fn draws(&self) -> bool {
        self.below == u64::MAX || fastrand::u64(..) < self.below
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
