//! Behind PgBouncer in transaction mode, where two transactions of a client may use different
//! connections, and all clients share two.

use std::{env, fs, sync::Arc, time::Duration};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    ports::free_port,
    proxy::{Mode, Proxy},
    stack::Server,
};

use super::process::{ServerDirectory, find};
use crate::{
    cli::audit,
    support::{
        Suite, Token, World,
        cli::{self, Cli, answer, ask, walk_through},
        fleet::Fleet,
        process, relay,
        settings::feed_through,
        tokens::reader,
        value,
    },
};

const SERVER_CONNECTIONS: i64 = 2;
/// Longer than notifications usually take.
const SLOW_REPLIES: Duration = Duration::from_millis(400);
const READ: (&str, &str, &str, &str) = ("acme", "models", "*", "llm_read");

/// Starts PgBouncer before Postgres in a mode, with `more` settings; returns `None` if it is not
/// installed.
pub(crate) fn start(
    suite: &Suite,
    mode: &str,
    more: &str,
) -> Option<(ServerDirectory, Server, u16)> {
    let Some(pgbouncer) = find("pgbouncer") else {
        let skipped = "no pgbouncer on this machine: nothing was tried behind a pooler";
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
        println!("skipped: {skipped}");
        return None;
    };
    let home = ServerDirectory::new();
    let port = free_port();
    // No startup parameter is ignored: patgate sends none that PgBouncer does not know.
    let users = home.write("users", "\"server\" \"\"\n\"administrator\" \"\"\n\"web\" \"\"\n");
    let config = home.write(
        "pgbouncer.ini",
        &format!(
            "[databases]\n\
             * = host=127.0.0.1 port={}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {users}\n\
             pool_mode = {mode}\n\
             max_client_conn = 500\n{more}",
            suite.postgres.port
        ),
    );
    let server = home.start(suite, &pgbouncer, &[&config], port);
    Some((home, server, port))
}

pub(crate) async fn everything_works_behind_a_pooler(suite: Arc<Suite>) {
    let size = format!("default_pool_size = {SERVER_CONNECTIONS}\n");
    let Some((_home, server, port)) = start(&suite, "transaction", &size) else { return };
    let world = suite.world().await;

    let url = |user: &str, world: &World<'_>| {
        format!("postgres://{user}@127.0.0.1:{port}/{}", world.database)
    };
    let pooled = |user: &str| url(user, &world);
    let cli = Cli::of(&world).with("postgres.url", &pooled("administrator"));
    let replicas = format!("postgres.url={}", pooled("server"));
    walk_through(&world, &cli, &[&replicas, "redis.url="]).await;

    // The replicas get each other's connections, and so do the commands. A replica that receives
    // changes at once has its own connection for that; one that has none leaves no state on the
    // connections that it shares.
    let direct = suite.postgres_url("server", &world.database);
    under_load(&world, &cli, &[&replicas, "redis.url=", &format!("feed.url={direct}")]).await;
    under_load(&world, &cli, &[&replicas, "redis.url="]).await;

    let connections = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = '{}' AND usename = 'administrator' AND backend_type = 'client backend'",
        world.database
    );
    let connections: i64 = value(&world, &connections).await;
    assert!((1..=SERVER_CONNECTIONS).contains(&connections), "{connections} connections");

    let other = suite.world().await;
    let [admin, server_login] = ["administrator", "server"]
        .map(|user| Cli::of(&other).with("postgres.url", &url(user, &other)));
    audit::everything_is_recorded(&other, &admin, &server_login).await;
    suite.stack.stop(&server);
}

