//! Custom resources of Envoy Gateway. `deploy/envoy-gateway/backend.yaml` has the same for people to
//! copy. Fields that the API server would fill in are there as well, so that what it holds can be
//! compared with what is wanted.

use serde::Serialize;

use crate::{
    Backend as Admitted, Host, Target, limits,
    names::object_name,
    object::{Kind, Object},
};

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
const HEADER: &str = "x-upstream-cluster";

#[derive(Serialize)]
struct Backend {
    #[serde(rename = "type")]
    kind: &'static str,
    endpoints: [Endpoint; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<BackendTls>,
}

#[derive(Serialize)]
struct Endpoint {
    /// What the filters put into `Host`. Its pattern admits neither a port nor an IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(flatten)]
    at: At,
}

#[derive(Serialize)]
enum At {
    #[serde(rename = "ip")]
    Ip { address: String, port: u16 },
    #[serde(rename = "fqdn")]
    Fqdn { hostname: String, port: u16 },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendTls {
    sni: String,
    min_version: &'static str,
    insecure_skip_verify: bool,
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    well_known: Option<&'static str>,
    #[serde(rename = "caCertificateRefs", skip_serializing_if = "Vec::is_empty")]
    authorities: Vec<Reference>,
}

/// Leads to an object of the same namespace.
#[derive(Serialize)]
struct Reference {
    group: &'static str,
    kind: &'static str,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpRoute {
    parent_refs: Vec<Parent>,
    rules: [Rule; 3],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parent {
    #[serde(flatten)]
    reference: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    section_name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: &'static str,
    matches: Vec<Match>,
    filters: [Filter; 1],
    backend_refs: [BackendRef; 1],
    timeouts: Timeouts,
}

#[derive(Serialize)]
struct Match {
    path: PathMatch,
    headers: [HeaderMatch; 1],
}

#[derive(Serialize)]
struct PathMatch {
    #[serde(rename = "type")]
    how: &'static str,
    value: &'static str,
}

#[derive(Serialize)]
struct HeaderMatch {
    #[serde(rename = "type")]
    how: &'static str,
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(rename = "type")]
    kind: &'static str,
    extension_ref: Reference,
}

#[derive(Serialize)]
struct BackendRef {
    #[serde(flatten)]
    reference: Reference,
    weight: u32,
}

#[derive(Serialize)]
struct Timeouts {
    request: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TrafficPolicy {
    target_refs: [Reference; 1],
    timeout: PolicyTimeouts,
    retry: Retry,
    circuit_breaker: CircuitBreaker,
    health_check: HealthCheck,
}

#[derive(Serialize)]
struct PolicyTimeouts {
    tcp: TcpTimeouts,
    http: HttpTimeouts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TcpTimeouts {
    connect_timeout: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpTimeouts {
    max_stream_duration: &'static str,
    stream_idle_timeout: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    num_retries: u32,
    retry_on: RetryOn,
}

#[derive(Serialize)]
struct RetryOn {
    triggers: [&'static str; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CircuitBreaker {
    max_connections: u32,
    max_pending_requests: u32,
    max_parallel_requests: u32,
    max_parallel_retries: u32,
}

#[derive(Serialize)]
struct HealthCheck {
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<ActiveCheck>,
    passive: PassiveCheck,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActiveCheck {
    #[serde(rename = "type")]
    kind: &'static str,
    http: HttpCheck,
    timeout: &'static str,
    interval: &'static str,
    unhealthy_threshold: u32,
    healthy_threshold: u32,
}

#[derive(Serialize)]
struct HttpCheck {
    path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PassiveCheck {
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failures: u32,
    #[serde(rename = "consecutive5XxErrors")]
    consecutive_5xx: u32,
    consecutive_gateway_errors: u32,
    interval: &'static str,
    base_ejection_time: &'static str,
    max_ejection_percent: u32,
    always_eject_one_endpoint: bool,
}

pub(crate) fn objects(backend: &Admitted, target: &Target) -> Vec<Object> {
    let name = object_name(&target.instance, &backend.name);
    [
        Object::new(Kind::Backend, backend, target, endpoint(backend, target)),
        Object::new(Kind::BackendTrafficPolicy, backend, target, policy(backend, &name)),
        Object::new(Kind::HttpRoute, backend, target, route(backend, target, &name)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn endpoint(backend: &Admitted, target: &Target) -> Backend {
    let port = backend.address.port;
    let tls = match &backend.address.host {
        Host::Name(name) if backend.address.tls => Some(BackendTls {
            // Envoy Gateway also compares the names in the certificate with it.
            sni: name.to_string(),
            min_version: "1.2",
            insecure_skip_verify: false,
            well_known: target.authorities.is_none().then_some("System"),
            authorities: target
                .authorities
                .iter()
                .map(|name| Reference { group: "", kind: "ConfigMap", name: name.clone() })
                .collect(),
        }),
        _ => None,
    };
    let host = backend.address.host.to_string();
    let endpoint = match &backend.address.host {
        Host::Ip(address) => Endpoint {
            hostname: address.is_ipv4().then(|| host.clone()),
            at: At::Ip { address: host, port },
        },
        Host::Name(_) => {
            Endpoint { hostname: Some(host.clone()), at: At::Fqdn { hostname: host, port } }
        }
    };
    Backend { kind: "Endpoints", endpoints: [endpoint], tls }
}

fn route(backend: &Admitted, target: &Target, name: &str) -> HttpRoute {
    let parent = |section_name| Parent {
        reference: Reference {
            group: GATEWAY_API,
            kind: "Gateway",
            name: target.gateway_name.clone(),
        },
        section_name,
    };
    let parent_refs = if target.listeners.is_empty() {
        vec![parent(None)]
    } else {
        target.listeners.iter().map(|listener| parent(Some(listener.clone()))).collect()
    };
    let matches = |how, value| Match {
        path: PathMatch { how, value },
        headers: [HeaderMatch { how: "Exact", name: HEADER, value: backend.name.to_string() }],
    };
    let rewrite = |filter: &str| Filter {
        kind: "ExtensionRef",
        extension_ref: Reference {
            group: ENVOY_GATEWAY,
            kind: "HTTPRouteFilter",
            name: filter.to_owned(),
        },
    };
    let rule = |rule, matches, filter| Rule {
        name: rule,
        matches,
        filters: [rewrite(filter)],
        backend_refs: [BackendRef {
            reference: Reference { group: ENVOY_GATEWAY, kind: "Backend", name: name.to_owned() },
            weight: 1,
        }],
        // An answer may be a stream. The policy limits how long one may last.
        timeouts: Timeouts { request: "0s" },
    };
    HttpRoute {
        parent_refs,
        rules: [
            rule(
                "azure",
                vec![matches("RegularExpression", "/proxy/[^/]+/openai/.+")],
                "patgate-rewrite-azure",
            ),
            rule("proxy", vec![matches("PathPrefix", "/proxy")], "patgate-rewrite"),
            rule(
                "surface",
                vec![matches("PathPrefix", "/api"), matches("PathPrefix", "/users")],
                // The path stays, and `Host` becomes that of the backend, as in the others.
                "patgate-rewrite-host",
            ),
        ],
    }
}

fn policy(backend: &Admitted, name: &str) -> TrafficPolicy {
    let active = backend.api.health_path().map(|path| ActiveCheck {
        kind: "HTTP",
        http: HttpCheck {
            path,
            hostname: match &backend.address.host {
                Host::Ip(address) if address.is_ipv6() => None,
                host => Some(host.to_string()),
            },
        },
        timeout: "2s",
        interval: "5s",
        unhealthy_threshold: 2,
        healthy_threshold: 1,
    });
    TrafficPolicy {
        target_refs: [Reference { group: GATEWAY_API, kind: "HTTPRoute", name: name.to_owned() }],
        timeout: PolicyTimeouts {
            tcp: TcpTimeouts { connect_timeout: limits::CONNECT },
            // The open streams of a revoked token continue until this time is over.
            http: HttpTimeouts { max_stream_duration: "600s", stream_idle_timeout: "300s" },
        },
        // Only if the backend has certainly not begun to work on the request.
        retry: Retry {
            num_retries: 2,
            retry_on: RetryOn { triggers: ["connect-failure", "refused-stream"] },
        },
        circuit_breaker: CircuitBreaker {
            max_connections: limits::IN_PROGRESS,
            max_pending_requests: limits::IN_PROGRESS,
            max_parallel_requests: limits::IN_PROGRESS,
            max_parallel_retries: 1024,
        },
        health_check: HealthCheck {
            active,
            passive: PassiveCheck {
                split_external_local_origin_errors: true,
                consecutive_local_origin_failures: limits::FAILURES,
                consecutive_5xx: 0,
                consecutive_gateway_errors: 0,
                interval: limits::PAUSE,
                base_ejection_time: limits::PAUSE,
                max_ejection_percent: limits::EJECTED_PERCENT,
                always_eject_one_endpoint: false,
            },
        },
    }
}
