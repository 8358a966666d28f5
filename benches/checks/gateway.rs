//! Envoy in front of a backend, with one filter or another, and everything else equal.

use std::{fs, net::SocketAddr, path::PathBuf};

use patgate_testing::stack::{Server, project};
use serde_json::{Value, json};

use crate::{
    grpc::Target,
    servers::{Launcher, fresh},
    site::Site,
};

pub(crate) struct Gateway {
    pub(crate) server: Server,
    pub(crate) port: u16,
}

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{TYPES}.{kind}"));
    json!({ "name": name, "typed_config": config })
}

/// Configures a check by a server, as in envoy/envoy.yaml where that affects a check, with `more`.
pub(crate) fn ext_authz(more: Value) -> Value {
    let mut config = json!({
        "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "authz" }, "timeout": "5s" },
        "failure_mode_allow": false,
        "status_on_error": { "code": "ServiceUnavailable" },
        "clear_route_cache": true,
        "validate_mutations": true,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    typed("envoy.filters.http.ext_authz", "filters.http.ext_authz.v3.ExtAuthz", config)
}

/// Sends only five of the headers that patgate reads. The shipped list is longer.
pub(crate) fn few_headers() -> Value {
    let patterns =
        ["authorization", "x-request-id", "content-type", "content-length", "content-encoding"];
    json!({ "allowed_headers": { "patterns": patterns.map(|name| json!({ "exact": name })) } })
}

/// Shows the body, as the shipped configuration does where the body may name the model.
pub(crate) fn with_body() -> Value {
    json!({ "with_request_body": {
        "max_request_bytes": 1 << 20, "allow_partial_message": true, "pack_as_bytes": true,
    }})
}

/// Asks without the body, and again with it if the answer requires it, as in envoy/envoy.yaml.
pub(crate) fn two_steps() -> Vec<Value> {
    let step = |step: &str| {
        json!({ "grpc_service": {
            "envoy_grpc": { "cluster_name": "authz" },
            "timeout": "5s",
            "initial_metadata": [
                { "key": "patgate-step", "value": step },
                { "key": "x-request-id", "value": "%REQ(X-REQUEST-ID)%" },
            ],
        }})
    };
    let mut second = step("second");
    second["filter_enabled_metadata"] = json!({
        "filter": "envoy.filters.http.ext_authz",
        "path": [{ "key": "needs_body" }],
        "value": { "bool_match": true },
    });
    second["with_request_body"] = with_body()["with_request_body"].clone();
    vec![ext_authz(step("first")), ext_authz(second)]
}

/// The server that Envoy asks, and the HTTP/2 settings.
pub(crate) struct Authz {
    pub(crate) target: Target,
    pub(crate) http2: Value,
}

/// As many connections as there are checks at a time.
pub(crate) fn one_check_a_connection() -> Value {
    json!({ "max_concurrent_streams": 1 })
}

/// The smallest windows that Envoy accepts, for what it receives.
pub(crate) fn small_windows() -> Value {
    json!({ "initial_stream_window_size": 65535, "initial_connection_window_size": 65535 })
}

/// Envoy's own filter with a list of keys.
pub(crate) fn api_keys<'a>(keys: impl Iterator<Item = &'a str>) -> Value {
    let credentials: Vec<_> =
        keys.enumerate().map(|(n, key)| json!({ "key": key, "client": n.to_string() })).collect();
    let config =
        json!({ "credentials": credentials, "key_sources": [{ "header": "Authorization" }] });
    typed("envoy.filters.http.api_key_auth", "filters.http.api_key_auth.v3.ApiKeyAuth", config)
}

/// The guard before the router in envoy/envoy.yaml, which refuses requests that patgate has not let
/// through.
pub(crate) fn guard() -> Value {
    let word = json!({ "metadata_matcher": {
        "filter": "envoy.filters.http.ext_authz",
        "path": [{ "key": "guard" }],
        "value": { "string_match": { "exact": "patgate" } },
    }});
    let policy = json!({
        "permissions": [{ "any": true }],
        "principals": [{ "sourced_metadata": word }],
    });
    let rules = json!({ "action": "ALLOW", "policies": { "let-through-by-patgate": policy } });
    typed("patgate.guard", "filters.http.rbac.v3.RBAC", json!({ "rules": rules }))
}

/// Starts Envoy on the servers' core.
pub(crate) fn start(
    site: &Site,
    launcher: &Launcher,
    backend: SocketAddr,
    filters: Vec<Value>,
    authz: Option<Authz>,
) -> Gateway {
    let port = site.stack.free_port();
    let admin = site.stack.free_port();
    let mut clusters = vec![cluster("backend", &Target::Tcp(backend), json!({}))];
    if let Some(Authz { target, http2 }) = authz {
        let http2 = json!({ "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http2_protocol_options": http2 },
            },
        }});
        clusters.push(cluster("authz", &target, http2));
    }
    let router = typed("envoy.filters.http.router", "filters.http.router.v3.Router", json!({}));
    let filters: Vec<_> = filters.into_iter().chain([router]).collect();
    let routes = json!({ "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }],
    }]});
    let manager = typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        // The sidecar's header about the client stays: patgate gets all fifteen headers.
        json!({ "stat_prefix": "bench", "route_config": routes, "http_filters": filters,
                "forward_client_cert_details": "ALWAYS_FORWARD_ONLY" }),
    );
    let config = json!({
        "admin": { "address": address(&Target::Tcp(([127, 0, 0, 1], admin).into())) },
        "static_resources": {
            "listeners": [{
                "name": "bench",
                "address": address(&Target::Tcp(([127, 0, 0, 1], port).into())),
                "filter_chains": [{ "filters": [manager] }],
            }],
            "clusters": clusters,
        },
    });
    let file = fresh(site.dir.path(), "envoy").with_extension("json");
    fs::write(&file, config.to_string()).unwrap();
    let envoy = installed().display().to_string();
    let file = file.display().to_string();
    let options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    let argv = launcher.argv(&[&[&envoy, "-c", &file][..], &options].concat());
    let ready = format!("http://127.0.0.1:{admin}/ready");
    let arguments = json!({ "argv": argv, "name": "envoy", "ready": ready });
    Gateway { server: site.stack.start("process", arguments), port }
}

fn cluster(name: &str, target: &Target, more: Value) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(target) } });
    // As in envoy/envoy.yaml: this limit is not what is measured.
    let limit = json!({ "max_connections": 1024, "max_pending_requests": 16384,
                        "max_requests": 16384 });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": { "thresholds": [limit] },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [endpoint] }],
        },
    });
    cluster.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
}

fn address(target: &Target) -> Value {
    match target {
        Target::Tcp(at) => json!({
            "socket_address": { "address": at.ip().to_string(), "port_value": at.port() },
        }),
        Target::Unix(path) => json!({ "pipe": { "path": path } }),
    }
}

/// Where `make tools` puts Envoy.
fn installed() -> PathBuf {
    let pythons = fs::read_dir(project(".venv/lib")).expect("run `make tools` first");
    let envoy =
        pythons.flatten().map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    envoy.into_iter().find(|path| path.exists()).expect("run `make tools` first")
}
