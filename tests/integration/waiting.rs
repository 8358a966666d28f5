//! `token revoke --wait`: when it returns, no replica serves the token any more.

use std::{
    io::{BufRead as _, BufReader},
    sync::Arc,
};

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::{
    Suite,
    cli::Cli,
    fleet::status,
    settings::{PROMPT, feed_through},
    tokens::{reader, revoke_and_wait},
    value,
};

pub(crate) async fn returns_when_all_replicas_refuse(suite: Arc<Suite>) {
    let world = suite.world().await;
    let settings = ["max_staleness=60s"];
    let replicas =
        [world.serve(&settings).await, world.serve(&settings).await, world.serve(&settings).await];
    let leases = "SELECT count(*) FROM patgate.replicas";
    let held = async || value::<i64>(&world, leases).await;
    eventually("three leases", async || held().await == 3).await;
    for _ in 0..20 {
        let token = reader(&world).await;
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 200);
        }
        let output = revoke_and_wait(&world, &token).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("applied by 3 replicas after "), "{said}");
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 401);
        }
    }
}

pub(crate) async fn names_a_replica_that_lags(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let healthy = world.serve(&[]).await;
    let lagging = world.serve(&[&feed, "max_staleness=6s", PROMPT[0]]).await;
    for replica in [&healthy, &lagging] {
        assert_eq!(status(replica, &token).await, 200);
    }
    let leases = "SELECT count(*) FROM patgate.replicas WHERE watermark > now() - interval '2 s'";
    let held = async || value::<i64>(&world, leases).await;
    eventually("two leases", async || held().await == 2).await;
    proxy.set(Mode::BlackHole);
    let output = revoke_and_wait(&world, &token).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("waiting for ") && said.contains("expires at "), "{said}");
    assert!(said.contains("applied by 1 replica after "), "{said}");
    for replica in [&healthy, &lagging] {
        assert_eq!(status(replica, &token).await, 401);
    }
}

/// The login of a replica can lock the leases: a waiting command names the holder, and says that
/// the change is made.
pub(crate) async fn names_the_session_that_locks_the_leases(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let replica = world.serve(&[]).await;
    let token = reader(&world).await;
    assert_eq!(status(&replica, &token).await, 200);
    let mut thief = PgConnection::connect(&world.url("server", world.port)).await.unwrap();
    let lock = "SET application_name = 'thief'; BEGIN;
        LOCK TABLE patgate.replicas IN ACCESS EXCLUSIVE MODE";
    thief.execute(sqlx::raw_sql(lock)).await.unwrap();
    let mut child = cli.spawn(&format!("token revoke --wait {}", token.id));
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("waiting for a lock that is held by thief (pid "), "{said}");
    assert!(said.contains(", login server, "), "{said}");
    eventually("its refusal", async || status(&replica, &token).await == 401).await;
    stderr.read_line(&mut said).unwrap();
    let ran = cli.finish("token revoke --wait", child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{said} {ran:#?}");
    for told in ["revoked; it is unknown which replicas have applied it", "hold a lock"] {
        assert!(said.contains(told), "{said}");
    }
    thief.execute("ROLLBACK").await.unwrap();
    thief.close().await.unwrap();
    let output = revoke_and_wait(&world, &token).await;
    assert!(output.status.success(), "{output:?}");
}
