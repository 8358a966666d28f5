//! What is kept of a call while its message is awaited. Its head is not.
//!
//! A header that HPACK's table knows is one byte on the wire and a hundred in memory: ten thousand
//! heads on a connection, whose messages never come, would hold hundreds of megabytes.

use std::sync::Arc;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frame;
use crate::check::CheckStep;

/// Calls on one connection, at a time, that are no checks. Who asks about health or watches it needs
/// one, and others must not be able to fill the memory with streams of answers.
pub(super) const MAX_OTHERS: usize = 16;
/// No method that is served has a longer path.
const MAX_PATH: usize = 128;

/// A call without its head.
pub(super) struct Call {
    pub(super) method: CalledMethod,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

/// Which method is called.
pub(super) enum CalledMethod {
    /// Envoy's, about a request, by the filter that asks. `None` if that is said wrongly.
    Check(Option<CheckStep>),
    /// Another one, by its path.
    Other(Box<str>, OwnedSemaphorePermit),
    /// Another one, while too many are under way on this connection.
    OneTooMany,
}

impl Call {
    /// Takes from the head what is needed. `others` are the places for calls that are no checks.
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        others: &Arc<Semaphore>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let method = if path == frame::CHECK {
            CalledMethod::Check(step_of(&head.headers))
        } else if let Ok(place) = Arc::clone(others).try_acquire_owned() {
            CalledMethod::Other(if path.len() > MAX_PATH { "/" } else { path }.into(), place)
        } else {
            CalledMethod::OneTooMany
        };
        Self { method, body, respond }
    }
}

/// In which metadata a gateway says which of its checks this is.
static STEP: HeaderName = HeaderName::from_static("patgate-step");

/// `None` if that is no step, or more than one.
fn step_of(headers: &HeaderMap) -> Option<CheckStep> {
    let mut said = headers.get_all(&STEP).iter();
    let first = said.next();
    let more = said.next();
    CheckStep::parse(first.map(HeaderValue::as_bytes)).filter(|_| more.is_none())
}
