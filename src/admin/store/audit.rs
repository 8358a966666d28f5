//! Reading the audit log.

use std::str::FromStr;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Error, Store, sql_as, utc};
use crate::vocabulary::vocabulary;

/// One administrative change, as the audit log has it. No role may change or delete an entry.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct AuditEntry {
    /// Grows in the order in which entries were written.
    pub id: i64,
    /// When it was written, in UTC.
    pub at: String,
    /// Who made the change, as the caller stated it.
    pub actor: String,
    /// The database login that wrote it, as Postgres knows it; `None` in entries older than this
    /// column.
    pub login: Option<String>,
    /// What was done, such as `token.revoke`.
    pub action: String,
    /// The id of the object that was changed; of a backend, its name.
    pub object: String,
    /// Further facts about the change. Holds no secret and no digest.
    pub details: Value,
    /// In self-service: the client's address, as the process stated it.
    pub address: Option<String>,
    /// In self-service: the id of the request, as the process stated it.
    pub request_id: Option<String>,
    /// In self-service: how the actor had signed in.
    pub method: Option<String>,
    /// In self-service: the id of the session.
    pub session: Option<Uuid>,
}

vocabulary! {
    /// What an entry of the audit log records. The words are stored, so they never change.
    AuditAction, "audit action" {
        AccountInvite = "account.invite",
        AccountLock = "account.lock",
        AccountSetPassword = "account.set_password",
        BackendCreate = "backend.create",
        BackendDelete = "backend.delete",
        BackendRemoveCredential = "backend.remove_credential",
        BackendResealCredential = "backend.reseal_credential",
        BackendSetCredential = "backend.set_credential",
        BackendUpdate = "backend.update",
        DomainCreate = "domain.create",
        DomainDelete = "domain.delete",
        DomainDisable = "domain.disable",
        DomainEnable = "domain.enable",
        DomainRename = "domain.rename",
        DomainSetModel = "domain.set_model",
        DomainSetUpstream = "domain.set_upstream",
        DomainUnsetModel = "domain.unset_model",
        DomainUpdate = "domain.update",
        IdentityLink = "identity.link",
        IdentityUnlink = "identity.unlink",
        InstallationRenew = "installation.renew",
        PolicySet = "policy.set",
        ProviderAdd = "provider.add",
        ProviderDisable = "provider.disable",
        ProviderEnable = "provider.enable",
        ProviderRemove = "provider.remove",
        ProviderTrustEmail = "provider.trust_email",
        RoleAddMember = "role.add_member",
        RoleCreate = "role.create",
        RoleDelete = "role.delete",
        RoleGrant = "role.grant",
        RoleRemoveMember = "role.remove_member",
        RoleRevoke = "role.revoke",
        SessionBegin = "session.begin",
        SessionElevate = "session.elevate",
        SessionEnd = "session.end",
        SessionEndAll = "session.end_all",
        TokenAddScope = "token.add_scope",
        TokenCreate = "token.create",
        TokenDelete = "token.delete",
        TokenRemoveScope = "token.remove_scope",
        TokenResetSecret = "token.reset_secret",
        TokenRevoke = "token.revoke",
        TokenRotate = "token.rotate",
        TokenUpdate = "token.update",
        UserCreate = "user.create",
        UserDelete = "user.delete",
        UserDisable = "user.disable",
        UserEnable = "user.enable",
        UserSetPlatformAdmin = "user.set_platform_admin",
    }
}

/// Selects entries by their action: one action, or every action on one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditActionFilter(&'static str);

/// A text that selects no action.
#[derive(Debug, thiserror::Error)]
#[error("expected one of {}", AuditActionFilter::words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))]
pub struct AuditActionFilterError;

impl FromStr for AuditActionFilter {
    type Err = AuditActionFilterError;

    fn from_str(text: &str) -> Result<Self, AuditActionFilterError> {
        Self::words().find(|word| *word == text).map(Self).ok_or(AuditActionFilterError)
    }
}

impl AuditActionFilter {
    /// Every word that selects entries: each kind of object, followed by the actions on it.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let mut last_kind = "";
        AuditAction::ALL.iter().flat_map(move |action| {
            let action = action.as_str();
            let kind = action.split('.').next().unwrap_or_default();
            let new_kind = (kind != last_kind).then_some(kind);
            last_kind = kind;
            new_kind.into_iter().chain([action])
        })
    }
}

/// Which entries to read. An absent field does not restrict.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    /// By exactly this actor.
    pub actor: Option<String>,
    /// Written by exactly this login of the database.
    pub login: Option<String>,
    /// Written at this moment or later.
    pub since: Option<Timestamp>,
    /// With one of these actions.
    pub action: Option<AuditActionFilter>,
    /// About exactly this object.
    pub object: Option<String>,
    /// At most this many, the latest first.
    pub limit: i64,
}

impl Store {
    /// Reads the audit log, the latest entry first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn audit_log(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, Error> {
        let mut tx = self.read().await?;
        let entries = sql_as(concat!(
            "SELECT id, ",
            utc!("at"),
            " AS at, actor, login, action, object, details, host(address) AS address, request_id,
                 method, session FROM patgate.audit_log
             WHERE ($1::text IS NULL OR actor = $1)
               AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
               AND ($3::text IS NULL OR object = $3)
               AND ($5::text IS NULL OR login = $5)
               AND ($6::text IS NULL OR at >= $6::text::timestamptz)
             ORDER BY id DESC LIMIT $4"
        ))
        .bind(filter.actor.clone())
        .bind(filter.action.map(|action| action.0))
        .bind(filter.object.clone())
        .bind(filter.limit)
        .bind(filter.login.clone())
        .bind(filter.since.map(|since| since.to_string()));
        let entries = entries.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_selected_by_kind_or_one_by_one() {
        for text in ["token", "token.revoke", "installation"] {
            assert_eq!(text.parse::<AuditActionFilter>().unwrap().0, text);
        }
        for text in ["", "token.", "mint", "token.revoke "] {
            let error = text.parse::<AuditActionFilter>().unwrap_err().to_string();
            assert!(error.starts_with("expected one of `account`, `account.invite`"), "{error}");
        }
        let kinds: Vec<&str> =
            AuditActionFilter::words().filter(|word| !word.contains('.')).collect();
        let known =
            "account backend domain identity installation policy provider role session token user"
                .split(' ');
        assert!(kinds.iter().copied().eq(known), "{kinds:?}");
    }
}
