//! Envoy's own answers, in the form of the API that was called. The configuration is the shipped
//! one, changed so that each status occurs.

use std::{collections::BTreeMap, sync::Arc};

use patgate_testing::{
    eventually,
    http::{self, Over, Reply, Sent},
    shipped::{authorizers, configuration, fix_the_routes, manager, routes},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::words::foreign;
use crate::support::{
    Suite,
    envoy::{Gateway, add_nobody, envoy_patch, patient},
    error_form::ErrorForm,
};

/// Paths, and the form of errors about each.
const PATHS: [(&str, ErrorForm); 14] = [
    ("/proxy/acme/v1/chat/completions", ErrorForm::Openai),
    ("/proxy/acme/apis", ErrorForm::Openai),
    ("/proxy/acme/v1/messages", ErrorForm::Anthropic),
    ("/proxy/acme/v1/messages/count_tokens", ErrorForm::Anthropic),
    ("/proxy/acme/api/chat", ErrorForm::Ollama),
    // With one `/v1` too many.
    ("/proxy/acme/v1/api/chat", ErrorForm::Ollama),
    ("/proxy/acme/v1/v1/messages", ErrorForm::Anthropic),
    ("/api/chat", ErrorForm::Ollama),
    ("/api/v1/deployments", ErrorForm::Problem),
    ("/users", ErrorForm::Problem),
    ("/users/7", ErrorForm::Problem),
    ("/api/v2/chat", ErrorForm::Aigne),
    ("/api/scim/v2/Users", ErrorForm::Scim),
    ("/elsewhere", ErrorForm::Openai),
];

/// What each form says about one status.
#[derive(Clone, Copy)]
struct Expected {
    status: u16,
    title: &'static str,
    openai: &'static str,
    anthropic: &'static str,
    code: &'static str,
    /// Part of the message.
    says: &'static str,
}

impl Expected {
    fn check(&self, form: ErrorForm, reply: &Reply, case: &str) {
        let case = format!("{} {form:?} {case}: {reply:?}", self.status);
        assert_eq!((reply.status, reply.header("x-backend")), (self.status, None), "{case}");
        let body = reply.json();
        let at = match form {
            ErrorForm::Openai | ErrorForm::Anthropic => "/error/message",
            ErrorForm::Ollama => "/error",
            ErrorForm::Aigne => "/message",
            ErrorForm::Scim | ErrorForm::Problem => "/detail",
        };
        let text = body.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("{case}"));
        assert!(text.contains(self.says), "{case}");
        let id = reply.header("x-request-id");
        let (media_type, whole) = match form {
            ErrorForm::Openai => (
                "application/json",
                json!({ "error": {
                    "message": text, "type": self.openai, "param": null, "code": self.code,
                } }),
            ),
            ErrorForm::Ollama => ("application/json", json!({ "error": text })),
            ErrorForm::Anthropic => {
                let error = json!({ "type": self.anthropic, "message": text });
                let whole = json!({ "type": "error", "error": error, "request_id": id });
                ("application/json", whole)
            }
            ErrorForm::Aigne => {
                ("application/json", json!({ "error": self.title, "message": text }))
            }
            ErrorForm::Scim => (
                "application/scim+json",
                json!({
                    "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                    "status": self.status.to_string(),
                    "detail": text,
                }),
            ),
            ErrorForm::Problem => (
                "application/problem+json",
                json!({
                    "type": "about:blank", "title": self.title, "status": self.status,
                    "detail": text, "code": self.code,
                }),
            ),
        };
        assert_eq!(body, whole, "{case}");
        assert_eq!(reply.header("content-type"), Some(media_type), "{case}");
        // If Envoy has refused the path itself, the request has no id yet.
        let named = reply.header("request-id").filter(|id| !id.is_empty());
        assert_eq!(named, id.filter(|_| form == ErrorForm::Anthropic), "{case}");
        let outage = (self.status == 503).then_some("1");
        assert_eq!(reply.header("retry-after"), outage, "{case}");
        assert_eq!(reply.header("cache-control").is_some(), outage.is_some(), "{case}");
    }
}

