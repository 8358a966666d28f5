//! The feed is lost, and nothing else.

use std::{sync::Arc, time::Instant};

use super::{Front, SHORT, STALENESS, turned};
use crate::{
    harness::Suite,
    load::{Law, WELL},
    proxy::{Mode, Proxy},
    tiers::{feed_through, revoke},
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
    let feed = feed_through(&world, suite, &proxy);
    let front = Front::of(&world, &[&feed, SHORT[0], SHORT[1]]).await;
    let load = front.load(&world).await;
    proxy.set(mode);
    load.law(Law { turning: &[200, 401], ..WELL });
    revoke(&world, &load.turning).await;
    let committed = Instant::now();
    load.law_from(committed + STALENESS, turned(WELL));
    // Twice, so that everything in use had to be read again.
    load.until(committed + 2 * STALENESS).await;
    proxy.set(Mode::Pass);
    load.bear(front.fleet.polled(2)).await;
    load.bear(load.more(turned(WELL), 20)).await;
    load.end(&format!("the feed lost ({mode:?})")).await;
}
