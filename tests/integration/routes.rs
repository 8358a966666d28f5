//! `patgate export` and `patgate sync` in a folder: a real Envoy takes its clusters from a file there,
//! and nothing is restarted.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
    shipped::shipped,
    stack::Server,
};
use serde_json::{Value, json};

use crate::{
    supervision::OF_SYNC,
    support::{
        Replica, Suite, Token, World,
        cli::{Cli, answer, ask},
        envoy::patient,
        fleet::MODELS,
    },
};

/// The login that may read where backends are, and nothing else.
const LOGIN: &str = "router";
const HERE: &str = "routes.networks=127.0.0.1/32";

/// A folder with the clusters of an Envoy, and the replica that it asks.
struct Folder<'s> {
    world: World<'s>,
    cli: Cli<'s>,
    path: PathBuf,
    replica: Replica,
}

impl<'s> Folder<'s> {
    async fn prepare(suite: &'s Suite) -> Self {
        let world = suite.world().await;
        let cli = Cli::of(&world);
        for (name, backend) in suite.backends.iter() {
            let url = format!("http://127.0.0.1:{}", backend.port);
            cli.ok(&format!("backend update {name} --url {url}"));
        }
        let path = suite.dir.path().join(format!("{}.routes", world.database));
        fs::create_dir(&path).unwrap();
        let replica = world.serve(&[]).await;
        Self { world, cli, path, replica }
    }

    /// As the shipped one, without its clusters for models: they are in the folder.
    fn envoy(&self) -> Server {
        let mut config = shipped();
        let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
        clusters.retain(|cluster| !cluster["name"].as_str().unwrap().starts_with("model-"));
        let file = self.path.join("clusters.yaml");
        config["dynamic_resources"]["cds_config"]["path_config_source"] =
            json!({ "path": file, "watched_directory": { "path": self.path } });
        let tls = http::certify(self.world.suite.dir.path());
        let patch =
            json!({ "authz": [self.replica.grpc], "ext_authz": patient("4s", "8s"), "tls": tls });
        let start = json!({ "config_yaml": config.to_string(), "patch": patch });
        self.world.suite.stack.start("envoy", start)
    }

    fn sync(&self, settings: &[&str]) -> Server {
        self.start(settings, &[])
    }

