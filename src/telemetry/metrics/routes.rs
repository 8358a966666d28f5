//! What `patgate sync` does.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::{PREFIX, Registrar};
use crate::telemetry::{
    closed::Closed,
    exposition::Exemplars,
    histogram::Durations,
    results::{MetricResult, RouteChange, RoutePart},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

/// The metrics of `patgate sync`. Clones share the same counters.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    backends: Gauge,
    refused: Gauge,
    foreign: Gauge,
    leader: Gauge,
    changes: Closed<ChangeLabels, Counter>,
    failures: Closed<PartLabels, Counter>,
}

impl RouteMetrics {
    /// Creates the metrics and registers them in `registry`, with names that begin with
    /// `patgate_sync_`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version of this process", Info::new(version));
        let mut to = Registrar(registry);
        let changes = Closed::new(
            RouteChange::ALL.iter().map(|change| ChangeLabels { change: change.as_str() }),
        );
        to.registered(
            "sync_changes",
            "Files and objects that were created, changed, restored or deleted",
            changes.family(),
        );
        let failures =
            Closed::new(RoutePart::ALL.iter().map(|part| PartLabels { part: part.as_str() }));
        to.registered(
            "sync_failures",
            "Rounds that did not bring the routes in step, by what failed",
            failures.family(),
        );
        Self {
            backends: to.count("sync_backends", "Backends that have a route"),
            refused: to.count(
                "sync_refused_backends",
                "Backends that get no route because of their name or address; the log says why",
            ),
            foreign: to.count(
                "sync_foreign_objects",
                "Objects of others that have the name of one of ours, and are not touched",
            ),
            leader: to.count("sync_leader", "1 while this process is the one that writes"),
            changes,
            failures,
        }
    }

    /// There are none; the page needs to know where they would be.
    pub(crate) fn exemplars(&self) -> Exemplars {
        Exemplars::new("", Durations::default())
    }

    pub(crate) fn planned(&self, backends: usize, refused: usize) {
        self.backends.set(backends.try_into().unwrap_or(i64::MAX));
        self.refused.set(refused.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    pub(crate) fn foreign(&self, objects: usize) {
        self.foreign.set(objects.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn changed(&self, change: RouteChange) {
        self.changes.of(&ChangeLabels { change: change.as_str() }).inc();
    }

    pub(crate) fn failed(&self, part: RoutePart) {
        self.failures.of(&PartLabels { part: part.as_str() }).inc();
    }
}
