//! The fault table: the permitted effect of each fault on answers, under load through a real Envoy
//! that asks two replicas.

mod both;
mod feed;
mod postgres;
mod redis;
mod replicas;
mod sealed;

use std::time::{Duration, Instant};

use crate::support::{
    fleet::HEALED,
    front::Front,
    load::{AllowedStatuses, CHANGING, Load, UNREAD, WELL},
};

pub(crate) use self::{both::*, feed::*, postgres::*, redis::*, replicas::*, sealed::*};

/// In rows that wait until all cached data is too old.
const STALENESS: Duration = Duration::from_secs(3);
const SHORT: [&str; 2] = ["max_staleness=3s", "negative_ttl=1s"];

const FADING: AllowedStatuses = AllowedStatuses {
    hot: &[200, 503],
    cold: &[503],
    revoked: &[401, 503],
    turning: &[200, 503],
    ..WELL
};
/// All cached data is too old.
const BLIND: AllowedStatuses =
    AllowedStatuses { hot: &[503], cold: &[503], revoked: &[503], turning: &[503], ..WELL };

/// Replaces the answers to the token that is revoked during the fault.
const fn turned(allowed: AllowedStatuses) -> AllowedStatuses {
    AllowedStatuses { turning: if allowed.hot.len() > 1 { &[401, 503] } else { &[401] }, ..allowed }
}

/// Postgres cannot be read for a while. Cached data is served up to its limit; then everything
/// recovers without a restart.
async fn unread(
    front: &Front,
    load: &Load,
    fault: impl AsyncFnOnce(),
    heal: impl AsyncFnOnce(),
    after: AllowedStatuses,
) {
    let known = Instant::now();
    load.bear(front.fleet.polled(2)).await;
    load.allow(CHANGING);
    load.allow_from(known + STALENESS, AllowedStatuses { cold: &[200, 503], ..FADING });
    load.bear(fault()).await;
    let gone = load.allow(UNREAD);
    load.allow_from(gone.max(known + STALENESS), FADING);
    load.allow_from(gone + STALENESS, BLIND);
    load.until(gone + STALENESS).await;
    load.bear(load.more(BLIND, 2)).await;

    let healing = AllowedStatuses { cold: &[200, 503], ..FADING };
    load.allow(if after.turning == WELL.turning { healing } else { turned(healing) });
    load.bear(heal()).await;
    let healed = Instant::now();
    load.allow_from(healed + HEALED, after);
    load.until(healed + HEALED).await;
    load.bear(load.more(after, 20)).await;
}
