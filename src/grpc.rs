//! Serves gRPC: checks right here on the HTTP/2 connection, everything else by tonic.
//!
//! A check is one message each way, and nearly always answered at once from memory. Through a
//! general framework it costs several times of what deciding does: a task for each stream, boxed
//! futures and bodies, layers that look at every request. Here the futures of all streams that were
//! read at once are polled at once, and one becomes a task only if it has to wait. Their answers
//! leave together.

mod batch;
mod stream;

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Either};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http2,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::{codegen::Service as _, service::Routes};

use self::{batch::Batch, stream::Unvectored};
use crate::{check::GrpcEdge, response::Answer};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Far above what Envoy accepts of a client's headers, and shows of a body. What is longer is
/// denied: an error of gRPC would be an ALLOW under `failure_mode_allow`.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// What gRPC puts before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
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
const KEEP_ALIVE: Duration = Duration::from_secs(30);

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
        let batch = Batch::default();
        let mut http = http2::Builder::new(batch.clone());
        http.timer(TokioTimer::new())
            .auto_date_header(false)
            .keep_alive_interval(KEEP_ALIVE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(MAX_RESET_STREAMS);
        let connection = http.serve_connection(TokioIo::new(Unvectored(stream)), self);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            // What a client does to its own connection is its own business.
            _ = batch.serve(connection.as_mut()) => return,
            () = closing.cancelled() => {}
            () = sleep(max_age) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = batch.serve(connection).await;
    }
}

impl Service<Request<Incoming>> for Grpc {
    type Response = Response<Either<Reply, tonic::body::Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.uri().path() == CHECK {
            let edge = self.edge.clone();
            return Box::pin(async move {
                let message = read(request.into_body()).await;
                let answer = edge.check(message.as_deref()).await;
                Ok(reply(answer))
            });
        }
        let mut others = self.others.clone();
        Box::pin(async move {
            let answered = others.call(request.map(tonic::body::Body::new)).await;
            Ok(answered.map_or_else(|never| match never {}, |response| response.map(Either::Right)))
        })
    }
}

/// The one message of a request; nothing if it is not one whole message, uncompressed.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut frame = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(next) = body.frame().await {
        // Trailers tell nothing.
        let Ok(data) = next.ok()?.into_data() else { continue };
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

fn reply(answer: Answer) -> Response<Either<Reply, tonic::body::Body>> {
    let mut response = Response::new(Either::Left(Reply::Message(answer.into_frame())));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// A message, and that it was answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Message(Bytes),
    Status,
    End,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match std::mem::replace(&mut *self, Self::End) {
            Self::Message(message) => {
                *self = Self::Status;
                Some(Ok(Frame::data(message)))
            }
            Self::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::End => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::End)
    }
}
