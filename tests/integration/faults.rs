//! The fault table: what each fault may do to answers, under a load through a real Envoy that asks
//! two replicas.

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
    load::{CHANGING, Law, Load, UNREAD, WELL},
};

pub(crate) use self::{both::*, feed::*, postgres::*, redis::*, replicas::*, sealed::*};

/// In rows that wait until everything known is too old.
const STALENESS: Duration = Duration::from_secs(3);
const SHORT: [&str; 2] = ["max_staleness=3s", "negative_ttl=1s"];

const FADING: Law =
    Law { hot: &[200, 503], cold: &[503], revoked: &[401, 503], turning: &[200, 503], ..WELL };
/// Everything that was known is too old.
const BLIND: Law = Law { hot: &[503], cold: &[503], revoked: &[503], turning: &[503], ..WELL };

/// A law but for the token that was revoked under the fault.
const fn turned(law: Law) -> Law {
    Law { turning: if law.hot.len() > 1 { &[401, 503] } else { &[401] }, ..law }
}

/// Nobody can read Postgres for a while. What is known is served as long as it may be and no
/// longer; then all is well again, without a restart.
async fn unread(
    front: &Front<'_>,
    load: &Load,
    fault: impl AsyncFnOnce(),
    heal: impl AsyncFnOnce(),
    after: Law,
) {
    let known = Instant::now();
    load.bear(front.fleet.polled(2)).await;
    load.law(CHANGING);
    load.law_from(known + STALENESS, Law { cold: &[200, 503], ..FADING });
    load.bear(fault()).await;
    let gone = load.law(UNREAD);
    load.law_from(gone.max(known + STALENESS), FADING);
    load.law_from(gone + STALENESS, BLIND);
    load.until(gone + STALENESS).await;
    load.bear(load.more(BLIND, 2)).await;

    let healing = Law { cold: &[200, 503], ..FADING };
    load.law(if after.turning == WELL.turning { healing } else { turned(healing) });
    load.bear(heal()).await;
    let healed = Instant::now();
    load.law_from(healed + HEALED, after);
    load.until(healed + HEALED).await;
    load.bear(load.more(after, 20)).await;
}
