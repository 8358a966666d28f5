//! Other logins of the cluster cannot delay a change with notifications, and replicas that listen
//! receive changes by commands at once.

use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use patgate_testing::eventually;
use serde_json::json;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, postgres::PgListener,
};
use tokio::{process::Command, time::timeout};

use super::attempt;
use crate::support::{
    Replica, Suite, Token, World,
    cli::{Cli, answer, ask},
    fleet::status,
    tokens::{reader, revoke},
    value,
};

/// A transaction that notifies, as changes did in an earlier release.
const ANNOUNCE: &str = "
    CREATE FUNCTION patgate.announce_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('patgate_changes', ''); RETURN NULL; END $$;
    CREATE TRIGGER announce AFTER INSERT ON patgate.changes
        FOR EACH STATEMENT EXECUTE FUNCTION patgate.announce_change()";
/// Postgres's codes for a transaction that cannot notify, and for a lock that is not granted in
/// time.
const QUEUE_FULL: &str = "54000";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The address of another database in the cluster of this world, for a login that has nothing to do
/// with patgate.
async fn beside_a_stranger(world: &World<'_>) -> String {
    world.sql("CREATE ROLE stranger LOGIN").await;
    format!("postgres://stranger@127.0.0.1:{}/postgres", world.port)
}

async fn two_replicas(world: &World<'_>) -> [Replica; 2] {
    let feed = format!("feed.url={}", world.url("server", world.port));
    [world.serve(&["max_staleness=60s"]).await, world.serve(&["max_staleness=60s", &feed]).await]
}

/// Whatever takes a permission away succeeds at once, and takes effect.
async fn changes_go_on(world: &World<'_>, cli: &Cli<'_>, replicas: &[Replica]) {
    let url = world.url("administrator", world.port);
    let [revoked, deleted, bare] = [reader(world).await, reader(world).await, reader(world).await];
    let others = world.token_for("bob", "1 hour", &[("beta", "models", "*", "llm_read")]).await;
    for replica in replicas {
        for token in [&revoked, &deleted, &bare] {
            assert_eq!(ask(replica, token, "acme").await, answer(200, "ok"));
        }
        assert_eq!(ask(replica, &others, "beta").await, answer(200, "ok"));
    }
    let obeyed = async |token: &Token, domain: &str, code: u16| {
        for replica in replicas {
            let refused = async || ask(replica, token, domain).await.0 == code;
            eventually("its refusal", refused).await;
        }
    };
    for command in [
        format!("token revoke {}", revoked.id),
        format!("token delete {}", deleted.id),
        "user disable bob@example.com".to_owned(),
        "user enable bob@example.com".to_owned(),
        "domain disable beta".to_owned(),
    ] {
        let ran = cli.run(&command);
        assert!(ran.is_without_warning(), "{command}: {ran:#?}");
    }
    obeyed(&revoked, "acme", 401).await;
    obeyed(&deleted, "acme", 401).await;
    obeyed(&others, "beta", 403).await;
    // Also if the session does not wait for locks.
    let impatient = format!("{url}?options=-c%20lock_timeout%3D100ms");
    let mut administrator = PgConnection::connect(&impatient).await.unwrap();
    administrator.execute(sqlx::raw_sql(AssertSqlSafe(revocation(&bare)))).await.unwrap();
    administrator.close().await.unwrap();
    obeyed(&bare, "acme", 401).await;
}

fn revocation(token: &Token) -> String {
    format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id)
}

/// With a notification in its transaction, as before, the same revocation fails at commit.
async fn fails_if_it_notifies(world: &World<'_>, code: &str) {
    let token = reader(world).await;
    world.sql(ANNOUNCE).await;
    let url = world.url("administrator", world.port);
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    let sql = format!("SET lock_timeout = '1s'; {}", revocation(&token));
    let failed = administrator.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap_err();
    assert_eq!(failed.as_database_error().unwrap().code().unwrap(), code, "{failed}");
}

