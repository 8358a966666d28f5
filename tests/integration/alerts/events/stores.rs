//! Postgres and Redis that fail, or hold what they should not.

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use redis::AsyncCommands as _;

use super::{super::stage::Stage, Story, traffic::unknown};
use crate::support::{
    cli::Cli,
    credentials::give,
    fleet::status,
    redis_at,
    settings::{PATIENT, PROMPT, SOON, feed_through, postgres_through, redis_through},
    tokens::reader,
};

pub(super) async fn postgres_is_away(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let proxy = Proxy::to(stage.suite.postgres.port).await;
    let url = postgres_through(&world, &proxy);
    let replica = world.serve(&[&SOON[..], &[&url, "redis.url="]].concat()).await;
    assert_eq!(status(&replica, &reader(&world).await).await, 200);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    proxy.set(Mode::Refuse);
    let act = async || assert_eq!(status(&replica, &unknown(&world)).await, 503);
    stage.until_fired(story, act).await;
}

pub(super) async fn redis_is_away(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let proxy = Proxy::to(stage.suite.valkey.port).await;
    let replica = world.serve(&[&redis_through(&world, &proxy), PROMPT[1]]).await;
    assert_eq!(status(&replica, &reader(&world).await).await, 200);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    proxy.set(Mode::Refuse);
    let act = async || assert_eq!(status(&replica, &unknown(&world)).await, 401);
    stage.until_fired(story, act).await;
}

/// To a database that was restored from a dump.
pub(super) async fn the_feed_leads_elsewhere(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let staging = world.restored().await;
    let proxy = Proxy::to(stage.suite.postgres.port).await;
    let replica = world.serve(&[&[&*feed_through(&world, &proxy)], &SOON[..]].concat()).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    proxy.lead(&world.database, &staging.database);
    proxy.cut();
    stage.until_fired(story, async || {}).await;
}

/// By hand, to that of another backend.
pub(super) async fn a_credential_was_changed(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let cli = Cli::of(&world);
    for backend in ["model-acme", "model-beta"] {
        give(&cli, stage.suite, backend);
    }
    let token = reader(&world).await;
    let replica = world.serve(&PATIENT).await;
    assert_eq!(status(&replica, &token).await, 200);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    let swap = "UPDATE patgate.backends b SET credential = o.credential
                FROM patgate.backends o WHERE o.name <> b.name";
    world.sql(swap).await;
    eventually("the change", async || status(&replica, &token).await == 503).await;
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn a_stranger_writes_to_redis(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let (one, two) = (world.serve(&PATIENT).await, world.serve(&PATIENT).await);
    let token = reader(&world).await;
    assert_eq!(status(&one, &token).await, 200);
    let mut redis = redis_at(&world.redis_url).await;
    let pattern = format!("{}*", world.redis_prefix);
    let mut redis_keys = redis.clone();
    stage.scrape(story, &[&one, &two]);
    stage.prepared().await;
    // It is written behind the answer.
    let mut keys = Vec::<String>::new();
    while keys.len() < 2 {
        keys = redis_keys.keys(&pattern).await.unwrap();
    }
    for key in &keys {
        let () = redis.set(key, "forged").await.unwrap();
    }
    assert_eq!(status(&two, &token).await, 200);
    stage.until_fired(story, async || {}).await;
}