const AUTHORIZATION_AWAY: Expected = Expected {
    status: 503,
    title: "Service Unavailable",
    openai: "service_unavailable_error",
    anthropic: "api_error",
    code: "unavailable",
    says: "Authorization is temporarily unavailable",
};
const BACKEND_AWAY: Expected = Expected {
    code: "backend_unavailable",
    says: "The backend cannot be reached",
    ..AUTHORIZATION_AWAY
};
const BACKEND_SLOW: Expected = Expected {
    status: 504,
    title: "Gateway Timeout",
    openai: "server_error",
    code: "backend_timeout",
    says: "The backend did not answer in time",
    ..AUTHORIZATION_AWAY
};
const BACKEND_LOST: Expected = Expected {
    status: 507,
    title: "Insufficient Storage",
    code: "backend_unavailable",
    says: "while a long body was on its way",
    ..BACKEND_SLOW
};
const BODY_LATE: Expected = Expected {
    status: 408,
    title: "Request Timeout",
    openai: "invalid_request_error",
    anthropic: "invalid_request_error",
    code: "request_timeout",
    says: "did not arrive in time",
};
const ENCODED_PATH: Expected = Expected {
    status: 400,
    title: "Bad Request",
    code: "path_not_accepted",
    says: "`%2F`",
    ..BODY_LATE
};
const MALFORMED: Expected =
    Expected { code: "malformed_request", says: "not well-formed HTTP", ..ENCODED_PATH };
const OLD_HTTP: Expected = Expected {
    status: 426,
    title: "Upgrade Required",
    code: "http_version_not_accepted",
    says: "use HTTP/1.1 or HTTP/2",
    ..BODY_LATE
};
const HEAD_TOO_LARGE: Expected = Expected {
    status: 431,
    title: "Request Header Fields Too Large",
    code: "headers_too_large",
    says: "at most 100 headers",
    ..BODY_LATE
};
const NO_UPGRADE: Expected = Expected {
    status: 403,
    title: "Forbidden",
    openai: "permission_error",
    anthropic: "permission_error",
    code: "upgrade_not_accepted",
    says: "does not upgrade",
};

/// Makes the authorization service let the request through.
const ALLOW: &str = r#"{"metadata":{"guard":"patgate"}}"#;
/// Makes it ask for the body.
const SHOW: &str = r#"{"metadata":{"needs_body":true}}"#;

/// Removes the route on which a request waits until patgate has named a cluster. The request then
/// takes the route that rewrites its path.
fn to(manager: &mut Value, cluster: &str) {
    let routes_of_all = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    routes_of_all.as_array_mut().unwrap().retain(|route| route["name"] != "undecided");
    for route in routes(manager).filter(|route| route.get("route").is_some()) {
        route["route"]["cluster"] = json!(cluster);
    }
}

/// Variations of the shipped listener, by the status that each causes.
async fn gateway(suite: &Suite, file: &str, silent: &TcpListener) -> Gateway {
    let mut config = configuration(file);
    let mut patch = envoy_patch(suite, &[foreign().await], patient("10s", "10s"));
    add_nobody(suite, &mut config, &mut patch);
    for name in ["away", "retried"] {
        patch["clusters"][name] = patch["clusters"]["nobody"].clone();
    }
    patch["clusters"]["silent"] = json!(silent.local_addr().unwrap().to_string());
    let mut shipped = config["static_resources"]["listeners"][0].clone();
    fix_the_routes(manager(&mut shipped));
    let mut listeners = BTreeMap::new();
    let mut vary = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut listener = shipped.clone();
        change(manager(&mut listener));
        listeners.insert(name.to_owned(), listener);
    };
    vary("shipped", &|_| {});
    vary("authorization away", &|manager| {
        for filter in authorizers(manager) {
            let service = &mut filter["typed_config"]["grpc_service"];
            service["envoy_grpc"]["cluster_name"] = json!("nobody");
        }
    });
    vary("backend away", &|manager| to(manager, "away"));
    vary("backend retried", &|manager| {
        to(manager, "retried");
        for route in routes(manager).filter(|route| route.get("route").is_some()) {
            route["request_body_buffer_limit"] = json!(1000);
            let pause = json!({ "base_interval": "60s", "max_interval": "60s" });
            let retry = json!({
                "retry_on": "connect-failure", "num_retries": 9, "retry_back_off": pause,
            });
            route["route"]["retry_policy"] = retry;
        }
    });
    vary("backend slow", &|manager| {
        to(manager, "silent");
        for route in routes(manager).filter(|route| route.get("route").is_some()) {
            // If there is one, Envoy ignores `timeout`.
            route["route"].as_object_mut().unwrap().remove("max_stream_duration");
            route["route"]["timeout"] = json!("0.1s");
        }
    });
    vary("short time", &|manager| manager["request_timeout"] = json!("0.1s"));
    vary("direct", &|manager| {
        for route in routes(manager) {
            route.as_object_mut().unwrap().remove("route");
            let body = json!({ "inline_string": "own words" });
            route["direct_response"] = json!({ "status": 503, "body": body });
        }
    });
    Gateway::start(suite, config, listeners, patch)
}

