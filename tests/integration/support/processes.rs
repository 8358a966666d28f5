//! Replicas as processes behind one Envoy. Each returns under its old address.

use std::net::SocketAddr;

use patgate_testing::{eventually, http, stack::Server};
use serde_json::{Value, json};

use crate::support::{
    Replica, Suite, World,
    envoy::envoy,
    load::{LASTING_LONG, Load},
    process,
};

/// Replicas as processes, which keep their addresses, and one Envoy.
pub(crate) struct Processes<'s> {
    suite: &'s Suite,
    pub(crate) processes: Vec<Server>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) envoy: Server,
}

impl<'s> Processes<'s> {
    pub(crate) fn start(
        world: &World<'s>,
        count: usize,
        settings: &Value,
        ext_authz: Value,
    ) -> Self {
        let suite = world.suite;
        let (processes, replicas): (Vec<_>, Vec<_>) =
            (0..count).map(|_| start(world, settings)).unzip();
        let addresses: Vec<_> = replicas.iter().map(|replica: &Replica| replica.grpc).collect();
        let envoy = envoy(suite, &addresses, ext_authz);
        Self { suite, processes, replicas, envoy }
    }

    /// Starts a load, once Envoy considers both replicas healthy and both know its tokens.
    pub(crate) async fn load(&self, world: &World<'_>) -> Load {
        self.healthy(2).await;
        let load = Load::lasting(LASTING_LONG, world, self.envoy.port).await;
        for replica in &self.replicas {
            load.known_to(replica).await;
        }
        load
    }

    /// Returns a gauge or counter of Envoy's cluster of replicas.
    async fn stat(&self, name: &str) -> u64 {
        let page = http::send(self.envoy.admin_port, "GET", "/stats", &[], "").await.body;
        let line = format!("cluster.patgate.{name}: ");
        let value = page.lines().find_map(|known| known.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("Envoy counts no {name}")).parse().unwrap()
    }

    pub(crate) async fn healthy(&self, count: u64) {
        let healthy = async || self.stat("membership_healthy").await == count;
        eventually(&format!("{count} healthy replicas"), healthy).await;
    }

    pub(crate) async fn failed_tries(&self) -> [u64; 3] {
        let names =
            ["upstream_rq_retry", "upstream_cx_connect_fail", "upstream_rq_per_try_timeout"];
        let mut counts = [0; 3];
        for (name, count) in names.iter().zip(&mut counts) {
            *count = self.stat(name).await;
        }
        counts
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        for server in &self.processes {
            let stop = json!({ "do": "signal", "id": server.id, "signal": "KILL" });
            let _ = self.suite.stack.ask(stop);
        }
    }
}

fn start(world: &World<'_>, settings: &Value) -> (Server, Replica) {
    let address = || SocketAddr::from(([127, 0, 0, 1], world.suite.stack.free_port()));
    let grpc = address();
    let http = address();
    let mut env = json!({
        "PATGATE_POSTGRES_URL": world.url("server", world.suite.postgres.port),
        "PATGATE_REDIS_URL": world.redis_url,
        "PATGATE_KEYRING_FILE": world.keyring_file,
        "PATGATE_LISTEN_GRPC": grpc.to_string(),
        "PATGATE_LISTEN_HTTP": http.to_string(),
        // A busy test machine must not cause a 503.
        "PATGATE_DEADLINE": "3s",
        "PATGATE_POSTGRES_QUERY_TIMEOUT": "2s",
        "PATGATE_REDIS_TIMEOUT": "1s",
    });
    env.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let process = world.suite.stack.start(
        "process",
        json!({
            "argv": [process::program(), "serve".to_owned()],
            "name": "patgate",
            "env": env,
            "ready": format!("http://{http}/readyz"),
        }),
    );
    (process, Replica::at(grpc, http))
}
