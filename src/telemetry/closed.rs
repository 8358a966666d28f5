//! Families of metrics whose series all exist from the start.

use std::{fmt::Debug, hash::Hash, ops::Deref};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

/// Label of a result, such as `written` or `dropped`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: &'static str,
}

/// Counters by result.
pub(super) type Results = Closed<ResultLabels, Counter>;

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

impl Results {
    /// Creates the counters of these results.
    pub(super) fn by(results: &[&'static str]) -> Self {
        Self::new(results.iter().map(|result| ResultLabels { result }))
    }

    /// Returns the counter of one result, to count now.
    pub(super) fn result(&self, result: &'static str) -> impl Deref<Target = Counter> {
        self.of(&ResultLabels { result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_exists_before_its_first_event() {
        let results = Results::by(&["ok", "failed"]);
        assert_eq!(results.family().get(&ResultLabels { result: "failed" }).unwrap().get(), 0);
        results.result("failed").inc();
        assert_eq!(results.family().get(&ResultLabels { result: "failed" }).unwrap().get(), 1);
    }

    #[test]
    #[should_panic = "is not in the closed set"]
    fn a_result_that_was_not_declared_is_a_bug() {
        Results::by(&["ok"]).result("new");
    }
}
