//! Families of metrics whose series all exist from the start.

use std::{fmt::Debug, hash::Hash, marker::PhantomData, ops::Deref};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::results::MetricResult;

/// Label of a result, such as `written` or `dropped`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

/// Counters by result, one for each result of `R`.
#[derive(Clone, Debug)]
pub(super) struct Results<R> {
    counters: Closed<ResultLabels, Counter>,
    results: PhantomData<R>,
}

/// A family whose label sets are known in advance, so that each series starts at 0 with the process.
#[derive(Clone, Debug)]
pub(super) struct Closed<L, M>(Family<L, M>);

impl<L, M> Closed<L, M>
where
    L: Clone + Debug + Eq + Hash,
    M: Clone + Default,
{
    /// Creates the series of all these label sets.
    pub(super) fn new(all: impl IntoIterator<Item = L>) -> Self {
        let family = Family::<L, M>::default();
        for labels in all {
            drop(family.get_or_create(&labels));
        }
        Self(family)
    }

    /// Returns the family for the registry.
    pub(super) fn family(&self) -> Family<L, M> {
        self.0.clone()
    }

    /// Returns the metric of one label set. A set that is not one of those given to [`Self::new`] is
    /// a bug: its first event would be invisible.
    pub(super) fn of<'s>(&'s self, labels: &L) -> impl Deref<Target = M> + use<'s, L, M> {
        debug_assert!(self.0.get(labels).is_some(), "{labels:?} is not in the closed set");
        self.0.get_or_create(labels)
    }

    /// Returns a handle of the metric of one label set, for callers that keep it.
    pub(super) fn handle(&self, labels: &L) -> M {
        let metric = self.of(labels);
        M::clone(&metric)
    }
}

impl<R: MetricResult> Results<R> {
    pub(super) fn new() -> Self {
        let labels = R::ALL.iter().map(|result| ResultLabels { result: result.as_str() });
        Self { counters: Closed::new(labels), results: PhantomData }
    }

    /// Returns the family for the registry.
    pub(super) fn family(&self) -> Family<ResultLabels, Counter> {
        self.counters.family()
    }

    /// Returns the counter of one result, to count now.
    pub(super) fn of(&self, result: R) -> impl Deref<Target = Counter> {
        self.counters.of(&ResultLabels { result: result.as_str() })
    }

    /// Returns a handle of the counter of one result, for callers that keep it.
    pub(super) fn handle(&self, result: R) -> Counter {
        self.counters.handle(&ResultLabels { result: result.as_str() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::results::PollResult;

    #[test]
    fn each_series_exists_before_its_first_event() {
        let results = Results::<PollResult>::new();
        assert_eq!(results.family().get(&ResultLabels { result: "failed" }).unwrap().get(), 0);
        results.of(PollResult::Failed).inc();
        assert_eq!(results.family().get(&ResultLabels { result: "failed" }).unwrap().get(), 1);
    }

    #[test]
    #[should_panic = "is not in the closed set"]
    fn a_label_that_was_not_declared_is_a_bug() {
        let closed = Closed::<ResultLabels, Counter>::new([ResultLabels { result: "ok" }]);
        closed.of(&ResultLabels { result: "new" }).inc();
    }
}