/// Fills the queue that all databases of a cluster share: a session listens and never reads.
async fn fill_the_queue(url: &str) -> PgConnection {
    let mut listener = PgConnection::connect(url).await.unwrap();
    listener.execute("LISTEN flood").await.unwrap();
    listener.execute(sqlx::raw_sql("BEGIN; SELECT 1")).await.unwrap();
    let mut sender = PgConnection::connect(url).await.unwrap();
    for length in [7900, 100, 1] {
        let flood = format!(
            "SELECT pg_notify('flood', n || repeat('x', {length}))
             FROM generate_series(1, 8) n"
        );
        while sender.execute(sqlx::raw_sql(AssertSqlSafe(flood.clone()))).await.is_ok() {}
    }
    sender.close().await.unwrap();
    listener
}

pub(crate) async fn a_full_queue_holds_up_no_change(suite: Arc<Suite>) {
    // The smallest queue that is possible; by default, filling it takes 8 GiB.
    let (postgres, world) = suite.spare(json!({ "max_notify_queue_pages": 64 })).await;
    let cli = Cli::of(&world).with("postgres.url", &world.url("administrator", world.port));
    let replicas = two_replicas(&world).await;
    let listener = fill_the_queue(&beside_a_stranger(&world).await).await;
    let full = "SELECT pg_notification_queue_usage() > 0.9";
    assert!(value::<bool>(&world, full).await);
    changes_go_on(&world, &cli, &replicas).await;
    assert!(value::<bool>(&world, full).await);
    fails_if_it_notifies(&world, QUEUE_FULL).await;
    drop(listener);
    suite.stack.stop(&postgres);
}

/// From its commit on, a transaction that notifies holds the lock for which every other one waits.
/// Its sender decides how long that takes: by how much it sends, or here by a standby for which it
/// waits.
pub(crate) async fn a_commit_that_takes_long_holds_up_no_change(suite: Arc<Suite>) {
    const HELD: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE granted AND locktype = 'object'
        AND database = 0 AND classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock')";
    // A session that waits for the lock nevertheless fails.
    let settings = json!({ "synchronous_commit": "local", "lock_timeout": "20s" });
    let (postgres, world) = suite.spare(settings).await;
    let cli = Cli::of(&world).with("postgres.url", &world.url("administrator", world.port));
    let replicas = two_replicas(&world).await;
    world.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    world.sql("SELECT pg_reload_conf()").await;
    let stranger = beside_a_stranger(&world).await;
    let mut stranger = PgConnection::connect(&stranger).await.unwrap();
    let waits = "SHOW synchronous_standby_names";
    let waits = async || value::<String>(&world, waits).await == "nobody";
    eventually("Postgres to wait for a standby", waits).await;
    let commit = tokio::spawn(async move {
        let sql = "SET synchronous_commit = on;
            BEGIN; CREATE TEMPORARY TABLE logged (); NOTIFY flood; COMMIT";
        stranger.execute(sqlx::raw_sql(sql)).await.map(drop)
    });
    eventually("the lock to be held", async || value::<bool>(&world, HELD).await).await;
    changes_go_on(&world, &cli, &replicas).await;
    assert!(value::<bool>(&world, HELD).await && !commit.is_finished());
    fails_if_it_notifies(&world, LOCK_NOT_AVAILABLE).await;
    commit.abort();
    suite.stack.stop(&postgres);
}

/// A command notifies after its commit; bare SQL does not.
pub(crate) async fn commands_notify_and_bare_sql_is_polled(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let channel =
        "SELECT 'patgate_changes_' || replace(id::text, '-', '') FROM patgate.installation";
    let channel = value::<String>(&world, channel).await;
    let mut listener = PgListener::connect_with(&world.postgres).await.unwrap();
    listener.listen(&channel).await.unwrap();
    let bare = reader(&world).await;
    let token = reader(&world).await;
    revoke(&world, &bare).await;
    // In the same database, so it arrives after any notification of the revocation.
    world.sql(&format!("SELECT pg_notify('{channel}', 'marker')")).await;
    let next = async |listener: &mut PgListener| {
        let notified = timeout(Duration::from_secs(60), listener.recv()).await;
        notified.expect("a notification").unwrap().payload().to_owned()
    };
    assert_eq!(next(&mut listener).await, "marker");
    cli.ok(&format!("token revoke {}", token.id));
    assert_eq!(next(&mut listener).await, "");
}

