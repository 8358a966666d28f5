//! The checks that Envoy sends for a request of an OpenAI client, in a mesh: fifteen headers, 1.5
//! KB.

use std::ops::RangeInclusive;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, SocketAddress, address,
            socket_address::{PortSpecifier, Protocol},
        },
        service::auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Peer, Request},
        },
    },
    google::protobuf::Timestamp,
};
use prost::Message;

/// Bytes of a message, unless something is added to it.
const SIZE: RangeInclusive<usize> = 1450..=1600;

/// The headers of the official Python client, of the sidecar and of Envoy. The token is added to
/// each request.
pub(crate) const HEADERS: [(&str, &str); 13] = [
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("content-type", "application/json"),
    (
        "cookie",
        "_cfuvid=Zk3T0cXv1n8yQm5rWb7dLp2sUa9eHf4g-1751990400123-0.0.1.1-604800000; \
         session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
         eyJzaWQiOiI5ZjJjNmQxZS02ZjBiLTRhNTUtOWE5ZS0xYjdjMmY0ZDhlMzAiLCJhdWQiOiJub3RlYm9vayIsImlhdCI6MTc1MTk5MDQwMCwiZXhwIjoxNzUyMDc2ODAwfQ.\
         4kT0bY8xq2Vd1mN7sRw3uZ6cJpLh5aEoGfXi9tQyKvM",
    ),
    ("user-agent", "AsyncOpenAI/Python 2.8.1"),
    ("x-stainless-lang", "python"),
    ("x-stainless-package-version", "2.8.1"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-runtime-version", "3.13.5"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (
        "baggage",
        "session.id=9f2c6d1e,deployment.environment=production,service.name=notebook,service.version=2026.11.3,user.plan=team",
    ),
    (
        "x-forwarded-client-cert",
        "By=spiffe://cluster.local/ns/gateway/sa/envoy;\
         Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;\
         Subject=\"CN=notebook,OU=Research,O=Example Corporation,C=DE\";\
         URI=spiffe://cluster.local/ns/clients/sa/notebook",
    ),
];

/// The path for the list of a domain's models.
pub(crate) fn chat(domain: &str) -> String {
    format!("/proxy/{domain}/v1/chat/completions")
}

/// A request, with its differences from the standard one.
pub(crate) struct Check<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: String,
    pub(crate) token: &'a str,
    /// Headers in addition to the fifteen.
    pub(crate) extra: usize,
    pub(crate) body: &'a [u8],
    /// Headers that replace those of the same name.
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

impl<'a> Check<'a> {
    pub(crate) fn post(path: String, token: &'a str) -> Self {
        Self { method: "POST", path, token, extra: 0, body: &[], headers: &[] }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let message = self.request().encode_to_vec();
        let usual = self.extra == 0 && self.body.is_empty() && self.headers.is_empty();
        assert!(!usual || SIZE.contains(&message.len()), "{} bytes", message.len());
        message
    }

    pub(crate) fn request(&self) -> CheckRequest {
        let text = |text: &str| text.to_owned();
        let mut headers: Vec<_> = HEADERS.map(|(name, value)| (text(name), text(value))).into();
        headers.push((text("authorization"), format!("Bearer {}", self.token)));
        headers.push((text("x-request-id"), text("5a2f0c9e-7d3b-4f0e-9a61-2f7c4b8d1e90")));
        // With the length of most other headers.
        let more = |n| (format!("x-client-header-{n:03}"), "v".repeat(32));
        headers.extend((0..self.extra).map(more));
        headers.extend(self.headers.iter().map(|&(name, value)| (text(name), text(value))));
        let http = HttpRequest {
            id: text("9284719374019283745"),
            method: text(self.method),
            path: self.path.clone(),
            host: text("gateway.example.com"),
            scheme: text("https"),
            protocol: text("HTTP/1.1"),
            size: 512,
            headers: headers.into_iter().collect(),
            raw_body: self.body.to_vec(),
            ..Default::default()
        };
        let peer = |host: &str, port, principal: &str| Peer {
            address: Some(socket(host, port)),
            principal: text(principal),
            ..Default::default()
        };
        let attributes = AttributeContext {
            source: Some(peer(
                "10.12.7.33",
                51724,
                "spiffe://cluster.local/ns/clients/sa/notebook",
            )),
            destination: Some(peer(
                "10.12.0.4",
                8443,
                "spiffe://cluster.local/ns/gateway/sa/envoy",
            )),
            request: Some(Request {
                time: Some(Timestamp { seconds: 1_751_990_400, nanos: 123_456_789 }),
                http: Some(http),
            }),
            context_extensions: [(text("route"), text("model-in-body"))].into(),
            ..Default::default()
        };
        CheckRequest { attributes: Some(attributes) }
    }
}

fn socket(host: &str, port: u32) -> Address {
    let address = SocketAddress {
        protocol: Protocol::Tcp.into(),
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(address)) }
}
