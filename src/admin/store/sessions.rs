//! The sessions of users in self-service.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{AuditAction, Committed, Error, Store, UserRef, sql, sql_as, users, utc};

/// A session that counts, as an operator sees it. What proves it is not shown.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct UserSession {
    /// The id, which the audit log shows.
    pub id: Uuid,
    /// How the user signed in: `local` or `oidc`.
    pub method: String,
    /// The provider that signed the user in.
    pub issuer: Option<String>,
    /// Whether it has the rights of a platform administrator now.
    pub elevated: bool,
    /// Where it began, as the process of self-service stated it.
    pub address: Option<String>,
    /// The database login of that process.
    pub login: String,
    /// In UTC.
    pub begun_at: String,
    /// In UTC, up to half a minute late.
    pub last_used_at: String,
    /// When it ends even if it is used, in UTC.
    pub ends_at: String,
}

/// The conditions of `patgate.web_internal_actor`; see `0028_self_service_limits.sql`.
const SESSIONS: &str = concat!(
    "SELECT s.id, s.method, s.issuer, host(s.address) AS address, s.login,
         u.platform_admin AND s.elevated_until > clock_timestamp() AS elevated, ",
    utc!("s.begun_at"),
    " AS begun_at, ",
    utc!("greatest(s.used_at, n.used_at)"),
    " AS last_used_at, ",
    utc!("(s.begun_at + p.session_longest)"),
    " AS ends_at
     FROM patgate.sessions s
     JOIN patgate.users u ON u.id = s.user_id AND u.enabled AND u.session_epoch = s.epoch
     LEFT JOIN patgate.session_uses n ON n.session = s.id
     CROSS JOIN patgate.policy p
     WHERE u.id = $1
       AND s.begun_at + p.session_longest > clock_timestamp()
       AND greatest(s.used_at, n.used_at) + p.session_idle > clock_timestamp()
       AND CASE s.method
           WHEN 'local' THEN EXISTS (SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id)
           ELSE EXISTS (
               SELECT FROM patgate.identities i
               JOIN patgate.issuers t ON t.issuer = i.issuer AND t.enabled
               WHERE i.issuer = s.issuer AND i.subject = s.subject AND i.user_id = u.id
                 AND s.begun_at >= i.linked_at AND s.begun_at >= t.enabled_at)
           END
     ORDER BY s.begun_at DESC, s.id"
);

impl Store {
    /// Lists the sessions of a user that count, the latest first.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn user_sessions(
        &self,
        reference: &UserRef,
    ) -> Result<Vec<UserSession>, Error> {
        let mut tx = self.read().await?;
        let user = users::find(&mut tx, reference).await?;
        let sessions = sql_as(SESSIONS).bind(user.id).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(sessions)
    }

    /// Ends all sessions of a user, also one that is just being begun, and returns how many counted.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn sign_out(&self, reference: &UserRef) -> Result<Committed<usize>, Error> {
        let mut change = self.change().await?;
        let user = users::lock(&mut change.tx, reference).await?;
        let sessions: Vec<UserSession> =
            sql_as(SESSIONS).bind(user.id).fetch_all(&mut *change.tx).await?;
        sql("UPDATE patgate.users SET session_epoch = session_epoch + 1 WHERE id = $1")
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        let details = json!({ "email": user.email, "sessions": sessions.len() });
        change.finish(AuditAction::SessionEndAll, user.id, details, sessions.len()).await
    }
}
