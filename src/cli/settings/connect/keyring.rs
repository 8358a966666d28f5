//! The key ring, against the tokens that are live.

use anyhow::anyhow;

use super::Finding;
use crate::{
    config::Config,
    ring_watch::{Fitness, LIVE_KEYS},
    schema,
};

const KEY_RING: &str = "keyring_file";

pub(super) async fn find(config: &Config) -> Finding {
    if config.keyring_file.is_none() {
        return Finding::off(KEY_RING, "not set: tokens can be neither created nor verified");
    }
    match fitness(config).await {
        Err(error) => {
            Finding::failed(KEY_RING, format!("not compared with live tokens: {error:#}"))
        }
        Ok(Fitness::Unproven) => Finding::ok(KEY_RING, "no token is live"),
        Ok(Fitness::Fits { others }) if others.is_empty() => {
            Finding::ok(KEY_RING, "has the keys of all live tokens")
        }
        Ok(Fitness::Fits { others }) => Finding::warning(
            KEY_RING,
            format!(
                "live tokens were signed by keys that it lacks, and are refused: {}",
                others.join(", ")
            ),
        ),
        Ok(alien @ Fitness::Alien { .. }) => {
            Finding::failed(KEY_RING, alien.objection().unwrap_or_default())
        }
    }
}

async fn fitness(config: &Config) -> anyhow::Result<Fitness> {
    let ring = config.key_ring()?;
    let pool = schema::connect(&config.postgres).await.map_err(|_| anyhow!("see postgres.url"))?;
    let rows = sqlx::raw_sql(LIVE_KEYS).fetch_all(&pool).await;
    pool.close().await;
    Ok(Fitness::of(&ring, &rows?)?)
}
