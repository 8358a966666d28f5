//! Clients that send what Envoy never sends, or send it incompletely. The tests use tokio's paused
//! clock, which advances when all tasks wait.

mod compressed;
mod reflection;

use std::ops::Range;

use bytes::BytesMut;
use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, StatusCode};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{io::duplex, task::JoinHandle};
use tonic_health::server::health_reporter;

use super::{
    frame::{CHECK, HEAD},
    *,
};
use crate::{check::tests::hot, token::PlainToken, wire::response::DecodedAnswer};

/// Longer than any call may take.
const FOREVER: Duration = Duration::from_secs(1_000_000);
/// Shorter than the part that h2 puts into one frame.
const PIECE: usize = 10_000;

/// A connection to an edge.
struct Client {
    calls: SendRequest<Bytes>,
    registry: Registry,
    served: JoinHandle<()>,
    /// The service, for further connections.
    grpc: GrpcServer,
    /// A token that the edge knows.
    token: PlainToken,
}

impl Client {
    async fn connect(room: usize, max_age: Duration) -> Self {
        let mut registry = Registry::default();
        let (checker, _, token) = hot(&mut registry);
        let secrets = CallSecrets::new(Vec::new());
        let edge = GrpcEdge::new(Arc::new(checker));
        let grpc = GrpcServer::with_room(edge, health_reporter().1, secrets, room);
        let (calls, served) = Self::calls(&grpc, max_age).await;
        Self { calls, registry, served, grpc, token }
    }

    /// Opens another connection.
    async fn calls(grpc: &GrpcServer, max_age: Duration) -> (SendRequest<Bytes>, JoinHandle<()>) {
        let (ours, theirs) = duplex(1 << 20);
        let served = tokio::spawn(grpc.clone().serve(theirs, max_age, CancellationToken::new()));
        let (calls, connection) = h2::client::handshake(ours).await.unwrap();
        tokio::spawn(connection);
        (calls, served)
    }

    async fn call(&self, path: &str) -> (ResponseFuture, h2::SendStream<Bytes>) {
        self.call_in_step(path, None).await
    }

    async fn call_in_step(
        &self,
        path: &str,
        step: Option<&str>,
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut head = Request::post(format!("http://patgate{path}")).body(()).unwrap();
        if let Some(step) = step {
            head.headers_mut().insert("patgate-step", step.parse().unwrap());
        }
        self.calls.clone().ready().await.unwrap().send_request(head, false).unwrap()
    }

    /// Sends a check with this body in pieces, and returns the status of the answer.
    async fn check(&self, body: &[u8]) -> u16 {
        let (answer, mut stream) = self.call(CHECK).await;
        for piece in body.chunks(PIECE) {
            send_all(&mut stream, piece).await;
        }
        // It may be refused already.
        let _ = stream.send_data(Bytes::new(), true);
        told(answer).await
    }

    /// The same, with nothing sent of the body.
    async fn check_without_end(&self) -> u16 {
        let (answer, _stream) = self.call(CHECK).await;
        told(answer).await
    }

    /// The same, with the whole body in one frame.
    async fn check_at_once(&self, body: &[u8]) -> u16 {
        let (answer, mut stream) = self.call(CHECK).await;
        stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        told(answer).await
    }

    /// The counter of decisions with this code.
    fn counted(&self, code: &str) -> usize {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        let code = format!("code=\"{code}\"");
        page.lines()
            .filter(|line| line.starts_with("patgate_decisions_total{") && line.contains(&code))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap())
            .sum()
    }
}

/// Sends as much as the other side wants.
async fn send_all(stream: &mut h2::SendStream<Bytes>, piece: &[u8]) {
    let mut piece = Bytes::copy_from_slice(piece);
    stream.reserve_capacity(piece.len());
    while !piece.is_empty() {
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let part = piece.split_to(room.min(piece.len()));
        if stream.send_data(part, false).is_err() {
            return;
        }
    }
}

async fn told(answer: ResponseFuture) -> u16 {
    DecodedAnswer::decode(&answered(answer).await).unwrap().status
}

