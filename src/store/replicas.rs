//! Which replicas serve, and which of them have applied a change.

use sqlx::FromRow;

use super::{Error, Store, sql_as, utc};

/// A replica that may be answering.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Replica {
    /// Host and process.
    pub name: String,
    /// Whether it has read the change.
    pub applied: bool,
    /// What it knows is not older than this.
    pub watermark: String,
    /// When that must have expired, if it does not read on.
    pub expires_at: String,
}

impl Store {
    /// The replicas whose knowledge has not expired, and whether each has read the change that
    /// transaction `xid` made. Where there is no such change, everybody has.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn replicas(&self, xid: Option<&str>) -> Result<Vec<Replica>, Error> {
        let mut tx = self.read().await?;
        let replicas = sql_as(concat!(
            "SELECT name, coalesce(pg_visible_in_snapshot($1::text::xid8, snapshot), true) AS applied, ",
            utc!("watermark"),
            " AS watermark, ",
            utc!("(watermark + max_staleness)"),
            " AS expires_at
             FROM patgate.replicas WHERE watermark + max_staleness > now() ORDER BY name"
        ));
        let replicas = replicas.bind(xid).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(replicas)
    }
}
