//! TLS to Sentinels, to the master that they name, and to the nodes of a cluster. All of them show
//! certificates of a private authority, and want one of patgate.

use std::{fs, sync::Arc};

use futures_util::future::join_all;
use patgate_testing::eventually;
use serde_json::json;

use super::{borrowed, used_again};
use crate::support::{
    Suite, World,
    authority::Authority,
    cli::{Cli, found},
    fleet::Fleet,
    redis_groups::{MASTER, RedisCluster, ask, tell},
    settings::PATIENT,
    tls_front::{TlsFront, server},
};

const HOST: &str = "127.0.0.1";

/// The authority of the servers, that of their clients, and one that neither side knows.
struct Authorities {
    servers: Authority,
    clients: Authority,
    other: Authority,
}

impl Authorities {
    fn new() -> Self {
        Self { servers: Authority::new(), clients: Authority::new(), other: Authority::new() }
    }

    fn good(&self) -> rustls::ServerConfig {
        server(&self.servers.certify(&[HOST]), &self.clients)
    }

    /// A server of the right address, and of the other authority.
    fn false_one(&self) -> rustls::ServerConfig {
        server(&self.other.certify(&[HOST]), &self.clients)
    }

    /// Writes patgate's files, and those of a client that the servers do not know. Returns the settings
    /// of both.
    fn settings(&self, world: &World<'_>) -> [Vec<String>; 2] {
        let dir = world.suite.dir.path().join(format!("{}.groups-tls", world.database));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("ca.crt"), self.servers.pem()).unwrap();
        self.clients.certify(&["patgate"]).write(&dir, "client");
        self.other.certify(&["patgate"]).write(&dir, "stranger");
        let path = |name: &str| dir.join(name).display().to_string();
        ["client", "stranger"].map(|name| {
            vec![
                format!("redis.tls.ca_file={}", path("ca.crt")),
                format!("redis.tls.certificate_file={}", path(&format!("{name}.crt"))),
                format!("redis.tls.private_key_file={}", path(&format!("{name}.key"))),
            ]
        })
    }
}

fn hosts(fronts: &[TlsFront]) -> String {
    let hosts: Vec<_> = fronts.iter().map(|front| format!("{HOST}:{}", front.port)).collect();
    hosts.join(",")
}

/// `fronts` are those of the servers, in groups that are replaced together, each with a word for it.
async fn only_known_servers_are_used(
    world: &World<'_>,
    authorities: &Authorities,
    settings: &[String],
    groups: &[(&str, &[TlsFront])],
) {
    let [known, stranger] = authorities.settings(world);
    let cli = Cli::of(world).login(world, "server").with_all(&borrowed(settings));
    let refused = |cli: &Cli, what: &str, reason: &str| {
        let (code, _, detail) = found(cli, "redis.url");
        assert!(code == 1 && detail.contains(reason), "{what}: no `{reason}` in {detail}");
        assert!(!detail.contains("PRIVATE KEY"), "{detail}");
    };
    let all = cli.with_all(&borrowed(&known));
    let (code, outcome, detail) = found(&all, "redis.url");
    assert_eq!((code, &*outcome), (0, "ok"), "{detail}");
    refused(&cli, "no files", "certificate");
    refused(&all.with("redis.tls.ca_file", ""), "the authorities of the system", "certificate");
    refused(&cli.with_all(&borrowed(&stranger)), "another client", "UnknownCA");

    let settings = [settings, &known].concat();
    let settings = [&borrowed(&settings)[..], &PATIENT].concat();
    let fleet = Fleet::of(world, 1, &settings).await;
    used_again(&fleet, world, "Redis to be used over TLS").await;
    for (group, fronts) in groups {
        fronts.iter().for_each(|front| front.replace(authorities.false_one()));
        refused(&all, group, "certificate");
        fronts.iter().for_each(|front| front.replace(authorities.good()));
        used_again(&fleet, world, &format!("{group} to be used again")).await;
    }
}

pub(crate) async fn sentinels_and_their_master_speak_tls(suite: Arc<Suite>) {
    let world = suite.world().await;
    let authorities = Authorities::new();
    let valkey = suite.stack.start("valkey", json!({}));
    // The Sentinels of the tests speak no TLS, and name the address at which they watch the master.
    let master = [TlsFront::and_plain_to(valkey.port, authorities.good()).await];
    let lines = [format!("sentinel monitor {MASTER} {HOST} {} 1", master[0].port)];
    let start = |_| suite.stack.start("sentinel", json!({ "lines": lines }));
    let sentinels: Vec<_> = (0..2).map(start).collect();
    let fronts = sentinels.iter().map(|one| TlsFront::to(one.port, authorities.good()));
    let fronts = join_all(fronts).await;
    let settings = [
        format!("redis.url=rediss://{}/0", hosts(&fronts)),
        "redis.topology=sentinel".to_owned(),
        format!("redis.sentinel.master={MASTER}"),
    ];
    let groups: [(_, &[_]); 2] = [("the Sentinels", &fronts), ("the master", &master)];
    only_known_servers_are_used(&world, &authorities, &settings, &groups).await;
}

pub(crate) async fn the_nodes_of_a_cluster_speak_tls(suite: Arc<Suite>) {
    let world = suite.world().await;
    let authorities = Authorities::new();
    let cluster = RedisCluster::start(&suite, &[], false).await;
    let fronts = cluster.masters.iter().map(|node| TlsFront::to(node.port, authorities.good()));
    let fronts = join_all(fronts).await;
    for (node, front) in cluster.masters.iter().zip(&fronts) {
        let port = front.port.to_string();
        tell(&node.url, &["CONFIG", "SET", "cluster-announce-port", &port]).await;
    }
    // Each node names the others' fronts.
    eventually("the nodes to know each other's ports", async || {
        let known = cluster.masters.iter().map(async |node| {
            let nodes: String = ask(&node.url, &["CLUSTER", "NODES"]).await.unwrap();
            fronts.iter().all(|front| nodes.contains(&format!("{HOST}:{}@", front.port)))
        });
        join_all(known).await.into_iter().all(|knows| knows)
    })
    .await;
    let settings = [
        format!("redis.url=rediss://{}", hosts(&fronts[..2])),
        "redis.topology=cluster".to_owned(),
    ];
    let groups: [(_, &[_]); 1] = [("the nodes", &fronts)];
    only_known_servers_are_used(&world, &authorities, &settings, &groups).await;
}