/// The framed answer to a check.
async fn answered(answer: ResponseFuture) -> BytesMut {
    let answer = timeout(FOREVER, answer).await.expect("an answer");
    let (head, mut body) = answer.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::OK);
    let mut frame = BytesMut::new();
    while let Some(data) = body.data().await {
        frame.extend_from_slice(&data.unwrap());
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0", "an error of gRPC could be an ALLOW");
    frame
}

/// Makes a framed `CheckRequest` of `length` bytes: a request for `/` with a body of zeros.
fn message(length: usize) -> Vec<u8> {
    let nest = |field: u8, inner: Vec<u8>| {
        let length = inner.len() as u32;
        // Always in five bytes, so that the length of the frame is known.
        let septets = [length | 0x80, length >> 7 | 0x80, length >> 14 | 0x80, length >> 21 | 0x80];
        [&[field << 3 | 2][..], &septets.map(|n| n as u8), &[(length >> 28) as u8], &inner].concat()
    };
    let path = [4 << 3 | 2, 1, b'/'];
    let http = [&path[..], &nest(12, vec![0; length - path.len() - 4 * 6])].concat();
    let message = nest(1, nest(4, nest(2, http)));
    assert_eq!(message.len(), length);
    [&[0], &(length as u32).to_be_bytes()[..], &message].concat()
}

#[tokio::test(start_paused = true)]
async fn a_message_in_pieces_is_read_up_to_the_limit() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    for (length, status) in
        [(100, 401), (3 * PIECE, 401), (message::MAX_MESSAGE, 401), (message::MAX_MESSAGE + 1, 503)]
    {
        assert_eq!(client.check(&message(length)).await, status, "{length}");
    }
    // Not exactly one message.
    let two = message(100).repeat(2);
    let mut compressed = message(100);
    compressed[0] = 1;
    let short = &message(100)[..100];
    let empty = &[];
    for body in [&two[..], &compressed, short, &short[..3], empty] {
        assert_eq!(client.check(body).await, 400);
    }
}

/// The time limit also applies to a message that arrives slowly.
#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_is_an_outage() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    for begun in [&[][..], &message(100)[..20]] {
        let (answer, mut stream) = client.call(CHECK).await;
        send_all(&mut stream, begun).await;
        let trickle = async {
            loop {
                sleep(message::READING / 10).await;
                send_all(&mut stream, &[0]).await;
            }
        };
        let status = tokio::select! {
            status = told(answer) => status,
            () = trickle => unreachable!("it has no end"),
        };
        assert_eq!(status, 503);
    }
    assert_eq!(client.counted("unavailable"), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_in_pieces_share_their_room() {
    let client = Client::connect(3 * PIECE, FOREVER).await;
    let body = message(2 * PIECE);
    let (mut first, mut stream) = client.call(CHECK).await;
    send_all(&mut stream, &body[..PIECE]).await;
    send_all(&mut stream, &body[PIECE..2 * PIECE]).await;
    // One more finds no room. It does not wait for room, and returns what it had taken.
    for _ in 0..3 {
        assert_eq!(client.check(&body).await, 503);
    }
    assert!(futures_util::poll!(&mut first).is_pending(), "no time has passed");
    // A message that is complete at once needs no room.
    assert_eq!(client.check_at_once(&message(100)).await, 401);
    stream.send_data(Bytes::copy_from_slice(&body[2 * PIECE..]), true).unwrap();
    assert_eq!(told(first).await, 401);
    // It has returned its room, and so does a call that is cancelled.
    let (_, mut gives_up) = client.call(CHECK).await;
    send_all(&mut gives_up, &body).await;
    gives_up.send_reset(Reason::CANCEL);
    for _ in 0..3 {
        assert_eq!(client.check(&body).await, 401);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_about_a_call_that_was_given_up() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let cuts: [Range<usize>; 3] = [0..0, 0..20, 0..105];
    for cut in cuts {
        let (answer, mut stream) = client.call(CHECK).await;
        send_all(&mut stream, &message(100)[cut]).await;
        // Once the server has seen it.
        sleep(message::READING / 2).await;
        stream.send_reset(Reason::CANCEL);
        assert!(answer.await.is_err());
    }
    assert_eq!(client.check(&message(100)).await, 401);
    let counted = ["bad_request", "unavailable", "missing_credential"];
    assert_eq!(counted.map(|code| client.counted(code)), [0, 0, 1]);
}

/// The body of a call that is not a check has the same limits.
#[tokio::test(start_paused = true)]
async fn questions_about_health_are_short_and_end() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let path = "/grpc.health.v1.Health/Check";
    let (answer, _stream) = client.call(path).await;
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::CANCEL));

    let (answer, mut stream) = client.call(path).await;
    send_all(&mut stream, &[0, 0, 1, 0, 0]).await;
    send_all(&mut stream, &[0; 5000]).await;
    let head = answer.await.unwrap();
    assert_ne!(head.headers()["grpc-status"], "0");
}

