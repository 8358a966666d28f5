//! Migrating while another session uses the tables does not delay lookups.

use std::{
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use patgate::postgres::SCHEMA;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::support::{
    Replica, Suite, World, cli::Cli, fleet::MODELS, outcome, settings::PATIENT, tokens::reader,
    value,
};

/// Reverts the migration that changes a table which every lookup reads.
const BEFORE: &str = "ALTER TABLE patgate.domains DROP COLUMN mode, DROP COLUMN enforced_share;
    DELETE FROM patgate.migrations WHERE version = 5";
/// A lock like that of a dump, held for as long as the dump takes.
const HOLD: &str = "SET application_name = 'nightly dump';
    BEGIN; LOCK TABLE patgate.domains IN ACCESS SHARE MODE";

/// Longer than a lookup takes, and longer than a migration waits for a table at a time.
const LONG: Duration = Duration::from_millis(500);
/// This many lookups may be slow for other reasons. A migration for which lookups wait makes one
/// slow in each of its attempts, of which there are more.
const EXCUSED: usize = 5;

/// The first use of a token.
async fn look_up(world: &World<'_>, replica: &Replica) {
    let token = reader(world).await;
    let response = replica.check("GET", MODELS, &[("authorization", &token.bearer())]).await;
    assert_eq!(outcome(&response).0, 200);
}

/// Returns how many lookups ended before the command did.
async fn look_ups_until_the_end(world: &World<'_>, replica: &Replica, child: &mut Child) -> usize {
    let mut answered = 0;
    let mut long = 0;
    while child.try_wait().unwrap().is_none() {
        let asked = Instant::now();
        look_up(world, replica).await;
        answered += 1;
        long += usize::from(asked.elapsed() > LONG);
    }
    assert!(long <= EXCUSED, "{long} of {answered} lookups waited along");
    answered
}

pub(crate) async fn look_ups_go_on_while_a_migration_waits(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&PATIENT).await;
    // The domain is cached from here on; for each token, Postgres is asked for its row.
    look_up(&world, &replica).await;
    world.sql(BEFORE).await;
    let cli = Cli::of(&world).login(&world, "postgres");
    let mut holder = PgConnection::connect(&world.url("postgres", world.port)).await.unwrap();
    holder.execute(sqlx::raw_sql(HOLD)).await.unwrap();

    // It is held until the migration gives up and names the holder.
    let mut child = cli.spawn("migrate");
    let answered = look_ups_until_the_end(&world, &replica, &mut child).await;
    let ran = cli.finish("migrate", child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{ran:#?}");
    println!("{answered} lookups; {}", ran.stderr);
    assert!(answered > 20, "{answered} lookups");
    for said in [
        "waiting for a table",
        "other sessions use a table",
        "nightly dump (pid ",
        ", login postgres, in a transaction since 2",
        "`patgate migrate` again",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {ran:#?}");
    }

    // It is held for a while.
    let mut child = cli.spawn("migrate --output json");
    let waits = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..3 {
        while value::<i64>(&world, waits).await == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it does not wait");
        }
        while value::<i64>(&world, waits).await > 0 {}
    }
    holder.execute("COMMIT").await.unwrap();
    look_ups_until_the_end(&world, &replica, &mut child).await;
    let ran = cli.finish("migrate", child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:#?}");
    let migrated: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(migrated, json!({ "applied": [[5, "rollout"]], "version": SCHEMA }));
}
