//! When a token was last used: written after the answers, without delaying them.

use std::sync::Arc;

use patgate::app::App;
use patgate_testing::eventually;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Replica, Suite, Token, World,
    cli::Cli,
    fleet::status,
    tokens::{reader, revoke},
    value,
};

async fn noted(replica: &Replica, result: &str) -> u64 {
    replica.metric(&format!("patgate_last_used_writes_total{{result=\"{result}\"}}")).await
}

/// How many whole seconds ago a token was used, according to its note.
async fn used_ago(world: &World<'_>, token: &Token) -> Option<i64> {
    let ago = "floor(extract(epoch FROM now() - last_used_at))::int8";
    let note = format!("SELECT {ago} FROM patgate.pat_uses WHERE pat_id = '{}'", token.id);
    value(world, &format!("SELECT ({note})")).await
}

async fn set_used(world: &World<'_>, token: &Token, ago: &str) {
    world
        .sql(&format!(
            "UPDATE patgate.pat_uses SET last_used_at = now() - interval '{ago}'
             WHERE pat_id = '{}'",
            token.id
        ))
        .await;
}

/// A caller with the secret has used the token, whatever the answer. It is noted once per minute.
pub(crate) async fn is_written_once_in_a_while(suite: Arc<Suite>) {
    let world = suite.world().await;
    let allowed = reader(&world).await;
    let denied = world.token(&[]).await;
    let revoked = reader(&world).await;
    revoke(&world, &revoked).await;
    let [first, second] = [world.serve(&[]).await, world.serve(&[]).await];
    for (token, expected) in [(&allowed, 200), (&denied, 403), (&revoked, 401)] {
        for _ in 0..10 {
            assert_eq!(status(&first, token).await, expected);
        }
    }
    for token in [&allowed, &denied] {
        eventually("its use to be written", async || used_ago(&world, token).await.is_some()).await;
    }
    assert_eq!(used_ago(&world, &revoked).await, None);

    // Another replica must read the row; this one remembers.
    set_used(&world, &allowed, "30 s").await;
    assert_eq!(status(&second, &allowed).await, 200);
    eventually("a row that is young enough", async || noted(&second, "skipped").await == 1).await;
    assert!(used_ago(&world, &allowed).await.unwrap() >= 30, "written within a minute");
    let last = reader(&world).await;
    for token in [&allowed, &last] {
        assert_eq!(status(&first, token).await, 200);
    }
    eventually("the last one to be written", async || noted(&first, "written").await == 3).await;
    assert_eq!(noted(&first, "skipped").await, 0, "noted twice");
    assert!(used_ago(&world, &allowed).await.unwrap() >= 30, "written within a minute");

    set_used(&world, &allowed, "90 s").await;
    let third = world.serve(&[]).await;
    assert_eq!(status(&third, &allowed).await, 200);
    eventually("an old row to be renewed", async || {
        used_ago(&world, &allowed).await.is_some_and(|ago| ago < 60)
    })
    .await;
}

pub(crate) async fn what_is_queued_is_written_at_the_end(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let app = App::build(&world.config(&[])).await.unwrap();
    let replica = Replica::at(app.grpc_address().unwrap(), app.http_address().unwrap());
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone()));
    assert_eq!(status(&replica, &token).await, 200);
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(used_ago(&world, &token).await.is_some(), "ended without a word");
}

pub(crate) async fn a_read_only_postgres_costs_notes_only(suite: Arc<Suite>) {
    let (_postgres, world) = suite.spare(json!({})).await;
    let replica = world.serve(&[]).await;
    let read_only = async |on: &str| {
        world.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}")).await;
        world.sql("SELECT pg_reload_conf()").await;
        eventually("the setting to take effect", async || {
            value::<String>(&world, "SELECT current_setting('transaction_read_only')").await == on
        })
        .await;
    };
    read_only("on").await;
    let (sql, tokens): (Vec<_>, Vec<_>) = (0..5)
        .map(|_| {
            let (token, sql) = world.issue("ann", "1 hour", &[("acme", "models", "*", "llm_read")]);
            (sql, token)
        })
        .unzip();
    world.sql(&format!("BEGIN READ WRITE; {} COMMIT", sql.concat())).await;
    for token in &tokens {
        assert_eq!(status(&replica, token).await, 200);
    }
    eventually("the notes to be dropped", async || noted(&replica, "dropped").await == 5).await;
    assert_eq!(status(&replica, &tokens[0]).await, 200);
    assert_eq!(noted(&replica, "written").await, 0);

    read_only("off").await;
    let later = reader(&world).await;
    assert_eq!(status(&replica, &later).await, 200);
    eventually("notes to be written again", async || used_ago(&world, &later).await.is_some())
        .await;
}

