//! The table of requests, asked over gRPC as Envoy would and, where HTTP can carry it, through
//! Envoy.

mod table;

use std::sync::Arc;

use self::table::{Answer, CHAT, Case, INVALID, cases, everything};
use crate::{
    cli::{
        Cli,
        explained::{self, Question},
    },
    harness::{Suite, World, outcome},
    http,
    tiers::entries_written,
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

/// `patgate check` says what the service answers, of every case, and names one step that failed for
/// each that is refused. Headers other than `Authorization` it cannot be given: none of them counts.
pub(crate) async fn through_the_command_line(suite: Arc<Suite>) {
    let world = suite.world().await;
    let (replica, cases) = (world.serve(&[]).await, cases(&world).await);
    let mut questions = Vec::new();
    for case in &cases {
        let headers = case.headers();
        let live = replica.check(&case.method, &case.path, &headers).await;
        let values: Vec<_> =
            headers.iter().filter(|(name, _)| *name == "authorization").map(|it| it.1).collect();
        // As Envoy joins them.
        let authorization = (!values.is_empty()).then(|| values.join(","));
        let question = || {
            let request = ["gateway", &case.method, &case.path];
            Question::new(&case.name, request, authorization.as_deref(), &live)
        };
        let shown = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        let verified = shown.and_then(|token| world.tokens.verify(token));
        if let Some(token) = verified.filter(|_| question().code() != "invalid_token") {
            questions.push(question().by_id(&token.id.to_string()));
        }
        questions.push(question().of(&replica));
    }
    explained::ask(&Cli::of(&world), &questions);
    println!("{} cases", cases.len());
    conclude(&[], cases.len());
}

/// One character is another: every other one where tokens are read, and over the wire the next one,
/// the same in the other case, and one that no token has.
pub(crate) async fn every_mutation_of_a_token_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = world.token(&everything("acme")).await;
    let good = replica.check("POST", CHAT, &[("authorization", &token.bearer())]).await;
    assert_eq!(outcome(&good).0, 200);
    // Written behind the answer, and counted.
    entries_written(&world, 2).await;
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
