//! Which requests are checked, and which route is taken after the answer.

use std::{collections::HashMap, sync::Arc};

use envoy_types::pb::{
    envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse},
    google::protobuf::{Struct, Value, value::Kind},
};
use patgate_testing::wire::{PATIENCE, Wire};
use tokio::time::timeout;
use tonic::Code;

use super::{
    answers::{allow, denied, overwrite},
    gate::{
        BY_METADATA, CREDULOUS, GateAnswer::Says, MODELS, SHIPPED, STUCK, TO_ACME, TO_BETA,
        WITHOUT_LAST_ROUTE, gate,
    },
};
use crate::support::Suite;

pub(super) fn metadata(fields: &[(&str, &str)]) -> Option<Struct> {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields: HashMap<_, _> =
        fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
    Some(Struct { fields })
}

pub(crate) async fn where_no_route_matches_nobody_is_asked(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let mut case = gate.case(Says(denied(Code::Unauthenticated)));
    assert_eq!(case.get(WITHOUT_LAST_ROUTE, "/nowhere", &[]).await.status, 404);
    assert_eq!(case.checks().len(), 0);
    // The rest of that configuration works.
    assert_eq!(case.get(WITHOUT_LAST_ROUTE, MODELS, &[]).await.status, 418);
    assert_eq!(case.checks().len(), 1);
}

pub(crate) async fn as_shipped_every_path_is_checked(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        for path in [
            "/",
            "/?q",
            "/nowhere",
            "/metrics",
            "/ready",
            "/proxy",
            "/proxy/",
            "/proxy/acme",
            "/proxy/acme/",
            "/proxy/acme/x?y",
            "/PROXY/acme/x",
            "/../..",
            "//",
            "http://elsewhere/proxy/acme/x",
            "/api",
            "/api/",
            "/api/v1/deployments?q",
            "/api/../x",
            "http://acme.cubecloud.dev/api/scim/v2/Users",
        ] {
            let mut case = gate.case(Says(denied(Code::Unauthenticated)));
            let reply = case.send(SHIPPED, method, path, &[]).await;
            assert_eq!((reply.status, case.checks().len()), (418, 1), "{method} {path}");
        }
    }
}

/// Some requests do not even match the last route: there is no check, and they reach nothing.
pub(crate) async fn what_has_no_path_gets_nowhere(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (method, target, headers, status) in [
        ("OPTIONS", "*", &[][..], 404),
        ("CONNECT", "gateway:80", &[], 404),
        ("CONNECT", MODELS, &[], 400),
    ] {
        let mut case = gate.case(Says(allow(&[TO_ACME], &[])));
        let reply = case.send(SHIPPED, method, target, headers).await;
        assert_eq!((reply.status, reply.header("x-backend")), (status, None), "{method} {target}");
        assert_eq!(case.checks().len(), 0, "{method} {target}");
    }
}

pub(crate) async fn the_answer_chooses_the_backend_whatever_the_client_sent(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for listener in [SHIPPED, CREDULOUS] {
        let case = gate.case(Says(allow(&[TO_ACME], &[])));
        let reply = case.get(listener, MODELS, &[TO_BETA]).await;
        assert_eq!(reply.header("x-backend"), Some("model-acme"), "{listener}: {reply:?}");
    }
}

pub(crate) async fn without_clear_route_cache_the_client_chooses_the_backend(suite: Arc<Suite>) {
    let case = gate(&suite).await.case(Says(allow(&[TO_ACME], &[])));
    let reply = case.get(STUCK, MODELS, &[TO_BETA]).await;
    assert_eq!(reply.header("x-backend"), Some("model-beta"), "{reply:?}");
    assert_eq!(reply.seen(TO_ACME.0), [TO_ACME.1], "the answer had come");
}

/// An operator's own routes may match on metadata. After an answer with metadata only, the route
/// that was chosen before stays.
pub(crate) async fn only_a_header_set_or_removed_clears_the_route_cache(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let mut tells_the_client = allow(&[], &[]);
    if let Some(HttpResponse::OkResponse(ok)) = &mut tells_the_client.http_response {
        ok.response_headers_to_add.push(overwrite("x-added", "yes"));
    }
    for (what, answer, backend) in [
        ("nothing", CheckResponse::default(), "model-acme"),
        ("an empty allow", allow(&[], &[]), "model-acme"),
        ("a response header", tells_the_client, "model-acme"),
        ("a header set", allow(&[("x-user-id", "ann")], &[]), "model-beta"),
        ("a header removed", allow(&[], &["x-user-id"]), "model-beta"),
    ] {
        let dynamic_metadata = metadata(&[("backend", "beta")]);
        let case = gate.case(Says(CheckResponse { dynamic_metadata, ..answer }));
        let reply = case.get(BY_METADATA, MODELS, &[]).await;
        assert_eq!(reply.header("x-backend"), Some(backend), "metadata and {what}");
    }
}

/// If the header is removed, the cluster that it had chosen is no longer used.
pub(crate) async fn a_removed_header_takes_its_route_with_it(suite: Arc<Suite>) {
    let case = gate(&suite).await.case(Says(allow(&[], &[TO_BETA.0])));
    let reply = case.get(CREDULOUS, MODELS, &[TO_BETA]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (503, None), "{reply:?}");
}

pub(crate) async fn an_unknown_backend_is_503(suite: Arc<Suite>) {
    let case = gate(&suite).await.case(Says(allow(&[("x-upstream-cluster", "model-gamma")], &[])));
    let reply = case.get(SHIPPED, MODELS, &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (503, None), "{reply:?}");
}

/// The last event is sent only when the first has arrived.
pub(crate) async fn a_stream_passes_unbuffered(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let case = gate.case(Says(allow(&[("x-upstream-cluster", "model-stream")], &[])));
    let mut client = Wire::connect(gate.port(SHIPPED)).await;
    client.write(&format!("GET {MODELS} HTTP/1.1\r\nhost: gateway\r\n{}\r\n", case.header())).await;

    let accepted = timeout(PATIENCE, gate.stream.accept()).await.expect("a request");
    let mut backend = Wire::new(accepted.unwrap().0);
    backend.read_until("\r\n\r\n").await;
    let head = "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
    backend.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n")).await;
    for event in ["data: first\n\n", "data: second\n\n", "data: last\n\n"] {
        backend.write_chunk(event).await;
        client.read_until(event).await;
    }
    backend.write_chunk("").await;
    client.read_until("\r\n0\r\n\r\n").await;
    assert!(client.text.starts_with("HTTP/1.1 200"), "{}", client.text);
}