/// There is no foreign key, so a note may outlive its token, but not for long.
pub(crate) async fn notes_of_tokens_that_are_gone_are_swept(suite: Arc<Suite>) {
    let world = suite.world().await;
    let gone = reader(&world).await;
    let kept = reader(&world).await;
    let replica = world.serve(&[]).await;
    for token in [&gone, &kept] {
        assert_eq!(status(&replica, token).await, 200);
        eventually("its use to be written", async || used_ago(&world, token).await.is_some()).await;
    }
    // More than one batch looks at.
    world
        .sql(
            "INSERT INTO patgate.pat_uses
             SELECT gen_random_uuid(), now() FROM generate_series(1, 150)",
        )
        .await;
    Cli::of(&world).ok(&format!("token delete {}", gone.id));
    assert!(used_ago(&world, &gone).await.is_some());
    let orphans = "SELECT count(*) FROM patgate.pat_uses u
         WHERE NOT EXISTS (SELECT FROM patgate.pats p WHERE p.id = u.pat_id)";
    for round in 1.. {
        let token = reader(&world).await;
        assert_eq!(status(&replica, &token).await, 200);
        eventually("a batch of notes", async || used_ago(&world, &token).await.is_some()).await;
        if value::<i64>(&world, orphans).await == 0 {
            break;
        }
        assert!(round < 5, "not swept along with {round} batches");
    }
    assert!(used_ago(&world, &kept).await.is_some());
    let shown = Cli::of(&world).json(&format!("token show {}", kept.id));
    assert!(shown["last_used_at"].is_string(), "{shown}");
}

/// Not on the note, not on the table of notes, and not on the token.
pub(crate) async fn nobody_waits_for_an_administrators_lock(suite: Arc<Suite>) {
    let world = suite.world().await;
    let locked = reader(&world).await;
    let free = reader(&world).await;
    let replica = world.serve(&[]).await;
    let mut row = world.postgres.begin().await.unwrap();
    world
        .sql(&format!(
            "INSERT INTO patgate.pat_uses VALUES ('{}', now() - interval '1 day')",
            locked.id
        ))
        .await;
    let sql = format!(
        "UPDATE patgate.pats SET description = 'x';
         SELECT FROM patgate.pat_uses WHERE pat_id = '{}' FOR UPDATE",
        locked.id
    );
    row.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    for token in [&locked, &free] {
        assert_eq!(status(&replica, token).await, 200);
    }
    eventually("the note that is free", async || used_ago(&world, &free).await.is_some()).await;
    eventually("the one that is not", async || noted(&replica, "skipped").await == 1).await;
    assert_eq!(noted(&replica, "dropped").await, 0);
    row.rollback().await.unwrap();

    let token = reader(&world).await;
    let after = reader(&world).await;
    let mut table = world.postgres.begin().await.unwrap();
    table.execute("LOCK TABLE patgate.pat_uses IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    assert_eq!(status(&replica, &token).await, 200);
    eventually("the note to be dropped", async || noted(&replica, "dropped").await == 1).await;
    // No session of patgate's waits for the lock any more.
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE NOT l.granted AND d.datname = current_database()";
    eventually("an end of waiting", async || value::<i64>(&world, waiting).await == 0).await;
    table.rollback().await.unwrap();
    assert_eq!(status(&replica, &after).await, 200);
    eventually("notes to be written again", async || used_ago(&world, &after).await.is_some())
        .await;
}
