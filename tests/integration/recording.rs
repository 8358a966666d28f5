//! Triggers that record changes are disabled, by whatever means, and enabled again.

use std::{fs, sync::Arc};

use patgate_testing::eventually;

use crate::support::{
    Suite, Token, World,
    cli::{Cli, found, server},
    fleet::{Fleet, MODELS, polls},
    process,
    relay::relayed,
    settings::{PATIENT, SOON},
    tokens::reader,
};

const OFF: &str = "ALTER TABLE patgate.pats DISABLE TRIGGER record_change";
const ON: &str = "ALTER TABLE patgate.pats ENABLE ALWAYS TRIGGER record_change";
const SWITCHED: &str = "patgate_feed_triggers_switched_total";

fn revoking(token: &Token) -> String {
    format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id)
}

/// Returns the number of recorded changes.
async fn recorded(world: &World<'_>) -> i64 {
    crate::support::value(world, "SELECT count(*) FROM patgate.changes").await
}

/// The name of a way, and the SQL that disables triggers and enables them again around a statement.
type TriggerSwitch<'a> = (&'a str, &'a dyn Fn(&str) -> String);

/// Disabled and enabled again between two polls: changes in between take effect nevertheless.
pub(crate) async fn what_was_done_while_triggers_were_off_is_obeyed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let mut fleet = Fleet::of(&world, 2, &PATIENT).await;
    let bystander = reader(&world).await;
    let separately =
        |sql: &str| format!("BEGIN; {OFF}; COMMIT; BEGIN; {sql}; COMMIT; BEGIN; {ON}; COMMIT");
    let together = |sql: &str| format!("BEGIN; {OFF}; {sql}; {ON}; COMMIT");
    let nested =
        |sql: &str| format!("BEGIN; SAVEPOINT a; {OFF}; {sql}; {ON}; RELEASE SAVEPOINT a; COMMIT");
    let all = |sql: &str| {
        let all = "ALTER TABLE patgate.pats DISABLE TRIGGER ALL";
        format!(
            "BEGIN; {all}; {sql}; ALTER TABLE patgate.pats ENABLE TRIGGER ALL;
                 ALTER TABLE patgate.pats ENABLE ALWAYS TRIGGER record_truncation; {ON}; COMMIT"
        )
    };
    let made_anew = |sql: &str| {
        format!(
            "BEGIN;
             CREATE TEMPORARY TABLE made ON COMMIT DROP AS
                 SELECT pg_get_triggerdef(oid) AS by FROM pg_trigger
                 WHERE tgrelid = 'patgate.pats'::regclass AND tgname = 'record_change';
             DROP TRIGGER record_change ON patgate.pats; {sql};
             DO $$ BEGIN EXECUTE (SELECT by FROM made); END $$; {ON}; COMMIT"
        )
    };
    let ways: [TriggerSwitch<'_>; 5] = [
        ("in transactions of their own", &separately),
        ("in one transaction", &together),
        ("within a savepoint", &nested),
        ("all triggers", &all),
        ("dropped and created again", &made_anew),
    ];
    for (way, switched) in ways {
        let token = reader(&world).await;
        fleet.all_answer(&token, MODELS, 200).await;
        fleet.polled(1).await;
        let before = fleet.0[0].metric(SWITCHED).await;
        let changes = recorded(&world).await;
        world.sql(&switched(&revoking(&token))).await;
        assert_eq!(recorded(&world).await, changes, "{way}: it was recorded");
        fleet.turn(way, (&token, MODELS), 200, 401).await;
        assert!(fleet.0[0].metric(SWITCHED).await > before, "{way}");
        fleet.all_answer(&bystander, MODELS, 200).await;
    }

    // A replica that starts afterwards finds older entries in Redis, while a long transaction runs
    // elsewhere.
    let mut running = world.postgres.begin().await.unwrap();
    sqlx::raw_sql("SELECT pg_current_xact_id()").execute(&mut *running).await.unwrap();
    let token = reader(&world).await;
    fleet.all_answer(&token, MODELS, 200).await;
    let redis = crate::support::redis_at(&world.redis_url).await;
    crate::support::entries::all_held(&redis, &[&token]).await;
    fleet.0.clear();
    world.sql(&nested(&revoking(&token))).await;
    Fleet::of(&world, 1, &PATIENT).await.all_answer(&token, MODELS, 401).await;
    running.rollback().await.unwrap();
}

