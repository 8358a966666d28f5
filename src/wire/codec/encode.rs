//! Encodes a check as Envoy would, to ask a replica. Takes no part in decisions.

use prost::Message;

use crate::wire::proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest,
    attribute_context::{HttpRequest, Request},
};

/// Makes a `CheckRequest` about this request.
pub(crate) fn encode(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, impl AsRef<str>)],
    body: &[u8],
) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), value.as_ref().into()));
    let http = HttpRequest {
        method: method.into(),
        host: host.into(),
        path: path.into(),
        headers: headers.collect(),
        raw_body: body.into(),
        ..HttpRequest::default()
    };
    let request = Request { http: Some(http), ..Request::default() };
    let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}
