//! gRPC calls, frame by frame: requests are written beforehand, and answers are compared as they
//! arrive. Client libraries cost more than the servers that they call.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
};
use tokio_util::task::AbortOnDropHandle;

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW: i64 = 65_535;

/// A connection whose calls must all get the same answer as the first.
pub struct Calls {
    write: Arc<Mutex<OwnedWriteHalf>>,
    seen: Arc<Seen>,
    next_stream: u32,
    sent: u64,
    _reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The bytes that the server is ready to receive.
    window: AtomicI64,
    first: OnceLock<Vec<u8>>,
    as_first: AtomicU64,
    ended: AtomicU64,
}

/// A call without the number of its stream.
pub struct Call(Vec<u8>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Call {
    pub fn new(request: &CheckRequest) -> Self {
        // RFC 7541: names by their index in the static table, values as literals.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            (&[0x04][..], "/envoy.service.auth.v3.Authorization/Check"),
            (&[0x01], "patgate"),
            (&[0x0f, 0x10], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ] {
            headers.extend_from_slice(name);
            headers.push(u8::try_from(value.len()).unwrap());
            headers.extend_from_slice(value.as_bytes());
        }
        let headers = frame(HEADERS, END_HEADERS, 0, &headers);
        let encoded = request.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
        let message = [&[0], &length[..], &encoded].concat();
        Self([headers, frame(DATA, END_STREAM, 0, &message)].concat())
    }
}

impl Calls {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        // A window for all answers that the connection will ever get.
        let room = (i32::MAX - INITIAL_WINDOW as i32).to_be_bytes();
        write.write_all(&frame(WINDOW_UPDATE, 0, 0, &room)).await.unwrap();
        let write = Arc::new(Mutex::new(write));
        let seen = Arc::new(Seen::default());
        seen.window.store(INITIAL_WINDOW, SeqCst);
        let reading = tokio::spawn(read_answers(read, Arc::clone(&write), Arc::clone(&seen)));
        let reading = AbortOnDropHandle::new(reading);
        Self { write, seen, next_stream: 1, sent: 0, _reading: reading }
    }

    /// Returns false if the server is not ready to receive it.
    pub async fn send(&mut self, calls: &[&Call]) -> bool {
        let mut frames = Vec::new();
        let mut size = 0;
        for Call(call) in calls {
            let start = frames.len();
            frames.extend_from_slice(call);
            let headers = 9 + usize::from(call[1]) * 256 + usize::from(call[2]);
            for at in [start + 5, start + headers + 5] {
                frames[at..at + 4].copy_from_slice(&self.next_stream.to_be_bytes());
            }
            self.next_stream += 2;
            // Only data counts towards the window.
            size += i64::try_from(call.len() - headers - 9).unwrap();
        }
        if self.seen.window.load(SeqCst) < size {
            self.next_stream -= 2 * u32::try_from(calls.len()).unwrap();
            return false;
        }
        self.seen.window.fetch_sub(size, SeqCst);
        self.write.lock().await.write_all(&frames).await.unwrap();
        self.sent += calls.len() as u64;
        true
    }

    /// The number of calls without an answer.
    pub fn outstanding(&self) -> u64 {
        self.sent - self.seen.ended.load(SeqCst)
    }

    /// The number of calls, and the one answer to all of them.
    pub fn answered(&self) -> (u64, Option<CheckResponse>) {
        assert_eq!(self.outstanding(), 0);
        assert_eq!(self.seen.as_first.load(SeqCst), self.sent, "another answer");
        // After gRPC's prefix.
        let first = self.seen.first.get().map(|message| CheckResponse::decode(&message[5..]));
        (self.sent, first.transpose().unwrap())
    }
}

async fn read_answers(mut read: OwnedReadHalf, write: Arc<Mutex<OwnedWriteHalf>>, seen: Arc<Seen>) {
    let mut bytes = Vec::new();
    let mut start = 0;
    while let Ok(1..) = read.read_buf(&mut bytes).await {
        while let Some(head) = bytes.get(start..start + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let kind = head[3];
            let flags = head[4];
            let Some(payload) = bytes.get(start + 9..start + 9 + length) else { break };
            match kind {
                DATA if payload == seen.first.get_or_init(|| payload.to_vec()) => {
                    seen.as_first.fetch_add(1, SeqCst);
                }
                SETTINGS | PING if flags & ACK == 0 => {
                    let payload = if kind == PING { payload } else { &[] };
                    let ack = frame(kind, ACK, 0, payload);
                    write.lock().await.write_all(&ack).await.unwrap();
                }
                WINDOW_UPDATE if head[5..9] == [0; 4] => {
                    let more = u32::from_be_bytes(payload.try_into().unwrap());
                    seen.window.fetch_add(i64::from(more), SeqCst);
                }
                _ => {}
            }
            if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                seen.ended.fetch_add(1, SeqCst);
            }
            start += 9 + length;
        }
        bytes.drain(..start);
        start = 0;
    }
}
