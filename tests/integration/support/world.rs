//! The data of one test: users, domains and tokens, in its own database and Redis database.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use patgate::{
    admin::{Admin, CachedCopies},
    app::App,
    config::{Config, ConfigPurpose, ConfigSources, read_keyring},
    installation::Installation,
    keyring::{self, KeyRing},
    postgres,
    token::{Prefixes, TokenId, Tokens},
};
use sqlx::{Decode, PgPool, Postgres, Type};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Replica, Suite, connect, execute, suite::url};

/// One installation: a database, a Redis database, a key ring.
pub(crate) struct World<'s> {
    pub(crate) suite: &'s Suite,
    pub(crate) database: String,
    pub(crate) port: u16,
    /// As the superuser, who may do everything, also what is wrong.
    pub(crate) postgres: PgPool,
    pub(crate) redis_url: String,
    /// The prefix of its keys there.
    pub(crate) redis_prefix: String,
    pub(crate) keyring_file: PathBuf,
    pub(crate) tokens: Tokens,
    /// How long the log of the shared Postgres was before. All tests write there, so it becomes long.
    pub(super) logged: u64,
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

impl<'s> World<'s> {
    /// In the Postgres at that port, as a copy of that database.
    pub(super) async fn create(suite: &'s Suite, port: u16, template: &str, number: u32) -> Self {
        let database = format!("world_{number}");
        let root = connect(&url(port, "postgres", "postgres")).await;
        execute(&root, &format!("CREATE DATABASE {database} TEMPLATE {template}")).await;
        root.close().await;
        let postgres = connect(&url(port, "postgres", &database)).await;

        let keyring_file = suite.dir.path().join(format!("{database}.keys"));
        let line = keyring::new_line(&"k1".parse().unwrap()).unwrap();
        fs::write(&keyring_file, line.as_bytes()).unwrap();
        let tokens = Tokens::new(Prefixes::default(), KeyRing::parse(&line).unwrap());
        let redis_prefix = redis_prefix(&postgres).await;
        let redis_url = format!("redis://127.0.0.1:{}/{number}", suite.valkey.port);
        let ids = HashMap::new();
        let mut world = World {
            suite,
            database,
            port,
            postgres,
            redis_url,
            redis_prefix,
            keyring_file,
            tokens,
            logged: 0,
            ids,
        };
        world.populate().await;
        world
    }

