//! What every test stands on: the servers, and a world of users, domains and tokens in a database
//! of its own.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request},
    authorization_client::AuthorizationClient,
    check_response::HttpResponse,
};
use patgate::{
    app::App,
    config::{Config, Purpose, Sources},
    keyring::{self, KeyRing},
    schema,
    token::{Prefixes, TokenId, Tokens},
};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{
    load::Ledger,
    stack::{Server, Stack},
};

const TEMPLATE: &str = "patgate_template";
/// Redis databases; each world takes one.
const REDIS_DATABASES: u32 = 2000;

pub(crate) struct Suite {
    runtime: Runtime,
    pub(crate) stack: Stack,
    pub(crate) postgres: Server,
    pub(crate) valkey: Server,
    /// Model backends, each under the name of its cluster.
    pub(crate) backends: HashMap<&'static str, Server>,
    worlds: AtomicU32,
    /// What was answered to the load of all tests.
    pub(crate) answers: Ledger,
    /// Every token ever made, to be looked for where it must not be.
    pub(crate) minted: Mutex<Vec<String>>,
    /// Every credential that a backend was ever given, likewise.
    pub(crate) credentials: Mutex<Vec<String>>,
    /// Key rings, and what in-process replicas log.
    pub(crate) dir: TempDir,
}

impl Suite {
    pub(crate) fn launch() -> Self {
        allow_files();
        let dir = TempDir::new().unwrap();
        let log = fs::File::create(dir.path().join("patgate.log")).unwrap();
        tracing_subscriber::fmt()
            .with_env_filter("info,patgate=trace,sqlx=trace,redis=trace")
            .with_writer(Mutex::new(log))
            .init();
        let stack = Stack::launch();
        let settings = json!({
            "log_statement": "all",
            "log_line_prefix": "%d|%p|",
            // Nobody replicates from it, and the databases of all tests are large enough.
            "max_wal_size": "256MB",
        });
        let postgres = stack.start("postgres", json!({ "settings": settings }));
        // All that was ever written is kept in its file, for the search for leaks.
        let kept = "--appendonly yes --appendfsync no --auto-aof-rewrite-percentage 0";
        let arguments = format!("--databases {REDIS_DATABASES} {kept}");
        let arguments: Vec<_> = arguments.split(' ').collect();
        let valkey = stack.start("valkey", json!({ "args": arguments }));
        let backends = ["model-acme", "model-beta"]
            .map(|name| (name, stack.start("backend", json!({ "name": name }))));
        let suite = Self {
            runtime: Runtime::new().unwrap(),
            stack,
            postgres,
            valkey,
            backends: backends.into(),
            worlds: AtomicU32::new(0),
            answers: Ledger::default(),
            minted: Mutex::default(),
            credentials: Mutex::default(),
            dir,
        };
        suite.runtime.block_on(prepare_template(suite.postgres.port));
        suite
    }

    pub(crate) fn run(&self, test: impl Future<Output = ()>) {
        self.runtime.block_on(test);
    }

    pub(crate) fn postgres_url(&self, user: &str, database: &str) -> String {
        url(self.postgres.port, user, database)
    }

    /// A token, to be looked for where it must not be, and its digest in hexadecimal.
    pub(crate) fn mint(&self, tokens: &Tokens, id: TokenId) -> (Token, String) {
        let minted = tokens.mint(id).unwrap();
        let digest = minted.digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = minted.plain.expose().to_owned();
        self.minted.lock().unwrap().push(text.clone());
        (Token { id, text }, digest)
    }

    /// A key as a provider of models might hand it out.
    pub(crate) fn provider_key(&self) -> String {
        let random = || Uuid::new_v4().simple().to_string();
        let key = format!("sk-proj_{}{}", random(), random());
        self.credentials.lock().unwrap().push(key.clone());
        key
    }

    /// A database with two domains, their backends and some users, and nothing else.
    pub(crate) async fn world(&self) -> World<'_> {
        self.world_on(self.postgres.port).await
    }

    /// A Postgres for one test, which may do to it what it likes, and a world there.
    pub(crate) async fn spare(&self, settings: serde_json::Value) -> (Server, World<'_>) {
        let postgres = self.stack.start("postgres", json!({ "settings": settings }));
        prepare_template(postgres.port).await;
        let world = self.world_on(postgres.port).await;
        (postgres, world)
    }

    async fn world_on(&self, port: u16) -> World<'_> {
        let number = self.worlds.fetch_add(1, Relaxed);
        assert!(number < REDIS_DATABASES);
        let database = format!("world_{number}");
        let root = connect(&url(port, "postgres", "postgres")).await;
        execute(&root, &format!("CREATE DATABASE {database} TEMPLATE {TEMPLATE}")).await;
        root.close().await;
        let postgres = connect(&url(port, "postgres", &database)).await;

        let keyring_file = self.dir.path().join(format!("{database}.keys"));
        let line = keyring::new_line(&"k1".parse().unwrap()).unwrap();
        fs::write(&keyring_file, line.as_bytes()).unwrap();
        let tokens = Tokens::new(Prefixes::default(), KeyRing::parse(&line).unwrap());
        let redis_url = format!("redis://127.0.0.1:{}/{number}", self.valkey.port);
        let mut world = World {
            suite: self,
            database,
            port,
            postgres,
            redis_url,
            keyring_file,
            tokens,
            ids: HashMap::new(),
        };
        world.populate().await;
        world
    }
}

