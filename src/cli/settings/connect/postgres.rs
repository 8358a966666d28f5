//! Probes Postgres: where tokens are looked up, and where changes are read.

use super::Finding;
use crate::{
    app,
    config::{Config, ConfigPurpose},
    feed::{self, POOLED_FEED, POOLED_RELAY},
    installation::Installation,
    postgres::{self, PostgresSettings, SchemaError},
};

const POSTGRES: &str = "postgres.url";
const FEED: &str = "feed.url";

/// Returns the findings, and the installation that `postgres.url` leads to.
pub(super) async fn probe(
    config: &Config,
    purpose: ConfigPurpose,
) -> ([Finding; 2], Option<Installation>) {
    let installation = installation(config).await;
    let known = installation.as_ref().ok().copied();
    let feed = feed(config, purpose, known).await;
    let login = match purpose {
        ConfigPurpose::Serve => login(&config.postgres).await,
        // The login of self-service has a probe of its own.
        ConfigPurpose::Admin | ConfigPurpose::SelfService => Ok(()),
    };
    let postgres = match (installation, login) {
        (Ok(installation), Ok(())) => connections(config, installation).await,
        (Err(error), _) | (_, Err(error)) => Finding::failed(POSTGRES, error),
    };
    ([postgres, feed], known)
}

/// Reports whether triggers are on and there are enough connections, if everything else is in order.
async fn connections(config: &Config, installation: Installation) -> Finding {
    if let Some(off) = feed::triggers_off(&config.postgres).await {
        return Finding::warning(POSTGRES, off);
    }
    match app::connection_shortage(config).await {
        Ok(Some(shortage)) => Finding::warning(POSTGRES, shortage),
        // If the shortage is unknown because feed.url fails, its own finding says so.
        Ok(None) | Err(_) => Finding::ok(POSTGRES, format!("installation {installation}")),
    }
}

async fn installation(config: &Config) -> Result<Installation, SchemaError> {
    let pool = postgres::connect(&config.postgres).await?;
    let installation = postgres::check(&pool).await;
    pool.close().await;
    installation
}

/// Fails if the login may do more than a replica must.
async fn login(settings: &PostgresSettings) -> Result<(), SchemaError> {
    let pool = postgres::connect(settings).await?;
    let checked = postgres::check_login(&pool, settings.key).await;
    pool.close().await;
    checked
}

async fn feed(config: &Config, purpose: ConfigPurpose, expected: Option<Installation>) -> Finding {
    if config.feed.is_none() {
        return Finding::off(FEED, "not set: changes are read at postgres.url, every 400 ms");
    }
    let settings = config.feed();
    let identified = async {
        let pool = postgres::connect(&settings).await?;
        let identified = postgres::identify(&pool).await;
        pool.close().await;
        if purpose == ConfigPurpose::Serve && identified.is_ok() {
            login(&settings).await?;
        }
        identified
    };
    match (identified.await, expected) {
        (Err(error), _) => Finding::failed(FEED, error),
        (Ok(found), Some(expected)) if found != expected => Finding::failed(
            FEED,
            format!(
                "leads to installation {found}, postgres.url to {expected}: point both at the same \
                 database"
            ),
        ),
        (Ok(found), _) => match postgres::is_pooled(&settings).await {
            Ok(true) if config.relay => Finding::failed(FEED, POOLED_RELAY),
            Ok(true) => Finding::warning(FEED, POOLED_FEED),
            Ok(false) => match feed::notifications_arrive(&settings).await {
                Ok(true) => Finding::ok(FEED, format!("installation {found}")),
                Ok(false) if config.relay => Finding::failed(FEED, POOLED_RELAY),
                Ok(false) => Finding::warning(FEED, POOLED_FEED),
                Err(error) => Finding::failed(FEED, error),
            },
            Err(error) => Finding::failed(FEED, error),
        },
    }
}
