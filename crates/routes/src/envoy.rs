//! Clusters of a plain Envoy, as a file that it watches (CDS by a path). Its routes take the name of the
//! cluster from `x-upstream-cluster`, so they stay as they are.

use serde::Serialize;
use serde_json::Value;

use crate::{Backend, Host, Target, limits};

/// The authorities of the system, in Envoy's images and on Debian. Envoy 1.40 does not implement
/// `system_root_certs`, and refuses a cluster without a file.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Serialize)]
struct Discovered {
    resources: Vec<Cluster>,
}

#[derive(Serialize)]
pub(crate) struct Cluster {
    #[serde(rename = "@type")]
    type_url: &'static str,
    name: String,
    #[serde(rename = "type")]
    discovery: &'static str,
    connect_timeout: &'static str,
    circuit_breakers: CircuitBreakers,
    outlier_detection: OutlierDetection,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    health_checks: Vec<HealthCheck>,
    load_assignment: LoadAssignment,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport_socket: Option<TransportSocket>,
}

#[derive(Serialize)]
struct CircuitBreakers {
    thresholds: [Thresholds; 1],
}

#[derive(Serialize)]
struct Thresholds {
    max_connections: u32,
    max_pending_requests: u32,
    max_requests: u32,
}

#[derive(Serialize)]
struct OutlierDetection {
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failure: u32,
    enforcing_consecutive_local_origin_failure: u32,
    enforcing_local_origin_success_rate: u32,
    enforcing_consecutive_5xx: u32,
    enforcing_consecutive_gateway_failure: u32,
    enforcing_success_rate: u32,
    base_ejection_time: &'static str,
    max_ejection_percent: u32,
}

#[derive(Serialize)]
struct HealthCheck {
    timeout: &'static str,
    interval: &'static str,
    unhealthy_threshold: u32,
    healthy_threshold: u32,
    http_health_check: HttpHealthCheck,
}

#[derive(Serialize)]
struct HttpHealthCheck {
    path: &'static str,
    host: String,
}

#[derive(Serialize)]
struct LoadAssignment {
    cluster_name: String,
    endpoints: [Locality; 1],
}

#[derive(Serialize)]
struct Locality {
    lb_endpoints: [LbEndpoint; 1],
}

#[derive(Serialize)]
struct LbEndpoint {
    endpoint: Endpoint,
}

#[derive(Serialize)]
struct Endpoint {
    /// What `auto_host_rewrite` of a route puts into `Host`. Otherwise a client would choose it, and so
    /// which of several servers behind one address receives the credential.
    hostname: String,
    address: Address,
}

#[derive(Serialize)]
struct Address {
    socket_address: SocketAddress,
}

#[derive(Serialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

#[derive(Serialize)]
struct TransportSocket {
    name: &'static str,
    typed_config: UpstreamTls,
}

#[derive(Serialize)]
struct UpstreamTls {
    #[serde(rename = "@type")]
    type_url: &'static str,
    sni: String,
    common_tls_context: CommonTls,
}

#[derive(Serialize)]
struct CommonTls {
    alpn_protocols: [&'static str; 1],
    tls_params: TlsParams,
    validation_context: Validation,
}

#[derive(Serialize)]
struct TlsParams {
    tls_minimum_protocol_version: &'static str,
}

#[derive(Serialize)]
struct Validation {
    trusted_ca: File,
    match_typed_subject_alt_names: [SanMatcher; 1],
}

#[derive(Serialize)]
struct File {
    filename: String,
}

#[derive(Serialize)]
struct SanMatcher {
    san_type: &'static str,
    matcher: Exact,
}

#[derive(Serialize)]
struct Exact {
    exact: String,
}

/// The answer of a discovery service that holds these clusters.
pub(crate) fn discovered(clusters: impl Iterator<Item = Cluster>) -> Value {
    let discovered = Discovered { resources: clusters.collect() };
    // Only maps with other keys than texts fail, and there are none.
    serde_json::to_value(discovered).unwrap_or_default()
}

pub(crate) fn cluster(backend: &Backend, target: &Target) -> Cluster {
    let name = backend.name.to_string();
    let host = backend.address.host.to_string();
    let health_checks = backend.api.health_path().map(|path| HealthCheck {
        timeout: "2s",
        interval: "5s",
        unhealthy_threshold: 2,
        healthy_threshold: 1,
        http_health_check: HttpHealthCheck { path, host: backend.address.authority() },
    });
    let socket_address = SocketAddress { address: host.clone(), port_value: backend.address.port };
    let endpoint =
        Endpoint { hostname: backend.address.authority(), address: Address { socket_address } };
    Cluster {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        discovery: match backend.address.host {
            Host::Ip(_) => "STATIC",
            Host::Name(_) => "STRICT_DNS",
        },
        connect_timeout: limits::CONNECT,
        circuit_breakers: CircuitBreakers {
            thresholds: [Thresholds {
                max_connections: limits::IN_PROGRESS,
                max_pending_requests: limits::IN_PROGRESS,
                max_requests: limits::IN_PROGRESS,
            }],
        },
        outlier_detection: OutlierDetection {
            split_external_local_origin_errors: true,
            consecutive_local_origin_failure: limits::FAILURES,
            enforcing_consecutive_local_origin_failure: 100,
            enforcing_local_origin_success_rate: 0,
            enforcing_consecutive_5xx: 0,
            enforcing_consecutive_gateway_failure: 0,
            enforcing_success_rate: 0,
            base_ejection_time: limits::PAUSE,
            max_ejection_percent: limits::EJECTED_PERCENT,
        },
        health_checks: health_checks.into_iter().collect(),
        load_assignment: LoadAssignment {
            cluster_name: name.clone(),
            endpoints: [Locality { lb_endpoints: [LbEndpoint { endpoint }] }],
        },
        transport_socket: backend.address.tls.then(|| tls(host, target)),
        name,
    }
}

fn tls(host: String, target: &Target) -> TransportSocket {
    let filename = target.authorities.as_deref().unwrap_or(SYSTEM_AUTHORITIES).to_owned();
    TransportSocket {
        name: "envoy.transport_sockets.tls",
        typed_config: UpstreamTls {
            type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            sni: host.clone(),
            common_tls_context: CommonTls {
                alpn_protocols: ["http/1.1"],
                tls_params: TlsParams { tls_minimum_protocol_version: "TLSv1_2" },
                validation_context: Validation {
                    trusted_ca: File { filename },
                    match_typed_subject_alt_names: [SanMatcher {
                        san_type: "DNS",
                        matcher: Exact { exact: host },
                    }],
                },
            },
        },
    }
}
