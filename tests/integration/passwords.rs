//! The login for Postgres is replaced while patgate serves.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::{eventually, stack::Server};
use serde_json::json;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    postgres::PgConnectOptions,
};
use tempfile::TempDir;

use crate::support::{
    Suite, World,
    cli::Cli,
    fleet::{Fleet, MODELS},
    front::Front,
    load::{Load, WELL},
    settings::{PATIENT, SLOW},
    standby::scalar,
    tokens::reader,
};

pub(crate) const REFUSED: &str = "patgate_store_credentials_refused{store=\"postgres\"}";

/// A Postgres that asks the replicas' login for its password.
struct Locked<'s> {
    server: Server,
    world: World<'s>,
    /// Not where secrets are looked for: this is their place.
    files: TempDir,
}

impl<'s> Locked<'s> {
    async fn start(suite: &'s Suite) -> Self {
        let (server, world) = suite.spare(json!({})).await;
        demand(&world, "host all server 127.0.0.1/32 scram-sha-256").await;
        Self { server, world, files: tempfile::tempdir().unwrap() }
    }

    /// A new password, which nothing knows yet.
    fn password(&self) -> String {
        self.world.suite.provider_key()
    }

    /// Sets the password in Postgres.
    async fn set(&self, password: &str) {
        set_password(&self.world, "server", password).await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The URL with this password.
    fn url(&self, password: &str) -> String {
        let url = self.world.url("server", self.server.port);
        format!("{}\n", url.replacen("server@", &format!("server:{password}@"), 1))
    }

    /// The setting that names a file with the URL.
    fn by_url(&self) -> String {
        format!("postgres.url_file={}", self.path("url").display())
    }

    /// Ends the replicas' sessions, so that they have to log in again. Not those that are just
    /// logging in: such a login fails, and is not tried again.
    async fn log_out(&self) {
        self.world
            .sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE usename = 'server' AND state IN ('idle', 'active')",
            )
            .await;
    }

    /// How often Postgres has refused a password.
    fn refusals(&self) -> usize {
        let log = fs::read_to_string(&self.server.log).unwrap();
        log.matches("password authentication failed for user \"server\"").count()
    }
}

/// Adds a rule before all others that decides who may log in and how.
pub(crate) async fn demand(world: &World<'_>, rule: &str) {
    let sql = format!(
        "DO $$ BEGIN
             EXECUTE format('COPY (SELECT unnest(ARRAY[''{rule}'', ''local all all trust'',
                 ''host all all 127.0.0.1/32 trust''])) TO %L', current_setting('hba_file'));
             PERFORM pg_reload_conf();
         END $$"
    );
    world.sql(&sql).await;
    let loaded = format!(
        "SELECT (count(*) > 0)::text FROM pg_hba_file_rules
         WHERE line_number = 1 AND error IS NULL AND auth_method = '{}'",
        rule.split_whitespace().last().unwrap()
    );
    assert_eq!(scalar(&world.postgres, &loaded).await, "true", "{rule}");
}

