//! How Envoy reads an answer: which answers are an ALLOW, and what the client gets otherwise.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
        },
        service::auth::v3::{
            CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::rpc::Status,
};
use patgate_testing::{http::Reply, shipped::shipped};
use serde_json::Value;
use tonic::Code;

use super::gate::{
    ALONE, ALONE_AND_OPEN, CREDULOUS,
    GateAnswer::{Fails, Says, Silence},
    HURRIED, HURRIED_AND_OPEN, MODELS, OPEN, PATIENT, SHIPPED, TO_ACME, authz_service, gate,
};
use crate::support::Suite;

pub(super) fn response(code: Code, http_response: Option<HttpResponse>) -> CheckResponse {
    let status = Some(Status { code: code as i32, ..Default::default() });
    CheckResponse { status, http_response, ..Default::default() }
}

/// An allow that sets and removes request headers.
pub(super) fn allow(set: &[(&str, &str)], remove: &[&str]) -> CheckResponse {
    let ok = OkHttpResponse {
        headers: set.iter().map(|(name, value)| overwrite(name, value)).collect(),
        headers_to_remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    response(Code::Ok, Some(HttpResponse::OkResponse(ok)))
}

pub(super) fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    let key = name.to_owned();
    let value = value.to_owned();
    HeaderValueOption {
        header: Some(HeaderValue { key, value, ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    }
}

/// 418, which no other component answers.
fn teapot() -> DeniedHttpResponse {
    DeniedHttpResponse {
        status: Some(HttpStatus { code: 418 }),
        headers: vec![overwrite("x-why", "tea")],
        body: "short and stout".to_owned(),
    }
}

pub(super) fn denied(code: Code) -> CheckResponse {
    response(code, Some(HttpResponse::DeniedResponse(teapot())))
}

fn error(code: Code) -> CheckResponse {
    response(code, Some(HttpResponse::ErrorResponse(teapot())))
}

fn assert_served(reply: &Reply) {
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
}

fn assert_refused(reply: &Reply, status: u16, body: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (status, body), "{reply:?}");
    assert_eq!(reply.header("x-backend"), None, "{reply:?}");
}

/// Checks for an outage in Envoy's words.
fn assert_outage(reply: &Reply, code: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (503, code), "{reply:?}");
    assert_eq!(reply.header("x-backend"), None, "{reply:?}");
}

fn assert_teapot(reply: &Reply) {
    assert_refused(reply, 418, "short and stout");
    assert_eq!(reply.header("x-why"), Some("tea"));
}

pub(crate) async fn an_empty_answer_is_an_allow(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    assert_served(&gate.ask(CREDULOUS, Says(CheckResponse::default())).await);
    assert_served(&gate.ask(CREDULOUS, Says(response(Code::Ok, None))).await);
}

pub(crate) async fn a_denial_without_a_code_is_an_allow(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    assert_served(&gate.ask(CREDULOUS, Says(denied(Code::Ok))).await);
    let unset = CheckResponse { status: None, ..denied(Code::Ok) };
    assert_served(&gate.ask(CREDULOUS, Says(unset)).await);
}

pub(crate) async fn an_error_without_a_code_is_an_allow(suite: Arc<Suite>) {
    assert_served(&gate(&suite).await.ask(CREDULOUS, Says(error(Code::Ok))).await);
}

/// The safeguard if patgate's answer is empty by error: no route names a backend by itself.
pub(crate) async fn as_shipped_an_allow_that_names_no_backend_reaches_none(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for empty in [CheckResponse::default(), denied(Code::Ok), error(Code::Ok), allow(&[], &[])] {
        assert_outage(&gate.ask(SHIPPED, Says(empty)).await, "backend_unavailable");
    }
}

pub(crate) async fn a_denial_is_sent_on_whatever_failures_do(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for listener in [SHIPPED, CREDULOUS, OPEN] {
        for code in [Code::Unauthenticated, Code::PermissionDenied, Code::Unavailable] {
            assert_teapot(&gate.ask(listener, Says(denied(code))).await);
        }
    }
}

pub(crate) async fn an_error_is_sent_on_unless_failures_are_allowed(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    assert_teapot(&gate.ask(CREDULOUS, Says(error(Code::Unavailable))).await);
    assert_served(&gate.ask(OPEN, Says(error(Code::Unavailable))).await);
}

pub(crate) async fn a_bare_refusal_is_403_without_a_body(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for listener in [CREDULOUS, OPEN] {
        let bare = response(Code::Unauthenticated, None);
        assert_refused(&gate.ask(listener, Says(bare)).await, 403, "");
    }
}

pub(crate) async fn an_allow_with_a_code_is_403_without_a_body(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for listener in [CREDULOUS, OPEN] {
        let torn = CheckResponse {
            status: response(Code::PermissionDenied, None).status,
            ..allow(&[("x-user-id", "ann")], &[])
        };
        assert_refused(&gate.ask(listener, Says(torn)).await, 403, "");
    }
}

pub(crate) async fn a_grpc_error_is_503_unless_failures_are_allowed(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for code in (1..=16).map(Code::from) {
        let mut case = gate.case(Fails(code));
        let reply = case.get(CREDULOUS, MODELS, &[TO_ACME]).await;
        assert_outage(&reply, "unavailable");
        // Envoy retries only if another replica might answer.
        let asked = if code == Code::Unavailable { 3 } else { 1 };
        assert_eq!(case.checks().len(), asked, "{code:?}");
        assert_served(&gate.ask(OPEN, Fails(code)).await);
    }
}

pub(crate) async fn silence_is_503_unless_failures_are_allowed(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    assert_outage(&gate.ask(HURRIED, Silence).await, "unavailable");
    assert_served(&gate.ask(HURRIED_AND_OPEN, Silence).await);
}

/// The setting that reads like the longest pause between retries also limits each try. If it were
/// shorter than patgate's deadline, Envoy would never receive a slow answer that is in time.
pub(crate) async fn the_longest_pause_between_tries_ends_a_try(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let mut case = gate.case(Silence);
    assert_outage(&case.get(PATIENT, MODELS, &[TO_ACME]).await, "unavailable");
    // The total timeout would have ended all of them at once.
    assert_eq!(case.checks().len(), 3);

    let mut config = shipped();
    let service = &authz_service(&mut config)["grpc_service"];
    let seconds = |value: &Value| -> f64 {
        value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
    };
    let pause = seconds(&service["retry_policy"]["retry_back_off"]["max_interval"]);
    const DEADLINE: f64 = 0.1;
    assert!(pause > DEADLINE && seconds(&service["timeout"]) > pause, "{service}");
}

pub(crate) async fn nobody_there_is_503_unless_failures_are_allowed(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    assert_outage(&gate.ask(ALONE, Silence).await, "unavailable");
    assert_served(&gate.ask(ALONE_AND_OPEN, Silence).await);
}

pub(crate) async fn a_denied_grpc_client_sees_200_and_a_grpc_status(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    let case = gate.case(Says(denied(Code::Unauthenticated)));
    let headers = [("content-type", "application/grpc")];
    let reply = case.send(SHIPPED, "POST", MODELS, &headers).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, None), "{reply:?}");
    assert!(reply.header("grpc-status").is_some_and(|code| code != "0"), "{reply:?}");
}
