//! The number and length of headers in a request: Envoy applies its limits to the client's headers
//! and those of the answer together.

use std::sync::Arc;

use patgate_testing::http::{Over, Reply, Sent};

use super::{
    answers::allow,
    gate::{Case, Gate, GateAnswer::Says, MODELS, SHIPPED, TO_ACME, gate},
    headers::OURS,
};
use crate::support::Suite;

/// The number that every client may rely on.
const PROMISED: usize = 100;
/// The number that the shipped configuration accepts from a client.
const TAKEN: usize = 128;
/// The length that it accepts, names and values together.
const TAKEN_BYTES: usize = 32 << 10;

/// An allow with every header that patgate can set, and a credential of this length.
fn largest(gate: &Gate, credential: usize) -> Case<'_> {
    let credential = "k".repeat(credential);
    let mut set: Vec<_> = OURS.map(|name| (name, "ours")).into_iter().collect();
    set.push(("authorization", &credential));
    set.push(TO_ACME);
    gate.case(Says(allow(&set, &[])))
}

/// Returns `None` if Envoy resets the stream, as it does over HTTP/2 above its own limits.
async fn ask(case: &Case<'_>, over: Over, headers: &[(&str, &str)]) -> Option<Reply> {
    let sent = Sent { method: "GET", target: MODELS, headers, ..Sent::default() };
    case.try_over(over, SHIPPED, sent).await.ok()
}

/// In the form of the API that was called.
pub(crate) async fn as_shipped_too_many_headers_are_told_in_each_form(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let case = largest(gate, 8);
    let names: Vec<_> = (0..TAKEN - 7).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    for over in Over::ALL {
        for (target, at) in [
            ("/proxy/acme/api/tags", "/error"),
            ("/proxy/acme/v1/messages", "/error/message"),
            ("/api/v2/models", "/message"),
            ("/api/scim/v2/Users", "/detail"),
            ("/api/v1/reports", "/detail"),
        ] {
            let sent = Sent { method: "GET", target, headers: &headers, ..Sent::default() };
            let reply = case.over(over, SHIPPED, sent).await;
            assert_eq!(reply.status, 431, "{over:?} {target}: {reply:?}");
            let body = reply.json();
            let text = body.pointer(at).and_then(|text| text.as_str());
            let is_told = text.is_some_and(|text| text.contains("Send at most 100 headers"));
            assert!(is_told, "{over:?} {target}: {reply:?}");
        }
    }
}

fn assert_told(reply: &Reply, what: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (431, "headers_too_large"), "{what}");
    assert!(reply.body.contains("Send at most 100 headers"), "{what}: {}", reply.body);
}

/// Sends this many headers as the client counts them: the pseudo-headers of HTTP/2 do not count;
/// `host`, `connection` and the case's own header do.
async fn with_headers(case: &Case<'_>, over: Over, count: usize) -> Option<Reply> {
    let already = if over == Over::Http1 { 3 } else { 1 };
    let names: Vec<_> = (already..count).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    ask(case, over, &headers).await
}

pub(crate) async fn as_shipped_a_hundred_headers_pass_and_too_many_are_told(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for over in Over::ALL {
        let case = largest(gate, 8);
        let mut statuses = Vec::new();
        for count in PROMISED - 20..TAKEN + 12 {
            let what = format!("{over:?} {count}");
            let Some(reply) = with_headers(&case, over, count).await else {
                assert!(over != Over::Http1 && count > TAKEN - 8, "{what}: reset");
                continue;
            };
            match reply.status {
                200 => {
                    assert_eq!(reply.header("x-backend"), Some("model-acme"), "{what}");
                    assert_eq!(reply.seen("x-user-id"), ["ours"], "{what}");
                    let sent = if over == Over::Http1 { 3 } else { 1 }..count;
                    let passed = sent.filter(|number| reply.seen(&format!("x-{number}")) == ["v"]);
                    assert!(passed.count() + 3 >= count, "{what}");
                }
                // Envoy's own answer, before any filter has seen the request.
                431 if count > TAKEN => assert!(!reply.body.is_empty(), "{what}"),
                _ => {
                    assert!(count > PROMISED, "{what}");
                    assert_told(&reply, &what);
                }
            }
            statuses.push((count, reply.status));
        }
        // There are exactly two ranges, with one boundary between them.
        let last = statuses.iter().filter(|(_, status)| *status == 200).map(|(n, _)| n).max();
        let first = statuses.iter().filter(|(_, status)| *status == 431).map(|(n, _)| n).min();
        assert_eq!(last.unwrap() + 1, *first.unwrap(), "{over:?}: {statuses:?}");
    }
}

pub(crate) async fn as_shipped_a_head_that_has_no_room_for_ours_is_told(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    // The longest credential that a backend can have, and a short one.
    for credential in [4096, 8] {
        let case = largest(gate, credential);
        for over in Over::ALL {
            let mut told = 0;
            for length in (TAKEN_BYTES - 5500..TAKEN_BYTES).step_by(60) {
                let value = "v".repeat(length);
                let what = format!("{over:?} {length} {credential}");
                let Some(reply) = ask(&case, over, &[("x-long", &value)]).await else {
                    assert!(over != Over::Http1 && length > TAKEN_BYTES - 500, "{what}: reset");
                    continue;
                };
                match reply.status {
                    200 => assert_eq!(reply.seen("x-long"), [value], "{what}"),
                    431 if length > TAKEN_BYTES - 200 => assert!(!reply.body.is_empty(), "{what}"),
                    _ => {
                        assert_told(&reply, &what);
                        told += 1;
                    }
                }
            }
            assert!(told > credential / 120, "{over:?} {credential}: {told}");
        }
    }
}
