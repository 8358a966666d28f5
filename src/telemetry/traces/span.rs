//! A span in the form in which it is exported.

use std::{borrow::Cow, ops::Range};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::{
    clock::{Tick, WallClock},
    trace_context::{self, TraceContext},
};

/// A span and its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpanRef {
    pub(super) trace: trace_context::TraceId,
    /// Not zero, because zero would be no span.
    span: u64,
}

impl SpanRef {
    /// The span of the caller that made the call.
    pub(super) fn of_caller(caller: TraceContext) -> Self {
        Self { trace: caller.trace_id, span: caller.parent_id.0.get() }
    }

    /// A new span of the same trace.
    pub(super) fn new_child(self) -> Self {
        Self { span: fastrand::u64(1..), ..self }
    }

    fn context(self) -> SpanContext {
        let trace = TraceId::from(self.trace.0.get());
        let span = SpanId::from(self.span);
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
    }
}

/// A span that has ended.
pub(super) struct FinishedSpan {
    pub(super) own: SpanRef,
    pub(super) parent: SpanRef,
    /// Whether another process has made the parent.
    pub(super) parent_is_remote: bool,
    pub(super) kind: SpanKind,
    pub(super) name: Cow<'static, str>,
    pub(super) time: Range<Tick>,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) links: Vec<SpanRef>,
    pub(super) error: Option<&'static str>,
}

impl FinishedSpan {
    pub(super) fn into_data(self, instrumentation_scope: InstrumentationScope) -> SpanData {
        let wall_clock = WallClock::read();
        let mut attributes = self.attributes;
        attributes.extend(self.error.map(|error| KeyValue::new("error.type", error)));
        let mut links = SpanLinks::default();
        links.links = self.links.iter().map(|to| Link::with_context(to.context())).collect();
        SpanData {
            span_context: self.own.context(),
            parent_span_id: SpanId::from(self.parent.span),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time: wall_clock.at(self.time.start).into(),
            end_time: wall_clock.at(self.time.end).into(),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: match self.error {
                None => Status::Unset,
                Some(error) => Status::error(error),
            },
            instrumentation_scope,
        }
    }
}
