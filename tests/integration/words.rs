//! The texts of refusals: their words, their form and their mode.

pub(crate) mod models;
pub(crate) mod not_found;

use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use serde_json::Value;

use crate::support::Replica;

/// Status, code and message of an answer to Envoy; `None` if it lets the request through.
pub(crate) fn told(response: &CheckResponse) -> Option<(u16, String, String)> {
    let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else { return None };
    let body: Value = serde_json::from_str(&denied.body).unwrap();
    let at = ["/error/message", "/error", "/message", "/detail"];
    let message = at.iter().find_map(|at| body.pointer(at)?.as_str()).unwrap();
    let status = u16::try_from(denied.status.as_ref().unwrap().code).unwrap();
    Some((status, response.status.as_ref().unwrap().message.clone(), message.to_owned()))
}

/// The body of a denial.
fn body(response: &CheckResponse) -> Value {
    let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else { panic!() };
    serde_json::from_str(&denied.body).unwrap()
}

/// The same for a request with this bearer.
pub(crate) async fn ask(
    replica: &Replica,
    (method, path): (&str, &str),
    bearer: Option<&str>,
) -> Option<(u16, String, String)> {
    let headers: Vec<_> = bearer.into_iter().map(|value| ("authorization", value)).collect();
    told(&replica.check(method, path, &headers).await)
}
