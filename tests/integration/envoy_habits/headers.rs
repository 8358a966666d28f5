//! What Envoy does with request headers: the client's, and those that the answer sets and removes.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
        service::auth::v3::check_response::HttpResponse,
    },
    google::protobuf::BoolValue,
};
use patgate::request::{COOKIES, CREDENTIAL_HEADERS, SUBPROTOCOLS};
use patgate_testing::{
    access_log,
    http::{Over, Sent},
};
use tonic::Code;

use super::{
    answers::{allow, denied, overwrite},
    gate::{
        BY_METADATA, CANDID, CREDULOUS,
        GateAnswer::{NeedsBody, Says},
        MODELS, OPEN, SHIPPED, SINGLE_STEP, TO_ACME, gate,
    },
    routing::metadata,
};
use crate::support::Suite;

pub(super) const OURS: [&str; 7] = [
    "x-domain-id",
    "x-domain-slug",
    "x-user-id",
    "x-pat-id",
    "x-auth-operation",
    "x-auth-model",
    "x-upstream-cluster",
];

/// Headers that frameworks use instead of the host, the path or the method of a request.
const IN_PLACE: [&str; 13] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Sent twice, in two spellings.
const SPOOFED: [(&str, &str); 2] = [("x-domain-id", "evil"), ("X-Domain-Id", "worse")];

pub(crate) async fn as_shipped_no_check_sees_the_clients_copies(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for name in OURS {
        let mut case = gate.case(Says(denied(Code::Unauthenticated)));
        let headers = [(name, "evil"), (&name.to_uppercase(), "worse"), ("x-else", "kept")];
        case.get(CANDID, MODELS, &headers).await;
        let seen = &case.checks()[0].headers;
        assert_eq!((seen.get(name), seen["x-else"].as_str()), (None, "kept"));
    }
}

/// For a call with a body, also what Envoy says about it.
pub(crate) async fn as_shipped_a_check_sees_what_patgate_reads(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let read = [
        "api-key",
        "authorization",
        "content-encoding",
        "content-type",
        "cookie",
        "ocp-apim-subscription-key",
        "sec-websocket-protocol",
        "x-api-key",
        "x-goog-api-key",
        "x-litellm-api-key",
    ]
    .map(|name| (name, "any"));
    let others = ["accept", "referer", "x-else", "x-envoy-auth-partial-body"];
    let headers = [&read[..], &others.map(|name| (name, "any"))].concat();
    let path = "/proxy/acme/v1/chat/completions";
    let sent =
        Sent { method: "POST", target: path, headers: &headers, body: b"{}", ..Sent::default() };
    let plain = [&read.map(|(name, _)| name)[..], &["content-length", "x-case"]].concat();
    let plain = plain.as_slice();
    let partial = "x-envoy-auth-partial-body";
    for (over, steps) in Over::ALL.into_iter().flat_map(|over| [(over, 1), (over, 2)]) {
        let denial = Says(denied(Code::Unauthenticated));
        let (listener, answer) =
            if steps == 1 { (SINGLE_STEP, denial) } else { (SHIPPED, NeedsBody(Box::new(denial))) };
        let mut case = gate.case(answer);
        case.over(over, listener, sent).await;
        let checks = case.checks();
        assert_eq!(checks.len(), steps, "{over:?}");
        for (check, has_body) in checks.iter().zip([steps == 1, true]) {
            let mut names: Vec<_> = check.headers.keys().map(String::as_str).collect();
            names.sort_unstable();
            let of_body: &[_] = if has_body { &[partial] } else { &[] };
            let mut expected = [plain, of_body, &["x-request-id"]].concat();
            expected.sort_unstable();
            assert_eq!(names, expected, "{over:?}");
            let said = check.headers.get(partial).map(String::as_str);
            assert_eq!(said, has_body.then_some("false"), "{over:?}");
        }
    }
}

/// Envoy itself does not remove the client's copies.
pub(crate) async fn as_shipped_no_backend_sees_another_host_path_or_method(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let names = IN_PLACE.map(|name| [(name.to_owned(), "evil"), (name.to_uppercase(), "worse")]);
    let mut headers: Vec<_> = names.as_flattened().iter().map(|(n, v)| (n.as_str(), *v)).collect();
    headers.push(("x-else", "kept"));
    for (listener, left) in [(SHIPPED, ""), (CREDULOUS, "evil,worse")] {
        for path in [MODELS, "/api/v1/users"] {
            for method in ["GET", "POST"] {
                let case = gate.case(Says(allow(&[TO_ACME], &[])));
                let reply = case.send(listener, method, path, &headers).await;
                assert_eq!((reply.status, reply.seen("x-else")), (200, vec!["kept".into()]));
                for name in IN_PLACE {
                    // Envoy joins the values of some.
                    assert_eq!(
                        reply.seen(name).join(","),
                        left,
                        "{name}: {listener}, {method} {path}"
                    );
                }
                // Envoy sets these itself.
                for name in ["x-forwarded-for", "x-forwarded-proto"] {
                    assert_eq!(reply.seen(name).len(), 1, "{name}: {listener}, {method} {path}");
                }
            }
        }
    }
}

pub(crate) async fn a_header_of_the_answer_replaces_every_copy(suite: Arc<Suite>) {
    let case = gate(&suite).await.case(Says(allow(&[TO_ACME, ("x-domain-id", "ours")], &[])));
    let reply = case.get(CREDULOUS, MODELS, &SPOOFED).await;
    assert_eq!(reply.seen("x-domain-id"), ["ours"]);
}

