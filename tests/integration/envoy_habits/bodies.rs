//! What a check shows of a body, and what the backend gets of it.

use std::{collections::BTreeMap, fs, sync::Arc};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use patgate_testing::{
    http::{Over, Reply, Sent},
    stack::project,
    wire::Wire,
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::{
    answers::allow,
    gate::{
        Case,
        GateAnswer::{self, Fails, NeedsBody, Says},
        SHIPPED, SINGLE_STEP, TEXT_BODIES, TO_ACME, gate,
    },
};
use crate::support::Suite;

/// The maximum that a single step shows.
const SHOWN: usize = 1 << 20;
/// The maximum that two steps show. A longer body reaches no backend.
const LONGEST: usize = 32 << 20;
const EMBEDDINGS: &str = "/proxy/acme/v1/embeddings";
const PARTIAL: &str = "x-envoy-auth-partial-body";

fn text_of(length: usize) -> Vec<u8> {
    (0..length).map(|at| b"0123456789abcdef\n"[at % 17]).collect()
}

fn upload<'a>(method: &'a str, target: &'a str, body: &'a [u8]) -> Sent<'a> {
    Sent { method, target, body, ..Sent::default() }
}

/// Both configurations, each with an answer after which it has shown the body.
fn forms(answer: fn() -> GateAnswer) -> [(&'static str, GateAnswer); 2] {
    [(SINGLE_STEP, answer()), (SHIPPED, NeedsBody(Box::new(answer())))]
}

fn to_acme() -> GateAnswer {
    Says(allow(&[TO_ACME], &[]))
}

/// Returns the check with the body. In two steps, one without a body comes first.
async fn with_body(case: &mut Case<'_>, listener: &str) -> HttpRequest {
    if listener == SHIPPED {
        is_without_body(&case.next_check().await);
    }
    case.next_check().await
}

fn is_without_body(check: &HttpRequest) {
    assert_eq!((check.body.as_str(), check.raw_body.len()), ("", 0));
    assert_eq!(check.headers.get(PARTIAL), None);
}

/// Every way to Envoy, combined with each form of the body.
fn ways(chunks: &[Option<usize>]) -> impl Iterator<Item = (Over, Option<usize>)> {
    Over::ALL.into_iter().flat_map(move |over| chunks.iter().map(move |chunk| (over, *chunk)))
}

/// Returns whether Envoy may say this of a body. Over HTTP/2 it may report a cut body as whole,
/// because frames often end where the limit is: see
/// `a_cut_just_where_showing_ends_is_called_whole`.
fn may_say(over: Over, said: Option<&str>, partial: &str) -> bool {
    said == Some(partial) || (over != Over::Http1 && partial == "true" && said == Some("false"))
}

/// Checks that all of it reached the backend unchanged.
fn assert_passed_on(reply: &Reply, body: &[u8]) {
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = json!({ "bytes": body.len(), "sha256": digest });
    assert_eq!((reply.status, &reply.json()["seen"]["body"]), (200, &expected));
}

/// The check is made when the head has arrived, and gets nothing of the body.
pub(crate) async fn as_shipped_a_body_that_names_no_model_is_neither_shown_nor_waited_for(
    suite: Arc<Suite>,
) {
    let gate = gate(&suite).await;
    // In one step, the method decides; in two, the answer.
    for (listener, method) in [(SINGLE_STEP, "PUT"), (SHIPPED, "PUT"), (SHIPPED, "POST")] {
        let mut case = gate.case(to_acme());
        let mut client = Wire::connect(gate.port(listener)).await;
        let head = format!("host: gateway\r\ncontent-length: 9\r\n{}", case.header());
        let target = "/proxy/acme/v1/echo";
        client.write(&format!("{method} {target} HTTP/1.1\r\n{head}\r\nbody")).await;
        is_without_body(&case.next_check().await);
        client.write("-tail").await;
        client.read_until("body-tail").await;
        assert!(client.text.starts_with("HTTP/1.1 200"), "{}", client.text);
        assert_eq!(case.checks().len(), 0, "{listener} {method}");
    }
}

#[derive(Deserialize)]
struct Table {
    name: String,
    mount: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    methods: Vec<String>,
    path: String,
    id: Option<String>,
}

pub(crate) async fn as_shipped_every_body_that_may_name_a_model_is_shown(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(project("deploy/apis")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let table: Table = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let mount = table.mount.replace("{domain}", "acme");
        for rule in table.rules {
            if !matches!(rule.id.as_deref(), Some("body.model" | "form.model")) {
                continue;
            }
            let ways = rule.methods.iter().flat_map(|method| Over::ALL.map(|over| (method, over)));
            for ((method, over), (listener, answer)) in
                ways.flat_map(|way| forms(to_acme).map(|form| (way, form)))
            {
                let mut case = gate.case(answer);
                let path = format!("{mount}{}?a=b", rule.path);
                let reply = case.over(over, listener, upload(method, &path, b"{\"a\":1}")).await;
                assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
                let check = with_body(&mut case, listener).await;
                assert_eq!(case.checks().len(), 0, "{over:?} {method} {path}");
                let partial = check.headers.get(PARTIAL).map(String::as_str);
                assert_eq!((&check.raw_body[..], partial), (&b"{\"a\":1}"[..], Some("false")));
                *counts.entry(table.name.clone()).or_insert(0) += 1;
            }
        }
    }
    assert!(counts["cube-ai"] > 120 && counts["aigne-hub"] > 24, "{counts:?}");
}

pub(crate) async fn a_body_is_shown_as_it_is_and_waited_for(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let odd = b"\xff\0\xed\xa0\x80{\r\n}";
    for ((over, chunk), (listener, answer)) in
        ways(&[None, Some(1), Some(64)]).flat_map(|way| forms(to_acme).map(|form| (way, form)))
    {
        let mut case = gate.case(answer);
        let sent = Sent { pieces: chunk, ..upload("POST", EMBEDDINGS, odd) };
        let reply = case.over(over, listener, sent).await;
        assert_passed_on(&reply, odd);
        let check = with_body(&mut case, listener).await;
        assert_eq!((&check.raw_body[..], check.body.as_str()), (&odd[..], ""), "{chunk:?}");
        let length = check.headers.get("content-length").map(String::as_str);
        assert_eq!(length, chunk.is_none().then_some("9"), "{over:?} {chunk:?}");
    }

    // A client that waits for `100 Continue` gets it from Envoy, before the check.
    for (listener, answer) in forms(to_acme) {
        let mut case = gate.case(answer);
        let mut client = Wire::connect(gate.port(listener)).await;
        let head = "host: gateway\r\nexpect: 100-continue\r\ncontent-length: 9\r\n";
        let head = format!("POST {EMBEDDINGS} HTTP/1.1\r\n{head}{}\r\n", case.header());
        client.write(&head).await;
        client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.write("body-").await;
        if listener == SHIPPED {
            is_without_body(&case.next_check().await);
        }
        assert_eq!(case.checks().len(), 0, "a check with the body before it was there");
        client.write("tail").await;
        assert_eq!(&case.next_check().await.raw_body[..], b"body-tail", "{listener}");
        client.read_until("HTTP/1.1 200").await;
    }

    // Without a body, nothing is shown, and the check says nothing about it.
    for headers in [&[][..], &[("content-length", "0")]] {
        for (listener, answer) in forms(to_acme) {
            let mut case = gate.case(answer);
            let reply = case.send(listener, "POST", EMBEDDINGS, headers).await;
            assert_eq!(reply.status, 200);
            is_without_body(&with_body(&mut case, listener).await);
        }
    }
}

/// In two steps, a body above the limit reaches no backend, so it cannot be cut.
pub(crate) async fn as_shipped_a_body_is_shown_whole_or_is_too_large(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (length, status) in [(LONGEST - 1, 200), (LONGEST + 1, 413)] {
        let body = text_of(length);
        for (over, chunk) in ways(&[None, Some(1 << 20)]) {
            let mut case = gate.case(NeedsBody(Box::new(to_acme())));
            let sent = Sent { pieces: chunk, ..upload("POST", EMBEDDINGS, &body) };
            let reply = case.over(over, SHIPPED, sent).await;
            assert_eq!(reply.status, status, "{over:?} {length} {chunk:?}");
            if status == 413 {
                let told = reply.body.contains("longer than what the gateway takes");
                assert!(reply.code() == "body_too_large" && told, "{over:?} {chunk:?}: {reply:?}");
            }
            is_without_body(&case.next_check().await);
            if status == 200 {
                assert_passed_on(&reply, &body);
                let check = case.next_check().await;
                let said = check.headers.get(PARTIAL).map(String::as_str);
                assert!(check.raw_body == body && said == Some("false"), "{over:?} {chunk:?}");
            }
            assert_eq!(case.checks().len(), 0, "{over:?} {length} {chunk:?}");
        }
    }
}

pub(crate) async fn a_longer_body_is_cut_and_passes_on_whole(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (length, partial) in
        [(SHOWN - 1, "false"), (SHOWN, "false"), (SHOWN + 1, "true"), (3 * SHOWN, "true")]
    {
        let body = text_of(length);
        for (over, chunk) in ways(&[None, Some(16 * 1024), Some(SHOWN)]) {
            let mut case = gate.case(to_acme());
            let sent = Sent { pieces: chunk, ..upload("POST", EMBEDDINGS, &body) };
            let reply = case.over(over, SINGLE_STEP, sent).await;
            assert_passed_on(&reply, &body);
            let check = case.next_check().await;
            assert!(check.raw_body == body[..length.min(SHOWN)], "{over:?} {length} {chunk:?}");
            let said = check.headers.get(PARTIAL).map(String::as_str);
            assert!(may_say(over, said, partial), "{said:?} {over:?} {length} {chunk:?}");
        }
    }
}

/// So `false` alone proves nothing. Only the length does, if the client stated it.
pub(crate) async fn a_cut_just_where_showing_ends_is_called_whole(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let first = text_of(SHOWN);
    let rest = "rest";
    let lengths = [
        "transfer-encoding: chunked".to_owned(),
        format!("content-length: {}", SHOWN + rest.len()),
    ];
    for length in lengths {
        let is_chunked = length.starts_with("transfer");
        let mut case = gate.case(to_acme());
        let mut client = Wire::connect(gate.port(SINGLE_STEP)).await;
        let head = format!("host: gateway\r\n{length}\r\n{}", case.header());
        client.write(&format!("POST {EMBEDDINGS} HTTP/1.1\r\n{head}\r\n")).await;
        let text = String::from_utf8(first.clone()).unwrap();
        if is_chunked {
            client.write_chunk(&text).await
        } else {
            client.write(&text).await
        };
        let check = case.next_check().await;
        let said = check.headers.get(PARTIAL).map(String::as_str);
        assert_eq!((check.raw_body.len(), said), (SHOWN, Some("false")), "{length}");
        if is_chunked {
            client.write_chunk(rest).await;
            client.write_chunk("").await;
        } else {
            client.write(rest).await;
        }
        client.read_until(&format!("\"bytes\": {}", SHOWN + rest.len())).await;
    }
}

pub(crate) async fn only_envoy_says_what_was_shown(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let claims = [(PARTIAL, "false"), ("X-Envoy-Auth-Partial-Body", "false")];
    for (method, path, length, shown, said) in [
        ("POST", EMBEDDINGS, 2 * SHOWN, SHOWN, Some("true")),
        ("POST", EMBEDDINGS, 10, 10, Some("false")),
        ("POST", EMBEDDINGS, 0, 0, None),
        ("PUT", "/proxy/acme/v1/x", 10, 0, None),
        ("POST", "/elsewhere", 10, 0, None),
        // Tables whose bodies name no model need no body.
        ("POST", "/api/scim/v2/Users", 10, 0, None),
        ("POST", "/api/v1/reports", 10, 0, None),
        ("POST", "/api/v2/chat/completions", 10, 10, Some("false")),
    ] {
        let body = text_of(length);
        let sent = Sent { headers: &claims, ..upload(method, path, &body) };
        for over in Over::ALL {
            let mut case = gate.case(to_acme());
            case.over(over, SINGLE_STEP, sent).await;
            let check = case.next_check().await;
            let partial = check.headers.get(PARTIAL).map(String::as_str);
            let what = format!("{partial:?} {over:?} {method} {path} {length}");
            assert_eq!(
                (check.raw_body.len(), partial.is_some()),
                (shown, said.is_some()),
                "{what}"
            );
            assert!(said.is_none_or(|said| may_say(over, partial, said)), "{what}");
        }
    }
    // In two steps, the answer decides, on every path.
    for path in [EMBEDDINGS, "/api/scim/v2/Users", "/elsewhere"] {
        for (over, length) in Over::ALL.into_iter().flat_map(|over| [(over, 10), (over, 0)]) {
            let body = text_of(length);
            let sent = Sent { headers: &claims, ..upload("POST", path, &body) };
            let mut case = gate.case(NeedsBody(Box::new(to_acme())));
            case.over(over, SHIPPED, sent).await;
            let check = with_body(&mut case, SHIPPED).await;
            let said = check.headers.get(PARTIAL).map(String::as_str);
            let expected = (length > 0).then_some("false");
            assert_eq!((check.raw_body.len(), said), (length, expected), "{over:?} {path}");
        }
    }
}

/// So it must be set where the filter is configured.
pub(crate) async fn a_route_cannot_ask_for_bytes(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for over in Over::ALL {
        let mut case = gate.case(to_acme());
        case.over(over, TEXT_BODIES, upload("POST", EMBEDDINGS, b"a\xffb")).await;
        let check = case.next_check().await;
        assert_eq!((check.body.as_str(), check.raw_body.len()), ("a!b", 0), "{over:?}");
    }
}

/// Envoy keeps at most 64 KB of what it sends to a check for a retry.
pub(crate) async fn a_check_is_tried_again_only_with_a_short_body(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (length, tries) in [(0, 3), (50_000, 3), (100_000, 1), (SHOWN, 1)] {
        let body = text_of(length);
        for over in Over::ALL {
            for (listener, answer) in forms(|| Fails(Code::Unavailable)) {
                let mut case = gate.case(answer);
                let reply = case.over(over, listener, upload("POST", EMBEDDINGS, &body)).await;
                let checks = case.checks().len() - usize::from(listener == SHIPPED);
                assert_eq!((reply.status, checks), (503, tries), "{over:?} {listener} {length}");
            }
        }
    }
}
