//! Where patgate, Envoy and a backend meet: what each receives, and what each logs.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use patgate_testing::{
    access_log,
    http::{self, Over, Sent},
    stack::{Server, project},
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Suite, Token, World,
    envoy::{envoy_patch, patient},
};

const CHAT: &str = "/proxy/acme/v1/chat/completions";
const MODELS: &str = "/proxy/acme/v1/models";
const MODEL: &str = "/proxy/acme/v1/models/org/m-7b";
const READ: (&str, &str, &str, &str) = ("acme", "models", "*", "llm_read");
const TALK: (&str, &str, &str, &str) = ("acme", "models", "*", "llm_chat_completions");

pub(crate) async fn envoy_validates_the_shipped_configuration(suite: Arc<Suite>) {
    let validate = |path: &str| suite.stack.ask(json!({ "do": "envoy-validate", "config": path }));
    let shipped = project("envoy/envoy.yaml");
    validate(&shipped).unwrap();

    let text = fs::read_to_string(&shipped).unwrap();
    let broken = text.replace("clear_route_cache:", "clear_route_cash:");
    let copy = suite.dir.path().join("envoy.yaml");
    fs::write(&copy, broken).unwrap();
    let error = validate(copy.to_str().unwrap()).unwrap_err();
    assert!(error.contains("clear_route_cash"), "{error}");
}

pub(crate) async fn a_unix_socket_serves_and_has_the_mode_that_was_set(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[READ]).await.bearer();
    for mode in [0o600, 0o640] {
        // One each: a replica that ends removes its socket.
        let socket = suite.dir.path().join(format!("authz-{mode:o}.sock"));
        let path = format!("listen.uds={}", socket.display());
        let replica = world.serve(&[&path, &format!("listen.uds_mode={mode:04o}")]).await;
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, mode);

        let authz = format!("unix:{}", socket.display());
        let envoy = suite.stack.envoy(envoy_patch(&suite, &[authz], patient("10s", "10s")));
        let headers = [("authorization", bearer.as_str())];
        let reply = http::send(envoy.port, "GET", MODELS, &headers, "").await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
        let reply = http::send(envoy.port, "GET", MODELS, &[], "").await;
        assert_eq!((reply.status, reply.code()), (401, "missing_credential".to_owned()));
        assert_eq!(replica.decisions().await, 2);
    }
}

/// Envoy as shipped, and one that does not remove the client's copies of patgate's headers, so that
/// only patgate prevents them.
fn strict_and_forgetful(suite: &Suite, replica: &Replica) -> [Server; 2] {
    let text = fs::read_to_string(project("envoy/envoy.yaml")).unwrap();
    let mut forgetful = text.clone();
    // Headers are removed by name, and by prefix.
    for (from, to) in
        [("- remove: x-", "- remove: another-"), ("{ regex: 'x-", "{ regex: 'another-")]
    {
        assert!(forgetful.contains(from), "{from}");
        forgetful = forgetful.replace(from, to);
    }
    [text, forgetful].map(|text| {
        let patch = envoy_patch(suite, &[replica.grpc], patient("10s", "10s"));
        suite.stack.start("envoy", json!({ "config_yaml": text, "patch": patch }))
    })
}

/// The headers that an allow sets, except that of the model.
fn identity(world: &World<'_>, token: &Token, operation: &str) -> [(&'static str, String); 6] {
    [
        ("x-domain-id", world.id("acme").to_string()),
        ("x-domain-slug", "acme".to_owned()),
        ("x-user-id", world.id("ann").to_string()),
        ("x-pat-id", token.id.to_string()),
        ("x-auth-operation", operation.to_owned()),
        ("x-upstream-cluster", "model-acme".to_owned()),
    ]
}

pub(crate) async fn the_backend_sees_our_identity_headers_and_no_others(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = world.token(&[READ, TALK]).await;
    let replica = world.serve(&[]).await;
    let bearer = token.bearer();
    let stranger = world.id("root").to_string();
    let mut headers = vec![("Authorization", bearer.as_str())];
    for name in [
        "x-domain-id",
        "X-Domain-Id",
        "X-DOMAIN-ID",
        "x-domain-slug",
        "X-Domain-Slug",
        "x-user-id",
        "X-User-ID",
        "x-pat-id",
        "X-Pat-Id",
        "x-auth-operation",
        "X-Auth-Operation",
        "x-upstream-cluster",
        "X-Upstream-Cluster",
    ] {
        headers.push((name, "model-beta"));
        headers.push((name, &stranger));
    }
    for envoy in strict_and_forgetful(&suite, &replica) {
        let calls = [("GET", MODELS, "", "llm_read"), ("POST", CHAT, "{}", "llm_chat_completions")];
        for (over, (method, path, body, operation)) in
            Over::ALL.into_iter().flat_map(|over| calls.map(|call| (over, call)))
        {
            let target = path;
            let headers = &headers[..];
            let body = body.as_bytes();
            let sent = Sent { method, target, headers, body, ..Sent::default() };
            let reply = over.send(envoy.port, sent).await;
            assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
            for (name, value) in identity(&world, &token, operation) {
                assert_eq!(reply.seen(name), [value], "{method} {name}");
            }
            assert_eq!(reply.seen("authorization").len(), 0, "{method}");
            assert!(!reply.body.contains(&token.text), "{method}");
        }
    }
}

