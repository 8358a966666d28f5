//! Checks with a compressed message, which Envoy never sends.
//!
//! They are decompressed within the limits of every message: its length, the memory that all
//! messages share, and the time. tonic could decompress them too, but it cannot be stopped, and its
//! refusals are gRPC errors. So the decoder of compressed bodies does it, and the generated service
//! gets a complete, plain message.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{sync::Semaphore, task::yield_now, time::timeout};
use tonic::{body::Body, codegen::Service, service::Routes};

use super::{
    frame,
    message::{Message, MessageRoom, WAITING},
};
use crate::{
    body::{ResourceNeed, gunzip},
    check::{CallMetadata, LongBodies},
    clock,
    refusal::{CompressionFault, MalformedPart, NoModel, Refusal},
};

/// Decompresses `message`. Never ready at the first poll, which is on the connection, where all
/// other checks would wait. `turn` has one permit, so that a flood keeps at most one thread busy.
pub(super) async fn decompress(
    message: Message,
    room: &MessageRoom,
    turn: &Semaphore,
    slow: &LongBodies,
) -> Result<Message, Refusal> {
    yield_now().await;
    let until = clock::now().after(room.patience);
    // Unlike a message that is answered at once, this one waits. So its bytes take memory from the
    // room, unless they do already.
    let own = if message.held.is_some() { 0 } else { WAITING + message.bytes.len() };
    let mut held = room.take(own)?;
    let in_turn = timeout(room.patience, turn.acquire()).await;
    let _in_turn = in_turn.ok().and_then(Result::ok).ok_or(Refusal::Unavailable)?;
    let decoded = slow.aside(|| {
        gunzip(&message.bytes, room.longest, &mut |ask| match ask {
            ResourceNeed::Time if clock::now() < until => Ok(()),
            ResourceNeed::Time => Err(NoModel::NotInTime),
            // The service copies it once.
            ResourceNeed::Memory(bytes) => {
                held.merge(room.take(2 * bytes).map_err(|_| NoModel::NotInTime)?);
                Ok(())
            }
        })
    });
    match decoded.map_err(|_| Refusal::Unavailable)? {
        Ok(bytes) => Ok(Message { bytes: bytes.into(), held: Some(held) }),
        Err(NoModel::NotInTime | NoModel::Compressed(CompressionFault::TooLong)) => {
            Err(Refusal::Unavailable)
        }
        Err(_) => Err(Refusal::BadRequest(MalformedPart::Message)),
    }
}

/// Returns the answer of the generated service to a message.
pub(super) async fn serve(
    mut routes: Routes,
    message: Bytes,
    call: CallMetadata,
) -> Response<Body> {
    let head = Bytes::copy_from_slice(&frame::head(message.len()));
    let frames = [head, message].map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut request = Request::new(Body::new(StreamBody::new(stream::iter(frames))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(frame::CHECK);
    request.extensions_mut().insert(call);
    routes.call(request).await.unwrap_or_else(|never| match never {})
}
