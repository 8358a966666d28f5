//! Real Postgres and Valkey servers, a key ring, and databases full of tokens.

use std::{fs, path::PathBuf, time::Instant};

use patgate::{
    keyring::{self, KeyRing},
    postgres,
    token::{Prefixes, TokenId, Tokens},
};
use patgate_testing::stack::{Server, Stack};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The operations of a token in these databases, unless a measurement says otherwise.
const OPERATIONS: [&str; 3] = ["llm_chat_completions", "llm_embeddings", "llm_read"];
/// Rows that one statement inserts.
const BATCH: usize = 20_000;

pub(crate) struct Site {
    pub(crate) runtime: Runtime,
    pub(crate) stack: Stack,
    postgres: Server,
    valkey: Server,
    pub(crate) keyring: PathBuf,
    pub(crate) tokens: Tokens,
    pub(crate) dir: TempDir,
}

/// A database, and the tokens in it whose text is known.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) tokens: Vec<Issued>,
    pool: PgPool,
}

/// A working token, and its domain.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) domain: String,
}

impl Site {
    pub(crate) fn launch() -> Self {
        let stack = Stack::default();
        // As much of a large database as a production server would hold in memory.
        let settings = json!({ "shared_buffers": "1GB", "max_wal_size": "8GB" });
        let postgres = stack.start("postgres", json!({ "settings": settings }));
        let valkey = stack.start("valkey", json!({ "args": ["--databases", "64"] }));
        // Inside the supervisor's folder, which the supervisor removes, however this program ends.
        let dir = TempDir::new_in(stack.dir()).unwrap();
        let keyring = dir.path().join("keyring");
        let line = keyring::new_line(&"k1".parse().unwrap()).unwrap();
        fs::write(&keyring, line.as_bytes()).unwrap();
        let tokens = Tokens::new(Prefixes::default(), KeyRing::parse(&line).unwrap());
        let runtime = Runtime::new().unwrap();
        Self { runtime, stack, postgres, valkey, keyring, tokens, dir }
    }

