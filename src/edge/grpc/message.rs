//! Reads the one message of a check, in bounded time and memory.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::frame::HEAD;
use crate::refusal::{Malformed, Refusal};

/// Far above what Envoy accepts of a client's headers, and shows of a body as shipped. A longer one
/// is the mistake of who configured Envoy: its client is told of an outage, and nothing of itself.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// What all messages that are not whole at once may hold together, whatever connections they come
/// by. Each stream may hold one, and there are a thousand on a connection: without a bound that is
/// 4 GB. Enough for 250 bodies of 1 MiB at one moment, each of which stays for milliseconds. (A
/// buffer that grows has at most as much in reserve.)
pub(super) const MAX_IN_PIECES: usize = 256 * 1024 * 1024;
/// What a call takes for itself while its message is awaited: its task, and h2's knowledge of the
/// stream.
pub(super) const WAITING: usize = 4 * 1024;
/// For all of a message. Envoy sends none before it has all of it.
pub(super) const READING: Duration = Duration::from_secs(5);

/// A whole message.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    /// What it takes of the room for messages in pieces, for as long as it is there.
    pub(super) held: Option<OwnedSemaphorePermit>,
}

/// Why there is no message.
pub(super) enum Unread {
    /// The call has failed, as when Envoy gives it up: nobody waits for an answer.
    Gone,
    /// An answer is due all the same. An error of gRPC would be an ALLOW under
    /// `failure_mode_allow`.
    Refused(Refusal),
    /// It is compressed.
    Compressed(Message),
}

/// Within which messages are read.
pub(super) struct MessageRoom {
    /// Bytes that are left for messages in pieces.
    bytes: Arc<Semaphore>,
    /// Of one message.
    pub(super) longest: usize,
    /// For all of one.
    pub(super) patience: Duration,
}

impl MessageRoom {
    /// For all but second steps.
    pub(super) fn for_checks(bytes: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), longest: MAX_MESSAGE, patience: READING }
    }

    /// For second steps: bodies of up to 32 MiB, with what Envoy says beside them; sixteen of the
    /// longest at a time. They share their room with what is decoded of them, and take none from
    /// other checks.
    pub(super) fn for_bodies(bytes: Arc<Semaphore>) -> Self {
        Self { bytes, longest: 33 * 1024 * 1024, patience: Duration::from_secs(10) }
    }

    /// Takes so many bytes, if they are left.
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
        // Nearly always it is there at once, in one piece: without a timer, without a copy.
        Poll::Ready(Some(Ok(data))) if body.is_end_stream() => {
            let _ = body.flow_control().release_capacity(data.len());
            whole(data, None)
        }
        first => timeout(room.patience, rest(body, first, room)).await.unwrap_or(Err(UNAVAILABLE)),
    }
}

/// Goes on after `first`.
///
/// What has been kept is released to Envoy at once, so that half messages never fill the window
/// that they share: all would wait for what none of them lets through. Room bounds them instead.
/// Who finds none is not left waiting for it, for the same reason.
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
        // Copied: a piece may be a small part of the buffer that it was read into.
        kept.extend_from_slice(&data);
        next = Poll::Pending;
    }
}

fn whole(mut frame: Bytes, held: Option<OwnedSemaphorePermit>) -> Result<Message, Unread> {
    const MALFORMED: Unread = Unread::Refused(Refusal::BadRequest(Malformed::Message));
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
