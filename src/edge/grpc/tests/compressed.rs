//! Checks with a compressed message: each gets the same answer as an uncompressed one.

use futures_util::FutureExt;
use prost::Message as _;

use patgate_core::testing::gzip;

use super::{super::compressed::decompress, *};
use crate::{
    check::LongBodies,
    wire::codec::{encode, tests::generated},
};

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn zipped(message: &[u8]) -> Vec<u8> {
    framed(1, &gzip(message))
}

impl Client {
    async fn answer_in_step(&self, body: &[u8], step: Option<&str>) -> BytesMut {
        let (answer, mut stream) = self.call_in_step(CHECK, step).await;
        stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        answered(answer).await
    }

    async fn answer(&self, body: &[u8]) -> BytesMut {
        self.answer_in_step(body, None).await
    }
}

/// Returns an answer without the parts that differ between calls.
fn comparable(frame: &[u8]) -> impl PartialEq + std::fmt::Debug + use<> {
    use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};

    assert_eq!(frame[..HEAD], frame::head(frame.len() - HEAD));
    let mut response = CheckResponse::decode(&frame[HEAD..]).unwrap();
    if let Some(metadata) = &mut response.dynamic_metadata {
        metadata.fields.remove("age_ms");
    }
    if let Some(HttpResponse::DeniedResponse(denied)) = &mut response.http_response {
        let is_id = |name: &str| name == "x-request-id";
        denied.headers.retain(|option| !option.header.as_ref().is_some_and(|it| is_id(&it.key)));
    }
    response
}

#[tokio::test(start_paused = true)]
async fn a_compressed_check_has_the_same_answer() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let bearer = format!("Bearer {}", client.token.expose());
    let json = ("content-type", "application/json".to_owned());
    let headers = [("authorization", bearer), ("x-request-id", "r-1".to_owned()), json];
    let body = br#"{"model":"m","messages":[]}"#;
    let mut statuses = Vec::new();
    for (method, path, headers) in [
        ("GET", "/proxy/acme/api/version", &headers[..]),
        ("POST", "/proxy/acme/v1/chat/completions", &headers),
        ("POST", "/proxy/acme/v1/embeddings", &headers),
        ("GET", "/proxy/other/api/version", &headers),
        ("GET", "/proxy/acme/api/version", &headers[1..]),
        ("GET", "/proxy//", &headers),
    ] {
        let message = encode(method, "gateway", path, headers, body);
        for step in [None, Some("first"), Some("second"), Some("third")] {
            let plain = client.answer_in_step(&framed(0, &message), step).await;
            let zipped = client.answer_in_step(&zipped(&message), step).await;
            assert_eq!(comparable(&plain), comparable(&zipped), "{method} {path} {step:?}");
            let decoded = DecodedAnswer::decode(&plain);
            // If the step is wrong, the id is made up, because nothing of the request is read.
            let says_no_age = |decoded: &DecodedAnswer| !decoded.metadata.contains_key("age_ms");
            if decoded.as_ref().is_some_and(says_no_age) && step != Some("third") {
                assert_eq!(plain, zipped, "{method} {path} {step:?}");
            }
            statuses.push(decoded.map(|decoded| decoded.status));
        }
    }
    for status in [200, 400, 401, 403, 503].map(Some) {
        assert!(statuses.contains(&status), "{status:?} of {statuses:?}");
    }
    assert!(statuses.contains(&None), "a first step asks for a body");
    assert_eq!(client.counted("ok") % 2, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_decoder_is_tested_with_is_read_alike() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let mut read = 0;
    for message in generated(1000) {
        let plain = client.answer(&framed(0, &message)).await;
        let zipped = client.answer(&zipped(&message)).await;
        assert_eq!(comparable(&plain), comparable(&zipped), "{message:?}");
        let status = DecodedAnswer::decode(&plain).unwrap().status;
        read += usize::from(status != 400);
    }
    assert!((1..1000).contains(&read), "{read}");
}

#[tokio::test(start_paused = true)]
async fn a_compressed_message_becomes_as_long_as_a_plain_one_may_be() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    for (length, status) in [(message::MAX_MESSAGE, 401), (message::MAX_MESSAGE + 1, 503)] {
        assert_eq!(client.check(&zipped(&message(length)[HEAD..])).await, status, "{length}");
    }
    assert_eq!(client.check(&zipped(&[])).await, 400, "no request is in it");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_one_whole_member_is_malformed() {
    let client = Client::connect(message::MAX_IN_PIECES, FOREVER).await;
    let message = message(100).split_off(HEAD);
    let good = gzip(&message);
    assert_eq!(client.check(&framed(1, &good)).await, 401);
    let mut says_less = good.clone();
    let at = good.len() - 4;
    says_less[at..].copy_from_slice(&10_u32.to_le_bytes());
    let plain = &message[..];
    let cut = &good[..good.len() - 1];
    let more = [&good[..], b"\0"].concat();
    for sent in [plain, cut, &more, &good.repeat(2), &says_less, &[]] {
        assert_eq!(client.check(&framed(1, sent)).await, 400, "{sent:?}");
    }
    // A message whose flag says "plain" is not decompressed, and no other flag exists.
    assert_eq!(client.check(&framed(0, &good)).await, 400);
    assert_eq!(client.check(&framed(2, &good)).await, 400);
    assert_eq!(client.counted("bad_request"), 8);
}

#[tokio::test(start_paused = true)]
async fn compressed_messages_share_the_room_of_all() {
    let client = Client::connect(3 * PIECE, FOREVER).await;
    // It is short as it is sent.
    let long = zipped(&message(2 * PIECE)[HEAD..]);
    assert!(long.len() < PIECE / 10);
    for _ in 0..3 {
        assert_eq!(client.check_at_once(&long).await, 503, "it is copied once");
        assert_eq!(client.check_at_once(&zipped(&message(PIECE)[HEAD..])).await, 401);
    }
    let (_waits, _stream) = client.call(CHECK).await;
    let (_waits_too, mut stream) = client.call(CHECK).await;
    send_all(&mut stream, &message(2 * PIECE)[..PIECE]).await;
    assert_eq!(client.check_at_once(&zipped(&message(PIECE)[HEAD..])).await, 503);
    assert_eq!(
        client.check_at_once(&message(100)).await,
        401,
        "what is plain and whole needs none"
    );
}

fn compressed(message: &[u8]) -> message::Message {
    message::Message { bytes: gzip(message).into(), held: None }
}

/// If it were, all other checks on the connection would wait.
#[tokio::test(start_paused = true)]
async fn one_message_is_decompressed_at_a_time_and_none_on_the_connection() {
    let room = MessageRoom::for_checks(message::MAX_IN_PIECES);
    let (turn, slow) = (Semaphore::new(1), LongBodies::new(1));
    let begun = decompress(compressed(b"x"), &room, &turn, &slow).now_or_never();
    assert!(begun.is_none(), "nothing is done at the first poll");
    let taken = turn.acquire().await.unwrap();
    let waited = decompress(compressed(b"x"), &room, &turn, &slow).await;
    assert_eq!(waited.err(), Some(Refusal::Unavailable), "it has waited as long as it may");
    drop(taken);
    assert_eq!(decompress(compressed(b"x"), &room, &turn, &slow).await.unwrap().bytes, &b"x"[..]);
    assert_eq!(room.take(message::MAX_IN_PIECES).map(drop), Ok(()), "nothing is kept");
}
