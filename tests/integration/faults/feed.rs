//! Only the feed is lost.

use std::{sync::Arc, time::Instant};

use patgate_testing::proxy::{Mode, Proxy};

use super::{SHORT, STALENESS, turned};
use crate::support::{
    Suite,
    fleet::MODELS,
    front::Front,
    load::{AllowedStatuses, WELL},
    settings::feed_through,
    tokens::{reader, revoke},
};

pub(crate) async fn the_feed_is_cut(suite: Arc<Suite>) {
    the_feed_is_lost(&suite, Mode::Refuse).await;
}

pub(crate) async fn the_feed_is_black_holed(suite: Arc<Suite>) {
    the_feed_is_lost(&suite, Mode::BlackHole).await;
}

async fn the_feed_is_lost(suite: &Suite, mode: Mode) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let front = Front::of(&world, &[&feed, SHORT[0], SHORT[1]]).await;
    let load = front.load(&world).await;
    // An entry in use is renewed before the bound. This one is cached, and not used.
    let quiet = reader(&world).await;
    front.fleet.all_answer(&quiet, MODELS, 200).await;
    proxy.set(mode);
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke(&world, &quiet).await;
    revoke(&world, &load.turning).await;
    let committed = Instant::now();
    load.allow_from(committed + STALENESS, turned(WELL));
    load.until(committed + STALENESS).await;
    front.fleet.all_answer(&quiet, MODELS, 401).await;
    // Wait once more, so that everything in use had to be read again.
    load.until(committed + 2 * STALENESS).await;
    proxy.set(Mode::Pass);
    load.bear(front.fleet.polled(2)).await;
    load.bear(load.more(turned(WELL), 20)).await;
    load.end(&format!("the feed lost ({mode:?})")).await;
}