    fn start(&self, settings: &[&str], variables: &[(&str, &str)]) -> Server {
        let login = format!("postgres.url={}", self.world.url(LOGIN, self.world.port));
        let here = [&login, HERE, "routes.listen=127.0.0.1:0"];
        let mut env = self.world.environment(&[&here, settings].concat());
        env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let program = env!("CARGO_BIN_EXE_patgate");
        let argv = json!([program, "sync", "--for", "envoy", "--dir", self.path]);
        let arguments = json!({ "argv": argv, "name": "sync", "env": env });
        self.world.suite.stack.start("process", arguments)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path.join("clusters.yaml")).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        let read: Value = serde_saphyr::from_str(&self.text()).unwrap_or_default();
        let clusters = read["resources"].as_array().cloned().unwrap_or_default();
        clusters.iter().map(|cluster| cluster["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn holds(&self, names: &[&str]) {
        let wanted = format!("the clusters {names:?}");
        eventually(&wanted, async || self.names() == names).await;
    }
}

/// The address for health and metrics, once the process has logged it.
async fn page_of(sync: &Server) -> u16 {
    let find = || {
        let log = fs::read_to_string(&sync.log).ok()?;
        let line = log.lines().find(|line| line.contains("\"listening\""))?;
        let line: Value = serde_json::from_str(line).ok()?;
        line["http"].as_str()?.rsplit_once(':')?.1.parse().ok()
    };
    eventually("sync to listen", async || find().is_some()).await;
    find().unwrap()
}

async fn ready(page: u16) -> bool {
    http::send(page, "GET", "/readyz", &[], "").await.status == 200
}

/// The value of a series of the metrics.
async fn metric(page: u16, series: &str) -> f64 {
    let text = http::send(page, "GET", "/metrics", &[], "").await.body;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{series}: {text}"))
}

async fn served_by(envoy: &Server, token: &Token, path: &str) -> (u16, Option<String>) {
    let bearer = token.bearer();
    let reply = http::send(envoy.port, "GET", path, &[("authorization", &bearer)], "").await;
    (reply.status, reply.header("x-backend").map(str::to_owned))
}

pub(crate) async fn a_domain_is_served_without_a_restart(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let Folder { world, cli, .. } = &folder;
    let sync = folder.sync(&[]);
    folder.holds(&["model-acme", "model-beta"]).await;
    let envoy = folder.envoy();
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let of = |name: &str| (200, Some(name.to_owned()));
    let served = async |token: &Token, path: &str, wanted: &(u16, Option<String>)| {
        let what = format!("{path} to be answered by {wanted:?}");
        eventually(&what, async || served_by(&envoy, token, path).await == *wanted).await;
    };
    served(&token, MODELS, &of("model-acme")).await;

    // Made by commands alone.
    let port = suite.backends["model-beta"].port;
    cli.ok(&format!("backend create fresh.1_ --url http://127.0.0.1:{port} --kind openai"));
    cli.ok("domain create fresh --name Fresh --upstream fresh.1_ --all-models");
    cli.ok("user create Eve@Example.com --name Eve");
    cli.ok("role member add fresh admin eve@example.com");
    let minted = cli.mint(
        "token create laptop --user eve@example.com --expires-in 1d --scope fresh:models:*:llm_read",
    );
    let path = "/proxy/fresh/v1/models";
    served(&minted, path, &of("model-beta")).await;
    // Changed.
    let port = suite.backends["model-acme"].port;
    cli.ok(&format!("backend update fresh.1_ --url http://127.0.0.1:{port}"));
    let began = Instant::now();
    served(&minted, path, &of("model-acme")).await;
    println!("Envoy used the new address {:.1} s after the command", began.elapsed().as_secs_f64());
    // To where the operator lets no backend be: the old address is gone, too.
    cli.ok(&format!("backend update fresh.1_ --url http://127.0.0.2:{port}"));
    served(&minted, path, &(503, None)).await;
    let page = page_of(&sync).await;
    assert!(ready(page).await);
    assert_eq!(metric(page, "patgate_sync_refused_backends").await, 1.0);
    let log = fs::read_to_string(&sync.log).unwrap();
    let told = log.lines().find(|line| line.contains("this backend gets no route"));
    assert!(
        told.is_some_and(|line| line.contains("fresh.1_") && line.contains("127.0.0.0/8")),
        "{log}"
    );
    cli.ok(&format!("backend update fresh.1_ --url http://127.0.0.1:{port}"));
    served(&minted, path, &of("model-acme")).await;
    // Deleted.
    cli.ok("domain set-upstream fresh model-beta");
    cli.ok("backend delete fresh.1_");
    folder.holds(&["model-acme", "model-beta"]).await;
    served(&minted, path, &of("model-beta")).await;
    served(&token, MODELS, &of("model-acme")).await;
    // Changed by hand, after a signal that changes nothing.
    suite.stack.signal(&sync, "HUP");
    let text = folder.text();
    fs::write(folder.path.join("clusters.yaml"), "resources: []\n").unwrap();
    eventually("the file to be restored", async || folder.text() == text).await;
    suite.stack.signal(&sync, "TERM");
    assert_eq!(suite.stack.exit_code(&sync).await, json!(0));
    assert_eq!(folder.text(), text);
}

pub(crate) async fn nothing_is_removed_without_an_answer(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let Folder { world, cli, .. } = &folder;
    let proxy = Proxy::to(world.port).await;
    let through = format!("postgres.url={}", world.url(LOGIN, proxy.port));
    let sync = folder.sync(&[&through]);
    let both = ["model-acme", "model-beta"];
    folder.holds(&both).await;
    let page = page_of(&sync).await;
    eventually("sync to be ready", async || ready(page).await).await;
    let text = folder.text();

    // Refused, and silent.
    for mode in [Mode::Refuse, Mode::BlackHole] {
        proxy.set(mode);
        proxy.cut();
        eventually("sync to be unready", async || !ready(page).await).await;
        assert_eq!(folder.text(), text);
        proxy.set(Mode::Pass);
        proxy.cut();
        eventually("sync to be ready again", async || ready(page).await).await;
        assert_eq!(folder.text(), text);
    }
    assert!(metric(page, "patgate_sync_failures_total{part=\"postgres\"}").await >= 2.0);

    // The list is empty, as after a restore of a wrong dump.
    world.sql("CREATE TABLE kept AS SELECT * FROM patgate.backends").await;
    world.sql("SET session_replication_role = replica; DELETE FROM patgate.backends").await;
    let nothing_left = "patgate_sync_failures_total{part=\"nothing_left\"}";
    eventually("sync to see the empty list", async || metric(page, nothing_left).await >= 2.0)
        .await;
    assert!(!ready(page).await);
    assert_eq!(folder.text(), text);
    // Deliberately.
    suite.stack.signal(&sync, "TERM");
    assert_eq!(suite.stack.exit_code(&sync).await, json!(0));
    let once = cli.login(world, LOGIN).with_all(&[HERE]);
    let command = format!("sync --for envoy --dir {} --once", folder.path.display());
    {
        let other = folder.sync(&[&through]);
        let page = page_of(&other).await;
        let leads = async || metric(page, "patgate_sync_leader").await == 1.0;
        eventually("the other one to lead", leads).await;
        let export = format!("export --for envoy --dir {}", folder.path.display());
        once.refused(&export, 1, "another `patgate sync` keeps these routes");
        once.refused(&command, 1, "another `patgate sync` keeps these routes");
        suite.stack.signal(&other, "TERM");
        assert_eq!(suite.stack.exit_code(&other).await, json!(0));
    }
    once.refused(&command, 1, "--allow-empty");
    assert_eq!(folder.text(), text);
    once.ok(&format!("{command} --allow-empty"));
    assert!(folder.names().is_empty() && folder.text() != text);
    world.sql("SET session_replication_role = replica; INSERT INTO patgate.backends SELECT * FROM kept").await;
    once.ok(&command);
    assert_eq!(folder.text(), text);
}

/// Two for the same folder: one writes, and the other takes over.
pub(crate) async fn two_replicas_share_a_folder(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let first = folder.sync(&[]);
    folder.holds(&["model-acme", "model-beta"]).await;
    let second = folder.sync(&[]);
    let pages = [page_of(&first).await, page_of(&second).await];
    for page in pages {
        eventually("sync to be ready", async || ready(page).await).await;
    }
    assert_eq!(metric(pages[0], "patgate_sync_leader").await, 1.0);
    assert_eq!(metric(pages[1], "patgate_sync_leader").await, 0.0);
    suite.stack.signal(&first, "KILL");
    let leads = async || metric(pages[1], "patgate_sync_leader").await == 1.0;
    eventually("the second one to lead", leads).await;
    folder.cli.ok("backend create third --url http://127.0.0.1:8003 --kind vllm");
    folder.holds(&["model-acme", "model-beta", "third"]).await;
}

/// Without it, the process would go on and say that all is well.
pub(crate) async fn a_dead_keeper_ends_the_process(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let call = folder.path.join("call");
    let panics = [("TEST_PANIC_IN", OF_SYNC), ("TEST_PANIC_WHEN", call.to_str().unwrap())];
    let sync = folder.start(&[], &panics);
    let page = page_of(&sync).await;
    eventually("sync to be ready", async || ready(page).await).await;
    fs::write(&call, "").unwrap();
    assert_eq!(suite.stack.exit_code(&sync).await, json!(1));
    let log = fs::read_to_string(&sync.log).unwrap();
    let told = format!("patgate: the {OF_SYNC} panicked; this is a bug in patgate");
    assert!(log.lines().any(|line| line.starts_with(&told)), "{log}");
}

pub(crate) async fn an_export_is_the_same_each_time(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let Folder { world, cli, .. } = &folder;
    let cli = cli.login(world, LOGIN).with_all(&["routes.namespace=gateways"]);
    // Nothing is inside unless the operator says so.
    let ran = cli.run("export --for envoy");
    assert!(ran.code == 0 && ran.stdout.ends_with("\nresources: []\n"), "{ran:#?}");
    assert!(ran.stderr.contains("routes.networks"), "{ran:#?}");
    assert_eq!(cli.run("export --for envoy --strict").code, 4);

    let cli = cli.with_all(&[HERE]);
    for gateway in ["envoy", "envoy-gateway", "istio"] {
        let command = format!("export --for {gateway} --strict");
        let text = cli.ok(&command);
        assert_eq!(text, cli.ok(&command));
        assert!(text.contains("model-acme") && text.contains("model-beta"), "{text}");
        let dir = folder.path.display();
        assert_eq!(cli.ok(&format!("{command} --dir {dir}")), "");
        let file = if gateway == "envoy" { "clusters" } else { gateway };
        let written = fs::read_to_string(folder.path.join(format!("{file}.yaml"))).unwrap();
        assert_eq!(written, text);
    }
    cli.with("routes.namespace", "").refused("export --for istio", 2, "routes.namespace");
    cli.with("routes.networks", "10.0.0.1/8").refused("export --for istio", 2, "10.20.0.0/16");
    // The login can read nothing else.
    let ran = cli.run("backend list");
    assert_ne!(ran.code, 0, "{ran:#?}");
    let ran = cli.run("sync --for envoy");
    assert!(ran.code == 2 && ran.stderr.contains("--dir"), "{ran:#?}");
}

/// Whoever looks at a copy of production with the settings of production must not lead its requests, and
/// the credentials in them, elsewhere.
pub(crate) async fn a_restored_copy_leaves_the_file_alone(suite: Arc<Suite>) {
    let folder = Folder::prepare(&suite).await;
    let of = |world: &World<'_>| format!("postgres.url={}", world.url(LOGIN, world.port));
    let dir = folder.path.display();
    let commands = ["sync --once", "export"].map(|what| format!("{what} --for envoy --dir {dir}"));
    let original = folder.cli.with_all(&[HERE, &of(&folder.world)]);
    original.ok(&commands[0]);
    let text = folder.text();

    let copy = folder.world.restored().await;
    Cli::of(&copy).ok("backend update model-acme --url http://127.0.0.1:1");
    let restored = folder.cli.with_all(&[HERE, &of(&copy)]);
    for command in &commands {
        restored.refused(command, 1, "another installation of patgate has written it");
        restored.refused(&format!("{command} --allow-empty"), 1, "--adopt");
        assert_eq!(folder.text(), text, "{command}");
    }
    // One that goes on is not ready, says why, and waits.
    let sync = folder.sync(&[&of(&copy)]);
    let page = page_of(&sync).await;
    let refused = "patgate_sync_failures_total{part=\"folder\"}";
    eventually("two rounds", async || metric(page, refused).await >= 2.0).await;
    let reply = http::send(page, "GET", "/readyz", &[], "").await;
    assert!(reply.status == 503 && reply.body.contains("not of this installation"), "{reply:?}");
    suite.stack.signal(&sync, "TERM");
    assert_eq!(suite.stack.exit_code(&sync).await, json!(0));
    assert_eq!(folder.text(), text);
    original.ok(&commands[0]);
    assert_eq!(folder.text(), text);

    // Deliberately, for one round; then the original is the other one.
    let running = commands[0].replace(" --once", " --adopt");
    assert_eq!(restored.run(&running).code, 2);
    restored.ok(&format!("{} --adopt", commands[0]));
    assert_ne!(folder.text(), text);
    restored.ok(&commands[0]);
    original.refused(&commands[0], 1, "--adopt");
    original.ok(&format!("{} --adopt", commands[1]));
    assert_eq!(folder.text(), text);
}

/// The gateway has clusters of its own, such as that of patgate, and routes that take the name of the
/// cluster from patgate's answer.
pub(crate) async fn a_reserved_name_leads_nowhere(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world).with("routes.reserved", "collector");
    for name in ["patgate", "otlp", "collector"] {
        let command = format!("backend create {name} --url http://127.0.0.1:8001 --kind vllm");
        cli.refused(&command, 2, "routes.reserved");
    }
    // By SQL, or by an earlier release.
    world
        .sql(
            "INSERT INTO patgate.backends (name, url, kind) VALUES
                 ('patgate', 'http://127.0.0.1:8001', 'vllm'),
                 ('collector', 'http://127.0.0.1:8001', 'vllm')",
        )
        .await;
    let replica = world.serve(&["routes.reserved=collector"]).await;
    let envoy = replica.envoy(&suite);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    assert_eq!(served_by(&envoy, &token, MODELS).await, (200, Some("model-acme".to_owned())));
    let told = "this backend has the name of one of the gateway's own clusters";
    for name in ["patgate", "collector"] {
        cli.ok(&format!("domain set-upstream acme {name}"));
        let quoted = format!("\"{name}\"");
        let named = async || {
            ask(&replica, &token, "acme").await;
            let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
            log.lines().any(|line| line.contains(told) && line.contains(&quoted))
        };
        eventually("the replica to name the backend", named).await;
        // It is patgate that refuses it, not a cluster that is missing.
        assert_eq!(ask(&replica, &token, "acme").await, answer(503, "unavailable"));
        let bearer = token.bearer();
        let reply = http::send(envoy.port, "GET", MODELS, &[("authorization", &bearer)], "").await;
        assert_eq!((reply.status, reply.code()), (503, "unavailable".to_owned()), "{reply:?}");
        assert_eq!(reply.header("grpc-status"), None, "{reply:?}");
        let ran = cli.feed(&format!("check --method GET --path {MODELS}"), &token.text);
        assert!(ran.stdout.contains("the gateway's own clusters"), "{ran:#?}");
    }
    // It can be put right.
    cli.ok("domain set-upstream acme model-acme");
    let served = async || ask(&replica, &token, "acme").await == answer(200, "ok");
    eventually("the domain to be served again", served).await;
    cli.ok("backend delete patgate");
}
