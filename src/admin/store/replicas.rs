//! Which replicas serve, and which of them have applied a change.

use std::time::Duration;

use sqlx::FromRow;

use super::{Error, Store, sql_as, sql_scalar, utc};

/// A replica that serves from the database.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Replica {
    /// The name of its host and the id of its process, as `host:id`.
    pub name: String,
    /// Whether it has read the change.
    pub applied: bool,
    /// It knows every change that was committed before this moment, in UTC.
    pub watermark: String,
    /// When everything that it knows from before the change has expired, in UTC, even if it reads
    /// no further changes.
    pub expires_at: String,
}

impl Store {
    /// Returns the replicas that serve, each with whether it has read the change of transaction
    /// `xid`, which was committed `ago`. A replica whose knowledge from before the change has
    /// expired is left out. Without `xid`, every replica counts as having read it.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn replicas(
        &self,
        xid: Option<&str>,
        ago: Duration,
    ) -> Result<Vec<Replica>, Error> {
        let mut tx = self.read().await?;
        // A replica that has lost the feed may still look things up, until the commit. One that has
        // ended may leave a lease that does not say how far it had read: `Snapshot::of_all`.
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

    /// Returns the names of the replicas that reported within twice their `max_staleness`.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn serving_replicas(&self) -> Result<Vec<String>, Error> {
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