    /// Another database of the same cluster, restored from a dump of this one, as staging is made
    /// from production; with the same Redis and the same keys.
    pub(crate) async fn restored(&self) -> Self {
        let database = self.database.replace("world", "clone");
        let bin = &self.suite.postgres.bin;
        let from = self.url("postgres", self.port);
        let to = url(self.port, "postgres", &database);
        self.sql(&format!("CREATE DATABASE {database}")).await;
        let dump = self.suite.dir.path().join(format!("{database}.dump"));
        for (program, arguments) in [
            (
                "pg_dump",
                vec!["--format=custom", "--no-sync", "--file", dump.to_str().unwrap(), &from],
            ),
            ("pg_restore", vec!["--exit-on-error", "--dbname", &to, dump.to_str().unwrap()]),
        ] {
            let run = Command::new(format!("{bin}/{program}")).args(arguments).output().await;
            let run = run.unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        }
        let postgres = connect(&to).await;
        let redis_prefix = redis_prefix(&postgres).await;
        let ring = KeyRing::parse(&fs::read_to_string(&self.keyring_file).unwrap()).unwrap();
        World {
            suite: self.suite,
            database,
            port: self.port,
            postgres,
            redis_url: self.redis_url.clone(),
            redis_prefix,
            keyring_file: self.keyring_file.clone(),
            tokens: Tokens::new(Prefixes::default(), ring),
            logged: self.logged,
            ids: self.ids.clone(),
        }
    }

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
            let all_models = slug != "picky";
            self.sql(&format!(
                "INSERT INTO patgate.domains (id, slug, name, enabled, upstream, all_models)
                     VALUES ('{id}', '{slug}', '{slug}', {enabled}, '{upstream}', {all_models});
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
            let role = self.id(domain);
            let user = self.id(user);
            self.sql(&format!("INSERT INTO patgate.role_members VALUES ('{role}', '{user}')"))
                .await;
        }
        let role = Uuid::now_v7();
        let acme = self.id("acme");
        let picky = self.id("picky");
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

    /// The URL of this world's database, possibly at the port of a proxy.
    pub(crate) fn url(&self, user: &str, port: u16) -> String {
        url(port, user, &self.database)
    }

    /// A token that lives for `life`, a Postgres interval; with a negative one, it has already
    /// expired.
    pub(crate) async fn token_for(&self, owner: &str, life: &str, scopes: &[Scope<'_>]) -> Token {
        let (token, sql) = self.issue(owner, life, scopes);
        self.sql(&sql).await;
        token
    }

    /// A token that is not stored yet, and the statements that store it.
    pub(crate) fn issue(&self, owner: &str, life: &str, scopes: &[Scope<'_>]) -> (Token, String) {
        let (token, digest) = self.suite.mint(&self.tokens, TokenId(Uuid::now_v7()));
        let id = token.id;
        let user = self.id(owner);
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

    /// A token of our own key with this id, which no database has.
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
            // A busy test machine must not cause a 503. Tests with shorter times set them.
            "deadline=5s",
            "postgres.query_timeout=4s",
            "redis.timeout=4s",
        ];
        let variable = |setting: &str| {
            let (key, value) = setting.split_once('=').unwrap();
            let name = format!("PATGATE_{}", key.replace('.', "_").to_uppercase());
            (name, value.to_owned())
        };
        let mut environment: BTreeMap<_, _> =
            defaults.into_iter().chain(settings.iter().copied()).map(variable).collect();
        for url in ["PATGATE_POSTGRES_URL", "PATGATE_WEB_POSTGRES_URL"] {
            if environment.contains_key(&format!("{url}_FILE")) {
                environment.remove(url);
            }
        }
        environment
    }

    /// A configuration for a replica in this process.
    pub(crate) fn config(&self, settings: &[&str]) -> Config {
        // Tests of the decision log name a file. A replica in this process has started when it is
        // built, or is none.
        let usual = ["drain.delay=0s", "decision_log.to=none", "start.require=postgres"];
        let settings = [&usual, settings].concat();
        let sources = ConfigSources {
            file: None,
            env: self.environment(&settings).into_iter().collect(),
            flags: Vec::new(),
            read: |path: &Path| fs::read_to_string(path),
        };
        Config::load(&sources, ConfigPurpose::Serve).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// A replica of patgate in this process, stopped when it is dropped.
    pub(crate) async fn serve(&self, settings: &[&str]) -> Replica {
        let app =
            App::build(&self.config(settings)).await.unwrap_or_else(|error| panic!("{error}"));
        let grpc = app.grpc_address().unwrap();
        let http = app.http_address().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(app.run(stop.clone()));
        Replica::at(grpc, http).ended_by(stop)
    }

    /// The administrator's service, with its own connections.
    pub(crate) async fn admin(&self, pool: PgPool) -> Admin {
        let cached_copies = CachedCopies {
            installation: postgres::check(&pool).await.unwrap(),
            redis: None,
            max_staleness: Duration::ZERO,
        };
        let ring = read_keyring(&self.keyring_file).unwrap();
        let admin = Admin::new(pool, "tester".parse().unwrap(), cached_copies);
        admin.with_keys(ring, Prefixes::default())
    }

    /// The Redis key of something in this installation.
    pub(crate) fn in_redis(&self, name: &str) -> String {
        format!("{}{name}", self.redis_prefix)
    }

    /// How often a text occurs in the statements to this world's database.
    pub(crate) fn statements_with(&self, text: &str) -> usize {
        self.statements().iter().map(|line| line.matches(text).count()).sum()
    }

    /// The lines of the statements to this world's database.
    pub(crate) fn statements(&self) -> Vec<String> {
        let mut log = File::open(&self.suite.postgres.log).unwrap();
        log.seek(SeekFrom::Start(self.logged)).unwrap();
        let mut text = Vec::new();
        log.read_to_end(&mut text).unwrap();
        let log = String::from_utf8_lossy(&text);
        // A statement continues on lines without a prefix.
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

/// The prefix of the keys of the installation in this database.
pub(crate) async fn redis_prefix(postgres: &PgPool) -> String {
    let identity: String =
        sqlx::query_scalar("SELECT patgate.identity()").fetch_one(postgres).await.unwrap();
    identity.parse::<Installation>().unwrap().redis_prefix()
}

/// Returns one value from the database, read as the superuser.
pub(crate) async fn value<T>(world: &World<'_>, sql: &str) -> T
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(&world.postgres)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
}
