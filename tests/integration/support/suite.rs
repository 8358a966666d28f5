//! The state that all tests share: the servers, and every secret that any test made.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    path::Path,
    sync::{
        LazyLock, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use patgate::{
    postgres,
    token::{TokenId, Tokens},
};
use patgate_testing::stack::{Server, Stack, project};
use redis::{AsyncConnectionConfig, RedisError, aio::MultiplexedConnection};
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::OnceCell};
use uuid::Uuid;

use super::{Token, World, durations::Durations, load::Ledger, previous};

/// The database from which each world is copied.
pub(super) const TEMPLATE: &str = "patgate_template";
/// Redis databases; each world takes one.
const REDIS_DATABASES: u32 = 2000;

/// A value that is made when a test first uses it, and then shared by all tests.
pub(crate) type OnFirstUse<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

pub(crate) struct Suite {
    runtime: Runtime,
    pub(crate) stack: Stack,
    pub(crate) postgres: OnFirstUse<Server>,
    /// Whether that Postgres has the template database.
    template: OnceCell<()>,
    /// Whether it has the template database of the previous release.
    previous_template: OnceCell<()>,
    pub(crate) valkey: OnFirstUse<Server>,
    /// Model backends, each by the name of its cluster.
    pub(crate) backends: OnFirstUse<HashMap<&'static str, Server>>,
    worlds: AtomicU32,
    /// Held by each test; by one that uses the whole machine, alone.
    machine: RwLock<()>,
    pub(crate) durations: Durations,
    /// The answers to the loads of all tests.
    pub(crate) answers: Ledger,
    /// Every token ever made, for the search for leaks.
    pub(crate) minted: Mutex<Vec<String>>,
    /// Every credential that a backend was ever given, for the search for leaks.
    pub(crate) credentials: Mutex<Vec<String>>,
    /// Every secret of a session or an invitation, for the search for leaks.
    pub(crate) sessions: Mutex<Vec<String>>,
    /// The folder for key rings, and for the logs of in-process replicas.
    pub(crate) dir: TempDir,
    /// A copy of `deploy/apis`.
    pub(crate) shipped_tables: String,
}

impl Suite {
    /// Starts no server.
    pub(crate) fn prepare() -> Self {
        allow_files();
        // patgate refuses files that a group may write to. With another umask, all files of the
        // tests would be like that; the checkout may be.
        umask(Mode::from_raw_mode(0o022));
        let dir = TempDir::new().unwrap();
        let shipped_tables = copy_tables(&dir.path().join("apis"));
        let log = fs::File::create(dir.path().join("patgate.log")).unwrap();
        tracing_subscriber::fmt()
            .with_env_filter("info,patgate=trace,sqlx=trace,redis=trace")
            .with_writer(Mutex::new(log))
            .init();
        let stack = Stack::default();
        Self {
            runtime: Runtime::new().unwrap(),
            postgres: on_first_use(&stack, shared_postgres),
            template: OnceCell::new(),
            previous_template: OnceCell::new(),
            valkey: on_first_use(&stack, shared_valkey),
            backends: on_first_use(&stack, model_backends),
            stack,
            worlds: AtomicU32::new(0),
            machine: RwLock::new(()),
            durations: Durations::default(),
            answers: Ledger::default(),
            minted: Mutex::default(),
            credentials: Mutex::default(),
            sessions: Mutex::default(),
            dir,
            shipped_tables,
        }
    }

    /// Runs a test, and notes how long it took, unless it fails.
    pub(crate) fn run(&self, name: &str, test: impl Future<Output = ()>) {
        let _beside = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        self.time(name, test);
    }

    /// The same while no other test runs.
    pub(crate) fn run_alone(&self, name: &str, test: impl Future<Output = ()>) {
        let _alone = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        self.time(name, test);
    }

    fn time(&self, name: &str, test: impl Future<Output = ()>) {
        let began = Instant::now();
        self.runtime.block_on(test);
        self.durations.add(name, began.elapsed());
    }

    pub(crate) fn postgres_url(&self, user: &str, database: &str) -> String {
        url(self.postgres.port, user, database)
    }

    /// Makes a token, registers it for the search for leaks, and returns it with its digest in
    /// hexadecimal.
    pub(crate) fn mint(&self, tokens: &Tokens, id: TokenId) -> (Token, String) {
        let minted = tokens.mint(id).unwrap();
        let digest = minted.digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = minted.plain.expose().to_owned();
        self.minted.lock().unwrap().push(text.clone());
        (Token { id, text }, digest)
    }

    /// Makes a key like those of model providers.
    pub(crate) fn provider_key(&self) -> String {
        let random = || Uuid::new_v4().simple().to_string();
        let key = format!("sk-proj_{}{}", random(), random());
        self.credentials.lock().unwrap().push(key.clone());
        key
    }

    /// Keeps the secrets of sessions and invitations that a text holds, for the search for leaks.
    pub(crate) fn keep_sessions(&self, text: &str) {
        let secrets = text
            .split(|c: char| !is_of_secret(c))
            .filter(|word| patgate::admin::web::SessionSecret::parse(word).is_some());
        self.sessions.lock().unwrap().extend(secrets.map(str::to_owned));
    }

