//! The checks of the stores, before anything that they say is used.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{OptionFuture, join};

use super::Error;
use crate::{
    clock::{self, Tick},
    config::Config,
    feed::POOLED_FEED,
    installation::Installation,
    postgres::{self, PostgresSettings, SchemaError},
    telemetry::Metrics,
    throttle::Throttle,
};

/// Stores that have passed their checks: Postgres has a schema that this release works with, its
/// login may serve and not administer, and `feed.url` leads to the same installation. Only
/// [`VerifiedStores::check`] makes one, and everything that reads a store is built from one.
pub(super) struct VerifiedStores {
    installation: Installation,
    /// The feed, if it has an address of its own.
    feed: Option<FeedAccess>,
}

/// Whether a connection for the feed is this replica's alone, so that it may listen there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FeedAccess {
    Listens,
    /// A pooler in transaction mode stands before Postgres.
    Pooled,
    /// It could not be determined, for this reason.
    Unknown(String),
}

/// Says that a replica only polls the feed although it has an address for listening: once until that
/// changes, and from time to time, because the start is tried again and again.
#[derive(Default)]
pub(super) struct FeedWarning {
    said: Mutex<Option<FeedAccess>>,
    repeats: Throttle,
}

/// Interval between two warnings of the same.
const WARN_EVERY: Duration = Duration::from_secs(5 * 60);

impl FeedWarning {
    /// Logs what there is to say about the feed of these stores.
    pub(super) fn warn(&self, stores: &VerifiedStores) {
        if !self.is_due(stores.feed.as_ref(), clock::now()) {
            return;
        }
        match &stores.feed {
            None | Some(FeedAccess::Listens) => {}
            Some(FeedAccess::Pooled) => tracing::warn!("{POOLED_FEED}"),
            Some(FeedAccess::Unknown(error)) => tracing::warn!(
                error,
                "cannot determine whether feed.url leads through a connection pooler; until the \
                 next start, this replica notices changes by polling. The test needs two \
                 connections",
            ),
        }
    }

    fn is_due(&self, feed: Option<&FeedAccess>, now: Tick) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = said.as_ref() != feed;
        *said = feed.cloned();
        if is_news {
            self.repeats.close(now, WARN_EVERY);
        }
        is_news || self.repeats.passes(now, WARN_EVERY)
    }
}

impl VerifiedStores {
    /// Checks Postgres and the feed, both even if one fails. Reads nothing else.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong.
    pub(super) async fn check(config: &Config, metrics: &Metrics) -> Result<Self, Vec<Error>> {
        let fed = config.feed.is_some();
        config.postgres.address.serve_only();
        config.feed().address.serve_only();
        let feed = OptionFuture::from(fed.then(|| check_feed(config, metrics)));
        let (installation, feed) = join(check_postgres(&config.postgres), feed).await;
        match (installation, feed.transpose()) {
            (Ok(installation), Ok(None)) => Ok(Self { installation, feed: None }),
            (Ok(postgres), Ok(Some((feed, _)))) if feed != postgres => {
                Err(vec![Error::FeedElsewhere { feed, postgres }])
            }
            (Ok(installation), Ok(Some((_, feed)))) => Ok(Self { installation, feed: Some(feed) }),
            (installation, feed) => {
                Err([installation.err(), feed.err()].into_iter().flatten().collect())
            }
        }
    }

    /// The installation that both addresses lead to.
    pub(super) fn installation(&self) -> Installation {
        self.installation
    }

    pub(super) fn listens(&self) -> bool {
        self.feed == Some(FeedAccess::Listens)
    }
}

async fn check_postgres(settings: &PostgresSettings) -> Result<Installation, Error> {
    let pool = postgres::connect(settings).await?;
    let checked = postgres::check_for_serving(&pool, settings.key).await;
    pool.close().await;
    Ok(checked?)
}

/// Returns the installation that the feed belongs to, and whether this replica may listen there.
async fn check_feed(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Installation, FeedAccess), Error> {
    let settings = config.feed();
    let pool = postgres::connect(&settings).await?;
    let identified = async {
        let installation = postgres::identify(&pool).await?;
        postgres::check_login(&pool, settings.key).await?;
        Ok::<_, SchemaError>(installation)
    };
    let identified = identified.await;
    pool.close().await;
    let installation = identified.map_err(Error::NoFeed)?;
    // Listens only if the connection is known to reach Postgres without a transaction pooler.
    match postgres::is_pooled(&settings).await {
        Ok(true) if config.relay => Err(Error::PooledRelay),
        Ok(pooled) => {
            metrics.feed_pooled(pooled);
            let feed = if pooled { FeedAccess::Pooled } else { FeedAccess::Listens };
            Ok((installation, feed))
        }
        Err(error) => Ok((installation, FeedAccess::Unknown(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_once_until_it_changes() {
        let warning = FeedWarning::default();
        let at = |seconds: i64| Tick::from_micros(seconds * 1_000_000);
        let unknown = |why: &str| Some(FeedAccess::Unknown(why.to_owned()));
        for (seconds, feed, is_due) in [
            (1, Some(FeedAccess::Pooled), true),
            (2, Some(FeedAccess::Pooled), false),
            (3, unknown("a"), true),
            (4, unknown("a"), false),
            (5, unknown("b"), true),
            (6, Some(FeedAccess::Pooled), true),
            (305, Some(FeedAccess::Pooled), false),
            (307, Some(FeedAccess::Pooled), true),
            (308, Some(FeedAccess::Pooled), false),
        ] {
            assert_eq!(warning.is_due(feed.as_ref(), at(seconds)), is_due, "{seconds} s");
        }
    }
}