/// Without a log of the statement: the password must not be in any.
pub(crate) async fn set_password(world: &World<'_>, user: &str, password: &str) {
    let options: PgConnectOptions = world.url("postgres", world.port).parse().unwrap();
    let mut connection =
        PgConnection::connect_with(&options.disable_statement_logging()).await.unwrap();
    let sql = format!("ALTER ROLE {user} PASSWORD '{password}'");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

/// In the URL and in a file of its own; first in Postgres or first in the file. No request fails.
pub(crate) async fn a_password_is_replaced_under_load(suite: Arc<Suite>) {
    let locked = Locked::start(&suite).await;
    let world = &locked.world;
    let first = locked.password();
    locked.set(&first).await;
    locked.write("password", &format!("{first}\n"));
    let own_file = format!("postgres.password_file={}", locked.path("password").display());
    let gateway = Front::of(world, &[&own_file, PATIENT[0], PATIENT[1], SLOW[0], SLOW[1]]).await;
    let load = gateway.load(world).await;
    for round in 0..2 {
        for postgres_first in [true, false] {
            let next = locked.password();
            let file = format!("{next}\n");
            if postgres_first {
                // Each replica has an open connection, which bridges the time.
                let token = reader(world).await;
                load.bear(gateway.fleet.all_answer(&token, MODELS, 200)).await;
                locked.set(&next).await;
                // Sessions that are open are not asked again.
                load.bear(load.more(WELL, 20)).await;
                locked.write("password", &file);
            } else {
                locked.write("password", &file);
                // Until Postgres knows it, the previous one is used.
                sessions_end(&locked, &load).await;
                locked.set(&next).await;
            }
            sessions_end(&locked, &load).await;
            println!("round {round}, first in Postgres: {postgres_first}");
        }
    }
    for replica in &gateway.fleet.0 {
        let accepted = async || replica.metric(REFUSED).await == 0;
        load.bear(eventually("the login to be accepted", accepted)).await;
    }
    load.end("a password is replaced").await;
}

/// The replicas log in again, and nothing fails.
async fn sessions_end(locked: &Locked<'_>, load: &Load) {
    locked.log_out().await;
    // So many that no lookup of before is under way: if its next connection were ended as well, it
    // would fail.
    load.bear(load.more(WELL, 40)).await;
}

/// A file with an error changes nothing, nor does a password that Postgres refuses. Both are shown.
pub(crate) async fn a_bad_file_keeps_the_login(suite: Arc<Suite>) {
    let locked = Locked::start(&suite).await;
    let world = &locked.world;
    let password = locked.password();
    locked.set(&password).await;
    locked.write("url", &locked.url(&password));
    let fleet = Fleet::of(world, 1, &[&locked.by_url(), PATIENT[0], SLOW[0], SLOW[1]]).await;
    let replica = &fleet.0[0];
    let shown = async |value| {
        eventually("the gauge", async || replica.metric(REFUSED).await == value).await
    };
    let works = async || {
        let token = reader(world).await;
        let asked = Instant::now();
        let answers = fleet.answers(&token, MODELS).await;
        assert_eq!(answers, [200], "after {:?}", asked.elapsed());
    };
    assert_eq!(replica.metric(REFUSED).await, 0);
    for bad in
        [String::new(), "no url".to_owned(), locked.url(&password).replace("postgres:", "mysql:")]
    {
        locked.write("url", &bad);
        shown(1).await;
        locked.log_out().await;
        works().await;
        locked.write("url", &locked.url(&password));
        shown(0).await;
    }
    fs::remove_file(locked.path("url")).unwrap();
    shown(1).await;
    works().await;

    // Of a login that Postgres refuses.
    locked.write("url", &locked.url(&locked.password()));
    shown(0).await;
    locked.log_out().await;
    works().await;
    shown(1).await;
    // It is not tried at every login: the previous one is.
    let refused = locked.refusals();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        locked.log_out().await;
        works().await;
    }
    let tries = locked.refusals() - refused;
    let most = began.elapsed().div_duration_f64(Duration::from_millis(500)).ceil() as usize + 1;
    println!("{tries} refused logins in {:?}", began.elapsed());
    assert!((1..=most).contains(&tries), "{tries} refused logins, at most {most}");
    // Postgres learns the password of the file. Nothing needs a connection.
    let next = locked.password();
    locked.write("url", &locked.url(&next));
    shown(0).await;
    locked.log_out().await;
    works().await;
    shown(1).await;
    locked.set(&next).await;
    shown(0).await;
    works().await;
}

/// Another user, as of a secret store that makes a login for each lease.
pub(crate) async fn another_login_replaces_the_first(suite: Arc<Suite>) {
    let locked = Locked::start(&suite).await;
    let world = &locked.world;
    let [password, other] = [locked.password(), locked.password()];
    locked.set(&password).await;
    world.sql("CREATE ROLE leased LOGIN IN ROLE patgate_serve").await;
    set_password(world, "leased", &other).await;
    locked.write("url", &locked.url(&password));
    let fleet = Fleet::of(world, 1, &[&locked.by_url(), PATIENT[0]]).await;
    let warm = reader(world).await;
    fleet.all_answer(&warm, MODELS, 200).await;

    // One that may administer is not used, even while another one would be needed.
    locked.write("url", &format!("{}\n", world.url("administrator", locked.server.port)));
    let refused = async || {
        locked.log_out().await;
        fleet.all_answer(&reader(world).await, MODELS, 200).await;
        fleet.0[0].metric(REFUSED).await == 1
    };
    eventually("the operator's login to be refused", refused).await;
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let told = "the login administrator may administer patgate: it is a member of patgate_admin";
    assert!(log.contains(told));

    let leased = locked.url(&other).replacen("server:", "leased:", 1);
    locked.write("url", &leased);
    let sessions = "SELECT coalesce(string_agg(DISTINCT usename, ','), '') FROM pg_stat_activity
                    WHERE usename IN ('server', 'leased')";
    let moved = async || {
        let token = reader(world).await;
        fleet.all_answer(&token, MODELS, 200).await;
        scalar(&world.postgres, sessions).await == "leased"
    };
    eventually("the sessions of the first login to end", moved).await;
    world.sql("DROP ROLE server").await;
    let token = reader(world).await;
    fleet.all_answer(&token, MODELS, 200).await;
}

/// The settings name one place for a password, and commands read it there.
pub(crate) async fn commands_read_the_file(suite: Arc<Suite>) {
    let locked = Locked::start(&suite).await;
    let world = &locked.world;
    let password = locked.password();
    set_password(world, "administrator", &password).await;
    demand(world, "host all administrator 127.0.0.1/32 scram-sha-256").await;
    let file = locked.path("password").display().to_string();
    let url = world.url("administrator", locked.server.port);
    let cli = Cli::of(world).with("postgres.url", &url).with("postgres.password_file", &file);
    cli.refused("user list", 2, "a readable file in postgres.password_file");
    locked.write("password", "two\nlines\n");
    cli.refused("user list", 2, "a password on one line");
    locked.write("password", &format!("{}\n", locked.password()));
    let refused = cli.run("user list");
    assert!(refused.stderr.contains("password authentication failed"), "{refused:#?}");
    locked.write("password", &format!("{password}\n"));
    assert!(cli.ok("user list").contains("ann@example.com"));
    let twice = cli.with("postgres.url", &url.replacen('@', ":other@", 1));
    twice.refused("user list", 2, "a URL without a password");
}
