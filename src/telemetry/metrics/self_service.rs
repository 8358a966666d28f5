//! Self-service: requests, refusals, sign-ins, and how long passwords wait to be hashed.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::{PREFIX, Registrar};
use crate::telemetry::{
    closed::Closed,
    exposition::Exemplars,
    histogram::Durations,
    results::{MetricResult, SignInMethod, SignInResult, WebRefusal},
};

/// Labels of an answered request: the pattern of its route, and the class of its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignInLabels {
    method: &'static str,
    result: &'static str,
}

/// The metrics of `patgate admin`. Clones share the same counters; the default is shown nowhere.
#[derive(Clone, Debug)]
pub struct SelfServiceMetrics {
    /// Not closed: the routes are those of the router, and appear with their first request.
    requests: Family<RequestLabels, Counter>,
    in_progress: Gauge,
    refused: Closed<ReasonLabels, Counter>,
    sign_ins: Closed<SignInLabels, Counter>,
    password_wait: Durations,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(crate) struct InProgress(Gauge);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for SelfServiceMetrics {
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

impl SelfServiceMetrics {
    /// Creates the metrics and registers them in `registry`, with names that begin with `patgate_web_`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version of this process", Info::new(version));
        let mut to = Registrar(registry);
        let reasons = WebRefusal::ALL.iter().map(|it| ReasonLabels { reason: it.as_str() });
        let refused = Closed::new(reasons);
        to.registered(
            "web_refused",
            "Requests that were refused before any work was done for them, by reason",
            refused.family(),
        );
        let sign_ins = Closed::new(SignInMethod::ALL.iter().flat_map(|method| {
            let of = |result: &SignInResult| SignInLabels {
                method: method.as_str(),
                result: result.as_str(),
            };
            SignInResult::ALL.iter().map(of)
        }));
        to.registered(
            "web_sign_ins",
            "Attempts to sign in, by method and result",
            sign_ins.family(),
        );
        Self {
            requests: to.count(
                "web_requests",
                "Answered requests by the pattern of their route and the class of their status",
            ),
            in_progress: to.count("web_requests_in_progress", "Requests that are being answered"),
            refused,
            sign_ins,
            password_wait: to.seconds(
                "web_password_wait",
                "Time for which a password waited until it was hashed; its count is that of the hashes",
                Durations::default(),
            ),
        }
    }

    /// There are none; the page needs to know where they would be.
    pub(crate) fn exemplars(&self) -> Exemplars {
        Exemplars::new("patgate_web_password_wait_seconds", self.password_wait.clone())
    }

    pub(crate) fn begin(&self) -> InProgress {
        self.in_progress.inc();
        InProgress(self.in_progress.clone())
    }

    /// Notes an answer. `route` is a pattern of the router, never what a client has sent.
    pub(crate) fn answered(&self, route: Option<&str>, status: u16) {
        let route = route.unwrap_or("none").to_owned();
        let status = match status {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
    }

    pub(crate) fn refused(&self, reason: WebRefusal) {
        self.refused.of(&ReasonLabels { reason: reason.as_str() }).inc();
    }

    pub(crate) fn signed_in(&self, method: SignInMethod, result: SignInResult) {
        let labels = SignInLabels { method: method.as_str(), result: result.as_str() };
        self.sign_ins.of(&labels).inc();
    }

    pub(crate) fn password_waited(&self, time: Duration) {
        self.password_wait.observe(time);
    }
}