    /// A database with two domains, their backends and some users.
    pub(crate) async fn world(&self) -> World<'_> {
        let port = self.postgres.port;
        self.template.get_or_init(|| prepare_template(port)).await;
        self.shared_world(TEMPLATE).await
    }

    /// The same on the schema of the previous release.
    pub(crate) async fn previous_world(&self) -> World<'_> {
        let port = self.postgres.port;
        self.template.get_or_init(|| prepare_template(port)).await;
        self.previous_template.get_or_init(|| self.prepare_previous_template()).await;
        self.shared_world(previous::TEMPLATE).await
    }

    async fn shared_world(&self, template: &str) -> World<'_> {
        let logged = fs::metadata(&self.postgres.log).unwrap().len();
        let mut world = self.world_on(self.postgres.port, template).await;
        world.logged = logged;
        world
    }

    /// Starts a Postgres for one test, which may do anything to it, with a world.
    pub(crate) async fn spare(&self, settings: serde_json::Value) -> (Server, World<'_>) {
        let postgres = self.stack.start("postgres", json!({ "settings": settings }));
        let world = self.world_at(postgres.port).await;
        (postgres, world)
    }

    /// The only world in the Postgres at that port, which the test has started.
    pub(crate) async fn world_at(&self, port: u16) -> World<'_> {
        prepare_template(port).await;
        self.world_on(port, TEMPLATE).await
    }

    async fn world_on(&self, port: u16, template: &str) -> World<'_> {
        let number = self.worlds.fetch_add(1, Relaxed);
        assert!(number < REDIS_DATABASES);
        World::create(self, port, template, number).await
    }
}

/// The characters of a session's secret.
pub(super) fn is_of_secret(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn on_first_use<T>(stack: &Stack, start: fn(&Stack) -> T) -> OnFirstUse<T>
where
    T: 'static,
{
    let stack = stack.clone();
    LazyLock::new(Box::new(move || start(&stack)))
}

fn shared_postgres(stack: &Stack) -> Server {
    let settings = json!({
        "log_statement": "all",
        "log_line_prefix": "%d|%p|",
        // Nothing replicates from it, and the databases of all tests are large enough.
        "max_wal_size": "256MB",
        // Each test leaves a database behind.
        "autovacuum_naptime": "1h",
    });
    stack.start("postgres", json!({ "settings": settings }))
}

fn shared_valkey(stack: &Stack) -> Server {
    // The file keeps everything that was ever written, for the search for leaks.
    let kept = "--appendonly yes --appendfsync no --auto-aof-rewrite-percentage 0";
    let arguments = format!("--databases {REDIS_DATABASES} {kept}");
    let arguments: Vec<_> = arguments.split(' ').collect();
    stack.start("valkey", json!({ "args": arguments }))
}

fn model_backends(stack: &Stack) -> HashMap<&'static str, Server> {
    let start = |name| (name, stack.start("backend", json!({ "name": name })));
    ["model-acme", "model-beta"].map(start).into()
}

/// What the test with the most connections needs, in this process and in Envoy, which inherits it.
const FILES: u64 = 8192;

/// Lets this process and its children have as many files and connections open as tests need. A
/// shell usually grants only 1024, although it could grant more.
fn allow_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let granted = maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if current.is_some_and(|current| current < granted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum }).unwrap();
    }
    if granted < FILES {
        println!("a process may have {granted} files open (ulimit -Hn): tests need up to {FILES}");
    }
}

/// Copies with the permissions of a new file, whatever those of the original are.
fn copy_tables(to: &Path) -> String {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(project("deploy/apis")).unwrap() {
        let entry = entry.unwrap();
        fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
    to.display().to_string()
}

pub(super) fn url(port: u16, user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{port}/{database}")
}

/// Prepares a migrated database to copy, and a login for each of the roles that patgate defines.
async fn prepare_template(port: u16) {
    let root = connect(&url(port, "postgres", "postgres")).await;
    execute(&root, &format!("CREATE DATABASE {TEMPLATE}")).await;
    let template = url(port, "postgres", TEMPLATE).into();
    let template = postgres::Address::of_one("postgres.url", &template).unwrap();
    postgres::migrate(&template).await.unwrap();
    execute(
        &root,
        "CREATE ROLE server LOGIN IN ROLE patgate_serve;
         CREATE ROLE administrator LOGIN IN ROLE patgate_admin;
         CREATE ROLE web LOGIN IN ROLE patgate_web;
         CREATE ROLE router LOGIN IN ROLE patgate_sync;",
    )
    .await;
    root.close().await;
}

pub(crate) async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect(url).await.unwrap()
}

/// A connection without time limits, unlike those that the crate makes by default.
pub(crate) async fn redis_at(url: &str) -> MultiplexedConnection {
    try_redis_at(url).await.unwrap()
}

/// The same for a server that may close the connection at once.
pub(crate) async fn try_redis_at(url: &str) -> Result<MultiplexedConnection, RedisError> {
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = redis::Client::open(url)?;
    client.get_multiplexed_async_connection_with_config(&patient).await
}

pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
}