/// A client that watches the health holds a stream and its answers, so a connection has only a few
/// of them.
#[tokio::test(start_paused = true)]
async fn calls_that_are_no_checks_are_few_on_a_connection() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let mut watched = Vec::new();
    for number in 0..=call::MAX_OTHERS {
        let (answer, mut stream) = client.call("/grpc.health.v1.Health/Watch").await;
        stream.send_data(Bytes::from_static(&[0; HEAD]), true).unwrap();
        let (head, body) = answer.await.unwrap().into_parts();
        let refused = head.headers.get("grpc-status").is_some_and(|status| status == "8");
        assert_eq!(refused, number == call::MAX_OTHERS, "{number}");
        assert_eq!(body.is_end_stream(), refused, "a status alone ends the stream");
        watched.push(body);
    }
    assert_eq!(client.check(&message(100)).await, 401, "checks are not counted");
    drop(watched.pop().unwrap());
    drop(watched.pop().unwrap());
    sleep(Duration::from_secs(1)).await;
    let (answer, mut stream) = client.call("/grpc.health.v1.Health/Check").await;
    stream.send_data(Bytes::from_static(&[0; HEAD]), true).unwrap();
    assert!(answer.await.unwrap().headers().get("grpc-status").is_none(), "a place is free again");
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_share_the_room_of_messages() {
    let client = Client::connect(2 * message::WAITING, FOREVER).await;
    let (_one, mut first) = client.call(CHECK).await;
    let (_two, _second) = client.call(CHECK).await;
    assert_eq!(client.check_without_end().await, 503, "there is no room to wait");
    assert_eq!(client.check_at_once(&message(100)).await, 401, "what is whole needs none");
    first.send_reset(Reason::CANCEL);
    // Until the server has seen it.
    sleep(Duration::from_secs(1)).await;
    let (answer, mut third) = client.call(CHECK).await;
    sleep(Duration::from_secs(1)).await;
    third.send_data(message(100).into(), true).unwrap();
    assert_eq!(told(answer).await, 401);
}

/// An old connection ends, although a client watches the health on it.
#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_whatever_is_open_on_it() {
    let mut client = Client::connect(message::MAX_IN_PIECES, Duration::from_secs(60)).await;
    let (answer, mut stream) = client.call("/grpc.health.v1.Health/Watch").await;
    stream.send_data(Bytes::from_static(&[0; HEAD]), true).unwrap();
    let mut watched = answer.await.unwrap().into_body();
    assert!(watched.data().await.unwrap().is_ok());
    let ended = timeout(FOREVER, &mut client.served).await;
    // It did not end because of missing pongs: the client answers pings.
    ended.expect("it ends").unwrap();
}

/// Every call moves its future, and one of more than 4 KiB takes a slower path of `memcpy`.
#[test]
fn the_future_of_a_call_stays_small() {
    fn size<F>(_: impl Fn(GrpcServer, Call) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(GrpcServer::answer);
    assert!(size <= 3968, "{size} bytes");
}
