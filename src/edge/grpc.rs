//! Serves gRPC: answers checks directly on the HTTP/2 connection. tonic serves everything else:
//! compressed checks, health, and server reflection.
//!
//! A check is one message each way, and nearly always answered from memory at once. A general
//! framework would cost several times as much as the decision: a task for each stream, boxed
//! bodies, layers that look at every request. Here, all streams that were read together are
//! answered together, and a stream becomes a task only if it has to wait. The answers are written
//! together.

mod call;
mod compressed;
mod edge;
mod message;
pub(crate) mod secret;
pub(crate) mod service;
mod stream;
#[cfg(test)]
mod tests;
mod tonic_services;

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    server::{Connection, SendResponse},
};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::{Health, HealthServer};

pub(crate) use self::edge::GrpcEdge;
use self::{
    call::{Call, CalledMethod, MAX_OTHERS},
    message::{Message, MessageRoom, Unread},
    secret::CallSecrets,
    stream::Unvectored,
    tonic_services::TonicServices,
};
use crate::{
    check::{CallMetadata, CheckStep},
    refusal::Refusal,
    trace_context::TraceContext,
    wire::{codec::frame, response::EncodedAnswer},
};

/// The headers of the call itself, decoded; the headers of the request that it is about are in the
/// message. Envoy sends about 500 bytes, plus what its tracing adds. All heads that a connection
/// sends at once stay in memory until they are read, and each takes a few times this size.
const MAX_HEADERS: u32 = 8 * 1024;
/// How much h2 lets Envoy send before patgate has read it: a whole check on each stream, bodies
/// included, and many on a connection. With h2's default of 64 KB, a check with a body of 1 MiB
/// would take sixteen round trips, and one large body would delay all checks.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams on one connection. Envoy opens one for each check in progress, has a connection for each
/// of its threads, and opens another one if these streams are not enough.
const MAX_CONCURRENT_STREAMS: u32 = 1024;
/// h2 treats clients that cancel as an attack, and closes the connection that they share with
/// innocent ones (measured with 2,000 of them). So its limits are raised, but not removed.
const MAX_RESET_STREAMS: usize = 20_000;
/// How often patgate pings a client, and how long the client has for the handshake and for each
/// answer. Reading a message takes less.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers what arrives on a connection.
#[derive(Clone)]
pub(crate) struct GrpcServer(Arc<ServerState>);

/// The state that all connections share.
struct ServerState {
    edge: GrpcEdge,
    others: TonicServices,
    /// Memory for messages that arrive in pieces.
    room: MessageRoom,
    /// The same for second steps, which bring long bodies.
    room_for_bodies: MessageRoom,
    /// The secrets, one of which each call must carry; none if calls need no secret.
    secrets: Arc<CallSecrets>,
    /// The turn to decompress a message.
    turn: Semaphore,
}

impl GrpcServer {
    pub(crate) fn new(
        edge: GrpcEdge,
        health: HealthServer<impl Health>,
        secrets: Arc<CallSecrets>,
    ) -> Self {
        Self::with_room(edge, health, secrets, message::MAX_IN_PIECES)
    }

    fn with_room(
        edge: GrpcEdge,
        health: HealthServer<impl Health>,
        secrets: Arc<CallSecrets>,
        room: usize,
    ) -> Self {
        let others = TonicServices::new(edge.clone(), health);
        let room = MessageRoom::for_checks(room);
        let room_for_bodies = MessageRoom::for_bodies(Arc::clone(edge.checker.long_bodies.room()));
        let turn = Semaphore::new(1);
        Self(Arc::new(ServerState { edge, others, room, room_for_bodies, secrets, turn }))
    }

