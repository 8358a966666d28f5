//! What is counted of TLS.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// A listener that can have TLS, in labels and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Listener {
    Grpc,
    Http,
}

impl Listener {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handshake {
    Done,
    Failed,
    TimedOut,
}

impl Handshake {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What came of files that have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reload {
    Done,
    Refused,
}

impl Reload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: Listener,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    listener: Listener,
    result: Handshake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    listener: Listener,
    result: Reload,
}

macro_rules! encode_as_str {
    ($($label:ty),*) => {$(
        impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                self.as_str().encode(encoder)
            }
        }
    )*};
}
encode_as_str!(Listener, Handshake, Reload);

/// The counters of TLS on all listeners.
#[derive(Clone, Debug)]
pub(crate) struct TlsMetrics {
    handshakes: Family<HandshakeLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    /// An alert on a counter would end while the files are still broken.
    refused: Family<ListenerLabel, Gauge>,
}

impl TlsMetrics {
    /// Registers the counters in `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("patgate");
        let metrics = Self {
            handshakes: Family::default(),
            reloads: Family::default(),
            refused: Family::default(),
        };
        registry.register(
            "tls_handshakes",
            "TLS handshakes per listener and result",
            metrics.handshakes.clone(),
        );
        registry.register(
            "tls_reloads",
            "Changed certificate files that were loaded, or refused because of an error",
            metrics.reloads.clone(),
        );
        registry.register(
            "tls_certificates_refused",
            "1 while the certificate files on disk have an error, and earlier ones are in use",
            metrics.refused.clone(),
        );
        // An alert cannot see the first event of a series that begins with it.
        for listener in [Listener::Grpc, Listener::Http] {
            drop(metrics.refused.get_or_create(&ListenerLabel { listener }));
            for result in [Handshake::Done, Handshake::Failed, Handshake::TimedOut] {
                drop(metrics.handshakes.get_or_create(&HandshakeLabels { listener, result }));
            }
            for result in [Reload::Done, Reload::Refused] {
                drop(metrics.reloads.get_or_create(&ReloadLabels { listener, result }));
            }
        }
        metrics
    }

    pub(super) fn shook_hands(&self, listener: Listener, result: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabels { listener, result }).inc();
    }

    pub(super) fn reloaded(&self, listener: Listener, result: Reload) {
        self.reloads.get_or_create(&ReloadLabels { listener, result }).inc();
        let refused = i64::from(result == Reload::Refused);
        self.refused.get_or_create(&ListenerLabel { listener }).set(refused);
    }
}
