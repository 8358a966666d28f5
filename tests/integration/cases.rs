//! The table of requests, sent over gRPC as Envoy would and, if HTTP can carry them, through Envoy.

mod table;

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use patgate_testing::http::{Over, Sent};

use self::table::{ANSWERED, CHAT, Case, ExpectedAnswer, INVALID, cases, everything};
use crate::support::{
    Suite, World,
    cli::Cli,
    entries::entries_written,
    explained::{self, Question},
    http_of, outcome, request,
};

/// Returns every request of the table, for tests that do not need its answer.
pub(crate) async fn requests(world: &World<'_>) -> Vec<CheckRequest> {
    let cases = cases(world).await.into_iter().map(|case| {
        let mut request = request(&case.method, &case.path, &case.headers());
        http_of(&mut request).host = "gateway".to_owned();
        request
    });
    cases.collect()
}

/// Collects the differences, so that one run shows all of them.
fn check(wrong: &mut Vec<String>, case: &Case, expected: ExpectedAnswer, got: (u16, String)) {
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
    let cases = cases(&world).await;
    let mut wrong = Vec::new();
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
    let cases = cases(&world).await;
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in &cases {
        let Some(expected) = case.envoy else { continue };
        count += 1;
        let body = if case.method == "POST" { "{}" } else { "" };
        // A denial of HEAD has no body that could contain the code.
        let denied = expected.0 != 200;
        let expected = if case.method == "HEAD" && denied { (expected.0, "") } else { expected };
        let method = &*case.method;
        let target = &*case.path;
        let headers = &case.headers()[..];
        let sent = Sent { method, target, headers, body: body.as_bytes(), ..Sent::default() };
        let ways = Over::that_carry(sent);
        for over in ways.filter(|over| *over == Over::Http1 || !body.is_empty()) {
            let Ok(reply) = over.try_send(envoy.port, sent).await else {
                // If HTTP/1.1 gets 400 or 431, HTTP/2 gets a reset.
                let resets = ["malformed_request", "headers_too_large"];
                assert!(resets.contains(&expected.1), "{}: {over:?}", case.name);
                continue;
            };
            // An allowed request is answered by a backend.
            let code = match reply.header("x-backend") {
                Some(_) => "ok".to_owned(),
                None if reply.status == 200 && reply.code().is_empty() => ANSWERED.1.to_owned(),
                // Ollama's form has no code. Another test compares that of the answer itself.
                None if reply.json()["error"].is_string() => expected.1.to_owned(),
                None => reply.code(),
            };
            check(&mut wrong, case, expected, (reply.status, code));
        }
    }
    conclude(&wrong, count);
}

/// Joins the values of a case, as Envoy does.
fn authorization(case: &Case) -> Option<String> {
    let values = case.headers.iter().filter(|(name, _)| name == "authorization");
    let values: Vec<_> = values.map(|(_, value)| value.as_str()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The command cannot be given headers other than `Authorization`; none of them matters.
fn question(case: &Case, live: &CheckResponse) -> Question {
    let request = ["gateway", &case.method, &case.path];
    Question::new(&case.name, request, authorization(case).as_deref(), live)
}

/// `patgate check` gives the service's answer for every case, and names one failed step for each
/// refused request.
pub(crate) async fn through_the_command_line(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let cases = cases(&world).await;
    let mut questions = Vec::new();
    for case in &cases {
        let live = replica.check(&case.method, &case.path, &case.headers()).await;
        let question = || question(case, &live);
        let authorization = authorization(case);
        let shown = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        let verified = shown.and_then(|token| world.tokens.verify(token));
        if let Some(token) = verified.filter(|_| question().code() != "invalid_token") {
            questions.push(question().by_id(&token.id().to_string()));
        }
        questions.push(question().of(&replica));
    }
    explained::ask(&Cli::of(&world), &questions);
    println!("{} cases", cases.len());
    conclude(&[], cases.len());
}

/// The same if it also asks a replica that does not enforce; the command reports that both have the
/// same verdict.
pub(crate) async fn through_the_command_line_in_shadow(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let shadow = world.serve(&["mode=shadow"]).await;
    let cases = cases(&world).await;
    let mut questions = Vec::new();
    let mut softened = 0;
    for case in &cases {
        let live = replica.check(&case.method, &case.path, &case.headers()).await;
        let answer = shadow.check(&case.method, &case.path, &case.headers()).await;
        softened += usize::from(outcome(&answer).0 != outcome(&live).0);
        questions.push(question(case, &live).of_another(&shadow, &answer));
    }
    explained::ask(&Cli::of(&world), &questions);
    println!("{softened} of {} cases are let through", cases.len());
    assert!(softened > 100, "{softened}");
    conclude(&[], cases.len());
}

/// Changes one character: every second one where tokens are parsed, and over the wire to the next
/// one, to the other case, and to a character that no token has.
pub(crate) async fn every_mutation_of_a_token_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = world.token(&everything("acme")).await;
    let good = replica.check("POST", CHAT, &[("authorization", &token.bearer())]).await;
    assert_eq!(outcome(&good).0, 200);
    // These are written after the answer, and counted.
    entries_written(&world, 2).await;
    let before = replica.metric("patgate_store_commands_total{store=\"redis\"}").await;
    let mut tried = 0;
    let mut sent = 0;
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
