//! What is counted of TLS.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
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
}

impl TlsMetrics {
    /// Registers the counters in `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("patgate");
        let metrics = Self { handshakes: Family::default(), reloads: Family::default() };
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
        metrics
    }

    /// Makes the series of a listener, so that they begin at 0.
    pub(super) fn begin(&self, listener: Listener) {
        for result in [Handshake::Done, Handshake::Failed, Handshake::TimedOut] {
            drop(self.handshakes.get_or_create(&HandshakeLabels { listener, result }));
        }
        for result in [Reload::Done, Reload::Refused] {
            drop(self.reloads.get_or_create(&ReloadLabels { listener, result }));
        }
    }

    pub(super) fn shook_hands(&self, listener: Listener, result: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabels { listener, result }).inc();
    }

    pub(super) fn reloaded(&self, listener: Listener, result: Reload) {
        self.reloads.get_or_create(&ReloadLabels { listener, result }).inc();
    }
}