    /// Serves one connection until it ends. It ends when it is old, or when `closing` says so.
    pub(crate) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        max_age: Duration,
        closing: CancellationToken,
    ) {
        let mut http2 = h2::server::Builder::new();
        http2
            .max_header_list_size(MAX_HEADERS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(Some(MAX_RESET_STREAMS));
        let begun = timeout(PATIENCE, http2.handshake(Unvectored(stream)));
        // An error that a client causes on its own connection concerns only that client.
        let Ok(Ok(mut connection)) = begun.await else { return };
        let others = Arc::new(Semaphore::new(MAX_OTHERS));
        let mut client_gone = pin!(client_gone(connection.ping_pong()));
        tokio::select! {
            biased;
            () = self.answer_all(&mut connection, &others) => return,
            () = closing.cancelled() => {}
            () = sleep(max_age) => {}
            () = &mut client_gone => return,
        }
        connection.graceful_shutdown();
        // Every check ends within this time. Other open calls, such as a client that watches the
        // health, do not keep an old connection alive.
        let last_calls = PATIENCE + self.0.edge.deadline();
        tokio::select! {
            biased;
            () = self.answer_all(&mut connection, &others) => {}
            () = sleep(last_calls) => {}
            () = client_gone => {}
        }
    }

    /// Answers calls until the connection ends.
    async fn answer_all<S>(
        &self,
        connection: &mut Connection<Unvectored<S>, Bytes>,
        others: &Arc<Semaphore>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut batch = Vec::new();
        poll_fn(|cx| {
            // Take all calls that have arrived before answering any. Otherwise each answer would be
            // written separately: with a system call each, and a wake-up of the client each.
            let ended = loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        batch.push(Call::new(request, respond, others, &self.0.secrets));
                    }
                    Poll::Ready(Some(Err(_)) | None) => break Poll::Ready(()),
                    Poll::Pending => break Poll::Pending,
                }
            };
            // Writing an answer wakes the connection, which sends it.
            for call in batch.drain(..) {
                let mut answer = Box::pin(self.clone().answer(call));
                let mut context = Context::from_waker(Waker::noop());
                // A panic ends this call, as it would in a task, and not those beside it.
                let first = AssertUnwindSafe(|| answer.as_mut().poll(&mut context));
                match catch_unwind(first) {
                    // A check that is not ready is polled again by its own task.
                    Ok(Poll::Pending) => drop(tokio::spawn(answer)),
                    Ok(Poll::Ready(())) => {}
                    Err(_) => self.0.edge.checker.metrics.panicked(),
                }
            }
            ended
        })
        .await;
    }

    async fn answer(self, call: Call) {
        let ServerState { edge, others, room, room_for_bodies, .. } = &*self.0;
        let Call { method, body, mut respond } = call;
        let (step, trace) = match method {
            CalledMethod::Check(step, trace) => (step, trace),
            CalledMethod::Other(path, _place) => {
                return Box::pin(others.answer(&path, body, respond)).await;
            }
            CalledMethod::OneTooMany => return tonic_services::refuse(respond),
            CalledMethod::CheckWithoutSecret => {
                edge.checker.metrics.called_without_secret();
                self.0.secrets.complain();
                let _ = send(edge.refuse_stranger(), &mut respond);
                return;
            }
            CalledMethod::Hidden => {
                edge.checker.metrics.called_without_secret();
                return tonic_services::hide(respond);
            }
        };
        let room = if step == Some(CheckStep::Second) { room_for_bodies } else { room };
        let message = match message::read(body, room).await {
            Ok(message) => Ok(message),
            Err(Unread::Refused(refusal)) => Err(refusal),
            Err(Unread::Compressed(message)) => {
                return Box::pin(self.answer_compressed(message, room, (step, trace), respond))
                    .await;
            }
            // The caller no longer waits: nothing is decided, counted or logged.
            Err(Unread::Gone) => return,
        };
        let bytes = message.as_ref().map(|message| &*message.bytes);
        let bytes = bytes.map_err(|refusal| *refusal);
        let answer = match step {
            Some(step) => edge.check(bytes, CallMetadata { step, trace }).await,
            // The gateway is configured wrongly. Its client gets an outage as the answer.
            None => {
                let call = CallMetadata { step: CheckStep::Only, trace };
                edge.check(Err(Refusal::Unavailable), call).await
            }
        };
        // If the caller has gone away meanwhile, it needs no answer.
        let _ = send(answer, &mut respond);
    }

    /// Answers a check with a compressed message like any other.
    async fn answer_compressed(
        &self,
        message: Message,
        room: &MessageRoom,
        (step, trace): (Option<CheckStep>, Option<TraceContext>),
        mut respond: SendResponse<Bytes>,
    ) {
        let ServerState { edge, others, turn, .. } = &*self.0;
        let decompressed =
            compressed::decompress(message, room, turn, &edge.checker.long_bodies).await;
        let refusal = match (decompressed, step) {
            (Ok(Message { bytes, held: _held }), Some(step)) => {
                let call = CallMetadata { step, trace };
                let answer = compressed::serve(others.routes(), bytes, call).await;
                return tonic_services::send_answer(answer, &mut respond).await;
            }
            (Ok(_), None) => Refusal::Unavailable,
            (Err(refusal), _) => refusal,
        };
        let call = CallMetadata { step: step.unwrap_or(CheckStep::Only), trace };
        let answer = edge.check(Err(refusal), call).await;
        let _ = send(answer, &mut respond);
    }
}

fn send(answer: EncodedAnswer, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(answer.into_frame(), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// Ends when the client no longer answers pings.
async fn client_gone(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return };
    loop {
        sleep(KEEP_ALIVE).await;
        let answered = timeout(PATIENCE, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}
