//! Custom resources of Istio. `deploy/istio/backend.yaml` has the same for people to copy.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Backend, Host, Target, limits,
    names::internal_host,
    object::{Kind, Object},
};

const HEADER: &str = "x-upstream-cluster";
/// Visible in the namespace of the gateway only.
const HERE: [&str; 1] = ["."];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceEntry {
    export_to: [&'static str; 1],
    hosts: [String; 1],
    location: &'static str,
    resolution: &'static str,
    ports: [EntryPort; 1],
    endpoints: [Endpoint; 1],
}

#[derive(Serialize)]
struct EntryPort {
    name: &'static str,
    number: u16,
    protocol: &'static str,
}

#[derive(Serialize)]
struct Endpoint {
    address: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DestinationRule {
    export_to: [&'static str; 1],
    host: String,
    traffic_policy: TrafficPolicy,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TrafficPolicy {
    connection_pool: ConnectionPool,
    outlier_detection: OutlierDetection,
    tls: Tls,
}

#[derive(Serialize)]
struct ConnectionPool {
    tcp: Tcp,
    http: Http,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tcp {
    connect_timeout: &'static str,
    max_connections: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http {
    #[serde(rename = "http1MaxPendingRequests")]
    max_pending_requests: u32,
    #[serde(rename = "http2MaxRequests")]
    max_requests: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutlierDetection {
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failures: u32,
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx: u32,
    consecutive_gateway_errors: u32,
    interval: &'static str,
    base_ejection_time: &'static str,
    max_ejection_percent: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tls {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subject_alt_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VirtualService {
    export_to: [&'static str; 1],
    gateways: [String; 1],
    hosts: [&'static str; 1],
    http: [Route; 3],
}

#[derive(Serialize)]
struct Route {
    name: &'static str,
    #[serde(rename = "match")]
    matches: [Match; 1],
    rewrite: Rewrite,
    route: [Leg; 1],
    retries: Retries,
}

#[derive(Serialize)]
struct Match {
    uri: Regex,
    headers: BTreeMap<&'static str, Exact>,
}

#[derive(Serialize)]
struct Regex {
    regex: &'static str,
}

#[derive(Serialize)]
struct Exact {
    exact: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rewrite {
    /// Otherwise a client would choose `Host`, and so which of several servers behind one address
    /// receives the credential.
    authority: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Serialize)]
struct RegexRewrite {
    #[serde(rename = "match")]
    matches: &'static str,
    rewrite: &'static str,
}

#[derive(Serialize)]
struct Leg {
    destination: Destination,
}

#[derive(Serialize)]
struct Destination {
    host: String,
    port: PortNumber,
}

#[derive(Serialize)]
struct PortNumber {
    number: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retries {
    attempts: u32,
    retry_on: &'static str,
}

pub(crate) fn objects(backend: &Backend, target: &Target) -> Vec<Object> {
    // A name that only Istio uses, and never that of a Service, with which it would compete.
    let host = internal_host(&target.instance, &backend.name);
    [
        Object::new(Kind::ServiceEntry, backend, target, entry(backend, &host)),
        Object::new(Kind::DestinationRule, backend, target, rule(backend, target, &host)),
        Object::new(Kind::VirtualService, backend, target, service(backend, target, &host)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn entry(backend: &Backend, host: &str) -> ServiceEntry {
    ServiceEntry {
        export_to: HERE,
        hosts: [host.to_owned()],
        location: "MESH_EXTERNAL",
        resolution: match backend.address.host {
            Host::Ip(_) => "STATIC",
            Host::Name(_) => "DNS",
        },
        ports: [EntryPort { name: "http", number: backend.address.port, protocol: "HTTP" }],
        endpoints: [Endpoint { address: backend.address.host.to_string() }],
    }
}

fn rule(backend: &Backend, target: &Target, host: &str) -> DestinationRule {
    let tls = match &backend.address.host {
        Host::Name(name) if backend.address.tls => Tls {
            mode: "SIMPLE",
            sni: Some(name.to_string()),
            subject_alt_names: vec![name.to_string()],
            // Without one, Istio takes the authorities of the system.
            credential_name: target.authorities.clone(),
        },
        _ => {
            Tls { mode: "DISABLE", sni: None, subject_alt_names: Vec::new(), credential_name: None }
        }
    };
    DestinationRule {
        export_to: HERE,
        host: host.to_owned(),
        traffic_policy: TrafficPolicy {
            connection_pool: ConnectionPool {
                tcp: Tcp { connect_timeout: limits::CONNECT, max_connections: limits::IN_PROGRESS },
                http: Http {
                    max_pending_requests: limits::IN_PROGRESS,
                    max_requests: limits::IN_PROGRESS,
                },
            },
            outlier_detection: OutlierDetection {
                split_external_local_origin_errors: true,
                consecutive_local_origin_failures: limits::FAILURES,
                consecutive_5xx: 0,
                consecutive_gateway_errors: 0,
                interval: limits::PAUSE,
                base_ejection_time: limits::PAUSE,
                max_ejection_percent: limits::EJECTED_PERCENT,
            },
            tls,
        },
    }
}

fn service(backend: &Backend, target: &Target, host: &str) -> VirtualService {
    let route = |name, regex, rewrite: Option<(&'static str, &'static str)>| Route {
        name,
        matches: [Match {
            uri: Regex { regex },
            headers: [(HEADER, Exact { exact: backend.name.to_string() })].into(),
        }],
        rewrite: Rewrite {
            authority: backend.address.authority(),
            uri_regex_rewrite: rewrite.map(|(matches, rewrite)| RegexRewrite { matches, rewrite }),
        },
        route: [Leg {
            destination: Destination {
                host: host.to_owned(),
                port: PortNumber { number: backend.address.port },
            },
        }],
        // Only if the backend has certainly not begun to work on the request.
        retries: Retries { attempts: 2, retry_on: "connect-failure,refused-stream" },
    };
    VirtualService {
        export_to: HERE,
        gateways: [target.gateway_name.clone()],
        hosts: ["*"],
        http: [
            route(
                "azure",
                "/proxy/[^/]+/openai/.+",
                Some(("^/proxy/[^/]+/openai/(deployments/[^/]+/)?", "/v1/")),
            ),
            route("backend", "/proxy/[^/]+(/.*)?", Some(("^/proxy/[^/]+/?", "/"))),
            route("surface", "/(api/.*|users(/.*)?)", None),
        ],
    }
}
