//! Spans of checks, and of the round trips to the stores that checks wait for.
//!
//! A check has a span if the gateway records the trace: if the `traceparent` in the metadata of its
//! call is sampled. The client's own `traceparent` is not read, so a client can cause no span that
//! the gateway's configuration does not permit. A check without a span costs one comparison.
//!
//! A span is made when it ends, from what is known then, and nothing waits for its export
//! (`export.rs`). All its texts are from closed sets: it holds no token, header, path or body.

mod export;
mod lookup;
mod span;

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::{KeyValue, trace::SpanKind};

pub(super) use self::export::SpanCounters;
pub use self::export::TracesError;
pub(crate) use self::lookup::{LookupTrace, RoundTrip, StoreQuestion};
use self::{
    export::SpanQueue,
    span::{FinishedSpan, SpanRef},
};
use crate::{
    clock::{self, Tick},
    config,
    telemetry::Metrics,
    trace_context::TraceContext,
};

/// The method that gateways call, as OpenTelemetry's conventions write it.
const METHOD: &str = "envoy.service.auth.v3.Authorization/Check";
/// Most links of one span; a check makes fewer lookups.
const MAX_LINKS: usize = 16;

/// Makes spans, if tracing is on. Clones share the queue.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<Arc<SpanQueue>>);

impl Traces {
    /// Starts exporting, if the settings name a receiver. It connects when it has a span, so a
    /// receiver that is down does not prevent a start.
    pub(crate) fn start(
        settings: Option<&config::TraceSettings>,
        metrics: &Metrics,
    ) -> Result<Self, TracesError> {
        let queue = settings.map(|settings| SpanQueue::start(settings, metrics.spans()));
        Ok(Self(queue.transpose()?.map(Arc::new)))
    }

    /// Starts the span of a check, if its caller records the trace.
    pub(crate) fn check(
        &self,
        caller: Option<TraceContext>,
        started: Tick,
    ) -> Option<Box<CheckSpan>> {
        let caller = caller.filter(|caller| caller.sampled)?;
        let queue = Arc::clone(self.0.as_ref()?);
        let parent = SpanRef::of_caller(caller);
        let own = parent.new_child();
        let own = SpanOwner { span: own, queue };
        Some(Box::new(CheckSpan { own, parent, started, links: Mutex::default(), ended: false }))
    }

    /// Exports what is queued, for a limited time.
    pub(crate) async fn shut_down(self) {
        if let Some(queue) = self.0 {
            // It blocks its thread. If it panics, spans are lost, and nothing else.
            let _ = tokio::task::spawn_blocking(move || queue.shut_down()).await;
        }
    }
}

/// A span that may have children, and the queue for both.
#[derive(Clone)]
struct SpanOwner {
    span: SpanRef,
    queue: Arc<SpanQueue>,
}

/// The span of a check that is being answered. If it is dropped without an end, the caller has
/// given up.
pub(crate) struct CheckSpan {
    own: SpanOwner,
    parent: SpanRef,
    started: Tick,
    /// The checks in whose traces the lookups are that this check waits for.
    links: Mutex<Vec<SpanRef>>,
    ended: bool,
}

/// What is known at the end of a check.
pub(crate) struct CheckSummary {
    pub(crate) outcome: &'static str,
    /// Absent if the gateway must ask again, with the body.
    pub(crate) code: Option<&'static str>,
    /// Whether the answer was the verdict.
    pub(crate) enforced: Option<bool>,
    /// The farthest tier that answered.
    pub(crate) tier: &'static str,
    pub(crate) operation: Option<&'static str>,
    /// The step, if the gateway asks in two.
    pub(crate) step: Option<&'static str>,
    /// Why patgate could not decide.
    pub(crate) error: Option<&'static str>,
}

impl CheckSpan {
    /// Ends the span with the answer. A denial is no error; the status of the call is OK, whatever
    /// the answer is.
    pub(crate) fn end(mut self, ended: Tick, check: &CheckSummary) {
        let words = [
            ("patgate.outcome", Some(check.outcome)),
            ("patgate.code", check.code),
            ("patgate.tier", Some(check.tier)),
            ("patgate.operation", check.operation),
            ("patgate.step", check.step),
        ];
        let words = words.into_iter().filter_map(|(key, word)| Some(KeyValue::new(key, word?)));
        let enforced = check.enforced.map(|yes| KeyValue::new("patgate.enforced", yes));
        self.finish(ended, "OK", check.error, words.chain(enforced).collect());
    }

    fn finish(
        &mut self,
        ended: Tick,
        status: &'static str,
        error: Option<&'static str>,
        mut attributes: Vec<KeyValue>,
    ) {
        self.ended = true;
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        self.own.queue.end(|| {
            attributes.extend([
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", METHOD),
                KeyValue::new("rpc.response.status_code", status),
            ]);
            FinishedSpan {
                own: self.own.span,
                parent: self.parent,
                parent_is_remote: true,
                kind: SpanKind::Server,
                name: METHOD.into(),
                time: self.started..ended,
                attributes,
                links,
                error,
            }
        });
    }

    /// Notes that this check waits for a lookup in the trace of another one.
    fn link(&self, other: SpanRef) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() < MAX_LINKS && !links.contains(&other) {
            links.push(other);
        }
    }
}

impl Drop for CheckSpan {
    fn drop(&mut self) {
        if !self.ended {
            const CANCELLED: &str = "CANCELLED";
            self.finish(clock::now(), CANCELLED, Some(CANCELLED), Vec::new());
        }
    }
}
