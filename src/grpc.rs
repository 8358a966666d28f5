//! Serves gRPC: checks right here on the HTTP/2 connection, everything else by tonic.
//!
//! A check is one message each way, and nearly always answered at once from memory. Through a
//! general framework it costs several times of what deciding does: a task for each stream, boxed
//! bodies, layers that look at every request. Here all streams that were read at once are answered
//! at once, and one becomes a task only if it has to wait. Their answers leave together.

mod others;
mod stream;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{
    Ping, PingPong, RecvStream,
    server::{Connection, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::stream::Unvectored;
use crate::{check::GrpcEdge, response::Answer};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Far above what Envoy accepts of a client's headers, and shows of a body. What is longer is
/// denied: an error of gRPC would be an ALLOW under `failure_mode_allow`.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// What gRPC puts before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Of the call itself; those of the request that it is about are in the message.
const MAX_HEADERS: u32 = 16 * 1024;
/// What h2 lets Envoy send before we have read it: a whole check on each stream, bodies included,
/// and many on a connection. With its defaults, 64 KB, a check with a body of 1 MiB would take
/// sixteen round trips, and one large body would hold up everybody's checks.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams on one connection. Envoy opens one a check and holds few connections.
const MAX_CONCURRENT_STREAMS: u32 = 10_000;
/// h2 takes clients that give up for an attack and closes the connection that they share with
/// innocent ones (measured with 2,000 of them): its limits are raised, not lifted.
const MAX_RESET_STREAMS: usize = 20_000;
/// How often a client is asked whether it is still there, and how long it has to begin with and to
/// answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers what arrives on a connection.
#[derive(Clone)]
pub(crate) struct Grpc {
    pub(crate) edge: GrpcEdge,
    /// Health.
    pub(crate) others: Routes,
}

impl Grpc {
    /// Serves one connection until it ends; told to end when it is old, or by `closing`.
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
        // What a client does to its own connection is its own business.
        let Ok(Ok(mut connection)) = begun.await else { return };
        let mut gone = pin!(gone(connection.ping_pong()));
        tokio::select! {
            biased;
            () = self.answer_all(&mut connection) => return,
            () = closing.cancelled() => {}
            () = sleep(max_age) => {}
            () = &mut gone => return,
        }
        connection.graceful_shutdown();
        tokio::select! {
            biased;
            () = self.answer_all(&mut connection) => {}
            () = gone => {}
        }
    }

    /// Answers until the connection ends.
    async fn answer_all<S>(&self, connection: &mut Connection<Unvectored<S>, Bytes>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut batch = Vec::new();
        poll_fn(|cx| {
            // All that have arrived, before any is answered. Answered one by one, each answer would
            // be written by itself: a system call for each, and a client that is woken by each.
            let ended = loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(stream))) => batch.push(stream),
                    Poll::Ready(Some(Err(_)) | None) => break Poll::Ready(()),
                    Poll::Pending => break Poll::Pending,
                }
            };
            // What they answer wakes the connection, which writes it.
            for (request, respond) in batch.drain(..) {
                let mut answer = Box::pin(self.clone().answer(request, respond));
                // Whoever is woken too early is polled again by the task.
                if answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    tokio::spawn(answer);
                }
            }
            ended
        })
        .await;
    }

    async fn answer(self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if request.uri().path() != CHECK {
            return others::answer(self.others, request, respond).await;
        }
        let message = read(request.into_body()).await;
        let answer = self.edge.check(message.as_deref()).await;
        // Whoever has gone away meanwhile needs none.
        let _ = send(answer, &mut respond);
    }
}

fn send(answer: Answer, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(answer.into_frame(), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// The one message of a request; nothing if it is not one whole message, uncompressed.
async fn read(mut body: RecvStream) -> Option<Bytes> {
    let mut frame = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        // It is held no longer than the check takes.
        let _ = body.flow_control().release_capacity(data.len());
        if frame.len() + more.len() + data.len() > MAX_MESSAGE + HEAD {
            return None;
        }
        if frame.is_empty() {
            frame = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&frame);
            }
            more.extend_from_slice(&data);
        }
    }
    let mut frame = if more.is_empty() { frame } else { more.freeze() };
    if frame.len() < HEAD || frame.get_u8() != 0 {
        return None;
    }
    let length = frame.get_u32() as usize;
    (frame.len() == length).then_some(frame)
}

/// Ends when the client does not answer any more.
async fn gone(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return };
    loop {
        sleep(KEEP_ALIVE).await;
        let answered = timeout(PATIENCE, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}
