//! Checks the key ring against the live tokens.

use anyhow::anyhow;

use super::Finding;
use crate::{config::Config, postgres, rollout::Mode, server::ring_fit::RingFit};

const KEY_RING: &str = "keyring_file";

pub(super) async fn find(config: &Config) -> Finding {
    if config.keyring_file.is_none() {
        return Finding::off(KEY_RING, "not set: tokens can be neither created nor verified");
    }
    match ring_fit(config).await {
        Err(error) => {
            Finding::failed(KEY_RING, format!("not compared with live tokens: {error:#}"))
        }
        Ok(RingFit::NoLiveToken) => Finding::ok(KEY_RING, "no token is live"),
        Ok(RingFit::Fits { others }) if others.is_empty() => {
            Finding::ok(KEY_RING, "has the keys of all live tokens")
        }
        Ok(RingFit::Fits { others }) => Finding::warning(
            KEY_RING,
            format!(
                "live tokens were signed by keys that it lacks, and are refused: {}",
                others.join(", ")
            ),
        ),
        Ok(alien @ RingFit::Alien { .. }) => {
            let why = alien.objection().unwrap_or_default();
            match config.mode {
                Mode::Shadow => Finding::warning(KEY_RING, why),
                _ => Finding::failed(KEY_RING, why),
            }
        }
    }
}

async fn ring_fit(config: &Config) -> anyhow::Result<RingFit> {
    let ring = config.key_ring()?;
    let pool =
        postgres::connect(&config.postgres).await.map_err(|_| anyhow!("see postgres.url"))?;
    let fit = RingFit::read_with(&pool, &ring).await;
    pool.close().await;
    Ok(fit?)
}
