//! Two replicas behind Envoy are reconfigured and replaced under load, over TLS and over sockets. Not
//! one request fails, and not one answer is wrong.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use futures_util::future::join_all;
use patgate_testing::{
    eventually, http,
    shipped::{authorizers, find, manager, shipped},
    stack::{Server, project},
};
use serde_json::{Value, json};

use super::RingFile;
use crate::support::{
    Suite, World,
    cli::Cli,
    envoy::{Gateway, envoy_patch, patient},
    load::{LASTING_LONG, Load, WELL},
    process,
    secrets::{NEW, OLD},
    tls_files::{Files, SERVER},
};

/// How Envoy reaches the replicas.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Tls,
    Socket,
}

/// A replica as a process, which comes back under its address.
struct Process {
    server: Server,
    /// Its address for Envoy.
    grpc: String,
    http: SocketAddr,
}

/// What two replicas and their Envoy share.
struct Site<'s> {
    world: &'s World<'s>,
    ring: RingFile,
    secret: PathBuf,
    table: PathBuf,
    tls: Files,
    replicas: Vec<Process>,
    gateway: Gateway,
}

impl<'s> Site<'s> {
    fn start(world: &'s World<'s>, link: Link) -> Self {
        let path = |name: &str| world.suite.dir.path().join(format!("{}.{name}", world.database));
        let ring = RingFile::of(world);
        let [secret, table] = [path("secret"), path("table.yaml")];
        fs::write(&secret, &*OLD).unwrap();
        fs::copy(project("deploy/apis/cube-ai.yaml"), &table).unwrap();
        let tls = Files::new(world);
        let shared = [
            ring.setting(),
            format!("grpc.secret_file={}", secret.display()),
            format!("apis={}", table.display()),
        ];
        let replicas = (0..2).map(|at| {
            let port = || SocketAddr::from(([127, 0, 0, 1], world.suite.stack.free_port()));
            let http = port();
            let mut settings = shared.to_vec();
            settings.push(format!("listen.http={http}"));
            let grpc = match link {
                Link::Tls => {
                    let grpc = port();
                    settings.push(format!("listen.grpc={grpc}"));
                    settings.extend(tls.settings());
                    grpc.to_string()
                }
                Link::Socket => {
                    let socket = path(&format!("{at}.sock")).display().to_string();
                    settings.extend(["listen.grpc=".to_owned(), format!("listen.uds={socket}")]);
                    format!("unix:{socket}")
                }
            };
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let arguments = json!({
                "argv": [process::program(), "serve".to_owned()],
                "name": "patgate",
                "env": world.environment(&settings),
                "ready": format!("http://{http}/readyz"),
            });
            Process { server: world.suite.stack.start("process", arguments), grpc, http }
        });
        let replicas: Vec<_> = replicas.collect();
        let gateway = gateway(world.suite, &replicas, (link == Link::Tls).then_some(&tls));
        Self { world, ring, secret, table, tls, replicas, gateway }
    }

    async fn load(&self, listener: &str) -> Load {
        Load::lasting(LASTING_LONG, self.world, self.gateway.port(listener)).await
    }

    async fn healthy(&self, count: u64) {
        let healthy =
            async || self.gateway.stat("cluster.patgate.membership_healthy").await == count;
        eventually(&format!("{count} healthy replicas"), healthy).await;
    }

    /// Makes a change, and waits until both replicas have taken it up and have answered a while.
    async fn takes_up(&self, load: &Load, metric: &str, change: impl FnOnce()) {
        let line = format!(
            "patgate_{metric}{{{}result=\"ok\"}}",
            match metric {
                "tls_reloads_total" => "listener=\"grpc\",",
                _ => "",
            }
        );
        let counts = async || join_all(self.replicas.iter().map(|it| count(it, &line))).await;
        let before = counts().await;
        change();
        let all = async || counts().await.iter().zip(&before).all(|(now, before)| now > before);
        load.bear(eventually(&format!("{metric} to count on both replicas"), all)).await;
        load.bear(load.more(WELL, 10)).await;
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        for Process { server, .. } in &self.replicas {
            let stop = json!({ "do": "signal", "id": server.id, "signal": "KILL" });
            let _ = self.world.suite.stack.ask(stop);
        }
    }
}

