//! The checks of the stores, before anything that they say is used.

use futures_util::future::{OptionFuture, join};

use super::Error;
use crate::{
    config::Config,
    feed::POOLED_FEED,
    installation::Installation,
    postgres::{self, PostgresSettings, SchemaError},
};

/// Stores that have passed their checks: Postgres has a schema that this release works with, its
/// login may serve and not administer, and `feed.url` leads to the same installation. Only
/// [`VerifiedStores::check`] makes one, and everything that reads a store is built from one.
pub(super) struct VerifiedStores {
    installation: Installation,
    /// Whether a connection for the feed is this replica's alone, so that it may listen.
    listens: bool,
}

impl VerifiedStores {
    /// Checks Postgres and the feed, both even if one fails. Reads nothing else.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong.
    pub(super) async fn check(config: &Config) -> Result<Self, Vec<Error>> {
        let fed = config.feed.is_some();
        config.postgres.address.serve_only();
        config.feed().address.serve_only();
        let feed = OptionFuture::from(fed.then(|| check_feed(config)));
        let (installation, feed) = join(check_postgres(&config.postgres), feed).await;
        match (installation, feed.transpose()) {
            (Ok(postgres), Ok(None)) => Ok(Self { installation: postgres, listens: false }),
            (Ok(postgres), Ok(Some((feed, _)))) if feed != postgres => {
                Err(vec![Error::FeedElsewhere { feed, postgres }])
            }
            (Ok(installation), Ok(Some((_, listens)))) => Ok(Self { installation, listens }),
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
        self.listens
    }
}

async fn check_postgres(settings: &PostgresSettings) -> Result<Installation, Error> {
    let pool = postgres::connect(settings).await?;
    let checked = postgres::check_for_serving(&pool, settings.key).await;
    pool.close().await;
    Ok(checked?)
}

/// Returns the installation that the feed belongs to, and whether this replica may listen there.
async fn check_feed(config: &Config) -> Result<(Installation, bool), Error> {
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
    let listens = match postgres::is_pooled(&settings).await {
        Ok(true) if config.relay => return Err(Error::PooledRelay),
        Ok(true) => {
            tracing::warn!("{POOLED_FEED}");
            false
        }
        Ok(false) => true,
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot determine whether feed.url leads through a connection pooler; until the \
                 next start, this replica notices changes by polling. The test needs two \
                 connections",
            );
            false
        }
    };
    Ok((installation, listens))
}
