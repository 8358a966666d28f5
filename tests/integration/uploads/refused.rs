//! Refusals that arrive while the client still sends, in each way to Envoy and with several
//! clients.

use std::{env, fs, process::Command, sync::Arc};

use patgate_testing::{
    http::{self, Over, Sent, certify},
    script::answer_of,
    stack::project,
};
use serde_json::{Value, json};

use crate::support::Suite;

const CHAT: &str = "/proxy/acme/v1/chat/completions";
/// Up to this size, a client has usually sent everything before an answer can arrive.
const SHORT: usize = 10_000;
const LONG: usize = 30_000_000;
/// How many seconds a client waits before the test considers it unanswered.
const PATIENCE: u64 = 50;

/// The windows of every shipped configuration: a client whose body fits one never waits to send
/// more, and a body that is shown must fit.
pub(crate) async fn as_shipped_a_streams_window_holds_what_is_shown(_: Arc<Suite>) {
    for file in ["envoy/envoy.yaml", "envoy/rate-limits.yaml", "envoy/single-step.yaml"] {
        let text = fs::read_to_string(project(file)).unwrap();
        let config: Value = serde_saphyr::from_str(&text).unwrap();
        let size = |name| all(&config, name).into_iter().map(|size| size.as_u64().unwrap());
        // For an answer, and for a body unless the route says otherwise.
        assert_eq!(size("per_connection_buffer_limit_bytes").collect::<Vec<_>>(), [1 << 20; 2]);
        let held = size("request_body_buffer_limit").max().unwrap();
        for window in ["initial_stream_window_size", "initial_connection_window_size"] {
            assert!(size(window).min().unwrap() >= held.max(LONG as u64), "{file}: {window}");
        }
        // In two steps, Envoy may count twice what it holds.
        let steps = if file.contains("single") { 1 } else { 2 };
        assert!(size("max_request_bytes").all(|shown| shown == steps * held), "{file}");
    }
}

/// Returns every value under this name, at any depth.
fn all<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    match value {
        Value::Object(members) => {
            let found = members
                .iter()
                .flat_map(|(key, value)| if key == name { vec![value] } else { all(value, name) });
            found.collect()
        }
        Value::Array(values) => values.iter().flat_map(|value| all(value, name)).collect(),
        _ => vec![],
    }
}

/// What `client` reports about uploads: a status, or the name of an error.
async fn outcomes(client: &'static str, job: Value) -> Option<Vec<Value>> {
    let run = move || {
        if Command::new(client).arg("--version").output().is_err() && client != "httpx" {
            let missing = format!("no {client} on this machine: nothing was uploaded with it");
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
            println!("skipped: {missing}");
            return None;
        }
        let (program, script) = match client {
            "node" => ("node".to_owned(), "refused_uploads.mjs"),
            _ => (project(".venv/bin/python"), "refused_uploads.py"),
        };
        let mut program = Command::new(program);
        program.arg(project(&format!("tests/clients/{script}")));
        Some(answer_of(&mut program, &job.to_string()))
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(crate) async fn no_client_waits_for_the_answer_to_a_refused_upload(suite: Arc<Suite>) {
    let world = suite.world().await;
    let limited = world.token(&[("acme", "models", "m", "llm_chat_completions")]).await.bearer();
    let wrong = format!("{limited}x");
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let certificate = certify(suite.dir.path())["certificate"].clone();
    let refusals = [(None, 401), (Some(wrong.as_str()), 401), (Some(limited.as_str()), 403)];

    // The wire itself: the whole answer is there, at every size.
    let content_type = ("content-type", "application/json");
    for size in [SHORT, 100_000, 1 << 20, LONG] {
        let text = r#"{"model":"unpermitted","messages":[""#.to_owned() + &"x".repeat(size);
        let body = format!("{text}\"]}}");
        for ((authorization, status), over) in
            refusals.into_iter().flat_map(|refusal| Over::ALL.map(|over| (refusal, over)))
        {
            let authorization = authorization.map(|value| ("authorization", value));
            let headers: Vec<_> = authorization.into_iter().chain([content_type]).collect();
            let method = "POST";
            let target = CHAT;
            let headers = &headers[..];
            let body = body.as_bytes();
            let sent = Sent { method, target, headers, body, ..Sent::default() };
            let reply = over.send(envoy.port, sent).await;
            let code =
                if status == 401 { "_credential|invalid_token" } else { "permission_denied" };
            assert_eq!(reply.status, status, "{over:?} {size}: {}", reply.body);
            assert!(code.split('|').any(|code| reply.code().ends_with(code)), "{}", reply.body);
        }
    }

    // What clients make of it.
    for client in ["curl", "node", "httpx"] {
        let sizes = match client {
            // httpx is pure Python, so it sends less.
            "httpx" => &[SHORT, 100_000, 2_000_000][..],
            _ => &[SHORT, 100_000, 1 << 20, LONG],
        };
        let mut calls = Vec::new();
        let mut expected = Vec::new();
        for (scheme, http2) in [("http", false), ("http", true), ("https", true)] {
            if client == "node" && !http2 {
                continue;
            }
            let port = if scheme == "https" { http::tls_port(envoy.port) } else { envoy.port };
            let url = format!("{scheme}://127.0.0.1:{port}{CHAT}");
            for (authorization, status) in refusals {
                for &size in sizes {
                    calls.push(json!({
                        "url": url, "http2": http2, "authorization": authorization, "size": size,
                    }));
                    expected.push((status, !http2, size == SHORT));
                }
            }
        }
        let job = json!({
            "client": client, "certificate": certificate, "patience": PATIENCE, "calls": calls,
        });
        let Some(outcomes) = outcomes(client, job).await else { continue };
        let (mut unseen, mut short_seen) = (0, 0);
        for (index, outcome) in outcomes.iter().enumerate() {
            let (status, must_be_seen, short) = expected[index];
            if *outcome == status {
                short_seen += usize::from(short && !must_be_seen);
                continue;
            }
            let call = &calls[index];
            let what = format!("{client}: {outcome} at {} of {} B", call["url"], call["size"]);
            // It received the answer, and treats the reset after it as an error. It does not wait.
            assert!(outcome.is_string() && outcome != "timeout" && !must_be_seen, "{what}");
            unseen += 1;
        }
        // On a busy machine, the answer may come between a request's head and its short body.
        assert!(short_seen > 0, "{client} never shows the status of a refusal over HTTP/2");
        println!("{client}: {unseen} of {} refused uploads showed no status", outcomes.len());
    }
}
