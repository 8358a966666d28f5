//! Checks the key ring against the live tokens and the credentials of backends.

use anyhow::anyhow;
use sqlx::Row as _;

use super::Finding;
use crate::{
    config::Config, credential::Sealed, postgres, rollout::Mode, server::ring_fit::RingFit,
};

const KEY_RING: &str = "keyring_file";

pub(super) async fn find(config: &Config) -> Finding {
    if config.keyring_file.is_none() {
        return Finding::off(KEY_RING, "not set: tokens can be neither created nor verified");
    }
    let Found { fit, others, unopened } = match read(config).await {
        Ok(read) => read,
        Err(error) => {
            return Finding::failed(KEY_RING, format!("not compared with live tokens: {error:#}"));
        }
    };
    let tokens = judge(&fit, &others, config.mode);
    if unopened.is_empty() {
        return tokens;
    }
    Finding::failed(
        KEY_RING,
        format!(
            "{}; it cannot open the credentials of these backends, and calls to them are answered with \
             503: {}. Add the missing keys to the ring, or set the credentials again (`patgate backend \
             credential set`)",
            tokens.detail,
            unopened.join(", ")
        ),
    )
}

/// Says what the keys of the live tokens mean for the ring.
fn judge(fit: &RingFit, others: &[String], mode: Mode) -> Finding {
    match fit {
        RingFit::NoLiveToken => Finding::ok(KEY_RING, "no token is live"),
        RingFit::Fits { .. } if others.is_empty() => {
            Finding::ok(KEY_RING, "has the keys of all live tokens")
        }
        RingFit::Fits { .. } => Finding::warning(
            KEY_RING,
            format!(
                "live tokens were signed by keys that it lacks, and are refused: {}",
                others.join(", ")
            ),
        ),
        alien @ RingFit::Alien { .. } => {
            let why = alien.objection().unwrap_or_default();
            let why = format!("{why}. They were signed by: {}", others.join(", "));
            match mode {
                Mode::Shadow => Finding::warning(KEY_RING, why),
                _ => Finding::failed(KEY_RING, why),
            }
        }
    }
}

/// What was found out about the ring.
struct Found {
    fit: RingFit,
    /// The keys of live tokens that the ring lacks, each with how many there are.
    others: Vec<String>,
    /// The backends whose credentials it cannot open, each with the key that it was sealed with.
    unopened: Vec<String>,
}

/// Compares the ring with the live tokens and the credentials.
async fn read(config: &Config) -> anyhow::Result<Found> {
    let ring = config.key_ring()?;
    let pool =
        postgres::connect(&config.postgres).await.map_err(|_| anyhow!("see postgres.url"))?;
    let read = async {
        let fit = RingFit::read_with(&pool, &ring).await?;
        let lacking = match &fit {
            RingFit::NoLiveToken => &[][..],
            RingFit::Fits { others } | RingFit::Alien { signed_by: others } => others,
        };
        let mut others = Vec::new();
        for key in lacking {
            let count: i64 = sqlx::query_scalar(COUNT).bind(key).fetch_one(&pool).await?;
            others.push(match count {
                0..=MOST_COUNTED => format!("{key} ({count})"),
                _ => format!("{key} (more than {MOST_COUNTED})"),
            });
        }
        let rows = sqlx::raw_sql(CREDENTIALS).fetch_all(&pool).await?;
        let mut unopened = Vec::new();
        for row in rows {
            let name: String = row.try_get("name")?;
            let key_id: String = row.try_get("key_id")?;
            let bytes: Vec<u8> = row.try_get("credential")?;
            let sealed = Sealed { key_id: key_id.as_str().into(), bytes: bytes.into() };
            if sealed.open(&ring, &name).is_none() {
                unopened.push(format!("{name} (key {key_id})"));
            }
        }
        Ok::<_, sqlx::Error>(Found { fit, others, unopened })
    };
    let read = read.await;
    pool.close().await;
    Ok(read?)
}

const MOST_COUNTED: i64 = 10_000;

/// Reads at most one token more than are counted, from the index of live tokens by their keys.
const COUNT: &str = "
    SELECT count(*) FROM (
        SELECT FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
        WHERE p.key_id = $1 AND p.revoked_at IS NULL AND p.expires_at > now() AND u.enabled
          AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'
        LIMIT 10001) AS counted";

const CREDENTIALS: &str = "
    SELECT name, coalesce(credential_key_id, '') AS key_id, credential FROM patgate.backends
    WHERE credential IS NOT NULL ORDER BY name";
