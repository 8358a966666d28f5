//! A histogram without a lock: the histogram of prometheus-client takes a lock for each
//! observation, and every check makes one.
//!
//! Checks whose trace the gateway records leave an exemplar: the id of the trace, in the bucket of
//! the check. Only they take a lock, and none waits for it.

use std::{
    array, fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

use crate::{clock::Tick, trace_context::TraceId};

/// Upper bounds in nanoseconds; from 10 µs to 1 s.
const BOUNDS: [u64; 16] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];

/// The buckets: one for each bound, and one for longer durations.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram of durations; clones share it. A read during writes may miss some of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// One counter for each bound, and one for longer durations.
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
    exemplars: [Mutex<Option<Exemplar>>; BUCKETS],
}

/// One observation whose trace is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    pub(super) took: Duration,
    pub(super) at: Tick,
}

impl Durations {
    pub(super) fn observe(&self, took: Duration) {
        let nanoseconds = nanoseconds(took);
        self.0.counts[bucket(nanoseconds)].fetch_add(1, Relaxed);
        self.0.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// Keeps an observation as the exemplar of its bucket, unless another one is being kept.
    pub(super) fn exemplify(&self, exemplar: Exemplar) {
        let bucket = bucket(nanoseconds(exemplar.took));
        if let Ok(mut kept) = self.0.exemplars[bucket].try_lock() {
            *kept = Some(exemplar);
        }
    }

    /// Returns the exemplar of each bucket, in their order.
    pub(super) fn exemplars(&self) -> [Option<Exemplar>; BUCKETS] {
        array::from_fn(|at| *self.0.exemplars[at].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(nanoseconds: u64) -> usize {
    BOUNDS.iter().position(|bound| nanoseconds <= *bound).unwrap_or(BOUNDS.len())
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let bounds = BOUNDS.iter().copied().map(seconds).chain([f64::MAX]);
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.0.nanoseconds.load(Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn counts_each_once_where_it_belongs() {
        let mut registry = Registry::default();
        let durations = Durations::default();
        registry.register("took", "Help", durations.clone());
        for microseconds in [1, 10, 11, 999_000, 3_000_000] {
            durations.observe(Duration::from_micros(microseconds));
        }
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "took_sum 3.999022",
            "took_count 5",
            "took_bucket{le=\"0.00001\"} 2",
            "took_bucket{le=\"0.00002\"} 3",
            "took_bucket{le=\"0.5\"} 3",
            "took_bucket{le=\"1.0\"} 4",
            "took_bucket{le=\"+Inf\"} 5",
        ] {
            assert!(page.lines().any(|known| known == line), "{line}\n{page}");
        }
    }
}
