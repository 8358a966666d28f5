//! A client that costs less than any server that it measures: requests are encoded beforehand,
//! frames are read by their length, and one thread does nothing else. It accepts only allows: the
//! first other answer ends the run.

use std::{
    io::{self, Read, Write},
    iter,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{allow::is_allow, statistics::Dice};

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD: usize = 9;
/// The largest frame, unless the other side accepts more.
const MAX_PAYLOAD: usize = 16_384;
/// Bytes of some thirty answers. Each answer makes room for a request, so the server has new
/// requests before the client has read the rest: if all were read at once, one side would wait
/// while the other works.
const READ: usize = 16 * 1024;
const INITIAL_WINDOW: i64 = 65_535;

/// The headers that Envoy sends with each check.
const FIELDS: [(&str, &str); 9] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/envoy.service.auth.v3.Authorization/Check"),
    (":authority", "patgate"),
    ("te", "trailers"),
    ("grpc-timeout", "250m"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "10.0.0.7"),
];

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The requests to draw from, each as the frames that carry it.
pub(crate) struct Requests(Vec<Vec<u8>>);

impl Requests {
    pub(crate) fn new(messages: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let frames = messages.into_iter().map(|message| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let message = [&[0], &length[..], &message].concat();
            let parts = message.chunks(MAX_PAYLOAD);
            let last = parts.len() - 1;
            let flags = |part| if part == last { END_STREAM } else { 0 };
            parts.enumerate().flat_map(|(n, part)| frame(DATA, flags(n), part)).collect()
        });
        Self(frames.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// How requests follow one another.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// This many at once: each answer makes room for the next request.
    Closed(usize),
    /// This many together, and the next ones when all are answered. So the server does the same
    /// work every time, with or without valgrind.
    Together(usize),
}

/// The counts and times of the answers.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) checks: u64,
    pub(crate) took: Duration,
    /// Times of requests that were alone, in nanoseconds.
    pub(crate) latencies: Vec<u32>,
}

impl Tally {
    pub(crate) fn rate(&self) -> f64 {
        self.checks as f64 / self.took.as_secs_f64()
    }
}

trait Duplex: Read + Write {}
impl<S: Read + Write> Duplex for S {}

/// One connection.
pub(crate) struct Connection {
    io: Box<dyn Duplex>,
    /// The header fields of the first request in full; later requests refer to the dynamic table.
    fields: Vec<u8>,
    /// The number of these fields.
    count: usize,
    next_stream: u32,
    /// Bytes that the server is ready to accept.
    window: i64,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// How much of it holds bytes that were read and not yet parsed.
    filled: usize,
    /// Whether an answer counts.
    judge: fn(&[u8]) -> bool,
    good: u64,
    ended: u64,
}