pub(crate) async fn the_clients_model_header_is_replaced_or_removed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[READ]).await.bearer();
    let replica = world.serve(&[]).await;
    let headers =
        [("authorization", bearer.as_str()), ("x-auth-model", "evil"), ("X-Auth-Model", "worse")];
    for envoy in strict_and_forgetful(&suite, &replica) {
        for (path, model) in [(MODELS, &[][..]), (MODEL, &["org/m-7b"])] {
            let reply = http::send(envoy.port, "GET", path, &headers, "").await;
            assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")));
            assert_eq!(reply.seen("x-auth-model"), model, "{path}");
        }
    }
}

pub(crate) async fn a_chat_is_streamed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[TALK]).await.bearer();
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for over in Over::ALL {
        let headers = &headers[..];
        let body = &br#"{"stream":true}"#[..];
        let sent = Sent { method: "POST", target: CHAT, headers, body, ..Sent::default() };
        let reply = over.send(envoy.port, sent).await;
        assert_eq!(reply.header("content-type"), Some("text/event-stream"), "{over:?} {reply:?}");
        let events: Vec<_> =
            reply.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (end, chunks) = events.split_last().unwrap();
        let chunks: Vec<Value> = chunks.iter().map(|c| serde_json::from_str(c).unwrap()).collect();
        let text =
            |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        let said: String = chunks.iter().filter_map(text).collect();
        assert_eq!((said.as_str(), *end), ("Hello, this is a streamed answer.", "[DONE]"));
        assert_eq!(chunks[0]["seen"]["path"], "/v1/chat/completions");
    }
}

pub(crate) async fn the_access_log_names_the_subject_and_no_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = world.token(&[READ]).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str())];
    // Some clients put a token in the query.
    let query = format!("?access_token={}", token.text);
    let reply = http::send(envoy.port, "GET", &format!("{MODEL}{query}"), &headers, "").await;
    let line = access_log::line(&envoy, &reply).await;
    assert_eq!((&line["response_code"], &line["path"]), (&json!(400), &json!(MODEL)));
    assert_eq!((&line["outcome"], &line["code"]), (&json!("deny"), &json!("bad_request")));

    let reply = http::send(envoy.port, "GET", &format!("{MODEL}?a=b"), &headers, "").await;
    let line = access_log::line(&envoy, &reply).await;
    assert_eq!((&line["response_code"], &line["path"]), (&json!(200), &json!(MODEL)));
    assert_eq!((&line["outcome"], &line["code"]), (&json!("allow"), &json!("ok")));
    assert_eq!(line["model"], "org/m-7b");
    assert_eq!(line["tier"], "postgres");
    assert!(line["age_ms"].is_u64(), "{line}");
    for (name, value) in identity(&world, &token, "llm_read") {
        let name = match name {
            "x-auth-operation" => "operation".to_owned(),
            name => name.trim_start_matches("x-").replace('-', "_"),
        };
        assert_eq!(line[&name], value, "{name}");
    }

    for over in Over::ALL {
        let reply = over.post(envoy.port, &format!("{CHAT}?a=b"), &headers, "{}").await;
        let line = access_log::line(&envoy, &reply).await;
        assert_eq!((&line["response_code"], &line["path"]), (&json!(403), &json!(CHAT)));
        let denied = (&json!("deny"), &json!("permission_denied"));
        assert_eq!((&line["outcome"], &line["code"]), denied);
        assert_eq!(line["operation"], "llm_chat_completions");
        assert_eq!(line["tier"], "memory");
        assert_eq!(line["pat_id"], token.id.to_string());
        assert_eq!(line["user_id"], world.id("ann").to_string());
        assert_eq!((&line["domain_id"], &line["model"]), (&Value::Null, &Value::Null));
    }

    let log = fs::read_to_string(&envoy.access_log).unwrap();
    assert!(log.contains("llm_read") && !log.contains(&token.text), "{log}");
}

pub(crate) async fn a_denial_carries_the_request_id_of_the_logs(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[]).await.bearer();
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let named = ("x-request-id", "chosen-by-the-client");
    for (headers, status) in [(&[named][..], 401), (&[named, ("authorization", &bearer)], 403)] {
        let reply = http::send(envoy.port, "GET", MODELS, headers, "").await;
        assert_eq!((reply.status, reply.header("cache-control")), (status, Some("no-store")));
        let count = |name: &str| reply.headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!((count("x-request-id"), count("cache-control")), (1, 1), "{reply:?}");
        assert_ne!(reply.header(named.0), Some(named.1));
        // The line is found by the id of the answer.
        assert_eq!(access_log::line(&envoy, &reply).await["response_code"], status);
    }
}