async fn count(replica: &Process, line: &str) -> u64 {
    let page = http::send(replica.http.port(), "GET", "/metrics", &[], "").await.body;
    let value = page.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line}")).parse().unwrap()
}

/// The shipped Envoy, with one listener for each of the two secrets.
fn gateway(suite: &Suite, replicas: &[Process], tls: Option<&Files>) -> Gateway {
    let mut config = shipped();
    if let Some(tls) = tls {
        let cluster = find(&mut config["static_resources"]["clusters"], "patgate");
        cluster["transport_socket"] = tls.transport_socket();
    }
    let listener = |secret: &str| {
        let mut listener = config["static_resources"]["listeners"][0].clone();
        for filter in authorizers(manager(&mut listener)) {
            let sent = &mut filter["typed_config"]["grpc_service"]["initial_metadata"];
            let secret = json!({ "key": "patgate-secret", "value": secret });
            sent.as_array_mut().unwrap().push(secret);
        }
        listener
    };
    let listeners: BTreeMap<String, Value> = [("old", &*OLD), ("new", &*NEW)]
        .map(|(name, secret)| (name.to_owned(), listener(secret)))
        .into();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.grpc.as_str()).collect();
    let patch = envoy_patch(suite, &addresses, patient("10s", "10s"));
    Gateway::start(suite, config.clone(), listeners, patch)
}

pub(crate) async fn over_tls(suite: Arc<Suite>) {
    nothing_fails(suite, Link::Tls).await;
}

pub(crate) async fn over_a_socket(suite: Arc<Suite>) {
    nothing_fails(suite, Link::Socket).await;
}

async fn nothing_fails(suite: Arc<Suite>, link: Link) {
    let world = suite.world().await;
    let site = Site::start(&world, link);
    site.healthy(2).await;
    let load = site.load("old").await;

    // The rotation of docs/operations.md, and back.
    let cli = Cli::of(&world).with("keyring_file", &site.ring.path.display().to_string());
    for command in ["add --id k2", "promote k2", "promote k1", "drop k2"] {
        let change = || drop(cli.ok(&format!("keyring {command}")));
        site.takes_up(&load, "key_ring_reloads_total", change).await;
    }

    if link == Link::Tls {
        for _ in 0..2 {
            let change = || site.tls.authority.certify(&[SERVER]).write(&site.tls.dir, "server");
            site.takes_up(&load, "tls_reloads_total", change).await;
        }
    }

    let shipped = fs::read_to_string(&site.table).unwrap();
    for text in [format!("{shipped}# changed\n"), shipped] {
        let change = || fs::write(&site.table, text).unwrap();
        site.takes_up(&load, "api_reloads_total", change).await;
    }

    for Process { server, .. } in &site.replicas {
        suite.stack.signal(server, "TERM");
        load.bear(site.healthy(1)).await;
        load.bear(eventually("patgate to end", async || !suite.stack.is_running(server))).await;
        suite.stack.restart(server);
        load.bear(site.healthy(2)).await;
    }
    load.bear(load.more(WELL, 20)).await;

    // Both secrets, then Envoy sends the new one, then only that one.
    let both = || fs::write(&site.secret, format!("{},{}", *OLD, *NEW)).unwrap();
    site.takes_up(&load, "settings_reloads_total", both).await;
    let next = site.load("new").await;
    next.bear(next.more(WELL, 10)).await;
    load.end(&format!("two replicas reconfigured and replaced, {}", link.name())).await;
    let new = || fs::write(&site.secret, &*NEW).unwrap();
    site.takes_up(&next, "settings_reloads_total", new).await;
    next.end(&format!("two replicas with the next secret, {}", link.name())).await;
    let late = site.gateway.get("old", &[("authorization", "Bearer x")]).await;
    assert_eq!(late.status, 503, "the old secret");
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Self::Tls => "over TLS",
            Self::Socket => "over sockets",
        }
    }
}