impl Connection {
    pub(crate) fn open(target: &Target) -> io::Result<Self> {
        let io: Box<dyn Duplex> = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                Box::new(stream)
            }
            Target::Unix(path) => Box::new(UnixStream::connect(path)?),
        };
        let mut outgoing = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        outgoing.extend(frame(SETTINGS, 0, &[]));
        // Room for all answers of the run, so that no answer waits for this client.
        outgoing.extend(frame(WINDOW_UPDATE, 0, &(i32::MAX - INITIAL_WINDOW as i32).to_be_bytes()));
        Ok(Self {
            io,
            fields: frame(HEADERS, END_HEADERS, &remembered(&FIELDS)),
            count: FIELDS.len(),
            next_stream: 1,
            window: INITIAL_WINDOW,
            outgoing,
            incoming: vec![0; 1 << 20],
            filled: 0,
            judge: is_allow,
            good: 0,
            ended: 0,
        })
    }

    /// As an Envoy that traces: each call is part of this trace.
    pub(crate) fn in_trace(self, traceparent: &str) -> Self {
        let fields: Vec<_> = FIELDS.into_iter().chain([("traceparent", traceparent)]).collect();
        let first = frame(HEADERS, END_HEADERS, &remembered(&fields));
        Self { fields: first, count: fields.len(), ..self }
    }

    /// For a flood: counts refusals, and accepts nothing else.
    pub(crate) fn expecting_denials(self) -> Self {
        Self { judge: |answer| !is_allow(answer), ..self }
    }

    /// Sends requests drawn at random, for this long.
    pub(crate) fn run_for(
        &mut self,
        time: Duration,
        requests: &Requests,
        streams: usize,
        dice: &mut Dice,
    ) -> io::Result<Tally> {
        let end = Instant::now() + time;
        let draw = || (Instant::now() < end).then(|| dice.below(requests.len()));
        self.run(requests, Pace::Closed(streams), draw)
    }

    /// Sends requests by their numbers, until `next` returns no more.
    pub(crate) fn run(
        &mut self,
        requests: &Requests,
        pace: Pace,
        mut next: impl FnMut() -> Option<usize>,
    ) -> io::Result<Tally> {
        let mut tally = Tally::default();
        let started = Instant::now();
        let (streams, together) = match pace {
            Pace::Closed(streams) => (streams, false),
            Pace::Together(streams) => (streams, true),
        };
        let mut under_way = 0;
        let mut refused = None;
        let mut over = false;
        loop {
            let mut room = if together && under_way > 0 { 0 } else { streams - under_way };
            while room > 0 && !over {
                let Some(number) = refused.take().or_else(&mut next) else {
                    over = true;
                    break;
                };
                if !self.send(&requests.0[number]) {
                    refused = Some(number);
                    break;
                }
                under_way += 1;
                room -= 1;
            }
            let sent = Instant::now();
            self.io.write_all(&self.outgoing)?;
            self.outgoing.clear();
            if under_way == 0 && over {
                break;
            }
            let ended = self.receive()?;
            under_way -= ended;
            tally.checks += ended as u64;
            if streams == 1 && ended == 1 {
                tally.latencies.push(nanoseconds(sent.elapsed()));
            }
        }
        tally.took = started.elapsed();
        Ok(tally)
    }

    /// Returns false if the server is not ready to accept it.
    fn send(&mut self, data: &[u8]) -> bool {
        let frames = || iter::once(&*self.fields).chain(data.chunks(HEAD + MAX_PAYLOAD));
        let size: usize = frames().skip(1).map(|frame| frame.len() - HEAD).sum();
        if self.window < size as i64 {
            return false;
        }
        self.window -= size as i64;
        for frame in frames() {
            let start = self.outgoing.len();
            self.outgoing.extend_from_slice(frame);
            self.outgoing[start + 5..start + HEAD].copy_from_slice(&self.next_stream.to_be_bytes());
        }
        if self.next_stream == 1 {
            self.fields = frame(HEADERS, END_HEADERS, &recalled(self.count));
        }
        self.next_stream += 2;
        true
    }

    /// Waits for input, and returns how many requests it ended.
    fn receive(&mut self) -> io::Result<usize> {
        let room = self.incoming.len().min(self.filled + READ);
        let read = self.io.read(&mut self.incoming[self.filled..room])?;
        if read == 0 {
            return Err(bad("the server closed the connection"));
        }
        self.filled += read;
        let mut start = 0;
        let before = self.ended;
        while let Some(head) = self.incoming[..self.filled].get(start..start + HEAD) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let kind = head[3];
            let flags = head[4];
            let on_connection = head[5..] == [0; 4];
            let end = start + HEAD + length;
            if end > self.filled {
                break;
            }
            let payload = &self.incoming[start + HEAD..end];
            match kind {
                DATA if (self.judge)(payload) => self.good += 1,
                DATA => return Err(bad(&format!("answered: {}", payload.escape_ascii()))),
                RST_STREAM | GOAWAY => return Err(bad("the server gave up")),
                SETTINGS if flags & ACK == 0 => self.outgoing.extend(frame(SETTINGS, ACK, &[])),
                PING if flags & ACK == 0 => self.outgoing.extend(frame(PING, ACK, payload)),
                WINDOW_UPDATE if on_connection => {
                    let more = payload.try_into().map_err(|_| bad("a malformed frame"))?;
                    self.window += i64::from(u32::from_be_bytes(more));
                }
                _ => {}
            }
            if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                self.ended += 1;
                // A gRPC error ends a stream without a message.
                if self.ended > self.good {
                    return Err(bad("an error of gRPC instead of an answer"));
                }
            }
            start = end;
        }
        self.incoming.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok((self.ended - before) as usize)
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

fn bad(what: &str) -> io::Error {
    io::Error::other(what)
}

/// Writes the stream id 0; the id of requests is set when they are sent.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
}

/// Writes fields in full, for the dynamic table (RFC 7541, section 6.2.1).
fn remembered(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x40);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Writes each field by its place in the dynamic table (section 6.1). The last inserted field is at
/// 62.
fn recalled(count: usize) -> Vec<u8> {
    (0..count).rev().map(|place| 0x80 | (62 + place as u8)).collect()
}
