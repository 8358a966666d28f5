//! Envoy in front of replicas: as shipped, or with many listeners.

use std::{collections::BTreeMap, net::SocketAddr};

use patgate_testing::{
    http::{self, Reply},
    stack::Server,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Suite, fleet::MODELS};

/// The shipped Envoy in front of these replicas and the model backends.
pub(crate) fn envoy(suite: &Suite, replicas: &[SocketAddr], ext_authz: Value) -> Server {
    suite.stack.envoy(envoy_patch(suite, replicas, ext_authz))
}

/// Returns the changes that make a shipped configuration work here, with patgate at these
/// addresses.
pub(crate) fn envoy_patch(suite: &Suite, authz: &[impl Serialize], ext_authz: Value) -> Value {
    let clusters: BTreeMap<_, _> = suite
        .backends
        .iter()
        .map(|(name, backend)| (*name, format!("127.0.0.1:{}", backend.port)))
        .collect();
    let tls = http::certify(suite.dir.path());
    json!({ "authz": authz, "clusters": clusters, "ext_authz": ext_authz, "tls": tls })
}

/// Settings of ext_authz: the time limits of one try, and of all together. On a busy test machine,
/// a late answer must not cause a 503.
pub(crate) fn patient(one: &str, all: &str) -> Value {
    let retry = json!({ "retry_back_off": { "base_interval": "0.02s", "max_interval": one } });
    json!({ "grpc_service": { "timeout": all, "retry_policy": retry } })
}

/// An Envoy with many listeners.
pub(crate) struct Gateway(Server);

impl Gateway {
    /// `listeners` are named variations of the shipped one.
    pub(crate) fn start(
        suite: &Suite,
        mut config: Value,
        listeners: BTreeMap<String, Value>,
        patch: Value,
    ) -> Self {
        let listeners = listeners.into_iter().map(|(name, mut listener)| {
            listener["name"] = json!(name);
            listener
        });
        config["static_resources"]["listeners"] = listeners.collect();
        let start = json!({ "config_yaml": config.to_string(), "patch": patch });
        Self(suite.stack.start("envoy", start))
    }

    pub(crate) async fn get(&self, listener: &str, headers: &[(&str, &str)]) -> Reply {
        self.get_at(listener, MODELS, headers).await
    }

    pub(crate) async fn get_at(&self, on: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        http::send(self.port(on), "GET", path, headers, "").await
    }

    pub(crate) fn port(&self, listener: &str) -> u16 {
        self.0.ports[listener]
    }

    /// Returns the port of Envoy's metrics.
    pub(crate) fn admin_port(&self) -> u16 {
        self.0.admin_port
    }

    /// Returns the path of the access log of all listeners.
    pub(crate) fn access_log(&self) -> &str {
        &self.0.access_log
    }

    /// Returns a counter of Envoy's.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let target = format!("/stats?filter={name}");
        let page = http::send(self.0.admin_port, "GET", &target, &[], "").await.body;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{page}"))
    }
}

/// Adds a cluster without a server, for a filter that fails open.
pub(crate) fn add_nobody(suite: &Suite, config: &mut Value, patch: &mut Value) {
    let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
    let mut nobody = clusters[0].clone();
    nobody["name"] = json!("nobody");
    clusters.push(nobody);
    let missing = suite.dir.path().join("nobody.sock");
    patch["clusters"]["nobody"] = json!(format!("unix:{}", missing.display()));
}

pub(crate) fn refused_as_an_outage(reply: &Reply, name: &str) {
    assert_eq!((reply.status, reply.header("x-backend")), (503, None), "{name}: {reply:?}");
    let message = "Authorization is temporarily unavailable. Nothing is wrong with the request: \
                   retry.";
    let error = json!({ "error": {
        "message": message, "type": "service_unavailable_error", "param": null,
        "code": "unavailable",
    } });
    assert_eq!(reply.json(), error, "{name}");
    for (header, value) in
        [("content-type", "application/json"), ("retry-after", "1"), ("cache-control", "no-store")]
    {
        assert_eq!(reply.header(header), Some(value), "{name}: {reply:?}");
    }
    assert!(reply.header("x-request-id").is_some(), "{name}: {reply:?}");
}