/// Returns the values of a header that the backend sees, if the answer also sets that header.
async fn seen_after(suite: &Suite, option: HeaderValueOption) -> Vec<String> {
    let mut answer = allow(&[TO_ACME], &[]);
    if let Some(HttpResponse::OkResponse(ok)) = &mut answer.http_response {
        ok.headers.push(option);
    }
    let case = gate(suite).await.case(Says(answer));
    case.get(CREDULOUS, MODELS, &SPOOFED).await.seen("x-domain-id")
}

/// The actions do not do what their names say, and Envoy has changed the default before. That is
/// why patgate always states the action.
pub(crate) async fn every_append_action_overwrites(suite: Arc<Suite>) {
    use HeaderAppendAction::{
        AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd,
    };
    // The first one is also the value of an unset field.
    for action in [AppendIfExistsOrAdd, AddIfAbsent, OverwriteIfExists, OverwriteIfExistsOrAdd] {
        let append_action = action as i32;
        let option = HeaderValueOption { append_action, ..overwrite("x-domain-id", "ours") };
        assert_eq!(seen_after(&suite, option).await, ["ours"], "{action:?}");
    }
}

#[expect(deprecated, reason = "what the deprecated field does is the question")]
pub(crate) async fn the_old_append_keeps_the_clients_copies(suite: Arc<Suite>) {
    let append = Some(BoolValue { value: true });
    let option = HeaderValueOption { append, append_action: 0, ..overwrite("x-domain-id", "ours") };
    assert_eq!(seen_after(&suite, option).await, ["evil,ours", "worse"]);
}

pub(crate) async fn a_removal_takes_every_copy(suite: Arc<Suite>) {
    let case = gate(&suite).await.case(Says(allow(&[TO_ACME], &["x-domain-id"])));
    let reply = case.get(CREDULOUS, MODELS, &SPOOFED).await;
    assert_eq!((reply.status, reply.seen("x-domain-id").len()), (200, 0));
}

pub(crate) async fn the_answer_may_set_and_remove_our_headers(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let set = OURS.map(|name| (name, if name == TO_ACME.0 { TO_ACME.1 } else { "ours" }));
    let removed = [&CREDENTIAL_HEADERS[..], &[SUBPROTOCOLS, COOKIES]].concat();
    let case = gate.case(Says(allow(&set, &removed)));
    let sent: Vec<_> = removed.iter().map(|name| (*name, "secret")).collect();
    let reply = case.get(SHIPPED, MODELS, &sent).await;
    assert_eq!(reply.status, 200);
    for name in removed {
        assert!(reply.seen(name).is_empty(), "{name}");
    }
    for (name, value) in set {
        assert_eq!(reply.seen(name), [value], "{name}");
    }

    let case = gate.case(Says(allow(&[], &[&OURS[..], &["authorization"]].concat())));
    let client = OURS.map(|name| (name, "evil"));
    let headers = [&client[..], &[("authorization", "Bearer secret")]].concat();
    let reply = case.get(BY_METADATA, MODELS, &headers).await;
    assert_eq!(reply.header("x-backend"), Some("model-acme"), "{reply:?}");
    for name in OURS.into_iter().chain(["authorization"]) {
        assert_eq!(reply.seen(name).len(), 0, "{name}");
    }
}

/// Such an answer is neither applied in part, nor a failure that `failure_mode_allow` would allow.
pub(crate) async fn an_answer_that_touches_anything_else_is_an_error(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let set = |name, value| allow(&[TO_ACME, (name, value)], &[]);
    for (what, answer) in [
        (":path", set(":path", "/proxy/beta/v1/models")),
        (":method", set(":method", "DELETE")),
        (":authority", set(":authority", "elsewhere")),
        (":scheme", set(":scheme", "https")),
        ("host", set("host", "elsewhere")),
        ("a header of no list", set("x-forwarded-for", "127.0.0.1")),
        ("a longer name", set("x-domain-id-too", "1")),
        ("a shorter name", set("x-domain", "1")),
        ("a removal of no list", allow(&[TO_ACME], &["referer"])),
        ("an invalid value", set("x-domain-id", "a\r\nb")),
        ("an invalid name", set("x-domain id", "a")),
    ] {
        for listener in [SHIPPED, OPEN] {
            let case = gate.case(Says(answer.clone()));
            let reply = case.get(listener, MODELS, &[TO_ACME, ("referer", "r")]).await;
            assert_eq!((reply.status, reply.header("x-backend")), (500, None), "{what} {listener}");
        }
    }
}

pub(crate) async fn a_clients_traceparent_reaches_the_backend(suite: Arc<Suite>) {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut case = gate(&suite).await.case(Says(allow(&[TO_ACME], &[])));
    let reply = case.get(CANDID, MODELS, &[("traceparent", trace)]).await;
    assert_eq!(reply.seen("traceparent"), [trace]);
    assert_eq!(case.checks()[0].headers["traceparent"], trace);
}

pub(crate) async fn dynamic_metadata_reaches_the_access_log(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (mut answer, status) in
        [(allow(&[TO_ACME], &[]), 200), (denied(Code::PermissionDenied), 418)]
    {
        answer.dynamic_metadata = metadata(&[("domain_id", "d1"), ("outcome", "so"), ("x", "y")]);
        let reply = gate.case(Says(answer)).get(SHIPPED, MODELS, &[]).await;
        let line = access_log::line(&gate.envoy, &reply).await;
        assert_eq!(line["response_code"], status);
        assert_eq!((&line["domain_id"], &line["outcome"]), (&"d1".into(), &"so".into()));
        assert_eq!(line["user_id"], serde_json::Value::Null);
    }
}
