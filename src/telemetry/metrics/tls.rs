//! TLS on the listeners: handshakes, and certificates that are replaced.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge},
};

use super::{Metrics, Registrar};
use crate::telemetry::{
    closed::Closed,
    results::{HandshakeResult, MetricResult, ReloadResult, TlsListener},
};

/// Label of a listener that can have TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

/// Labels of what happened on a listener that can have TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerResultLabels {
    listener: &'static str,
    result: &'static str,
}

impl ListenerLabel {
    fn of(listener: TlsListener) -> Self {
        Self { listener: listener.as_str() }
    }
}

impl ListenerResultLabels {
    fn of(listener: TlsListener, result: impl MetricResult) -> Self {
        Self { listener: listener.as_str(), result: result.as_str() }
    }

    /// Returns all label sets whose results are of one kind.
    fn all<R: MetricResult>() -> impl Iterator<Item = Self> {
        let results = |listener| R::ALL.iter().map(move |result| Self::of(listener, *result));
        TlsListener::ALL.iter().copied().flat_map(results)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tls {
    handshakes: Closed<ListenerResultLabels, Counter>,
    reloads: Closed<ListenerResultLabels, Counter>,
    /// An alert on a counter would end while the files are still broken.
    refused: Closed<ListenerLabel, Gauge>,
}

impl Tls {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let handshakes = Closed::new(ListenerResultLabels::all::<HandshakeResult>());
        to.registered(
            "tls_handshakes",
            "TLS handshakes per listener and result",
            handshakes.family(),
        );
        let reloads = Closed::new(ListenerResultLabels::all::<ReloadResult>());
        to.registered(
            "tls_reloads",
            "Changes of certificate files by result: loaded or refused",
            reloads.family(),
        );
        let refused = Closed::new(TlsListener::ALL.iter().copied().map(ListenerLabel::of));
        to.registered(
            "tls_certificates_refused",
            "1 while the certificate files on disk have an error, and earlier ones are in use",
            refused.family(),
        );
        Self { handshakes, reloads, refused }
    }
}

impl Metrics {
    pub(crate) fn shook_hands(&self, listener: TlsListener, result: HandshakeResult) {
        self.tls.handshakes.of(&ListenerResultLabels::of(listener, result)).inc();
    }

    pub(crate) fn reloaded_certificates(&self, listener: TlsListener, result: ReloadResult) {
        self.tls.reloads.of(&ListenerResultLabels::of(listener, result)).inc();
        let refused = i64::from(result == ReloadResult::Refused);
        self.tls.refused.of(&ListenerLabel::of(listener)).set(refused);
    }
}
