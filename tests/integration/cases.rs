//! The table of requests, asked over gRPC as Envoy would and, where HTTP can carry it, through
//! Envoy.

mod table;

use std::sync::Arc;

use serde_json::Value;

use self::table::{Answer, CHAT, Case, INVALID, cases, everything};
use crate::{
    cli::Cli,
    harness::{Suite, World, outcome},
    http,
};

/// Host, method, path, headers.
pub(crate) type Sent = (String, String, String, Vec<(String, String)>);

/// Every request of the table, for who is not after its answer: host, method, path, headers.
pub(crate) async fn requests(world: &World<'_>) -> Vec<Sent> {
    let cases = cases(world).await.into_iter();
    cases.map(|case| ("gateway".to_owned(), case.method, case.path, case.headers)).collect()
}

/// Collects what differs, so that one run shows all of it.
fn check(wrong: &mut Vec<String>, case: &Case, expected: Answer, got: (u16, String)) {
    if (got.0, got.1.as_str()) != expected {
        wrong.push(format!("{}: expected {expected:?}, got {got:?}", case.name));
    }
}

fn conclude(wrong: &[String], count: usize) {
    assert!(count >= 120, "the table has shrunk to {count} cases");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

pub(crate) async fn over_grpc(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let (cases, mut wrong) = (cases(&world).await, Vec::new());
    for case in &cases {
        let response = replica.check(&case.method, &case.path, &case.headers()).await;
        check(&mut wrong, case, case.direct, outcome(&response));
    }
    conclude(&wrong, cases.len());
}

pub(crate) async fn through_envoy(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let (cases, mut wrong) = (cases(&world).await, Vec::new());
    let mut count = 0;
    for case in &cases {
        let Some(expected) = case.envoy else { continue };
        count += 1;
        let body = if case.method == "POST" { "{}" } else { "" };
        let reply = http::send(envoy.port, &case.method, &case.path, &case.headers(), body).await;
        // An allowed request is answered by a backend.
        let code = match reply.header("x-backend") {
            Some(_) => "ok".to_owned(),
            None => reply.code(),
        };
        // An answer to HEAD has no body to tell the code.
        let expected = if case.method == "HEAD" { (expected.0, "") } else { expected };
        check(&mut wrong, case, expected, (reply.status, code));
    }
    conclude(&wrong, count);
}

/// `patgate check` says what the service answers, of every case that it can be asked about, and
/// names one step that failed for each that is refused.
pub(crate) async fn through_the_command_line(suite: Arc<Suite>) {
    let world = suite.world().await;
    let (replica, cli) = (world.serve(&[]).await, Cli::of(&world));
    let (cases, mut wrong, mut count) = (cases(&world).await, Vec::new(), 0);
    let server = format!("--server={}", replica.grpc);
    for case in &cases {
        let headers = case.headers();
        let [("authorization", value), rest @ ..] = &headers[..] else { continue };
        // One header, with the scheme that the command takes; a NUL is in no argument.
        let Some(token) = value.strip_prefix("Bearer ") else { continue };
        let sendable = !token.is_empty() && token.trim() == token && token.len() < 4096;
        if !sendable || rest.iter().any(|(name, _)| *name == "authorization") {
            continue;
        }
        let expected = outcome(&replica.check(&case.method, &case.path, &headers).await);
        let (method, path) = (format!("--method={}", case.method), format!("--path={}", case.path));
        let words = ["check", &method, &path, "--host=gateway", "--output=json"];
        // The replica is asked by the command, too, and must be heard to agree.
        let mut ways = vec![([&words[..], &[&server]].concat(), token)];
        let id = world.tokens.verify(token).map(|token| format!("--pat-id={}", token.id));
        if let Some(id) = id.as_ref().filter(|_| expected.1 != "invalid_token") {
            ways.push(([&words[..], &[id]].concat(), ""));
        }
        for (words, stdin) in ways {
            count += 1;
            let ran = cli.feed_words(&words, stdin);
            let told: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            let steps = told["steps"].as_array().cloned().unwrap_or_default();
            let failed = steps.iter().filter(|step| step["passed"] == false).count();
            let code = match expected.0 {
                200 => [0, 0],
                _ => [3, 4],
            };
            let consistent = told["status"] == expected.0
                && told["code"] == expected.1.as_str()
                && code.contains(&ran.code)
                && (stdin.is_empty() || told["replica"]["agrees"] == true)
                && failed == usize::from(expected.0 != 200)
                && steps.last().is_some_and(|step| step["step"] != "decision");
            if !consistent {
                wrong.push(format!("{}: expected {expected:?}, got {ran:?}", case.name));
            }
        }
    }
    assert!(count >= 250, "only {count} were asked about");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// One character is another: every other one where tokens are read, and over the wire the next one,
/// the same in the other case, and one that no token has.
pub(crate) async fn every_mutation_of_a_token_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = world.token(&everything("acme")).await;
    let good = replica.check("POST", CHAT, &[("authorization", &token.bearer())]).await;
    assert_eq!(outcome(&good).0, 200);
    let before = replica.metric("patgate_store_commands_total{store=\"redis\"}").await;
    let (mut tried, mut sent) = (0, 0);
    for (at, right) in token.text.bytes().enumerate() {
        for byte in (b'!'..=b'~').filter(|byte| *byte != right) {
            let mut text = token.text.clone();
            text.replace_range(at..=at, char::from(byte).encode_utf8(&mut [0]));
            assert!(world.tokens.verify(&text).is_none(), "{at} {byte}");
            tried += 1;
            if [right ^ 1, right ^ 0x20, b'!'].contains(&byte) {
                let value = format!("Bearer {text}");
                let response = replica.check("POST", CHAT, &[("authorization", &value)]).await;
                assert_eq!(outcome(&response), (INVALID.0, INVALID.1.to_owned()), "{at} {byte}");
                sent += 1;
            }
        }
    }
    assert_eq!(tried, token.text.len() * 93);
    assert!(sent > 2 * token.text.len(), "only {sent} were sent");
    let after = replica.metric("patgate_store_commands_total{store=\"redis\"}").await;
    assert_eq!(after, before, "a mutated token was looked up");
}
