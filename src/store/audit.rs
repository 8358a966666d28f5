//! Reading the audit log.

use serde_json::Value;
use sqlx::FromRow;

use super::{Error, Store, sql_as, utc};

/// A line of the audit log.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct AuditEntry {
    /// In the order of writing.
    pub id: i64,
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What, such as `token.revoke`.
    pub action: String,
    /// On what, by its id.
    pub object: String,
    /// What else is worth knowing.
    pub details: Value,
}

/// Which lines to read. What is absent does not restrict.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action, or all that begin with it and a dot.
    pub action: Option<String>,
    /// Exactly this object.
    pub object: Option<String>,
    /// The latest ones, this many at most.
    pub limit: i64,
}

impl Store {
    /// Reads the audit log, latest line first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, Error> {
        let mut tx = self.read().await?;
        let entries = sql_as(concat!(
            "SELECT id, ",
            utc!("at"),
            " AS at, actor, action, object, details FROM patgate.audit_log
             WHERE ($1::text IS NULL OR actor = $1)
               AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
               AND ($3::text IS NULL OR object = $3)
             ORDER BY id DESC LIMIT $4"
        ))
        .bind(filter.actor.clone())
        .bind(filter.action.clone())
        .bind(filter.object.clone())
        .bind(filter.limit);
        let entries = entries.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(entries)
    }
}