/// What the test with the most connections needs, in this process and in Envoy, which inherits it.
const FILES: u64 = 8192;

/// Lets this process and those that it starts have as many files and connections open as tests
/// need. A shell grants 1024 more often than not, though it might grant more.
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

fn url(port: u16, user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{port}/{database}")
}

/// A migrated database to copy, and a login for each of the roles that patgate defines.
async fn prepare_template(port: u16) {
    let root = connect(&url(port, "postgres", "postgres")).await;
    execute(&root, &format!("CREATE DATABASE {TEMPLATE}")).await;
    schema::migrate(&url(port, "postgres", TEMPLATE).into()).await.unwrap();
    execute(
        &root,
        "CREATE ROLE server LOGIN IN ROLE patgate_serve;
         CREATE ROLE administrator LOGIN IN ROLE patgate_admin;",
    )
    .await;
    root.close().await;
}

pub(crate) async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect(url).await.unwrap()
}

/// A connection that waits as long as it takes, unlike those that the crate makes by default.
pub(crate) async fn redis_at(url: &str) -> MultiplexedConnection {
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
}

/// One installation: a database, a Redis database, a key ring.
pub(crate) struct World<'s> {
    pub(crate) suite: &'s Suite,
    pub(crate) database: String,
    pub(crate) port: u16,
    /// As the superuser, to whom everything is possible, the wrong things included.
    pub(crate) postgres: PgPool,
    pub(crate) redis_url: String,
    pub(crate) keyring_file: PathBuf,
    pub(crate) tokens: Tokens,
    ids: HashMap<&'static str, Uuid>,
}

/// A token as its owner has it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) id: TokenId,
    pub(crate) text: String,
}

impl Token {
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.text)
    }
}

/// Domain (by slug or id), entity type, entity id, operation.
pub(crate) type Scope<'a> = (&'a str, &'a str, &'a str, &'a str);

