//! What keeps replicas from obeying revocations at once.

use patgate_testing::proxy::{Mode, Proxy};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{super::stage::Stage, Story};
use crate::{
    schema::pooler,
    support::{
        fleet::Fleet,
        redis_at,
        relay::{fleet, relayed, stream},
        settings::{PATIENT, SOON, feed_through},
    },
};

const CANARY: &str = "canary.every=1s";

/// Until it is noticed, and then it comes back.
pub(super) async fn the_feed_is_away_for_a_while(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let proxy = Proxy::to(stage.suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let replica = world.serve(&[&[&*feed, CANARY], &SOON[..]].concat()).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    proxy.set(Mode::Refuse);
    let lost = ["PatgateFeedStale", "PatgateRevocationSlow"];
    stage.until_these_fired(story, &lost, async || {}).await;
    proxy.set(Mode::Pass);
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn triggers_are_off(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = world.serve(&PATIENT).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    world.sql("ALTER TABLE patgate.pats DISABLE TRIGGER record_change").await;
    stage.until_fired(story, async || {}).await;
}

/// It finds that as it starts.
pub(super) async fn the_feed_is_behind_a_pooler(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let started = pooler::start(stage.suite, "transaction", "");
    let (_home, pooler, port) = started.expect("PgBouncer, which `make alerts-test` needs");
    stage.prepared().await;
    let replica = world.serve(&[&format!("feed.url={}", world.url("server", port))]).await;
    stage.scrape(story, &[&replica]);
    stage.until_fired(story, async || {}).await;
    drop(replica);
    stage.suite.stack.stop(&pooler);
}

/// The statement says that it has changed the canary, and changes nothing.
pub(super) async fn a_revocation_has_no_effect(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let settings = [CANARY, "max_staleness=2s", "negative_ttl=1s", "deadline=1s"];
    let replica = world.serve(&settings).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    world
        .sql(
            "CREATE OR REPLACE FUNCTION patgate.flip_canary(canary uuid, lifetime interval)
                 RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
             $$ SELECT p.revoked_at IS NULL FROM patgate.pats p WHERE p.id = canary $$",
        )
        .await;
    stage.until_fired(story, async || {}).await;
}

/// So that no replica can relay.
pub(super) async fn a_stranger_holds_the_relays_lock(stage: &Stage<'_>, story: &Story) {
    const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('patgate relay ' || id, 0))
        FROM patgate.installation";
    let world = stage.suite.world().await;
    stage.prepared().await;
    let mut holder = PgConnection::connect(&world.url("postgres", world.port)).await.unwrap();
    holder.execute(LOCK).await.unwrap();
    let relayed = relayed(&world);
    let fleet = Fleet::of(&world, 2, &relayed.each_ref().map(String::as_str)).await;
    stage.scrape(story, &[&fleet.0[0], &fleet.0[1]]);
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_stranger_sends_frames(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let fleet = fleet(&world, 2, &[]).await;
    stage.scrape(story, &[&fleet.0[0], &fleet.0[1]]);
    stage.prepared().await;
    let mut redis = redis_at(&world.redis_url).await;
    let mut add = redis::cmd("XADD");
    add.arg(stream(&world)).arg("*").arg("f").arg("forged");
    let () = add.query_async(&mut redis).await.unwrap();
    stage.until_fired(story, async || {}).await;
}
