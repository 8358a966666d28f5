//! Rate limits by patgate's metadata: envoy/rate-limits.yaml as shipped, except that no bucket is
//! refilled during a test.

pub(crate) mod service;

use std::{fs, sync::Arc};

use patgate_testing::{
    http::{self, Over, Reply},
    openai::openai,
    stack::{Server, project},
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Scope, Suite, Token,
    envoy::{envoy_patch, patient},
    tables::{CLOUD, open_aigne, tables},
};

const MODELS: &str = "/proxy/acme/v1/models";
const READ: Scope<'_> = ("acme", "models", "*", "llm_read");
/// The sizes of buckets: of a token, a user, the domain `beta`, and a token with one model.
const TOKEN: usize = 20;
const USER: usize = 60;
const BETA: usize = 10;
const MODEL: usize = 5;

fn shipped() -> String {
    fs::read_to_string(project("envoy/rate-limits.yaml")).unwrap()
}

fn envoy(suite: &Suite, replica: &Replica) -> Server {
    let text = shipped();
    let still = text.replace("fill_interval: 1s", "fill_interval: 86400s");
    assert_ne!(still, text);
    let patch = envoy_patch(suite, &[replica.grpc], patient("10s", "10s"));
    suite.stack.start("envoy", json!({ "config_yaml": still, "patch": patch }))
}

async fn get(envoy: &Server, token: &Token, path: &str) -> Reply {
    let bearer = token.bearer();
    http::send(envoy.port, "GET", path, &[("authorization", &bearer)], "").await
}

async fn chat(envoy: &Server, over: Over, token: &Token, model: &str) -> Reply {
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({ "messages": [], "model": model }).to_string();
    over.post(envoy.port, "/proxy/acme/v1/chat/completions", &headers, &body).await
}

/// Sends requests until the rate limit refuses one, and returns how many passed.
async fn until_limited(envoy: &Server, token: &Token, path: &str) -> usize {
    passed(async || get(envoy, token, path).await).await
}

async fn passed(ask: impl AsyncFn() -> Reply) -> usize {
    for passed in 0..=2 * USER {
        match ask().await.status {
            200 => {}
            429 => return passed,
            other => panic!("{other}"),
        }
    }
    panic!("there is no limit");
}

/// Apart from the marked parts, it is the file that all other tests use.
pub(crate) async fn the_file_adds_nothing_else(suite: Arc<Suite>) {
    let shipped = shipped();
    let (_, body) = shipped.split_once("\n\n").unwrap();
    let mut rest = Vec::new();
    let mut marked = false;
    let mut blocks = 0;
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        match line.trim() {
            "# rate limits:" => marked = true,
            "# end of rate limits" => {
                (marked, blocks) = (false, blocks + 1);
                lines.next_if(|line| line.is_empty());
            }
            _ if !marked => rest.push(line),
            _ => {}
        }
    }
    let plain = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    let (_, plain) = plain.split_once("\n\n").unwrap();
    assert_eq!(blocks, 2);
    for (line, plain) in rest.iter().zip(plain.lines()) {
        assert_eq!(*line, plain, "in rate-limits.yaml, and in its place in envoy.yaml");
    }
    assert_eq!(rest.len(), plain.lines().count());
    let path = project("envoy/rate-limits.yaml");
    suite.stack.ask(json!({ "do": "envoy-validate", "config": path })).unwrap();
}

pub(crate) async fn each_token_user_domain_and_model_has_its_bucket(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = envoy(&suite, &replica);
    let one = world.token(&[READ]).await;
    let two = world.token(&[READ]).await;
    // A request that is refused earlier costs nothing: no permission, an unknown domain, a wrong
    // secret.
    let (rest, last) = one.text.split_at(one.text.len() - 1);
    let wrong = Token { id: one.id, text: format!("{rest}{}", if last == "0" { 1 } else { 0 }) };
    for _ in 0..TOKEN {
        assert_eq!(get(&envoy, &one, "/proxy/beta/v1/models").await.status, 403);
        assert_eq!(get(&envoy, &one, "/proxy/acme/v1/nothing").await.status, 404);
        assert_eq!(get(&envoy, &wrong, MODELS).await.status, 401);
    }
    assert_eq!(until_limited(&envoy, &one, MODELS).await, TOKEN);
    assert_eq!(get(&envoy, &one, MODELS).await.status, 429);
    assert_eq!(until_limited(&envoy, &two, MODELS).await, TOKEN);
    // A token above its rate still gets 403 for a request without permission, as before.
    assert_eq!(get(&envoy, &one, "/proxy/beta/v1/models").await.status, 403);
    // A request that the token's bucket refused was not taken from the user's.
    let more = [world.token(&[READ]).await, world.token(&[READ]).await];
    assert_eq!(until_limited(&envoy, &more[0], MODELS).await, USER - 2 * TOKEN);
    assert_eq!(until_limited(&envoy, &more[1], MODELS).await, 0);

    let theirs: Scope<'_> = ("beta", "models", "*", "llm_read");
    let theirs = [
        world.token_for("bob", "1 hour", &[theirs]).await,
        world.token_for("bob", "1 hour", &[theirs]).await,
    ];
    let beta = "/proxy/beta/v1/models";
    for _ in 0..BETA / 2 {
        assert_eq!(get(&envoy, &theirs[0], beta).await.status, 200);
    }
    assert_eq!(until_limited(&envoy, &theirs[1], beta).await, BETA - BETA / 2);
    assert_eq!(until_limited(&envoy, &theirs[0], beta).await, 0);

    let third = world.token_for("reader", "1 hour", &[READ]).await;
    let dear = format!("{MODELS}/org/m-7b");
    assert_eq!(until_limited(&envoy, &third, &dear).await, MODEL);
    assert_eq!(get(&envoy, &third, &format!("{MODELS}/org/other")).await.status, 200);
    let fourth = world.token_for("reader", "1 hour", &[READ]).await;
    assert_eq!(until_limited(&envoy, &fourth, &dear).await, MODEL);
}