impl World<'_> {
    /// `acme` and `beta` are in use, `closed` is disabled, `picky` lists its models. `ann` has the
    /// role `admin` in all but `beta`; `bob` has it in `beta`; `reader` may only read models in
    /// `acme`; `gone` is a disabled `ann`; `root` is a platform admin without a role.
    async fn populate(&mut self) {
        let names = ["acme", "beta", "closed", "picky", "ann", "bob", "reader", "gone", "root"];
        for name in names {
            self.ids.insert(name, Uuid::now_v7());
        }
        self.sql(
            "INSERT INTO patgate.backends (name, url, kind) VALUES
                 ('model-acme', 'http://127.0.0.1:8001', 'vllm'),
                 ('model-beta', 'http://127.0.0.1:8002', 'ollama')",
        )
        .await;
        for (slug, enabled, upstream) in [
            ("acme", true, "model-acme"),
            ("beta", true, "model-beta"),
            ("closed", false, "model-acme"),
            ("picky", true, "model-acme"),
        ] {
            let id = self.id(slug);
            self.sql(&format!(
                "INSERT INTO patgate.domains (id, slug, name, enabled, upstream)
                     VALUES ('{id}', '{slug}', '{slug}', {enabled}, '{upstream}');
                 INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{id}', '{id}', 'admin');
                 INSERT INTO patgate.role_operations
                     SELECT '{id}', operation FROM patgate.operations"
            ))
            .await;
        }
        for name in ["ann", "bob", "reader", "gone", "root"] {
            self.sql(&format!(
                "INSERT INTO patgate.users (id, email, name, platform_admin, enabled)
                 VALUES ('{}', '{name}@example.com', '{name}', {}, {})",
                self.id(name),
                name == "root",
                name != "gone",
            ))
            .await;
        }
        for (user, domain) in [
            ("ann", "acme"),
            ("ann", "closed"),
            ("ann", "picky"),
            ("gone", "acme"),
            ("bob", "beta"),
        ] {
            let (role, user) = (self.id(domain), self.id(user));
            self.sql(&format!("INSERT INTO patgate.role_members VALUES ('{role}', '{user}')"))
                .await;
        }
        let (role, acme, picky) = (Uuid::now_v7(), self.id("acme"), self.id("picky"));
        self.sql(&format!(
            "INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{role}', '{acme}', 'reader');
             INSERT INTO patgate.role_operations VALUES ('{role}', 'llm_read');
             INSERT INTO patgate.role_members VALUES ('{role}', '{}');
             INSERT INTO patgate.domain_models VALUES
                 ('{picky}', 'org/listed', 'model-beta'), ('{picky}', 'other', 'model-acme')",
            self.id("reader")
        ))
        .await;
    }

    /// The id of a domain or user by its name.
    pub(crate) fn id(&self, name: &str) -> Uuid {
        self.ids[name]
    }

    pub(crate) async fn sql(&self, sql: &str) {
        execute(&self.postgres, sql).await;
    }

    /// Where this world is to be found, by way of a proxy's port perhaps.
    pub(crate) fn url(&self, user: &str, port: u16) -> String {
        url(port, user, &self.database)
    }

    /// A token that lives for `life`, a Postgres interval; a negative one has expired already.
    pub(crate) async fn token_for(&self, owner: &str, life: &str, scopes: &[Scope<'_>]) -> Token {
        let (token, sql) = self.issue(owner, life, scopes);
        self.sql(&sql).await;
        token
    }

    /// A token that nobody knows yet, and the statements that make it known.
    pub(crate) fn issue(&self, owner: &str, life: &str, scopes: &[Scope<'_>]) -> (Token, String) {
        let (token, digest) = self.suite.mint(&self.tokens, TokenId(Uuid::now_v7()));
        let (id, user) = (token.id, self.id(owner));
        let mut sql = format!(
            "INSERT INTO patgate.pats
                 (id, user_id, name, digest, key_id, issued_at, expires_at)
             VALUES ('{id}', '{user}', '{id}', '\\x{digest}', 'k1',
                     now() - interval '1 year', now() + interval '{life}');"
        );
        for (domain, entity_type, entity, operation) in scopes {
            let domain = self.ids.get(domain).map_or((*domain).to_owned(), Uuid::to_string);
            sql.push_str(&format!(
                "INSERT INTO patgate.pat_scopes VALUES ('{}', '{id}', '{domain}',
                     '{entity_type}', '{entity}', '{operation}');",
                Uuid::now_v7()
            ));
        }
        (token, sql)
    }

    /// A token of our own key with this id, of which no database is told.
    pub(crate) fn unknown(&self, id: TokenId) -> Token {
        self.suite.mint(&self.tokens, id).0
    }

    /// A token of Ann's that lives long enough.
    pub(crate) async fn token(&self, scopes: &[Scope<'_>]) -> Token {
        self.token_for("ann", "1 hour", scopes).await
    }

    /// The environment of a replica of this world; `settings` are `key=value`, later ones win.
    pub(crate) fn environment(&self, settings: &[&str]) -> BTreeMap<String, String> {
        let defaults = [
            &format!("postgres.url={}", self.url("server", self.port)),
            &format!("redis.url={}", self.redis_url),
            &format!("keyring_file={}", self.keyring_file.display()),
            "listen.grpc=127.0.0.1:0",
            "listen.http=127.0.0.1:0",
            // A loaded test machine is no reason for a 503. What is shorter lived says so.
            "deadline=5s",
            "redis.timeout=1s",
        ];
        let variable = |setting: &str| {
            let (key, value) = setting.split_once('=').unwrap();
            let name = format!("PATGATE_{}", key.replace('.', "_").to_uppercase());
            (name, value.to_owned())
        };
        defaults.into_iter().chain(settings.iter().copied()).map(variable).collect()
    }

    /// A configuration for a replica in this process.
    pub(crate) fn config(&self, settings: &[&str]) -> Config {
        // Tests of the decision log name a file.
        let settings = [&["drain.delay=0s", "decision_log.to=none"], settings].concat();
        let sources = Sources {
            file: None,
            env: self.environment(&settings).into_iter().collect(),
            flags: Vec::new(),
            read: |path: &Path| fs::read_to_string(path),
        };
        Config::load(&sources, Purpose::Serve).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// A replica of patgate in this process, stopped when it is dropped.
    pub(crate) async fn serve(&self, settings: &[&str]) -> Replica {
        let app =
            App::build(&self.config(settings)).await.unwrap_or_else(|error| panic!("{error}"));
        let (grpc, http) = (app.grpc_address().unwrap(), app.http_address().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(app.run(stop.clone()));
        Replica { _stop: Some(stop.drop_guard()), ..Replica::at(grpc, http) }
    }

    /// How often a text stands in the statements that this world's database was sent.
    pub(crate) fn statements_with(&self, text: &str) -> usize {
        self.statements().iter().map(|line| line.matches(text).count()).sum()
    }

    /// The lines of the statements that this world's database was sent.
    pub(crate) fn statements(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.suite.postgres.log).unwrap();
        // A statement continues on lines without a prefix of their own.
        let mut ours = false;
        let mut statements = Vec::new();
        for line in log.lines() {
            if let Some((database, rest)) = line.split_once('|')
                && rest.contains("|LOG:")
            {
                ours = database == self.database;
            }
            if ours {
                statements.push(line.to_owned());
            }
        }
        statements
    }
}

pub(crate) struct Replica {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    client: AuthorizationClient<Channel>,
    _stop: Option<DropGuard>,
}

impl Replica {
    /// One that runs elsewhere.
    pub(crate) fn at(grpc: SocketAddr, http: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        Self { grpc, http, client: AuthorizationClient::new(channel), _stop: None }
    }

    /// What is answered to a request, as Envoy would read it.
    pub(crate) async fn check(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> CheckResponse {
        self.check_at("gateway", method, path, headers).await
    }

    /// The same at another host.
    pub(crate) async fn check_at(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> CheckResponse {
        let mut request = request(method, path, headers);
        http_of(&mut request).host = host.to_owned();
        self.raw(request).await
    }

    pub(crate) async fn raw(&self, request: CheckRequest) -> CheckResponse {
        self.client.clone().check(request).await.unwrap().into_inner()
    }

    /// The value of one line of the metrics page, 0 when it is not there.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        self.gauge(line).await as u64
    }

    pub(crate) async fn gauge(&self, line: &str) -> f64 {
        let page = crate::http::send(self.http.port(), "GET", "/metrics", &[], "").await.body;
        let value = page.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Envoy in front of this replica and the model backends. As shipped, but patient.
    pub(crate) fn envoy(&self, suite: &Suite) -> Server {
        self.envoy_with(suite, patient("10s", "10s"))
    }

    /// The same with other settings of its ext_authz filter.
    pub(crate) fn envoy_with(&self, suite: &Suite, ext_authz: Value) -> Server {
        envoy(suite, &[self.grpc], ext_authz)
    }
}

/// A request as Envoy would put it.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
    // Envoy joins the values of a repeated header.
    let mut joined: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        joined
            .entry(name.to_ascii_lowercase())
            .and_modify(|known| known.push_str(&format!(",{value}")))
            .or_insert_with(|| (*value).to_owned());
    }
    let http = HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: joined,
        ..Default::default()
    };
    let request = Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext { request: Some(request), ..Default::default() };
    CheckRequest { attributes: Some(attributes) }
}

/// The HTTP request that is asked about.
pub(crate) fn http_of(request: &mut CheckRequest) -> &mut HttpRequest {
    request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

/// Settings of ext_authz: how long one try may take, and all of them together. On a loaded test
/// machine a late answer is no reason for a 503.
pub(crate) fn patient(one: &str, all: &str) -> Value {
    let retry = json!({ "retry_back_off": { "base_interval": "0.02s", "max_interval": one } });
    json!({ "grpc_service": { "timeout": all, "retry_policy": retry } })
}

/// The shipped Envoy in front of these replicas and the model backends.
pub(crate) fn envoy(suite: &Suite, replicas: &[SocketAddr], ext_authz: Value) -> Server {
    suite.stack.envoy(envoy_patch(suite, replicas, ext_authz))
}

/// What makes of a shipped configuration one that works here, with patgate at these addresses.
pub(crate) fn envoy_patch(suite: &Suite, authz: &[impl Serialize], ext_authz: Value) -> Value {
    let clusters: BTreeMap<_, _> = suite
        .backends
        .iter()
        .map(|(name, backend)| (*name, format!("127.0.0.1:{}", backend.port)))
        .collect();
    json!({ "authz": authz, "clusters": clusters, "ext_authz": ext_authz })
}

/// The HTTP status and code that an answer stands for: `(200, "ok")` for an allow.
pub(crate) fn outcome(response: &CheckResponse) -> (u16, String) {
    let code = response.status.as_ref().map_or(0, |status| status.code);
    match response.http_response.as_ref().expect("an answer that says allow or deny") {
        HttpResponse::OkResponse(_) => {
            assert_eq!(code, 0, "an allow with a non-OK status");
            (200, "ok".to_owned())
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(code, 0, "Envoy takes a denial with an OK status for an ALLOW");
            let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            let status = denied.status.as_ref().unwrap().code;
            (u16::try_from(status).unwrap(), body["error"]["code"].as_str().unwrap().to_owned())
        }
        HttpResponse::ErrorResponse(_) => {
            panic!("an error response is an ALLOW under failure_mode_allow")
        }
    }
}
