//! One of two replicas dies, freezes, or is replaced.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    harness::{self, Replica, Suite, World, patient},
    http,
    load::{FALTERING, Kind, LASTING_LONG, Law, Load, WELL},
    process,
    stack::Server,
    tiers::{eventually, revoke, status},
};

/// Replicas as processes, which come back where they were, and one Envoy.
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
        let envoy = harness::envoy(suite, &addresses, ext_authz);
        Self { suite, processes, replicas, envoy }
    }

    /// A load, once Envoy takes both replicas for healthy and both know its tokens.
    async fn load(&self, world: &World<'_>) -> Load {
        self.healthy(2).await;
        let load = Load::lasting(LASTING_LONG, world, self.envoy.port).await;
        for replica in &self.replicas {
            load.known_to(replica).await;
        }
        load
    }

    /// A gauge or counter of Envoy's cluster of replicas.
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

    async fn failed_tries(&self) -> [u64; 3] {
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
        for server in self.processes.iter().chain([&self.envoy]) {
            let stop = json!({ "do": "signal", "id": server.id, "signal": "KILL" });
            let _ = self.suite.stack.ask(stop);
        }
    }
}

fn start(world: &World<'_>, settings: &Value) -> (Server, Replica) {
    let address = || SocketAddr::from(([127, 0, 0, 1], world.suite.stack.free_port()));
    let (grpc, http) = (address(), address());
    let mut env = json!({
        "PATGATE_POSTGRES_URL": world.url("server", world.suite.postgres.port),
        "PATGATE_REDIS_URL": world.redis_url,
        "PATGATE_KEYRING_FILE": world.keyring_file,
        "PATGATE_LISTEN_GRPC": grpc.to_string(),
        "PATGATE_LISTEN_HTTP": http.to_string(),
        // A loaded test machine is no reason for a 503.
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

/// The requests in flight on it are all that can be lost; Envoy asks the other one instead.
pub(crate) async fn one_of_two_replicas_is_killed(suite: Arc<Suite>) {
    const KILLS: usize = 5;
    let world = suite.world().await;
    let two = Processes::start(&world, 2, &json!({}), patient("10s", "10s"));
    let load = two.load(&world).await;
    for kill in 0..KILLS {
        let victim = &two.processes[kill % 2];
        load.law(FALTERING);
        suite.stack.signal(victim, "KILL");
        load.law(WELL);
        load.bear(load.more(WELL, 20)).await;
        load.bear(two.healthy(1)).await;
        load.bear(load.more(WELL, 20)).await;
        suite.stack.restart(victim);
        load.bear(two.healthy(2)).await;
        load.bear(load.more(WELL, 10)).await;
    }
    let lost: u64 = [Kind::Hot, Kind::Cold, Kind::Revoked, Kind::Turning]
        .map(|kind| load.count(kind, 503))
        .iter()
        .sum();
    println!(
        "{lost} lost by {KILLS} kills; retries, refused, late: {:?}",
        two.failed_tries().await
    );
    load.end("one of two replicas killed").await;
}

/// It keeps its connections and answers nothing; then it goes on with what it knew.
pub(crate) async fn one_of_two_replicas_is_frozen(suite: Arc<Suite>) {
    let world = suite.world().await;
    let short = json!({ "PATGATE_MAX_STALENESS": "3s", "PATGATE_NEGATIVE_TTL": "1s" });
    // As shipped, ten times slower.
    let two = Processes::start(&world, 2, &short, patient("2s", "5s"));
    let load = two.load(&world).await;
    suite.stack.signal(&two.processes[0], "STOP");
    load.bear(two.healthy(1)).await;
    load.law(Law { turning: &[200, 401], ..WELL });
    revoke(&world, &load.turning).await;
    let committed = Instant::now();
    let turned = Law { turning: &[401], ..WELL };
    load.law_from(committed + super::STALENESS, turned);
    load.until(committed + super::STALENESS).await;
    load.bear(load.more(turned, 20)).await;
    suite.stack.signal(&two.processes[0], "CONT");
    // Its first answers included.
    assert_eq!(status(&two.replicas[0], &load.turning).await, 401);
    load.bear(two.healthy(2)).await;
    load.bear(load.more(turned, 20)).await;
    println!("retries, refused, late: {:?}", two.failed_tries().await);
    load.end("one of two replicas frozen").await;
}

/// One after the other is told to end and replaced, as by a rollout. Nobody notices.
pub(crate) async fn two_replicas_are_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let two = Processes::start(&world, 2, &json!({}), patient("10s", "10s"));
    let load = two.load(&world).await;
    for process in &two.processes {
        suite.stack.signal(process, "TERM");
        load.bear(two.healthy(1)).await;
        load.bear(eventually("patgate to end", async || !suite.stack.is_running(process))).await;
        // A rollout waits for readiness, not for Envoy.
        suite.stack.restart(process);
    }
    load.bear(two.healthy(2)).await;
    load.bear(load.more(WELL, 50)).await;
    println!("retries, refused, late: {:?}", two.failed_tries().await);
    load.end("two replicas replaced").await;
}