    pub(crate) fn redis_url(&self, database: usize) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.valkey.port)
    }

    pub(crate) fn keyring_path(&self) -> String {
        self.keyring.display().to_string()
    }

    pub(crate) fn postgres_port(&self) -> u16 {
        self.postgres.port
    }

    pub(crate) fn redis_port(&self) -> u16 {
        self.valkey.port
    }

    fn postgres_url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.postgres.port)
    }

    /// Creates a database with this many domains, each with a user who has every permission in it.
    pub(crate) fn database(&self, name: &str, domains: usize) -> Database {
        self.runtime.block_on(async {
            let root = connect(&self.postgres_url("postgres", "postgres")).await;
            execute(&root, &format!("CREATE DATABASE {name}")).await;
            let url = self.postgres_url("postgres", name);
            let address = postgres::Address::of_one("postgres.url", &url.clone().into()).unwrap();
            postgres::migrate(&address).await.unwrap();
            execute(
                &root,
                "DO $$ BEGIN
                     IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'server') THEN
                         CREATE ROLE server LOGIN IN ROLE patgate_serve;
                     END IF;
                 END $$",
            )
            .await;
            root.close().await;
            let pool = connect(&url).await;
            // Ids are computed from a number, so that every statement here can name them.
            execute(
                &pool,
                &format!(
                    "CREATE FUNCTION id(kind text, n bigint) RETURNS uuid IMMUTABLE
                         RETURN md5(kind || n)::uuid;
                     INSERT INTO patgate.backends (name, url, kind)
                         VALUES ('model', 'http://127.0.0.1:1', 'vllm');
                     INSERT INTO patgate.domains (id, slug, name, upstream, all_models)
                         SELECT id('domain', n), 'domain-' || n, 'Domain', 'model', true
                         FROM generate_series(0, {domains} - 1) AS n;
                     INSERT INTO patgate.roles (id, domain_id, name)
                         SELECT id('role', n), id('domain', n), 'admin'
                         FROM generate_series(0, {domains} - 1) AS n;
                     INSERT INTO patgate.role_operations
                         SELECT id('role', n), operation
                         FROM generate_series(0, {domains} - 1) AS n, patgate.operations;
                     INSERT INTO patgate.users (id, email, name)
                         SELECT id('user', n), 'user-' || n || '@example.com', 'User'
                         FROM generate_series(0, {domains} - 1) AS n;
                     INSERT INTO patgate.role_members
                         SELECT id('role', n), id('user', n)
                         FROM generate_series(0, {domains} - 1) AS n;"
                ),
            )
            .await;
            Database { url: self.postgres_url("server", name), tokens: Vec::new(), pool }
        })
    }

    /// Adds tokens, spread evenly over the domains, each with three scopes.
    pub(crate) fn issue(&self, database: &mut Database, count: usize, domains: usize) {
        self.runtime.block_on(database.without_triggers(async |database| {
            let mut left = count;
            while left > 0 {
                let batch = left.min(BATCH);
                database.tokens.extend(self.insert(&database.pool, batch, domains).await);
                left -= batch;
            }
        }));
    }

    async fn insert(&self, pool: &PgPool, count: usize, domains: usize) -> Vec<Issued> {
        let minted: Vec<_> =
            (0..count).map(|_| self.tokens.mint(TokenId(Uuid::new_v4())).unwrap()).collect();
        let ids: Vec<Uuid> = minted.iter().map(|token| token.id.0).collect();
        let digests: Vec<_> = minted.iter().map(|token| token.digest.as_bytes().to_vec()).collect();
        let ids = &ids;
        let domains = i64::try_from(domains).unwrap();
        sqlx::query(
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, issued_at, expires_at)
                 SELECT t.id, id('user', n % $3), t.id, digest, 'k1',
                        now() - interval '1 year', now() + interval '1 day'
                 FROM unnest($1, $2) WITH ORDINALITY AS t (id, digest, n)",
        )
        .bind(ids)
        .bind(digests)
        .bind(domains)
        .execute(pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO patgate.pat_scopes
                 SELECT gen_random_uuid(), t.id, id('domain', n % $2), 'models', '*', operation
                 FROM unnest($1) WITH ORDINALITY AS t (id, n), unnest($3) AS operation",
        )
        .bind(ids)
        .bind(domains)
        .bind(OPERATIONS.map(str::to_owned).to_vec())
        .execute(pool)
        .await
        .unwrap();
        let domain = |place: usize| (place as i64 + 1) % domains;
        let text = |token: patgate::token::MintedToken| token.plain.expose().to_owned();
        minted
            .into_iter()
            .enumerate()
            .map(|(place, token)| Issued {
                id: token.id,
                text: text(token),
                domain: format!("domain-{}", domain(place)),
            })
            .collect()
    }
}

/// Returns tokens of a key ring that no server has.
pub(crate) fn strangers(count: usize) -> Vec<Issued> {
    let line = keyring::new_line(&"k1".parse().unwrap()).unwrap();
    let tokens = Tokens::new(Prefixes::default(), KeyRing::parse(&line).unwrap());
    let stranger = |_| {
        let id = TokenId(Uuid::new_v4());
        let text = tokens.mint(id).unwrap().plain.expose().to_owned();
        Issued { id, text, domain: "domain-0".to_owned() }
    };
    (0..count).map(stranger).collect()
}

