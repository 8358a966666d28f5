//! What is no check goes to tonic, if it is short and comes in time.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tonic::{Status, body::Body, codegen::Service, service::Routes};

use super::message::READING;

/// A question about health holds the name of a service.
const MAX_BODY: usize = 4096;

/// Answers a call until it ends, or the client gives it up.
pub(super) async fn answer(
    mut routes: Routes,
    path: &str,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    // All of it is read before the answer begins. Of the head, tonic needs no more than the path.
    let body = Body::new(Limited::new(Received(body), MAX_BODY));
    let Ok(request) = Request::post(path).body(body) else {
        return respond.send_reset(h2::Reason::PROTOCOL_ERROR);
    };
    let Ok(answered) = timeout(READING, routes.call(request)).await else {
        return respond.send_reset(h2::Reason::CANCEL);
    };
    let (head, body) = answered.unwrap_or_else(|never| match never {}).into_parts();
    // A status and nothing else has to be the end of the stream: with an empty frame of data after
    // it, grpcio and others do not read it, and report UNKNOWN.
    let only_status = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), only_status) else {
        return;
    };
    if !only_status && !send(body, &mut stream).await {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// Answers a call for which there is no place.
pub(super) fn refuse(mut respond: SendResponse<Bytes>) {
    let status = Status::resource_exhausted("too many calls on this connection");
    let (head, _) = status.into_http::<()>().into_parts();
    // A client that is gone needs no answer.
    let _ = respond.send_response(Response::from_parts(head, ()), true);
}

/// Whether all of it was sent that the client wanted.
async fn send(mut body: Body, stream: &mut SendStream<Bytes>) -> bool {
    // Messages about health are a few bytes each: they need not wait for a window.
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // Whoever watches waits for what may never come.
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return true,
        };
        let sent = match frame {
            // What tonic answers ends with trailers. Without them, no status would be told.
            None => return false,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => stream.send_data(data, false),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => return stream.send_trailers(trailers).is_ok(),
                    Err(_) => Ok(()),
                },
            },
        };
        if sent.is_err() {
            return false;
        }
    }
}

/// A request's body, as tonic takes it.
struct Received(RecvStream);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = ready!(self.0.poll_data(cx));
        Poll::Ready(data.map(|data| {
            let data = data?;
            self.0.flow_control().release_capacity(data.len())?;
            Ok(Frame::data(data))
        }))
    }
}
