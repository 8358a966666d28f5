//! Replicas that end, and requests that are slow, refused, or never asked about.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use patgate::token::TokenId;
use patgate_testing::{
    proxy::{Mode, Proxy},
    shipped::{EXT_AUTHZ, WITH_BODY, manager, shipped},
};
use serde_json::json;
use uuid::Uuid;

use super::{super::stage::Stage, Story};
use crate::support::{
    Token, World,
    envoy::{Gateway, envoy_patch, patient},
    fleet::{answer, status},
    secrets::OLD,
    settings::{feed_through, postgres_through},
    tokens::reader,
};

/// A token that no replica has in memory, because none was ever asked about it.
pub(super) fn unknown(world: &World<'_>) -> Token {
    world.unknown(TokenId(Uuid::now_v7()))
}

pub(super) async fn one_of_two_ends(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let (stays, ends) = (world.serve(&[]).await, world.serve(&[]).await);
    stage.scrape(story, &[&stays, &ends]);
    stage.prepared().await;
    drop(ends);
    stage.until_fired(story, async || {}).await;
}

pub(super) async fn the_only_one_ends(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = world.serve(&[]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    drop(replica);
    stage.until_fired(story, async || {}).await;
}

/// Its answers to lookups take most of a deadline.
pub(super) async fn postgres_is_slow(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let port = stage.suite.postgres.port;
    let (proxy, feed) = (Proxy::to(port).await, Proxy::to(port).await);
    let (url, feed) = (postgres_through(&world, &proxy), feed_through(&world, &feed));
    let replica = world.serve(&[&url, &feed, "redis.url=", "deadline=500ms"]).await;
    assert_eq!(status(&replica, &reader(&world).await).await, 200);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    proxy.set(Mode::Delay(Duration::from_millis(300)));
    stage.until_fired(story, async || _ = status(&replica, &unknown(&world)).await).await;
}

pub(super) async fn unknown_tokens_are_many(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let settings = ["redis.url=", "postgres.max_query_rate=1", "deadline=200ms"];
    let replica = world.serve(&settings).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    stage.until_fired(story, async || _ = status(&replica, &unknown(&world)).await).await;
}

/// Tokens of another key ring.
pub(super) async fn tokens_are_tried(stage: &Stage<'_>, story: &Story) {
    let (world, other) = (stage.suite.world().await, stage.suite.world().await);
    let replica = world.serve(&[]).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    let act = async || assert_eq!(status(&replica, &unknown(&other)).await, 401);
    stage.until_fired(story, act).await;
}

/// As an Envoy's whose configuration lacks it.
pub(super) async fn calls_come_without_the_secret(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = world.serve(&[&format!("grpc.secret={}", *OLD)]).await;
    let token = reader(&world).await;
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    let act = async || assert_eq!(status(&replica, &token).await, 503);
    stage.until_fired(story, act).await;
}

/// It has a valid token, and no scope for what it asks for.
pub(super) async fn a_client_repeats_what_it_is_refused(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = world.serve(&["token.denials_per_second=1"]).await;
    let token = reader(&world).await;
    assert_eq!(status(&replica, &token).await, 200);
    stage.scrape(story, &[&replica]);
    stage.prepared().await;
    // What the token may do is allowed meanwhile.
    let act = async || {
        let denied = answer(&replica, &token, "/proxy/beta/v1/models").await;
        assert!(denied == 403 || denied == 429, "{denied}");
        assert_eq!(status(&replica, &token).await, 200);
    };
    stage.until_fired(story, act).await;
}

/// A listener has lost the filter that asks patgate; and another gateway finds no patgate.
pub(super) async fn the_gateway_asks_nobody(stage: &Stage<'_>, story: &Story) {
    let world = stage.suite.world().await;
    let replica = world.serve(&[]).await;
    let config = shipped();
    let mut listener = config["static_resources"]["listeners"][0].clone();
    let filters = manager(&mut listener)["http_filters"].as_array_mut().unwrap();
    filters.retain(|filter| filter["name"] != EXT_AUTHZ && filter["name"] != WITH_BODY);
    let patch = envoy_patch(stage.suite, &[replica.grpc], patient("10s", "10s"));
    let listeners = BTreeMap::from([("unguarded".to_owned(), json!(listener))]);
    let gateway = Gateway::start(stage.suite, config, listeners, patch);
    let (config, nobody) = (shipped(), stage.suite.stack.free_port());
    let listener = config["static_resources"]["listeners"][0].clone();
    let nobody = SocketAddr::from(([127, 0, 0, 1], nobody));
    let patch = envoy_patch(stage.suite, &[nobody], patient("1s", "1s"));
    let listeners = BTreeMap::from([("alone".to_owned(), listener)]);
    let alone = Gateway::start(stage.suite, config, listeners, patch);
    let ports = [gateway.admin_port(), alone.admin_port()];
    stage.prometheus.scrape(story.job, &ports, "/stats/prometheus");
    stage.prepared().await;
    let act = async || {
        assert_eq!(gateway.get("unguarded", &[]).await.status, 503);
        assert_eq!(alone.get("alone", &[]).await.status, 503);
    };
    stage.until_fired(story, act).await;
}
