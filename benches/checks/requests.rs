//! What Envoy asks about a request of an OpenAI client: fifteen headers, 1.5 KB.

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest,
    attribute_context::{HttpRequest, Peer, Request},
};
use prost::Message;

/// What the official Python client sends, and what Envoy adds. The token comes with each request.
pub(crate) const HEADERS: [(&str, &str); 13] = [
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("content-type", "application/json"),
    ("user-agent", "OpenAI/Python 2.8.1"),
    ("x-stainless-lang", "python"),
    ("x-stainless-package-version", "2.8.1"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-runtime", "CPython"),
    ("x-stainless-runtime-version", "3.13.5"),
    ("x-stainless-read-timeout", "600"),
    ("x-stainless-retry-count", "0"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

/// The path by which a domain's models are asked.
pub(crate) fn chat(domain: &str) -> String {
    format!("/proxy/{domain}/v1/chat/completions")
}

/// One request, encoded; `extra` headers come on top of the fifteen.
pub(crate) fn check(path: &str, token: &str, extra: usize) -> Vec<u8> {
    let text = |text: &str| text.to_owned();
    let mut headers: Vec<_> = HEADERS.map(|(name, value)| (text(name), text(value))).into();
    headers.push((text("authorization"), format!("Bearer {token}")));
    headers.push((text("x-request-id"), text("5a2f0c9e-7d3b-4f0e-9a61-2f7c4b8d1e90")));
    // Of the length that one of the others has on average.
    headers.extend((0..extra).map(|n| (format!("x-client-header-{n:03}"), "v".repeat(32))));
    let http = HttpRequest {
        id: text("9284719374019283745"),
        method: text("POST"),
        path: text(path),
        host: text("gateway.example.com"),
        scheme: text("https"),
        protocol: text("HTTP/1.1"),
        size: 512,
        headers: headers.into_iter().collect(),
        ..Default::default()
    };
    let peer = |principal: &str| Peer { principal: text(principal), ..Default::default() };
    let attributes = AttributeContext {
        source: Some(peer("spiffe://cluster.local/ns/clients/sa/notebook")),
        destination: Some(peer("spiffe://cluster.local/ns/gateway/sa/envoy")),
        request: Some(Request { http: Some(http), ..Default::default() }),
        context_extensions: [(text("route"), text("model-in-body"))].into(),
        ..Default::default()
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}
