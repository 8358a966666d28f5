//! The relay of the feed. Its metrics are shown only where it is on: elsewhere no replica leads, and
//! an alert on that would fire for nothing.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Metrics, PREFIX, Registrar};
use crate::telemetry::{closed::Results, results::FrameResult};

#[derive(Clone, Debug)]
pub(super) struct Relay {
    frames: Results<FrameResult>,
    leads: Gauge,
    silences: Counter,
}

impl Default for Relay {
    fn default() -> Self {
        let (leads, silences) = (Gauge::default(), Counter::default());
        Self { frames: Results::new(), leads, silences }
    }
}

impl Metrics {
    /// Registers the metrics of the relay. Call it where the relay is on.
    pub(crate) fn show_relay(&self, registry: &mut Registry) {
        let mut to = Registrar(registry.sub_registry_with_prefix(PREFIX));
        let Relay { frames, leads, silences } = &self.relay;
        to.registered("relay_frames", "Frames of the relay by result", frames.family());
        to.registered(
            "relay_leader",
            "1 while this replica relays the feed to the others",
            leads.clone(),
        );
        to.registered(
            "relay_silences",
            "Times the relay went silent and this replica polled Postgres itself",
            silences.clone(),
        );
    }

    pub(crate) fn frames(&self, result: FrameResult, count: usize) {
        self.relay.frames.of(result).inc_by(count as u64);
    }

    pub(crate) fn fell_silent(&self) {
        self.relay.silences.inc();
    }

    /// Reports this replica as the leader of the relay until the result is dropped.
    pub(crate) fn leading(&self) -> Leading {
        self.relay.leads.set(1);
        Leading(self.relay.leads.clone())
    }
}

/// Resets the gauge `relay_leader` when it is dropped.
pub(crate) struct Leading(Gauge);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