/// A feed without notifications is reported, and read nevertheless; a relay needs a direct
/// connection.
pub(crate) async fn a_feed_behind_a_pooler_is_told(suite: Arc<Suite>) {
    const TOLD: &str = "connection pooler in transaction mode";
    let world = suite.world().await;
    for (mode, more, pooled) in [
        ("session", "", false),
        ("transaction", "", true),
        ("transaction", "default_pool_size = 1\n", true),
        ("transaction", "default_pool_size = 3\nserver_round_robin = 1\n", true),
    ] {
        let Some((_home, server, port)) = start(&suite, mode, more) else { return };
        let feed = world.url("server", port);
        let cli = cli::server(&world).with("feed.url", &feed);
        let (code, outcome, detail) = cli::found(&cli, "feed.url");
        let expected = if pooled { "warning" } else { "ok" };
        assert_eq!((code, &*outcome), (0, expected), "{mode} {more}: {detail}");
        assert_eq!(detail.contains(TOLD), pooled, "{mode} {more}: {detail}");
        let relayed = cli.with("feed.relay", "redis");
        let (code, outcome, _) = cli::found(&relayed, "feed.url");
        let expected = if pooled { (1, "failed") } else { (0, "ok") };
        assert_eq!((code, &*outcome), expected, "{mode} {more}");
        if pooled {
            let ports = ["listen.grpc=127.0.0.1:0", "listen.http=127.0.0.1:0"];
            let relayed = relayed.with("start.require", "postgres").with_all(&ports);
            relayed.refused("serve", 2, TOLD);
        }

        let warnings = || {
            let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
            log.lines().filter(|line| line.contains("WARN") && line.contains(TOLD)).count()
        };
        let before = warnings();
        let replica = world.serve(&[&format!("feed.url={feed}")]).await;
        assert_eq!(warnings() - before, usize::from(pooled), "{mode} {more}");
        let shown = replica.metric("patgate_feed_pooled").await;
        assert_eq!(shown, u64::from(pooled), "{mode} {more}");
        let token = reader(&world).await;
        assert_eq!(ask(&replica, &token, "acme").await, answer(200, "ok"));
        cli.login(&world, "administrator").ok(&format!("token revoke {}", token.id));
        eventually("its refusal", async || ask(&replica, &token, "acme").await.0 == 401).await;
        drop(replica);
        suite.stack.stop(&server);
    }
}

/// An address that leads to Postgres when the replica starts, and through a pooler later. A slow
/// server and a pooler in session mode are no reason to say so.
pub(crate) async fn a_feed_that_comes_to_lead_through_a_pooler_is_found_out(suite: Arc<Suite>) {
    const TOLD: &str = "connection pooler in transaction mode";
    const ARRIVES: &str = "a notification arrives on the connection that listens";
    let world = suite.world().await;
    let Some((_session_home, session, session_port)) = start(&suite, "session", "") else { return };
    for more in ["default_pool_size = 1\n", "default_pool_size = 3\nserver_round_robin = 1\n"] {
        let Some((_home, pooler, port)) = start(&suite, "transaction", more) else { return };
        let proxy = Proxy::to(suite.postgres.port).await;
        let settings = [&*feed_through(&world, &proxy), "log.filter=info,patgate=debug"];
        let process = process::serve(&world, &settings).await;
        let logged = |text: &str| {
            let log = fs::read_to_string(&process.server.log).unwrap();
            log.lines().filter(|line| line.contains(text)).count()
        };
        let pooled = async || process.replica.metric("patgate_feed_pooled").await;
        let delivers = async |what: &str| {
            let before = logged(ARRIVES);
            proxy.cut();
            eventually(what, async || logged(ARRIVES) > before).await;
            assert_eq!((pooled().await, logged(TOLD)), (0, 0), "{what}");
        };
        eventually("a notification", async || logged(ARRIVES) > 0).await;
        proxy.set(Mode::Delay(SLOW_REPLIES));
        delivers("notifications of a slow server").await;
        proxy.set(Mode::Pass);
        proxy.retarget(session_port);
        delivers("notifications through a pooler in session mode").await;

        proxy.retarget(port);
        proxy.cut();
        eventually("the pooler to be found out", async || pooled().await == 1).await;
        // The log is written by a thread of its own.
        eventually("the warning", async || logged(TOLD) > 0).await;
        assert_eq!(logged(TOLD), 1, "{more}");
        let token = reader(&world).await;
        assert_eq!(ask(&process.replica, &token, "acme").await, answer(200, "ok"));
        Cli::of(&world).ok(&format!("token revoke {}", token.id));
        eventually("its refusal", async || ask(&process.replica, &token, "acme").await.0 == 401)
            .await;
        suite.stack.signal(&process.server, "KILL");
        suite.stack.stop(&pooler);
    }
    suite.stack.stop(&session);
}

/// Waits until at most one replica leads. A leader whose session has ended learns of it when it next
/// asks, and another may take the lock before that. Two that have the lock of one session never give
/// it up.
async fn at_most_one_leads(fleet: &Fleet, what: &str) {
    let leaders = relay::leaders(fleet).await;
    if leaders.len() > 1 {
        let what = format!("{what}: {leaders:?} lead at the same time; one to give up");
        eventually(&what, async || relay::leaders(fleet).await.len() < 2).await;
    }
}

