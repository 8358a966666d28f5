//! Reading the audit log.

use std::str::FromStr;

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
    /// Who, as the command was told or found out.
    pub actor: String,
    /// The login by which it was written, as Postgres knows it; lines of before it was recorded
    /// have none.
    pub login: Option<String>,
    /// What, such as `token.revoke`.
    pub action: String,
    /// On what, by its id.
    pub object: String,
    /// What else is worth knowing.
    pub details: Value,
}

/// Every action that a line may tell of.
pub(super) const ACTIONS: [&str; 33] = [
    "backend.create",
    "backend.delete",
    "backend.remove_credential",
    "backend.reseal_credential",
    "backend.set_credential",
    "backend.update",
    "domain.create",
    "domain.delete",
    "domain.disable",
    "domain.enable",
    "domain.rename",
    "domain.set_model",
    "domain.set_upstream",
    "domain.unset_model",
    "domain.update",
    "installation.renew",
    "role.add_member",
    "role.create",
    "role.delete",
    "role.grant",
    "role.remove_member",
    "role.revoke",
    "token.add_scope",
    "token.create",
    "token.delete",
    "token.remove_scope",
    "token.revoke",
    "token.rotate",
    "user.create",
    "user.delete",
    "user.disable",
    "user.enable",
    "user.set_platform_admin",
];

/// What lines tell of: one action, or all on one kind of object, which their names begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditAction(&'static str);

/// A text that no line would tell of.
#[derive(Debug, thiserror::Error)]
#[error("expected one of {}", all_actions().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))]
pub struct AuditActionError;

impl FromStr for AuditAction {
    type Err = AuditActionError;

    fn from_str(text: &str) -> Result<Self, AuditActionError> {
        all_actions().find(|name| *name == text).map(Self).ok_or(AuditActionError)
    }
}

/// Each kind of object before the actions on it.
fn all_actions() -> impl Iterator<Item = &'static str> {
    let mut kind = "";
    ACTIONS.into_iter().flat_map(move |action| {
        let of = action.split('.').next().unwrap_or_default();
        let first = (of != kind).then_some(of);
        kind = of;
        first.into_iter().chain([action])
    })
}

/// Which lines to read. What is absent does not restrict.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Of this kind.
    pub action: Option<AuditAction>,
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
            " AS at, actor, login, action, object, details FROM patgate.audit_log
             WHERE ($1::text IS NULL OR actor = $1)
               AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
               AND ($3::text IS NULL OR object = $3)
             ORDER BY id DESC LIMIT $4"
        ))
        .bind(filter.actor.clone())
        .bind(filter.action.map(|action| action.0))
        .bind(filter.object.clone())
        .bind(filter.limit);
        let entries = entries.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(entries)
    }
}