/// Returns the total time from the end of several commands until a replica applied them.
async fn obeyed_after(world: &World<'_>, replica: &Replica) -> Duration {
    let mut sum = Duration::ZERO;
    for _ in 0..15 {
        let token = reader(world).await;
        assert_eq!(status(replica, &token).await, 200);
        let ran: ExitStatus = Command::new(env!("CARGO_BIN_EXE_patgate"))
            .args(["token", "revoke", &token.id.to_string()])
            .env("PATGATE_POSTGRES_URL", world.url("administrator", world.port))
            .stdout(std::process::Stdio::null())
            .status()
            .await
            .unwrap();
        assert!(ran.success());
        let ended = Instant::now();
        eventually("its refusal", async || status(replica, &token).await == 401).await;
        sum += ended.elapsed();
    }
    sum
}

pub(crate) async fn a_command_wakes_who_listens(suite: Arc<Suite>) {
    let world = suite.world().await;
    let [polls, listens] = two_replicas(&world).await;
    let listening = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'SELECT pg_backend_pid() AS pid, %'";
    eventually("one to listen", async || value::<i64>(&world, listening).await > 0).await;
    let woken = obeyed_after(&world, &listens).await;
    let polled = obeyed_after(&world, &polls).await;
    println!("15 revocations were obeyed within {woken:?} listening, {polled:?} polling");
    assert!(2 * woken < polled, "{woken:?} listening, {polled:?} polling");
}

/// Any login that may connect can hold advisory locks. None of them delays pruning, and only a
/// login that prunes can lock the row that does.
pub(crate) async fn no_key_and_no_login_holds_up_pruning(suite: Arc<Suite>) {
    let world = suite.world().await;
    let keys = ["'patgate prune'", "'patgate prune ' || id"];
    let mut holder = PgConnection::connect(&world.url("postgres", world.port)).await.unwrap();
    for key in keys {
        let lock = format!(
            "SELECT pg_advisory_lock(hashtextextended({key}, 0)) FROM patgate.installation"
        );
        holder.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.unwrap();
    }
    world.sql("INSERT INTO patgate.changes (kind, key) VALUES ('slug', 'old')").await;
    let old = "SELECT count(*) FROM patgate.changes WHERE key = 'old'";
    world.sql("DELETE FROM patgate.change_marks").await;
    world.sql("INSERT INTO patgate.change_marks (at) VALUES (now() - interval '2 hours')").await;
    assert_eq!(value::<i64>(&world, old).await, 1);
    let prune = "SELECT patgate.prune_changes()";
    let server = PgPool::connect(&world.url("server", world.port)).await.unwrap();
    server.execute(prune).await.unwrap();
    assert_eq!(value::<i64>(&world, old).await, 0);
    holder.close().await.unwrap();

    let administrator = PgPool::connect(&world.url("administrator", world.port)).await.unwrap();
    for pool in [&server, &administrator] {
        for mode in ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"] {
            let lock = format!("SELECT FROM patgate.change_horizon FOR {mode}");
            let denied = Err(super::INSUFFICIENT_PRIVILEGE.to_owned());
            assert_eq!(attempt(pool, &lock).await, denied, "{mode}");
        }
    }
    // A session that prunes at the same time does not wait.
    let mut other = server.begin().await.unwrap();
    other.execute(prune).await.unwrap();
    let more: bool = sqlx::query_scalar(prune).fetch_one(&administrator).await.unwrap();
    assert!(!more);
    other.rollback().await.unwrap();
    server.close().await;
    administrator.close().await;
}
