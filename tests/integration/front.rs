//! What Envoy answers before it asks patgate: browsers' preflights, and load balancers.

use std::sync::Arc;

use patgate_testing::{
    eventually,
    http::{self, Over, Reply, Sent},
    shipped::shipped,
    stack::Server,
};
use serde_json::{Value, json};

use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
};

const CHAT: &str = "/proxy/acme/v1/chat/completions";
/// The path in the shipped configuration.
const HEALTH: &str = "/healthz";
const OURS: (&str, &str) = ("origin", "https://app.example.com");
const THEIRS: (&str, &str) = ("origin", "https://evil.example.com");
const ASKS: (&str, &str) = ("access-control-request-method", "POST");

async fn options(over: Over, envoy: &Server, target: &str, headers: &[(&str, &str)]) -> Reply {
    let sent = Sent { method: "OPTIONS", target, headers, ..Sent::default() };
    over.send(envoy.port, sent).await
}

pub(crate) async fn a_preflight_of_a_listed_origin_is_answered_unchecked(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);

    for over in Over::ALL {
        let reply = options(over, &envoy, CHAT, &[OURS, ASKS]).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(OURS.1));
        // The asterisk does not include this header.
        let allowed = reply.header("access-control-allow-headers").unwrap();
        let allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
        assert_eq!(allowed, ["authorization", "*"], "{over:?}");
        // patgate does not use a page's cookies.
        assert_eq!(reply.header("access-control-allow-credentials"), None, "{over:?}");
        let methods = reply.header("access-control-allow-methods").unwrap();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{over:?}: {methods}");
        }
        assert_eq!((reply.header("x-backend"), replica.decisions().await), (None, 0));
    }

    // Every other request is checked, also the real request of the same page.
    for (count, method, headers) in [
        (1, "POST", &[OURS][..]),
        (2, "POST", &[OURS, ASKS]),
        (3, "OPTIONS", &[OURS]),
        (4, "OPTIONS", &[ASKS]),
        (5, "POST", &[THEIRS, ASKS]),
        (6, "OPTIONS", &[THEIRS]),
    ] {
        let reply = http::send(envoy.port, method, CHAT, headers, "").await;
        assert_eq!(reply.code(), "missing_credential", "{method} {headers:?}");
        assert_eq!(replica.decisions().await, count, "{method} {headers:?}");
        // So that the page can read the reason, and when to retry.
        let is_ours = headers.contains(&OURS);
        let readable = reply.header("access-control-allow-origin");
        assert_eq!(readable.is_some(), is_ours, "{method} {headers:?}");
        let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
        for name in ["retry-after", "x-request-id"] {
            assert_eq!(exposed.contains(name), is_ours, "{method} {headers:?}: {exposed}");
        }
    }
}

pub(crate) async fn a_preflight_of_another_origin_is_refused_in_words(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let quoted = ("origin", "https://evil.example.com\",\"x\":\"y");
    for over in Over::ALL {
        for (origin, target) in [
            (THEIRS, CHAT),
            (("origin", "null"), CHAT),
            (("origin", "https://app.example.com.evil.example"), CHAT),
            (quoted, CHAT),
            (THEIRS, "/"),
            (THEIRS, "/api/v2/models"),
            // This path has nothing that a page could want.
            (OURS, "/elsewhere"),
        ] {
            let reply = options(over, &envoy, target, &[origin, ASKS]).await;
            let case = format!("{over:?} {origin:?} {target}: {reply:?}");
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (403, "origin_not_allowed"),
                "{case}"
            );
            let body = reply.json();
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.contains(origin.1), "{case}");
            assert!(message.contains("allow_origin_string_match"), "{case}");
            let members = body["error"].as_object().unwrap().keys();
            assert_eq!(members.collect::<Vec<_>>(), ["code", "message", "param", "type"], "{case}");
            assert_eq!(reply.header("access-control-allow-origin"), None, "{case}");
        }
    }
    assert_eq!(replica.decisions().await, 0);
}

pub(crate) async fn load_balancers_need_no_token_and_learn_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let mut config = shipped();
    // The value that `--service-cluster` sets.
    config["node"] = json!({ "id": "gateway-7", "cluster": "the-name-of-the-fleet" });
    let patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    let start = json!({ "config_yaml": config.to_string(), "patch": patch });
    let envoy = suite.stack.start("envoy", start);
    let ask = async |over: Over, method, target, body| {
        over.send(envoy.port, Sent { method, target, body, ..Sent::default() }).await
    };
    let health = async |over: Over, method| {
        let reply = ask(over, method, HEALTH, b"").await;
        // Except headers about the encoding of the answer.
        let known =
            ["connection", "content-length", "date", "server", "transfer-encoding", "x-request-id"];
        let others = reply.headers.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let others: Vec<_> = others.cloned().collect();
        assert!(!format!("{reply:?}").contains("fleet"), "{reply:?}");
        assert_eq!(reply.body, "", "{reply:?}");
        (reply.status, others)
    };
    for over in Over::ALL {
        for method in ["GET", "HEAD"] {
            assert_eq!(health(over, method).await, (200, Vec::new()), "{over:?} {method}");
        }
    }
    assert_eq!(replica.decisions().await, 0);

    // No other path is served by it.
    let mut count = 0;
    for over in Over::ALL {
        for (method, target) in [
            ("POST", HEALTH),
            ("PUT", HEALTH),
            ("OPTIONS", HEALTH),
            ("GET", "/healthz?"),
            ("GET", "/healthz?ready"),
            ("GET", "/healthz/ready"),
            ("GET", "/healthzz"),
            ("GET", "/Healthz"),
            ("GET", "/health"),
            ("GET", "/proxy/acme/healthz"),
            ("GET", "/api/healthz"),
        ] {
            let reply = ask(over, method, target, b"").await;
            count += 1;
            assert_eq!(reply.status, 401, "{over:?} {method} {target}: {reply:?}");
            assert_eq!(replica.decisions().await, count, "{over:?} {method} {target}");
        }
    }

    // An Envoy that is about to end reports so, and continues to serve.
    let admin = async |target| http::send(envoy.admin_port, "POST", target, &[], "").await.status;
    assert_eq!(admin("/healthcheck/fail").await, 200);
    let failing = ("x-envoy-immediate-health-check-fail".to_owned(), "true".to_owned());
    for over in Over::ALL {
        assert_eq!(health(over, "GET").await, (503, vec![failing.clone()]), "{over:?}");
        assert_eq!(ask(over, "GET", CHAT, b"").await.code(), "missing_credential", "{over:?}");
    }
    assert_eq!(admin("/healthcheck/ok").await, 200);
    assert_eq!(health(Over::Http1, "GET").await, (200, Vec::new()));

    // The access log has the others, and no line for the requests of a load balancer.
    let lines = || std::fs::read_to_string(&envoy.access_log).unwrap();
    let is_complete = async || lines().matches(CHAT).count() == Over::ALL.len();
    eventually("lines in the access log", is_complete).await;
    let lines = lines();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let logged = lines.filter(|line| line["path"] == HEALTH && line["method"] == "GET");
    // Lines of requests with a query, which is not logged.
    assert_eq!(logged.count(), 2 * Over::ALL.len());
}
