//! A replica that starts before its stores: it says what it lacks, answers nothing, reads nothing
//! from Redis, and is ready by itself once every check of the start has passed.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use patgate::postgres::SCHEMA;
use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
};
use serde_json::{Value, json};

use crate::support::{
    Suite, Token, World,
    cli::{Cli, found, server},
    connect, execute, outcome,
    process::{self, Process},
    redis_at,
    replica::health,
    settings::{postgres_at, postgres_through, redis_through},
    standby::caught_up,
    tokens::reader,
    value,
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

async fn listen(world: &World<'_>, settings: &[&str]) -> Process {
    process::listen(world, &[&process::program(), "serve"], settings).await
}

async fn page(process: &Process, path: &str) -> (u16, String) {
    let reply = http::send(process.replica.http.port(), "GET", path, &[], "").await;
    (reply.status, reply.body)
}

async fn becomes_ready(process: &Process) {
    eventually("it to be ready", async || page(process, "/readyz").await.0 == 200).await;
    eventually("its health to tell", async || health(process.replica.grpc).await == SERVING).await;
}

/// Waits until `/readyz` says exactly this.
async fn lacks(process: &Process, lines: &[&str]) {
    // Longer than the checks of the start may take.
    const PATIENCE: Duration = Duration::from_secs(60);
    let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut said = String::new();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let (status, body) = page(process, "/readyz").await;
        if (status, &body) == (503, &expected) {
            return;
        }
        said = body;
        tokio::time::sleep(patgate_testing::PAUSE).await;
    }
    panic!("not ready for another reason: {said:?}, not {expected:?}");
}

/// The answers to requests of all kinds: with a valid token, a forged one, none, and a bad path.
async fn answers(process: &Process, token: &Token) -> Vec<(u16, String)> {
    let bearer = token.bearer();
    let forged = format!("Bearer {}", token.text.replace("pat_", "pat_0"));
    let mut answers = Vec::new();
    for (path, headers) in [
        ("/proxy/acme/v1/models", vec![("authorization", &*bearer)]),
        ("/proxy/acme/v1/models", vec![("authorization", &*forged)]),
        ("/proxy/acme/v1/models", vec![]),
        ("/proxy/acme/nothing", vec![("authorization", &*bearer)]),
        ("/proxy//acme", vec![("authorization", &*bearer)]),
    ] {
        answers.push(outcome(&process.replica.check("GET", path, &headers).await));
    }
    answers
}

fn outages(count: usize) -> Vec<(u16, String)> {
    vec![(503, "unavailable".to_owned()); count]
}