/// Each status that an API's client can see, in each form.
pub(crate) async fn envoys_own_answers_have_the_form_of_the_api(suite: Arc<Suite>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&suite, "envoy.yaml", &silent).await;
    let ask = async |over: Over, listener: &str, asked: &str, sent: Sent<'_>| {
        let headers = [sent.headers, &[("authorization", asked)]].concat();
        over.send(gateway.port(listener), Sent { headers: &headers, ..sent }).await
    };
    for over in [Over::Http1, Over::Http2] {
        for (target, form) in PATHS {
            let case = format!("{over:?} {target}");
            let get = Sent { method: "GET", target, ..Sent::default() };
            for target in [target.to_owned(), format!("{target}?a=/b")] {
                let get = Sent { target: &target, ..get };
                let reply = ask(over, "authorization away", ALLOW, get).await;
                AUTHORIZATION_AWAY.check(form, &reply, &case);
            }
            // Routes to backends rewrite the path, and this path has no backend.
            if target != "/elsewhere" {
                let reply = ask(over, "backend away", ALLOW, get).await;
                BACKEND_AWAY.check(form, &reply, &case);
                let reply = ask(over, "backend slow", ALLOW, get).await;
                BACKEND_SLOW.check(form, &reply, &case);
            }
            let late = Sent { method: "POST", body: b"x", unfinished: true, ..get };
            let reply = ask(over, "short time", SHOW, late).await;
            BODY_LATE.check(form, &reply, &case);
            let target = format!("{target}/a%2Fb");
            let reply = ask(over, "shipped", ALLOW, Sent { target: &target, ..get }).await;
            ENCODED_PATH.check(form, &reply, &case);
            let reply = ask(over, "direct", ALLOW, get).await;
            assert_eq!((reply.status, &*reply.body), (503, "own words"), "{case}");
        }
    }
    for (target, form) in PATHS {
        let headers = [("connection", "upgrade"), ("upgrade", "x")];
        let get = Sent { method: "GET", target, headers: &headers, ..Sent::default() };
        NO_UPGRADE.check(form, &ask(Over::Http1, "shipped", ALLOW, get).await, target);
    }
}

/// In this case there is no path from which to determine the API.
pub(crate) async fn where_no_head_was_read_envoy_answers_as_openai(suite: Arc<Suite>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for file in ["envoy.yaml", "single-step.yaml", "rate-limits.yaml"] {
        let gateway = gateway(&suite, file, &silent).await;
        let long = "v".repeat(40 << 10);
        for path in ["/proxy/acme/api/chat", "/proxy/acme/v1/messages", "/users"] {
            for (line, head, expected) in [
                (format!("GET {path} HTTP/1.0"), "a: b", OLD_HTTP),
                (format!("GET {path} HTTP/1.1"), "no colon", MALFORMED),
                (format!("BREW {path} HTTP/1.1"), "a: b", MALFORMED),
                (format!("GET {path} HTTP/1.1"), &*format!("a: {long}"), HEAD_TOO_LARGE),
            ] {
                let request = format!("{line}\r\nhost: g\r\nconnection: close\r\n{head}\r\n\r\n");
                let reply = http::raw(gateway.port("shipped"), request.into_bytes()).await;
                expected.check(ErrorForm::Openai, &reply, &format!("{file} {line}"));
            }
        }
    }
}

/// A body that is too long to keep for a retry, while one try has failed and the next has not
/// begun.
pub(crate) async fn a_backend_that_is_lost_within_an_upload_is_told(suite: Arc<Suite>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&suite, "envoy.yaml", &silent).await;
    let failures = async || gateway.stat("cluster.retried.upstream_cx_connect_fail").await;
    for (path, form) in PATHS.into_iter().filter(|(path, _)| *path != "/elsewhere") {
        let before = failures().await;
        let port = gateway.port("backend retried");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\nauthorization: {ALLOW}\r\n\
             content-length: 5000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let failed = async || failures().await > before;
        eventually("a try that has failed", failed).await;
        stream.write_all(&[b'x'; 4000]).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        BACKEND_LOST.check(form, &http::parse(&told), path);
    }
}
