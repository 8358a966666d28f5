//! Which replicas serve, and which of them have applied a change.

use std::time::Duration;

use sqlx::FromRow;

use super::{Error, Store, sql_as, sql_scalar, utc};

/// A replica that may be answering.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Replica {
    /// Host and process.
    pub name: String,
    /// Whether it has read the change.
    pub applied: bool,
    /// What it knows is not older than this.
    pub watermark: String,
    /// When that must have expired, if it does not read on, and what it may have looked up after
    /// that and before the change.
    pub expires_at: String,
}

impl Store {
    /// The replicas that may answer from before a change, or have read it, and whether they have:
    /// that of transaction `xid`, committed `ago`. Where there is no such change, everybody has.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replicas(&self, xid: Option<&str>, ago: Duration) -> Result<Vec<Replica>, Error> {
        let mut tx = self.read().await?;
        // A replica that has lost the feed may still look things up, until the commit. One that has
        // ended may leave a lease from which nobody can tell how far it had read: `Snapshot::of_all`.
        let replicas = sql_as(concat!(
            "SELECT name, coalesce(pg_visible_in_snapshot($1::text::xid8, snapshot), true) AS applied, ",
            utc!("watermark"),
            " AS watermark, ",
            utc!("expires_at"),
            " AS expires_at
             FROM patgate.replicas, LATERAL (SELECT max_staleness
                 + greatest(watermark, now() - $2 * interval '1 microsecond') AS expires_at) AS e
             WHERE installation = patgate.identity()
                 AND expires_at > now() AND pg_snapshot_xmax(snapshot) < '9223372036854775807'
             ORDER BY name"
        ));
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        let replicas = replicas.bind(xid).bind(ago).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(replicas)
    }

    /// The names of the replicas of which something was heard lately: within twice their
    /// `max_staleness`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn serving(&self) -> Result<Vec<String>, Error> {
        let mut tx = self.read().await?;
        let names = sql_scalar(
            "SELECT name FROM patgate.replicas
             WHERE installation = patgate.identity() AND watermark + 2 * max_staleness > now()
                 AND pg_snapshot_xmax(snapshot) < '9223372036854775807'
             ORDER BY name",
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(names)
    }
}
