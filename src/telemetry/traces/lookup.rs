//! The spans of lookups in Redis and Postgres.

use std::sync::{Arc, OnceLock};

use opentelemetry::{KeyValue, trace::SpanKind};

use super::{CheckSpan, SpanOwner, span::FinishedSpan};
use crate::{
    clock::{self, Tick},
    telemetry::Store,
    trace_context::TraceId,
};

/// The trace in which the round trips of a lookup are: that of the first traced check that waits
/// for it. All checks that need a value at the same time share one lookup, and the spans of the
/// others have a link to the span of that check.
#[derive(Clone, Default)]
pub(crate) struct LookupTrace(Arc<OnceLock<SpanOwner>>);

/// What a lookup asks a store for.
#[derive(Clone, Copy)]
pub(crate) struct StoreQuestion {
    pub(crate) store: Store,
    /// The kind of the value, as in metrics.
    pub(crate) kind: &'static str,
    /// The table in Postgres that holds the value.
    pub(crate) table: &'static str,
}

/// A round trip to a store, with the questions of one or several lookups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub(crate) began: Tick,
    pub(crate) ended: Tick,
    /// The number of these questions.
    pub(crate) keys: usize,
}

impl LookupTrace {
    /// Adds a check that waits for the lookup.
    pub(crate) fn join(&self, check: Option<&CheckSpan>) {
        let Some(check) = check else { return };
        let owner = self.0.get_or_init(|| check.own.clone());
        if owner.span != check.own.span {
            check.link(owner.span);
        }
    }

    /// Returns the id of the trace, for the log.
    pub(crate) fn id(&self) -> Option<TraceId> {
        self.0.get().map(|owner| owner.span.trace)
    }

    /// Makes the span of a round trip that answered the question.
    pub(crate) fn answered(&self, question: StoreQuestion, trip: RoundTrip) {
        self.span(question, trip, None);
    }

    /// Makes the span of a question that was asked at `asked` and has no answer.
    pub(crate) fn unanswered(&self, question: StoreQuestion, asked: Tick, error: &'static str) {
        if self.0.get().is_some() {
            let trip = RoundTrip { began: asked, ended: clock::now(), keys: 1 };
            self.span(question, trip, Some(error));
        }
    }

    fn span(&self, question: StoreQuestion, trip: RoundTrip, error: Option<&'static str>) {
        let Some(owner) = self.0.get() else { return };
        owner.queue.end(|| {
            let (system, operation) = match question.store {
                Store::Redis => ("redis", "MGET"),
                Store::Postgres => ("postgresql", "SELECT"),
            };
            let mut attributes = vec![
                KeyValue::new("db.system.name", system),
                KeyValue::new("db.operation.name", operation),
                KeyValue::new("patgate.lookup.kind", question.kind),
                KeyValue::new("patgate.lookup.keys", i64::try_from(trip.keys).unwrap_or(i64::MAX)),
            ];
            let name = match question.store {
                Store::Redis => operation.into(),
                Store::Postgres => {
                    attributes.push(KeyValue::new("db.collection.name", question.table));
                    format!("{operation} {}", question.table).into()
                }
            };
            attributes.extend_from_slice(owner.queue.address_of(question.store));
            FinishedSpan {
                own: owner.span.new_child(),
                parent: owner.span,
                parent_is_remote: false,
                kind: SpanKind::Client,
                name,
                time: trip.began..trip.ended,
                attributes,
                links: Vec::new(),
                error,
            }
        });
    }
}
