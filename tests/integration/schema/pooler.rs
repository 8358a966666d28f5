//! Behind PgBouncer in transaction mode, where no two transactions need share a connection, and
//! everybody's transactions share two.

use std::{env, sync::Arc};

use futures_util::future::join_all;

use super::process::{Home, find, free_port};
use crate::{
    cli::{Cli, answer, ask, audit, demo, value},
    harness::{Suite, Token, World},
};

const SERVER_CONNECTIONS: i64 = 2;
const READ: (&str, &str, &str, &str) = ("acme", "models", "*", "llm_read");

pub(crate) async fn everything_works_behind_a_pooler(suite: Arc<Suite>) {
    let Some(pgbouncer) = find("pgbouncer") else {
        let skipped = "no pgbouncer on this machine: nothing was tried behind a pooler";
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
        println!("skipped: {skipped}");
        return;
    };
    let world = suite.world().await;
    let (home, port) = (Home::new(), free_port());
    // No parameter at start-up is ignored: we send none that it does not know.
    let users = home.write("users", "\"server\" \"\"\n\"administrator\" \"\"\n");
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
             pool_mode = transaction\n\
             default_pool_size = {SERVER_CONNECTIONS}\n\
             max_client_conn = 500\n",
            suite.postgres.port
        ),
    );
    let server = home.start(&suite, &pgbouncer, &[&config], port);

    let url = |user: &str, world: &World<'_>| {
        format!("postgres://{user}@127.0.0.1:{port}/{}", world.database)
    };
    let pooled = |user: &str| url(user, &world);
    let cli = Cli::of(&world).with("postgres.url", &pooled("administrator"));
    let replicas = format!("postgres.url={}", pooled("server"));
    demo::walk_through(&world, &cli, &[&replicas, "redis.url="]).await;

    // A login for both, so that replicas and commands are given each other's connections. A
    // replica that hears of changes at once has a connection of its own for that; one that has
    // none leaves nothing behind on those that it shares.
    let shared = format!("postgres.url={}", pooled("administrator"));
    let direct = suite.postgres_url("server", &world.database);
    under_load(&world, &cli, &[&shared, "redis.url=", &format!("feed.url={direct}")]).await;
    under_load(&world, &cli, &[&shared, "redis.url="]).await;

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

/// Many tokens that no replica has seen, while commands are run: every answer is the right one.
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

/// One of each kind in turn, and what it is answered.
async fn token(world: &World<'_>, number: usize) -> (Token, (u16, String)) {
    match number % 5 {
        0 | 1 => (world.token(&[READ]).await, answer(200, "ok")),
        2 => (world.token(&[]).await, answer(403, "permission_denied")),
        3 => (world.token_for("ann", "-1 hour", &[READ]).await, answer(401, "token_expired")),
        _ => (world.token_for("gone", "1 hour", &[READ]).await, answer(401, "owner_disabled")),
    }
}
