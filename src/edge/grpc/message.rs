//! Reads the one message of a check, in bounded time and memory.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::frame::HEAD;
use crate::refusal::{MalformedPart, Refusal};

/// Far more than the headers that Envoy accepts from a client, and the part of a body that Envoy as
/// shipped shows. A longer message is an error in Envoy's configuration, so Envoy's client gets an
/// outage as the answer, and no blame.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Memory for all messages that arrive in pieces, over all connections. Each stream may hold one,
/// and a connection has a thousand streams: without a limit, that is 4 GB. This is enough for 250
/// bodies of 1 MiB at a time, each of which stays for milliseconds. (A growing buffer has at most
/// as much again in reserve.)
pub(super) const MAX_IN_PIECES: usize = 256 * 1024 * 1024;
/// The memory of a call while it waits for its message: its task, and h2's state of the stream.
pub(super) const WAITING: usize = 4 * 1024;
/// Time limit for a whole message. Envoy begins to send only when it has all of it.
pub(super) const READING: Duration = Duration::from_secs(5);

/// A complete message.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    /// The memory that it takes from the room for messages in pieces, until it is dropped.
    pub(super) held: Option<OwnedSemaphorePermit>,
}

/// Why there is no message.
pub(super) enum Unread {
    /// The call has failed, for example because Envoy cancelled it. The caller does not wait for an
    /// answer.
    Gone,
    /// An answer is due nevertheless. A gRPC error would be an ALLOW under `failure_mode_allow`.
    Refused(Refusal),
    /// The message is compressed.
    Compressed(Message),
}

/// The limits within which messages are read.
pub(super) struct MessageRoom {
    /// The bytes that are left for messages in pieces.
    bytes: Arc<Semaphore>,
    /// The maximum length of one message.
    pub(super) longest: usize,
    /// The time limit for a whole message.
    pub(super) patience: Duration,
}

impl MessageRoom {
    /// For all checks except second steps.
    pub(super) fn for_checks(bytes: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), longest: MAX_MESSAGE, patience: READING }
    }

    /// For second steps: bodies of up to 32 MiB, with the attributes that Envoy sends beside them;
    /// sixteen of the longest at a time. They share their memory with decoded bodies, and take none
    /// from other checks.
    pub(super) fn for_bodies(bytes: Arc<Semaphore>) -> Self {
        Self { bytes, longest: 33 * 1024 * 1024, patience: Duration::from_secs(10) }
    }

    /// Takes `bytes` from the room, if they are left.
    pub(super) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::Unavailable)?;
        let taken = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        taken.map_err(|_| Refusal::Unavailable)
    }
}

const UNAVAILABLE: Unread = Unread::Refused(Refusal::Unavailable);

type Piece = Option<Result<Bytes, h2::Error>>;

pub(super) async fn read(mut body: RecvStream, room: &MessageRoom) -> Result<Message, Unread> {
    match poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await {
        // Nearly always, the message is there at once and in one piece: no timer and no copy are
        // needed.
        Poll::Ready(Some(Ok(data))) if body.is_end_stream() => {
            let _ = body.flow_control().release_capacity(data.len());
            whole(data, None)
        }
        first => timeout(room.patience, rest(body, first, room)).await.unwrap_or(Err(UNAVAILABLE)),
    }
}

/// Reads the rest of the message after `first`.
///
/// Flow-control capacity is released to Envoy as soon as a piece is kept. So incomplete messages
/// never fill the window that they share, in which case all of them would wait for each other. The
/// room limits them instead. For the same reason, a message that finds no room does not wait for
/// it.
async fn rest(
    mut body: RecvStream,
    first: Poll<Piece>,
    room: &MessageRoom,
) -> Result<Message, Unread> {
    let mut held = room.take(WAITING).map_err(Unread::Refused)?;
    let mut kept = Vec::new();
    let mut next = first;
    loop {
        let piece = match next {
            Poll::Ready(piece) => piece,
            Poll::Pending => body.data().await,
        };
        let Some(data) = piece else { return whole(kept.into(), Some(held)) };
        let data = data.map_err(|_| Unread::Gone)?;
        let _ = body.flow_control().release_capacity(data.len());
        if kept.is_empty() && body.is_end_stream() {
            return whole(data, None);
        }
        if kept.len() + data.len() > room.longest + HEAD {
            return Err(UNAVAILABLE);
        }
        held.merge(room.take(data.len()).map_err(Unread::Refused)?);
        // Copied, because a piece may be a small part of the buffer into which it was read.
        kept.extend_from_slice(&data);
        next = Poll::Pending;
    }
}

fn whole(mut frame: Bytes, held: Option<OwnedSemaphorePermit>) -> Result<Message, Unread> {
    const MALFORMED: Unread = Unread::Refused(Refusal::BadRequest(MalformedPart::Message));
    if frame.len() < HEAD {
        return Err(MALFORMED);
    }
    let flag = frame.get_u8();
    let length = frame.get_u32() as usize;
    if frame.len() != length {
        return Err(MALFORMED);
    }
    let message = Message { bytes: frame, held };
    match flag {
        0 => Ok(message),
        1 => Err(Unread::Compressed(message)),
        _ => Err(MALFORMED),
    }
}
