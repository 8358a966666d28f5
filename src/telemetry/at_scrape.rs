//! Gauges that are computed at each scrape. A gauge that is set keeps its value when the code that
//! sets it stops.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::{Registry, Unit},
};

/// Registers the age of the knowledge of changes. `age` returns `None` while nothing is known.
pub(crate) fn show_watermark(
    registry: &mut Registry,
    age: impl Fn() -> Option<Duration> + Send + Sync + 'static,
) {
    show(
        registry,
        "feed_watermark_age",
        "Age of the knowledge of changes at this scrape; infinite while there is none",
        Some(Unit::Seconds),
        move || age().map_or(f64::INFINITY, |age| age.as_secs_f64()),
    );
}

/// Registers the bounds that this replica was given, so that alerts can compare with them.
pub(crate) fn show_bounds(registry: &mut Registry, deadline: Duration, max_staleness: Duration) {
    for (name, help, bound) in [
        ("deadline", "The setting deadline: time for one check", deadline),
        ("max_staleness", "The setting max_staleness: the bound on the age of data", max_staleness),
    ] {
        show(registry, name, help, Some(Unit::Seconds), move || bound.as_secs_f64());
    }
}

/// Registers whether this replica is ready, as `/readyz` answers.
pub(crate) fn show_readiness(
    registry: &mut Registry,
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
) {
    let help = "1 while this replica is ready, as /readyz answers; 0 until its start has ended, and while it drains";
    show(registry, "ready", help, None, move || f64::from(u8::from(is_ready())));
}

/// Registers how long ago the routes were as they should be. `age` returns `None` if they never were.
pub(crate) fn show_success(
    registry: &mut Registry,
    age: impl Fn() -> Option<Duration> + Send + Sync + 'static,
) {
    show(
        registry,
        "sync_success_age",
        "Time since the routes were last in step with the database; infinite if they never were",
        Some(Unit::Seconds),
        move || age().map_or(f64::INFINITY, |age| age.as_secs_f64()),
    );
}

fn show(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: impl Fn() -> f64 + Send + Sync + 'static,
) {
    let gauge = AtScrape { name, help, unit, value };
    registry.sub_registry_with_prefix(super::metrics::PREFIX).register_collector(Box::new(gauge));
}

struct AtScrape<F> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: F,
}

impl<F> fmt::Debug for AtScrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtScrape").field(&self.name).finish()
    }
}

impl<F: Fn() -> f64 + Send + Sync + 'static> Collector for AtScrape<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new((self.value)());
        let (unit, kind) = (self.unit.as_ref(), gauge.metric_type());
        gauge.encode(encoder.encode_descriptor(self.name, self.help, unit, kind)?)
    }
}
