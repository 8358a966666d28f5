//! Medians and their confidence intervals.

/// A median, and the interval that holds it in 95 of 100 repetitions of the same rounds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

const RESAMPLES: usize = 10_000;

impl Spread {
    /// Computes the interval by bootstrap: the medians of as many rounds, drawn from these with
    /// replacement. It assumes nothing about the distribution of figures on a shared machine.
    pub(crate) fn of(rounds: &[f64]) -> Self {
        let mut dice = Dice::new(1);
        let mut medians: Vec<_> = (0..RESAMPLES)
            .map(|_| {
                let drawn: Vec<_> =
                    rounds.iter().map(|_| rounds[dice.below(rounds.len())]).collect();
                median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share) as usize];
        Self { median: median(rounds), min: at(0.025), max: at(0.975) }
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

/// Returns the value that this share of the values does not exceed. Sorts them.
pub(crate) fn quantile(values: &mut [u32], share: f64) -> f64 {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().map_or(f64::NAN, f64::from)
}

/// xorshift64*: a draw costs almost nothing compared with what is measured, and a seed repeats it.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((drawn * end as u64) >> 32) as usize
    }
}