/// While triggers are disabled, cached data is used for `max_staleness` at most.
pub(crate) async fn a_feed_without_triggers_is_not_trusted(suite: Arc<Suite>) {
    let world = suite.world().await;
    let short = Fleet::of(&world, 1, &SOON).await;
    let patient = Fleet::of(&world, 1, &PATIENT).await;
    let token = reader(&world).await;
    let other = reader(&world).await;
    for fleet in [&short, &patient] {
        fleet.all_answer(&token, MODELS, 200).await;
        fleet.all_answer(&other, MODELS, 200).await;
    }
    let off = async |fleet: &Fleet| fleet.0[0].metric("patgate_feed_triggers_off").await;
    world.sql(OFF).await;
    for fleet in [&short, &patient] {
        eventually("it to be noticed", async || off(fleet).await == 1).await;
    }
    world.sql(&revoking(&token)).await;
    short.turn("revoked while triggers are off", (&token, MODELS), 200, 401).await;
    short.all_answer(&other, MODELS, 200).await;
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let told = "of the triggers in the schema `patgate`, pats.record_change must be there";
    assert!(log.contains(told));

    // As pg_restore leaves them: enabled, but not for replayed changes.
    world.sql("ALTER TABLE patgate.pats ENABLE TRIGGER record_change").await;
    let before = polls(&patient.0[0]).await;
    let failed = "patgate_feed_polls_total{result=\"failed\"}";
    let failures = patient.0[0].metric(failed).await;
    eventually("more polls", async || patient.0[0].metric(failed).await > failures + 1).await;
    assert_eq!((polls(&patient.0[0]).await, off(&patient).await), (before, 1));
    // Also triggers that record nothing: otherwise a domain that lists a model would continue to
    // see all.
    world.sql("ALTER TABLE patgate.domain_models DISABLE TRIGGER USER").await;
    let owner = world.url("postgres", world.port);
    Cli::of(&world).with("postgres.url", &owner).ok("migrate");
    let still_off: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'patgate.domain_models'::regclass
         AND NOT tgisinternal AND tgenabled = 'D'",
    )
    .fetch_one(&world.postgres)
    .await
    .unwrap();
    assert_eq!(still_off, 0);
    patient.turn("switched on again", (&token, MODELS), 200, 401).await;
    assert_eq!(off(&patient).await, 0);

    // Those of a foreign key: a deletion would leave the scopes behind.
    let key = "SELECT format('ALTER TABLE patgate.pats DISABLE TRIGGER %I', tgname)
         FROM pg_trigger WHERE tgrelid = 'patgate.pats'::regclass AND tgisinternal LIMIT 1";
    let key: String = sqlx::query_scalar(key).fetch_one(&world.postgres).await.unwrap();
    world.sql(&key).await;
    eventually("a foreign key to be missed", async || off(&patient).await == 1).await;
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    assert!(log.contains("(foreign key) must be there"), "the log names it");
    let (code, outcome, detail) = found(&server(&world), "postgres.url");
    assert_eq!((code, &*outcome), (0, "warning"), "{detail}");
    assert!(detail.contains("(foreign key)"), "{detail}");
    Cli::of(&world).with("postgres.url", &owner).ok("migrate");
    eventually("it to be on again", async || off(&patient).await == 0).await;
    patient.all_answer(&other, MODELS, 200).await;
}

/// The replica that relays the feed has nothing to relay meanwhile, and does not blame Redis.
pub(crate) async fn a_leader_without_triggers_blames_no_redis(suite: Arc<Suite>) {
    let world = suite.world().await;
    let settings = relayed(&world);
    let process = process::serve(&world, &settings.each_ref().map(String::as_str)).await;
    let leads = async || process.replica.metric("patgate_relay_leader").await == 1;
    eventually("it to lead", leads).await;
    world.sql(OFF).await;
    let log = || fs::read_to_string(&process.server.log).unwrap();
    let told = "this replica has no poll of the feed to relay";
    eventually("it to step down", async || log().contains(told)).await;
    assert!(log().contains("changes are not recorded"), "{}", log());
    assert!(!log().contains("Redis accepts no frames"), "{}", log());
}
