//! The key ring, against the tokens that are live.

use anyhow::anyhow;
use sqlx::AssertSqlSafe;

use super::Finding;
use crate::{
    config::Config,
    postgres,
    rollout::Mode,
    server::ring_watch::{Fitness, live_keys},
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
            let why = alien.objection().unwrap_or_default();
            match config.mode {
                Mode::Shadow => Finding::warning(KEY_RING, why),
                _ => Finding::failed(KEY_RING, why),
            }
        }
    }
}

async fn fitness(config: &Config) -> anyhow::Result<Fitness> {
    let ring = config.key_ring()?;
    let pool =
        postgres::connect(&config.postgres).await.map_err(|_| anyhow!("see postgres.url"))?;
    let row = sqlx::raw_sql(AssertSqlSafe(live_keys(&ring))).fetch_one(&pool).await;
    pool.close().await;
    Ok(Fitness::of(&row?)?)
}
