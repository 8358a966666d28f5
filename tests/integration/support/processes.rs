//! Replicas as processes behind one Envoy. Each returns under its old address.

use std::net::SocketAddr;

use patgate_testing::{eventually, http, stack::Server};
use serde_json::{Value, json};

use crate::support::{
    Replica, Suite, World,
    envoy::envoy,
    load::{LASTING_LONG, Load},
    previous, process,
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
        let started = (0..count).map(|_| start(world, &process::program(), settings)).collect();
        Self::behind_envoy(world, started, ext_authz)
    }

    /// The same of the previous release, and in addition `waiting` processes of this release, which
    /// do not get ready before the schema is migrated.
    pub(crate) fn of_previous_release(
        world: &World<'s>,
        count: usize,
        waiting: usize,
        settings: &Value,
        ext_authz: Value,
    ) -> Self {
        let previous = (0..count).map(|_| start(world, &previous::program(), settings));
        let waiting = (0..waiting).map(|_| {
            let at = free_addresses(world);
            launch(world, &process::program(), settings, at, Awaited::Nothing)
        });
        Self::behind_envoy(world, previous.chain(waiting).collect(), ext_authz)
    }

    fn behind_envoy(world: &World<'s>, started: Vec<(Server, Replica)>, ext_authz: Value) -> Self {
        let suite = world.suite;
        let (processes, replicas): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let addresses: Vec<_> = replicas.iter().map(|replica: &Replica| replica.grpc).collect();
        let envoy = envoy(suite, &addresses, ext_authz);
        Self { suite, processes, replicas, envoy }
    }

    /// Starts a load, once Envoy considers both replicas healthy and both know its tokens.
    pub(crate) async fn load(&self, world: &World<'_>) -> Load {
        self.load_on(world, 2).await
    }

    /// The same if only so many are ready, the first ones.
    pub(crate) async fn load_on(&self, world: &World<'_>, ready: usize) -> Load {
        self.healthy(ready as u64).await;
        let load = Load::lasting(LASTING_LONG, world, self.envoy.port).await;
        for replica in &self.replicas[..ready] {
            load.known_to(replica).await;
        }
        load
    }

    /// Replaces a process by another program with the same addresses, as a rollout does: it ends as
    /// on SIGTERM, and the next step follows once its successor is ready.
    pub(crate) async fn replace(
        &mut self,
        world: &World<'s>,
        index: usize,
        program: &str,
        settings: &Value,
    ) {
        let server = &self.processes[index];
        self.suite.stack.signal(server, "TERM");
        let ended = async || !self.suite.stack.is_running(server);
        eventually("patgate to end", ended).await;
        let Replica { grpc, http, .. } = self.replicas[index];
        let (server, replica) = launch(world, program, settings, [grpc, http], Awaited::Readiness);
        self.processes[index] = server;
        self.replicas[index] = replica;
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

fn start(world: &World<'_>, program: &str, settings: &Value) -> (Server, Replica) {
    launch(world, program, settings, free_addresses(world), Awaited::Readiness)
}

/// The addresses for gRPC and HTTP.
fn free_addresses(world: &World<'_>) -> [SocketAddr; 2] {
    let address = || SocketAddr::from(([127, 0, 0, 1], world.suite.stack.free_port()));
    [address(), address()]
}

/// What a start waits for.
#[derive(PartialEq)]
enum Awaited {
    Readiness,
    Nothing,
}

fn launch(
    world: &World<'_>,
    program: &str,
    settings: &Value,
    [grpc, http]: [SocketAddr; 2],
    awaited: Awaited,
) -> (Server, Replica) {
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
    let mut arguments = json!({ "argv": [program, "serve"], "name": "patgate", "env": env });
    if awaited == Awaited::Readiness {
        arguments["ready"] = json!(format!("http://{http}/readyz"));
    }
    (world.suite.stack.start("process", arguments), Replica::at(grpc, http))
}