/// Through a pooler, all replicas share one session, which can take its own lock as often as it
/// likes.
pub(crate) async fn a_pooler_makes_no_two_leaders(suite: Arc<Suite>) {
    let world = suite.world().await;
    for more in ["default_pool_size = 1\n", "default_pool_size = 3\nserver_round_robin = 1\n"] {
        let Some((_home, pooler, port)) = start(&suite, "transaction", more) else { return };
        let proxy = Proxy::to(suite.postgres.port).await;
        let feed = feed_through(&world, &proxy);
        let fleet = Fleet::of(&world, 3, &[&*feed, "feed.relay=redis"]).await;
        relay::the_leader(&fleet).await;
        proxy.retarget(port);
        proxy.cut();
        let found = async || {
            at_most_one_leads(&fleet, more).await;
            let pooled = fleet.0.iter().map(|replica| replica.metric("patgate_feed_pooled"));
            join_all(pooled).await.contains(&1)
        };
        eventually("the pooler to be found out", found).await;
        // They read the feed nevertheless, each for itself or from the one that leads.
        relay::obeys(&fleet, &world, "revoked behind a pooler").await;
        assert!(found().await);
        drop(fleet);
        suite.stack.stop(&pooler);
    }
}

/// A login, a database or a server that permits fewer connections than a replica may need.
pub(crate) async fn too_few_connections_are_told(suite: Arc<Suite>) {
    let world = suite.world().await;
    let user = format!("narrow_{}", world.database);
    world.sql(&format!("CREATE ROLE {user} LOGIN IN ROLE patgate_serve CONNECTION LIMIT 9")).await;
    let cli = cli::server(&world).login(&world, &user);
    let found = |wanted: &str| {
        let (code, outcome, detail) =
            cli::found(&cli.with("postgres.max_connections", wanted), "postgres.url");
        assert_eq!(code, 0, "{detail}");
        (outcome, detail)
    };
    // In addition, one for the feed, and one for notes of use.
    assert_eq!(found("7").0, "ok");
    let (outcome, detail) = found("8");
    assert_eq!(outcome, "warning");
    let told = format!(
        "the login {user} may have 9 connections at a time, and one replica may need 10: \
         postgres.max_connections (8) and 2 more"
    );
    assert!(detail.starts_with(&told), "{detail}");
    let (outcome, detail) = found("1000");
    assert_eq!(outcome, "warning", "{detail}");
    world.sql(&format!("ALTER ROLE {user} CONNECTION LIMIT -1")).await;
    let (_, detail) = found("1000");
    assert!(detail.starts_with("the server, "), "{detail}");

    // The start reports it and continues.
    world.sql(&format!("ALTER ROLE {user} CONNECTION LIMIT 9")).await;
    let url = format!("postgres.url={}", world.url(&user, world.port));
    let replica = world.serve(&[&url, "postgres.max_connections=8"]).await;
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(&told)));
    let token = reader(&world).await;
    assert_eq!(ask(&replica, &token, "acme").await, answer(200, "ok"));
}

/// Many tokens that are new to the replica, while commands run: every answer is correct.
async fn under_load(world: &World<'_>, cli: &Cli<'_>, settings: &[&str]) {
    let replicas = [world.serve(settings).await, world.serve(settings).await];
    for round in 0..4 {
        let commands: Vec<_> = (0..6)
            .map(|number| {
                let name = format!("busy-{}-{round}-{number}", settings.len());
                cli.spawn(&format!(
                    "token create {name} --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read"
                ))
            })
            .collect();
        let mut tokens = Vec::new();
        for number in 0..100 {
            tokens.push(token(world, number).await);
        }
        let asked = tokens.iter().flat_map(|(token, expected)| {
            replicas.iter().map(move |replica| async move {
                assert_eq!(ask(replica, token, "acme").await, *expected, "{}", token.id);
            })
        });
        join_all(asked).await;
        for command in commands {
            let ran = cli.finish("token create", command.wait_with_output().unwrap());
            assert_eq!((ran.code, ran.stdout.lines().count()), (0, 1), "{ran:#?}");
        }
    }
}

/// Makes one token of each kind in turn, and returns its expected answer.
async fn token(world: &World<'_>, number: usize) -> (Token, (u16, String)) {
    match number % 5 {
        0 | 1 => (world.token(&[READ]).await, answer(200, "ok")),
        2 => (world.token(&[]).await, answer(403, "permission_denied")),
        3 => (world.token_for("ann", "-1 hour", &[READ]).await, answer(401, "token_expired")),
        _ => (world.token_for("gone", "1 hour", &[READ]).await, answer(401, "owner_disabled")),
    }
}