impl Database {
    /// Adds tokens that are never requested, each with a scope, until there are this many in all.
    pub(crate) fn fill(&mut self, runtime: &Runtime, total: usize) {
        let missing = total - self.tokens.len();
        runtime.block_on(self.without_triggers(async |database| {
            let sql = format!(
                "WITH pat AS (
                     INSERT INTO patgate.pats
                         (id, user_id, name, digest, key_id, issued_at, expires_at)
                     SELECT gen_random_uuid(), id('user', 0), 'filler ' || n,
                            sha256(n::text::bytea), 'k1',
                            now() - interval '1 year', now() + interval '1 day'
                     FROM generate_series(1, {missing}) AS n RETURNING id)
                 INSERT INTO patgate.pat_scopes
                     SELECT gen_random_uuid(), id, id('domain', 0), 'models', '*', 'llm_read'
                     FROM pat"
            );
            execute(&database.pool, &sql).await;
        }));
    }

    /// Replaces the scopes of each token with this many scopes, each on one model.
    pub(crate) fn narrow(&mut self, runtime: &Runtime, scopes: usize) {
        runtime.block_on(async {
            let sql = format!(
                "WITH had AS (DELETE FROM patgate.pat_scopes RETURNING pat_id, domain_id)
                 INSERT INTO patgate.pat_scopes
                     SELECT gen_random_uuid(), pat_id, domain_id, 'models',
                            'org/model-' || to_char(n, 'FM0000'), 'llm_read'
                     FROM (SELECT DISTINCT pat_id, domain_id FROM had) AS had,
                          generate_series(0, {scopes} - 1) AS n"
            );
            execute(&self.pool, &sql).await;
        });
    }

    /// Limits a token to calls of these models.
    pub(crate) fn limit(&self, runtime: &Runtime, token: TokenId, models: &[&str]) {
        runtime.block_on(async {
            let id = token.0;
            let models = models.join("','");
            let sql = format!(
                "DELETE FROM patgate.pat_scopes WHERE pat_id = '{id}';
                 INSERT INTO patgate.pat_scopes
                     SELECT gen_random_uuid(), '{id}', id('domain', 0), 'models', model, operation
                     FROM unnest(ARRAY['{models}']) AS model,
                          unnest(ARRAY['llm_chat_completions', 'llm_transcription']) AS operation"
            );
            execute(&self.pool, &sql).await;
        });
    }

    /// The URL of this database behind a proxy.
    /// Lets self-service run on it without limits on sign-ins, and returns the URL of its login and the
    /// secret of a session.
    pub(crate) fn self_service(&self, runtime: &Runtime) -> (String, String) {
        let seven = "07".repeat(32);
        let sql = format!(
            "DO $$ BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'web') THEN
                     CREATE ROLE web LOGIN IN ROLE patgate_web;
                 END IF;
             END $$;
             UPDATE patgate.policy SET failed_attempts = 1000000000,
                 attempts_per_minute = 1000000000;
             INSERT INTO patgate.local_accounts (user_id, salt, verifier)
                 VALUES (id('user', 0), decode(repeat('00', 16), 'hex'), sha256('none'));
             INSERT INTO patgate.sessions (proof_hash, user_id, epoch, method)
                 VALUES (sha256(sha256(decode('{seven}', 'hex'))), id('user', 0), 0, 'local')"
        );
        runtime.block_on(execute(&self.pool, &sql));
        // The base64 of these bytes.
        let session = format!("{}Bwc", "BwcH".repeat(10));
        (self.url.replacen("server@", "web@", 1), session)
    }

    pub(crate) fn url_at(&self, port: u16) -> String {
        let (server, name) = self.url.rsplit_once('/').expect("a database");
        let (server, _) = server.rsplit_once(':').expect("a port");
        format!("{server}:{port}/{name}")
    }

    /// Revokes a token, and returns when Postgres had confirmed the commit.
    pub(crate) fn revoke(&self, runtime: &Runtime, token: TokenId) -> Instant {
        let id = token.0;
        let sql = format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{id}'");
        runtime.block_on(execute(&self.pool, &sql));
        Instant::now()
    }

    /// Wakes the replicas that listen, as the commands do after their commits.
    pub(crate) fn notify(&self, runtime: &Runtime) {
        const NOTIFY: &str =
            "SELECT pg_notify('patgate_changes_' || replace(id::text, '-', ''), '')
            FROM patgate.installation";
        runtime.block_on(execute(&self.pool, NOTIFY));
    }

    /// Rows in bulk are not recorded as changes, because no replica reads this database yet.
    async fn without_triggers(&mut self, load: impl AsyncFnOnce(&mut Self)) {
        let switch = async |pool: &PgPool, how: &str| {
            for table in ["pats", "pat_scopes"] {
                execute(pool, &format!("ALTER TABLE patgate.{table} {how} TRIGGER ALL")).await;
            }
        };
        switch(&self.pool, "DISABLE").await;
        load(self).await;
        switch(&self.pool, "ENABLE").await;
        for table in ["pats", "pat_scopes"] {
            for trigger in ["record_change", "record_truncation"] {
                let always = format!("ALTER TABLE patgate.{table} ENABLE ALWAYS TRIGGER {trigger}");
                execute(&self.pool, &always).await;
            }
        }
        execute(&self.pool, "VACUUM (ANALYZE)").await;
    }
}

async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(1).connect(url).await.unwrap()
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
}
