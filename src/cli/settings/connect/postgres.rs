//! Postgres: where tokens are looked up, and where changes are read.

use super::Finding;
use crate::{
    config::Config,
    installation::Installation,
    schema::{self, SchemaError},
};

const POSTGRES: &str = "postgres.url";
const FEED: &str = "feed.url";

/// What was found, and which installation `postgres.url` leads to.
pub(super) async fn probe(config: &Config) -> ([Finding; 2], Option<Installation>) {
    let installation = installation(config).await;
    let known = installation.as_ref().ok().copied();
    let feed = feed(config, known).await;
    let postgres = match installation {
        Ok(installation) => connections(config, installation).await,
        Err(error) => Finding::failed(POSTGRES, error),
    };
    ([postgres, feed], known)
}

/// Whether there are enough, where all else is well.
async fn connections(config: &Config, installation: Installation) -> Finding {
    match schema::shortage(config).await {
        Ok(Some(shortage)) => Finding::warning(POSTGRES, shortage),
        // If the shortage is unknown because feed.url fails, its own finding says so.
        Ok(None) | Err(_) => Finding::ok(POSTGRES, format!("installation {installation}")),
    }
}

async fn installation(config: &Config) -> Result<Installation, SchemaError> {
    let pool = schema::connect(&config.postgres).await?;
    let installation = schema::check(&pool).await;
    pool.close().await;
    installation
}

async fn feed(config: &Config, expected: Option<Installation>) -> Finding {
    if config.feed_url.is_none() {
        return Finding::off(FEED, "not set: changes are read at postgres.url, every 400 ms");
    }
    let identified = async {
        let pool = schema::connect(&config.feed()).await?;
        let identified = schema::identify(&pool).await;
        pool.close().await;
        identified
    };
    match (identified.await, expected) {
        (Err(error), _) => Finding::failed(FEED, error),
        (Ok(found), Some(expected)) if found != expected => Finding::failed(
            FEED,
            format!(
                "leads to installation {found}, postgres.url to {expected}: let both name the same \
                 database"
            ),
        ),
        (Ok(found), _) => match schema::is_pooled(&config.feed()).await {
            Ok(true) if config.relay => Finding::failed(FEED, schema::POOLED_RELAY),
            Ok(true) => Finding::warning(FEED, schema::POOLED_FEED),
            Ok(false) => Finding::ok(FEED, format!("installation {found}")),
            Err(error) => Finding::failed(FEED, error),
        },
    }
}
