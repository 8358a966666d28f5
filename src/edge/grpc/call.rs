//! What patgate keeps of a call while it waits for the message. It does not keep the head.
//!
//! A header that HPACK's table knows is one byte on the wire and a hundred bytes in memory. Ten
//! thousand heads on a connection, whose messages never come, would hold hundreds of megabytes.

use std::sync::Arc;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{frame, secret::CallSecrets};
use crate::{check::CheckStep, trace_context::TraceContext};

/// The maximum number of concurrent calls on one connection that are not checks. A client that asks
/// about health, or watches it, needs one. Other clients must not be able to fill the memory with
/// streams of answers.
pub(super) const MAX_OTHERS: usize = 16;
/// The methods that need no secret: neither Envoy's health check nor the kubelet sends one.
const HEALTH: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];
/// No served method has a longer path.
const MAX_PATH: usize = 128;

/// A call without its head.
pub(super) struct Call {
    pub(super) method: CalledMethod,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

/// The method that is called.
pub(super) enum CalledMethod {
    /// A check: Envoy's filter asks about a request. The step is `None` if the filter states it
    /// wrongly; the trace, if the call is part of none.
    Check(Option<CheckStep>, Option<TraceContext>),
    /// Another method, by its path.
    Other(Box<str>, OwnedSemaphorePermit),
    /// A check without the secret that it needs.
    CheckWithoutSecret,
    /// Another method without that secret, except health.
    Hidden,
    /// Another method, while too many such calls are in progress on this connection.
    OneTooMany,
}

impl Call {
    /// Takes what is needed from the head. `others` are the permits for calls that are not checks, and
    /// `secrets` what a call must bring before patgate reads its message.
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        others: &Arc<Semaphore>,
        secrets: &CallSecrets,
    ) -> Self {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let is_admitted = secrets.admit(&head.headers) || HEALTH.contains(&path);
        let method = if !is_admitted {
            match path {
                frame::CHECK => CalledMethod::CheckWithoutSecret,
                _ => CalledMethod::Hidden,
            }
        } else if path == frame::CHECK {
            CalledMethod::Check(step_of(&head.headers), trace_of(&head.headers))
        } else if let Ok(place) = Arc::clone(others).try_acquire_owned() {
            CalledMethod::Other(if path.len() > MAX_PATH { "/" } else { path }.into(), place)
        } else {
            CalledMethod::OneTooMany
        };
        Self { method, body, respond }
    }
}

/// The metadata in which a gateway states which of its checks this is.
static STEP: HeaderName = HeaderName::from_static("patgate-step");

/// The metadata in which a gateway that traces its calls names the trace.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns `None` if the value is not a step, or if there is more than one.
fn step_of(headers: &HeaderMap) -> Option<CheckStep> {
    let mut said = headers.get_all(&STEP).iter();
    let first = said.next();
    let more = said.next();
    CheckStep::parse(first.map(HeaderValue::as_bytes)).filter(|_| more.is_none())
}

/// Returns `None` if the call is part of no trace, or names more than one.
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut said = headers.get_all(&TRACEPARENT).iter();
    let first = said.next()?;
    said.next().is_none().then(|| TraceContext::parse(first.as_bytes()))?
}