fn logged(process: &Process, text: &str) -> usize {
    let log = fs::read_to_string(&process.server.log).unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

/// Redis holds what another replica has left, which would be enough for an answer. Nothing is read
/// there until Postgres has said whose it is.
pub(crate) async fn before_its_stores_it_waits_and_then_serves(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let other = process::serve(&world, &[]).await;
    eventually("an entry in Redis", async || {
        assert_eq!(answers(&other, &token).await[0].0, 200);
        let mut redis = redis_at(&world.redis_url).await;
        let pattern = format!("patgate:*principal:{}", token.id);
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        !keys.is_empty()
    })
    .await;

    let postgres = Proxy::to(suite.postgres.port).await;
    postgres.set(Mode::Refuse);
    let redis = Proxy::to(suite.valkey.port).await;
    let settings = [postgres_through(&world, &postgres), redis_through(&world, &redis)];
    let late = listen(&world, &[&settings[0], &settings[1]]).await;
    lacks(&late, &["postgres.url: Postgres cannot be reached"]).await;
    assert_eq!(answers(&late, &token).await, outages(5));
    assert_eq!(health(late.replica.grpc).await, NOT_SERVING);
    assert_eq!(page(&late, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(page(&late, "/startupz").await.0, 503);
    assert_eq!(late.replica.metric("patgate_ready").await, 0);
    // The log has the address, once, and the page has not.
    let port = postgres.port.to_string();
    assert_eq!(logged(&late, &format!("127.0.0.1, port {port}")), 1);
    assert!(!page(&late, "/readyz").await.1.contains(&port));
    // It tries again and again.
    let tried = postgres.accepted();
    eventually("another attempt", async || postgres.accepted() > tried + 1).await;
    assert_eq!(redis.accepted(), 0, "Redis was read before Postgres said whose it is");

    postgres.set(Mode::Pass);
    becomes_ready(&late).await;
    assert_eq!(page(&late, "/startupz").await.0, 200);
    assert_eq!(answers(&late, &token).await[0], (200, "ok".to_owned()));
    assert_eq!(answers(&late, &token).await[1].0, 401);
    eventually("Redis to be used", async || redis.accepted() > 0).await;

    // The start does not begin again.
    postgres.set(Mode::Refuse);
    suite.stack.signal(&late.server, "TERM");
    eventually("it to drain", async || page(&late, "/readyz").await.1 == "draining\n").await;
    assert_eq!(page(&late, "/startupz").await.0, 200);
    assert_eq!(suite.stack.exit_code(&late.server).await, 0);
}

/// Redis away is no reason to wait, unless a setting says so.
pub(crate) async fn it_starts_without_redis(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let redis = Proxy::to(suite.valkey.port).await;
    redis.set(Mode::Refuse);
    let setting = redis_through(&world, &redis);
    let without = process::serve(&world, &[&setting]).await;
    assert_eq!(answers(&without, &token).await[0].0, 200);

    let url = setting.strip_prefix("redis.url=").unwrap();
    let cli = server(&world)
        .with("listen.grpc", "127.0.0.1:0")
        .with("listen.http", "127.0.0.1:0")
        .with("redis.url", url)
        .with("start.require", "all");
    cli.refused("serve", 1, "redis.url: ");
    redis.set(Mode::Pass);
    let setting = format!("redis.url={url}");
    process::serve(&world, &[&setting, "start.require=all"]).await;
}

/// Every reason is named, in text and in JSON.
pub(crate) async fn all_that_is_missing_is_named_at_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let other = world.restored().await;
    let [postgres, feed] =
        [Proxy::to(suite.postgres.port).await, Proxy::to(suite.postgres.port).await];
    postgres.set(Mode::Refuse);
    feed.set(Mode::Refuse);
    let settings = [
        postgres_through(&world, &postgres),
        format!("feed.url={}", other.url("server", feed.port)),
    ];
    let late = listen(&world, &[&settings[0], &settings[1]]).await;
    let both = ["postgres.url: Postgres cannot be reached", "feed.url: Postgres cannot be reached"];
    lacks(&late, &both).await;
    let accept = [("accept", "application/json")];
    let reply = http::send(late.replica.http.port(), "GET", "/readyz", &accept, "").await;
    let reason = "Postgres cannot be reached";
    let missing =
        ["postgres.url", "feed.url"].map(|setting| json!({ "setting": setting, "reason": reason }));
    let expected = json!({ "ready": false, "missing": missing });
    assert_eq!(
        (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap()),
        (503, expected)
    );

    // Each is there, and they do not belong together.
    feed.set(Mode::Pass);
    lacks(&late, &both[..1]).await;
    postgres.set(Mode::Pass);
    lacks(&late, &["feed.url: leads to another installation than postgres.url"]).await;
    let token = reader(&world).await;
    assert_eq!(answers(&late, &token).await, outages(5));
    feed.lead(&other.database, &world.database);
    feed.cut();
    becomes_ready(&late).await;
    assert_eq!(answers(&late, &token).await[0].0, 200);
    let reply = http::send(late.replica.http.port(), "GET", "/readyz", &accept, "").await;
    let ready: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(ready, json!({ "ready": true, "missing": [] }));
}

/// A schema that this release does not work with, whenever it is found.
pub(crate) async fn an_old_schema_keeps_it_from_serving(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let postgres = Proxy::to(suite.postgres.port).await;
    postgres.set(Mode::Refuse);
    let late = listen(&world, &[&postgres_through(&world, &postgres)]).await;
    lacks(&late, &["postgres.url: Postgres cannot be reached"]).await;
    let set = async |version: i32| {
        world.sql(&format!("UPDATE patgate.schema_version SET version = {version}")).await;
    };
    set(SCHEMA - 1).await;
    postgres.set(Mode::Pass);
    let old = "postgres.url: the schema is older than this release needs; run `patgate migrate`";
    lacks(&late, &[old]).await;
    assert_eq!(answers(&late, &token).await, outages(5));
    assert_eq!(logged(&late, "this release needs"), 1);
    set(SCHEMA + 2).await;
    lacks(&late, &["postgres.url: the schema is newer than this release knows; upgrade patgate"])
        .await;
    set(SCHEMA).await;
    becomes_ready(&late).await;
    assert_eq!(answers(&late, &token).await[0].0, 200);
}

/// A connection that was accepted and stays without an answer, as while a migration holds a lock.
pub(crate) async fn a_store_that_falls_silent_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let mut table = world.postgres.acquire().await.unwrap();
    let lock = "BEGIN; LOCK TABLE patgate.schema_version IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut *table).await.unwrap();
    let waits = listen(&world, &[]).await;
    lacks(&waits, &["start: a store accepts connections and does not answer"]).await;
    assert_eq!(answers(&waits, &token).await, outages(5));
    sqlx::raw_sql("COMMIT").execute(&mut *table).await.unwrap();
    becomes_ready(&waits).await;
    assert_eq!(answers(&waits, &token).await[0].0, 200);
}

/// A standby answers as quickly as a primary, and nothing of it may be used.
pub(crate) async fn a_standby_keeps_it_from_serving(suite: Arc<Suite>) {
    let (primary, world) = suite.spare(json!({})).await;
    let token = reader(&world).await;
    let standby = suite.stack.start("postgres", json!({ "primary": primary.port }));
    let promoted = connect(&world.url("postgres", standby.port)).await;
    caught_up(&world, &promoted).await;
    let waits = listen(&world, &[&postgres_at(&world, standby.port)]).await;
    lacks(&waits, &["postgres.url: the server is a standby, whose answers may be old"]).await;
    assert_eq!(answers(&waits, &token).await, outages(5));
    let checked = found(
        &server(&world).with("postgres.url", &world.url("server", standby.port)),
        "postgres.url",
    );
    assert_eq!((checked.0, &*checked.1), (1, "failed"), "{}", checked.2);
    execute(&promoted, "SELECT pg_promote()").await;
    becomes_ready(&waits).await;
    assert_eq!(answers(&waits, &token).await[0].0, 200);
}

/// Neither a superuser, nor the owner of the tables, nor an operator, nor a login that may become
/// one, nor one that was granted a write.
pub(crate) async fn a_login_that_may_administer_keeps_it_from_serving(suite: Arc<Suite>) {
    const MAY: &str =
        "postgres.url: the login may administer patgate; it must be a member of patgate_serve only";
    let world = suite.world().await;
    let token = reader(&world).await;
    let named = |name: &str| format!("{name}_{}", world.database);
    let [both, portal, aloof, creator, writer, inviter] =
        ["both", "portal", "aloof", "creator", "writer", "inviter"].map(named);
    // Roles of others, and logins that may become them.
    let [dba, granter, team] = ["dba", "granter", "team"].map(named);
    let [heir, ward, mate, shell] = ["heir", "ward", "mate", "shell"].map(named);
    world
        .sql(&format!(
            "CREATE ROLE {both} LOGIN IN ROLE patgate_serve, patgate_admin;
             CREATE ROLE {portal} LOGIN IN ROLE patgate_serve, patgate_web;
             CREATE ROLE {aloof} LOGIN IN ROLE patgate_serve;
             CREATE ROLE {creator} LOGIN CREATEROLE IN ROLE patgate_serve;
             CREATE ROLE {writer} LOGIN IN ROLE patgate_serve;
             GRANT UPDATE (enabled) ON patgate.users TO {writer};
             CREATE ROLE {inviter} LOGIN IN ROLE patgate_serve;
             GRANT INSERT ON patgate.invitations TO {inviter};
             CREATE ROLE {dba} SUPERUSER;
             CREATE ROLE {granter} CREATEROLE;
             CREATE ROLE {team};
             GRANT DELETE ON patgate.pats TO {team};
             CREATE ROLE {heir} LOGIN IN ROLE patgate_serve, {dba};
             CREATE ROLE {ward} LOGIN IN ROLE patgate_serve, {granter};
             CREATE ROLE {mate} LOGIN IN ROLE patgate_serve;
             CREATE ROLE {shell} LOGIN IN ROLE patgate_serve, pg_execute_server_program"
        ))
        .await;
    let inherits: i32 = value(&world, "SELECT current_setting('server_version_num')::int4").await;
    let grant = if inherits >= 160_000 { "WITH INHERIT FALSE" } else { "" };
    world
        .sql(&format!("GRANT patgate_admin TO {aloof} {grant}; GRANT {team} TO {mate} {grant}"))
        .await;
    for (login, why) in [
        ("postgres", "it is a superuser"),
        ("administrator", "it is a member of patgate_admin"),
        (&*portal, "it is a member of patgate_web"),
        (&*both, "it is a member of patgate_admin"),
        (&*aloof, "it is a member of patgate_admin"),
        (&*creator, "it has CREATEROLE"),
        (&*writer, "it may change the table users"),
        (&*inviter, "it may change the table invitations"),
        (&*heir, &format!("it is a member of {dba}, which is a superuser")),
        (&*ward, &format!("it is a member of {granter}, which has CREATEROLE")),
        (&*mate, &format!("it is a member of {team}, which may change the table pats")),
        (&*shell, "it is a member of pg_execute_server_program"),
    ] {
        let cli = server(&world).login(&world, login);
        for (key, cli) in [
            ("postgres.url", cli.clone()),
            ("feed.url", server(&world).with("feed.url", &world.url(login, world.port))),
        ] {
            let (code, outcome, detail) = found(&cli, key);
            assert_eq!((code, &*outcome), (1, "failed"), "{login}: {detail}");
            assert!(detail.contains(why) && detail.contains(key), "{login}: {detail}");
        }
        let serve = cli.with("listen.grpc", "127.0.0.1:0").with("listen.http", "127.0.0.1:0");
        serve.with("start.require", "postgres").refused("serve", 2, why);
    }
    let right = found(&server(&world), "postgres.url");
    assert_eq!((right.0, &*right.1), (0, "ok"), "{}", right.2);
    // An operator needs just such a login.
    let operator = Cli::of(&world).run("config check --admin --connect");
    assert_eq!(operator.code, 0, "{operator:#?}");

    // Without the requirement it waits, and does not answer.
    let url = format!("postgres.url={}", world.url(&writer, world.port));
    let waits = listen(&world, &[&url]).await;
    lacks(&waits, &[MAY]).await;
    assert_eq!(answers(&waits, &token).await, outages(5));
    assert_eq!(logged(&waits, "it may change the table users"), 1);
    world.sql(&format!("REVOKE UPDATE (enabled) ON patgate.users FROM {writer}")).await;
    becomes_ready(&waits).await;
    assert_eq!(answers(&waits, &token).await[0].0, 200);
}