/// A call names its model in the body. patgate always reads it for a token that is limited to it;
/// for a token for every model, only if it is configured to.
pub(crate) async fn a_call_is_counted_by_the_model_of_its_body(suite: Arc<Suite>) {
    let world = suite.world().await;
    let call = "llm_chat_completions";
    let replica = world.serve(&[]).await;
    let by_default = envoy(&suite, &replica);
    let always = world.serve(&["model.read=always"]).await;
    let always = envoy(&suite, &always);
    let calls = [
        (&by_default, "org/m-7b", MODEL),
        (&by_default, "*", TOKEN),
        (&always, "org/m-7b", MODEL),
        (&always, "*", MODEL),
    ];
    for (over, (envoy, scoped_to, limit)) in
        Over::ALL.into_iter().flat_map(|over| calls.map(|call| (over, call)))
    {
        let token = world.token(&[("acme", "models", scoped_to, call)]).await;
        let ask = async || chat(envoy, over, &token, "org/m-7b").await;
        assert_eq!(passed(ask).await, limit, "{over:?} {scoped_to}");
        let other = chat(envoy, over, &token, "org/other").await.status;
        let expected = if scoped_to != "*" {
            403
        } else if limit == TOKEN {
            429
        } else {
            200
        };
        assert_eq!(other, expected, "{scoped_to}");
    }
    // No call avoids the count with a body that hides its model.
    let token = world.token(&[("acme", "models", "*", call)]).await;
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let twice = r#"{"model":"org/other","model":"org/m-7b"}"#;
    for over in Over::ALL {
        let reply =
            over.post(always.port, "/proxy/acme/v1/chat/completions", &headers, twice).await;
        assert_eq!(reply.status, 400, "{over:?}: {reply:?}");
        assert!(reply.body.contains("which model this call is for"), "{over:?}: {reply:?}");
    }
}

pub(crate) async fn a_limit_is_told_in_the_words_of_the_api(suite: Arc<Suite>) {
    let world = suite.world().await;
    let aigne = open_aigne(&world).await;
    let tables = tables(&suite);
    let replica = world.serve(&[&tables]).await;
    let envoy = envoy(&suite, &replica);
    let token = world
        .token(&[
            READ,
            ("acme", "deployments", "*", "read"),
            ("acme", "scim", "*", "read"),
            (&aigne, "models", "*", "llm_read"),
        ])
        .await;
    until_limited(&envoy, &token, MODELS).await;
    let bearer = token.bearer();
    let said =
        |text: &Value| text.as_str().is_some_and(|t| t.starts_with("Too many requests with"));
    for (host, path, media_type, message, rest) in [
        (
            "gateway",
            MODELS,
            "application/json",
            "/error/message",
            json!({ "error": {
                "message": null, "type": "requests", "param": null, "code": "rate_limit_exceeded",
            } }),
        ),
        ("gateway", "/proxy/acme/api/tags", "application/json", "/error", json!({ "error": null })),
        (
            "gateway",
            "/api/v2/models",
            "application/json",
            "/message",
            json!({ "error": "Too Many Requests", "message": null }),
        ),
        (
            CLOUD,
            "/api/scim/v2/Users",
            "application/scim+json",
            "/detail",
            json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                "status": "429",
                "detail": null,
            }),
        ),
        (
            CLOUD,
            "/api/v1/deployments",
            "application/problem+json",
            "/detail",
            json!({
                "type": "about:blank",
                "title": "Too Many Requests",
                "status": 429,
                "detail": null,
                "code": "rate_limit_exceeded",
            }),
        ),
    ] {
        let headers = [("authorization", bearer.as_str()), ("x-request-id", "mine")];
        let reply = http::send_to(host, envoy.port, "GET", path, &headers, "").await;
        assert_eq!(reply.status, 429, "{path}: {reply:?}");
        let all = |name: &str| {
            let named = reply.headers.iter().filter(|(known, _)| known == name);
            named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(all("content-type"), [media_type], "{path}");
        assert_eq!((all("retry-after"), all("cache-control")), (vec!["1"], vec!["no-store"]));
        let ids = all("x-request-id");
        assert!(ids.len() == 1 && ids[0] != "mine", "{ids:?}");
        let mut body = reply.json();
        let text = body.pointer_mut(message).unwrap_or_else(|| panic!("{reply:?}"));
        assert!(said(&text.take()), "{reply:?}");
        assert_eq!(body, rest, "{path}");
    }

    let told = openai(envoy.port, &token.text, &[("list", "")]).await.remove(0);
    assert_eq!((&told["error"], &told["status"]), (&json!("RateLimitError"), &json!(429)));
    assert_eq!((&told["code"], &told["retry_after"]), (&json!("rate_limit_exceeded"), &json!("1")));
    assert!(told["message"].as_str().unwrap().contains("Try again in a second"), "{told}");
}
