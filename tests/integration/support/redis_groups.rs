//! Several servers of Redis that belong together: a master with a replica and Sentinels, and a
//! cluster.

use futures_util::future::join_all;
use patgate_testing::{eventually, stack::Server};
use redis::{FromRedisValue, RedisError, Value, aio::MultiplexedConnection};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::{Suite, redis_at, suite::try_redis_at};

/// The name of the master that the Sentinels watch.
pub(crate) const MASTER: &str = "patgate-test";
/// How long a server must be silent until the others say that it is down.
const SILENCE: &str = "1000";

/// Sends a command to one server, over a connection of its own.
pub(crate) async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> Result<T, RedisError> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut try_redis_at(url).await?).await
}

/// Sends a command that must succeed.
pub(crate) async fn tell(url: &str, words: &[&str]) {
    let _: Value = ask(url, words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

/// A master, a replica of it, and three Sentinels that watch both.
pub(crate) struct SentinelGroup {
    pub(crate) servers: [Server; 2],
    pub(crate) sentinels: Vec<Server>,
}

impl SentinelGroup {
    /// `more` are further lines of the Sentinels' configuration, and `arguments` of the servers'.
    pub(crate) async fn start(suite: &Suite, arguments: &[&str], more: &[&str]) -> Self {
        let quick = ["--repl-diskless-sync-delay", "0"];
        let own = [&quick, arguments].concat();
        let master = suite.stack.start("valkey", json!({ "args": own }));
        let port = master.port.to_string();
        let follows = ["--replicaof", "127.0.0.1", &port];
        let arguments = [&quick, arguments, &follows].concat();
        let replica = suite.stack.start("valkey", json!({ "args": arguments }));
        let mut lines = vec![
            format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {MASTER} {SILENCE}"),
            format!("sentinel failover-timeout {MASTER} 5000"),
        ];
        lines.extend(more.iter().map(|line| (*line).to_owned()));
        let start = |_| suite.stack.start("sentinel", json!({ "lines": lines }));
        Self { servers: [master, replica], sentinels: (0..3).map(start).collect() }
    }

    /// Waits until the Sentinels know each other and the replica, so that they can replace the
    /// master. `login` is of the form `user:password@`, or empty.
    pub(crate) async fn is_ready(&self, login: &str) {
        eventually("the Sentinels to know all servers", async || {
            let knows = self.sentinels.iter().map(async |sentinel| {
                let url = format!("redis://{login}127.0.0.1:{}", sentinel.port);
                let known: Vec<String> =
                    ask(&url, &["SENTINEL", "MASTER", MASTER]).await.unwrap_or_default();
                let value = |name: &str| {
                    let at = known.iter().position(|word| word == name)?;
                    known.get(at + 1).map(String::as_str)
                };
                (value("num-slaves"), value("num-other-sentinels"), value("flags"))
                    == (Some("1"), Some("2"), Some("master"))
            });
            join_all(knows).await.into_iter().all(|knows| knows)
        })
        .await;
    }

    /// The settings of a replica of patgate; `login` is the one for the master.
    pub(crate) fn settings(&self, login: &str) -> Vec<String> {
        let hosts = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        vec![
            format!("redis.url=redis://{login}{}/0", hosts.collect::<Vec<_>>().join(",")),
            "redis.topology=sentinel".to_owned(),
            format!("redis.sentinel.master={MASTER}"),
        ]
    }

    /// The port of the master, as one Sentinel sees it.
    pub(crate) async fn master_port(&self, sentinel: usize) -> u16 {
        let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let address: Vec<String> = ask(&self.sentinels[sentinel].url, &asked).await.unwrap();
        address[1].parse().unwrap()
    }
}

/// A cluster.
pub(crate) struct RedisCluster {
    /// The masters of the beginning.
    pub(crate) masters: Vec<Server>,
    /// One replica of each, in the same order, if they were asked for.
    pub(crate) replicas: Vec<Server>,
    connections: OnceCell<Vec<MultiplexedConnection>>,
}

pub(crate) const SLOTS: u16 = 16_384;

impl RedisCluster {
    /// Three masters, each with as many slots; and a replica of each, if `replicated`.
    pub(crate) async fn start(suite: &Suite, arguments: &[&str], replicated: bool) -> Self {
        let start = || {
            let bus = suite.stack.free_port().to_string();
            let own = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                SILENCE,
                // A replica that was just made may take over.
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ];
            let arguments = [&own, arguments].concat();
            let server = suite.stack.start("valkey", json!({ "args": arguments }));
            (server, bus)
        };
        let masters: Vec<_> = (0..3).map(|_| start()).collect();
        let replicas: Vec<_> = (0..3).filter(|_| replicated).map(|_| start()).collect();
        let share = SLOTS / 3;
        for (index, (master, _)) in (0..).zip(&masters) {
            let last = if index == 2 { SLOTS - 1 } else { (index + 1) * share - 1 };
            let range = [(index * share).to_string(), last.to_string()];
            tell(&master.url, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
        }
        let first = &masters[0].0.url;
        for (server, bus) in masters.iter().chain(&replicas) {
            let port = server.port.to_string();
            tell(first, &["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        let servers =
            |of: Vec<(Server, String)>| of.into_iter().map(|(server, _)| server).collect();
        let cluster = Self {
            masters: servers(masters),
            replicas: servers(replicas),
            connections: OnceCell::new(),
        };
        cluster.is_whole(cluster.masters.len() + cluster.replicas.len()).await;
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            let id: String = ask(&master.url, &["CLUSTER", "MYID"]).await.unwrap();
            tell(&replica.url, &["CLUSTER", "REPLICATE", &id]).await;
        }
        for replica in &cluster.replicas {
            eventually("a replica to be in step", async || {
                let info: String = ask(&replica.url, &["INFO", "replication"]).await.unwrap();
                info.contains("master_link_status:up")
            })
            .await;
        }
        cluster
    }

    /// Waits until all nodes know each other, and each slot has a master.
    async fn is_whole(&self, nodes: usize) {
        let known = format!("cluster_known_nodes:{nodes}\r");
        eventually("the cluster to be whole", async || {
            let servers = self.masters.iter().chain(&self.replicas);
            let infos = join_all(servers.map(info)).await;
            infos.iter().all(|info| info.contains("cluster_state:ok") && info.contains(&known))
        })
        .await;
    }

    /// The settings of a replica of patgate, which is told of two of the nodes; `login` is of the form
    /// `user:password@`, or empty.
    pub(crate) fn settings(&self, login: &str) -> Vec<String> {
        let hosts: Vec<_> =
            self.masters[..2].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        vec![
            format!("redis.url=redis://{login}{}", hosts.join(",")),
            "redis.topology=cluster".to_owned(),
        ]
    }

    /// The keys that each of the first masters holds.
    pub(crate) async fn keys(&self) -> Vec<Vec<String>> {
        let connections = self.connections().await;
        join_all(connections.iter().map(async |node| {
            redis::cmd("KEYS").arg("*").query_async(&mut node.clone()).await.unwrap()
        }))
        .await
    }

    async fn connections(&self) -> &[MultiplexedConnection] {
        let connect = || join_all(self.masters.iter().map(|node| redis_at(&node.url)));
        self.connections.get_or_init(connect).await
    }

    /// Moves one slot from one master to another, as `valkey-cli --cluster reshard` does: while both
    /// answer, and its keys are in one or the other.
    pub(crate) async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let connections = self.connections().await;
        let run = async |node: usize, words: &[&str]| -> Value {
            let mut command = redis::cmd(words[0]);
            let reply = command.arg(&words[1..]).query_async(&mut connections[node].clone()).await;
            reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
        };
        let id = async |node: usize| -> String {
            redis::from_redis_value(run(node, &["CLUSTER", "MYID"]).await).unwrap()
        };
        let ids = [id(from).await, id(to).await];
        run(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await;
        run(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await;
        let port = self.masters[to].port.to_string();
        loop {
            let held = run(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
            let keys: Vec<String> = redis::from_redis_value(held).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate =
                vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            run(from, &migrate).await;
        }
        for node in [to, from] {
            run(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]).await;
        }
    }
}

/// What a node says about the cluster; empty if it cannot be asked.
pub(crate) async fn info(server: &Server) -> String {
    let client = redis::Client::open(server.url.as_str()).unwrap();
    let Ok(mut node) = client.get_multiplexed_async_connection().await else {
        return String::new();
    };
    redis::cmd("CLUSTER").arg("INFO").query_async(&mut node).await.unwrap_or_default()
}
