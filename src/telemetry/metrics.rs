//! Every metric that counts or measures what patgate does, by subject.

mod background;
mod certificates;
mod checks;
mod feed;
mod relay;
mod reloads;
mod routes;
mod self_service;
mod stores;
mod tls;

use prometheus_client::{
    metrics::info::Info,
    registry::{Metric, Registry, Unit},
};

pub(crate) use self::routes::RouteMetrics;
pub use self::self_service::SelfServiceMetrics;
use self::{
    background::Background, certificates::Certificates, checks::Checks, feed::Feed, relay::Relay,
    reloads::Reloads, stores::Stores, tls::Tls,
};

/// What the names of all metrics begin with, followed by `_`.
pub(super) const PREFIX: &str = "patgate";

/// All metrics of the process. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    checks: Checks,
    stores: Stores,
    feed: Feed,
    relay: Relay,
    background: Background,
    tls: Tls,
    certificates: Certificates,
    reloads: Reloads,
}

impl Metrics {
    /// Creates the metrics and registers them in `registry`, with names that begin with `patgate_`.
    /// Those of the relay are registered by `show_relay`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version of this replica", Info::new(version));
        let mut to = Registrar(registry);
        Self {
            checks: Checks::new(&mut to),
            stores: Stores::new(&mut to),
            feed: Feed::new(&mut to),
            relay: Relay::default(),
            background: Background::new(&mut to),
            tls: Tls::new(&mut to),
            certificates: Certificates::new(&mut to),
            reloads: Reloads::new(&mut to),
        }
    }
}

/// Registers metrics under their names.
struct Registrar<'r>(&'r mut Registry);

impl Registrar<'_> {
    /// Creates and registers a counter or a gauge.
    fn count<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.registered(name, help, M::default())
    }

    fn registered<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}
