//! Reads and changes users.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, CANARY_KEEPER, Committed, DisplayName, Email, Error, ObjectKind, Store, UserRef,
    new_id, sql, sql_as, utc,
};
use crate::principal::UserId;

/// A user to create.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The address by which commands name the user, unique among users.
    pub email: Email,
    /// What people call the user, for display only.
    pub name: DisplayName,
    /// Whether every operation is permitted in every domain.
    pub platform_admin: bool,
}

/// A user, as stored.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
#[expect(missing_docs, reason = "the columns of patgate.users")]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub platform_admin: bool,
    pub enabled: bool,
    pub created_at: String,
}

/// A user with their roles.
#[derive(Clone, Debug, serde::Serialize)]
pub struct UserDetails {
    /// The user, as stored.
    #[serde(flatten)]
    pub user: User,
    /// Ordered by domain and name.
    pub roles: Vec<UserRole>,
    /// Tokens that are neither expired nor revoked.
    pub live_tokens: i64,
}

/// A role that a user has.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct UserRole {
    /// The slug of the role's domain.
    pub domain: String,
    /// The name of the role.
    pub role: String,
}

impl Store {
    /// Creates a user, enabled.
    ///
    /// # Errors
    ///
    /// If the address is taken.
    pub(crate) async fn create_user(&self, new: &NewUser) -> Result<Committed<User>, Error> {
        let mut change = self.change().await?;
        let user: User = sql_as(concat!(
            "INSERT INTO patgate.users (id, email, name, platform_admin) VALUES ($1, $2, $3, $4)
             RETURNING id, email, name, platform_admin, enabled, ",
            utc!("created_at"),
            " AS created_at"
        ))
        .bind(new_id())
        .bind(new.email.as_str())
        .bind(new.name.as_str())
        .bind(new.platform_admin)
        .fetch_one(&mut *change.tx)
        .await
        .map_err(|error| Error::exists(error, ObjectKind::User, &new.email))?;
        let details = json!({
            "email": user.email, "name": user.name, "platform_admin": user.platform_admin,
        });
        change.finish(AuditAction::UserCreate, user.id, details, user).await
    }

    /// Lists all users, by address, without the owner of canaries.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn users(&self) -> Result<Vec<User>, Error> {
        let mut tx = self.read().await?;
        let users = sql_as(concat!(
            "SELECT id, email, name, platform_admin, enabled, ",
            utc!("created_at"),
            " AS created_at FROM patgate.users WHERE id <> $1 ORDER BY email"
        ))
        .bind(CANARY_KEEPER);
        let users = users.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(users)
    }

    /// Returns a user with their roles.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn user(&self, reference: &UserRef) -> Result<UserDetails, Error> {
        let mut tx = self.read().await?;
        let user = find(&mut tx, reference).await?;
        let roles = sql_as(
            "SELECT d.slug AS domain, r.name AS role FROM patgate.role_members m
             JOIN patgate.roles r ON r.id = m.role_id JOIN patgate.domains d ON d.id = r.domain_id
             WHERE m.user_id = $1 ORDER BY 1, 2",
        )
        .bind(user.id)
        .fetch_all(&mut *tx)
        .await?;
        let (live_tokens,) = sql_as(
            "SELECT count(*) FROM patgate.pats
             WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()",
        )
        .bind(user.id)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(UserDetails { user, roles, live_tokens })
    }

    /// Enables or disables a user. The tokens of a disabled user are refused, and
    /// work again once the user is enabled.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn set_user_enabled(
        &self,
        reference: &UserRef,
        enabled: bool,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let user = lock(&mut change.tx, reference).await?;
        sql("UPDATE patgate.users SET enabled = $2 WHERE id = $1")
            .bind(user.id)
            .bind(enabled)
            .execute(&mut *change.tx)
            .await?;
        change.outdate_user(UserId(user.id)).await?;
        let action = if enabled { AuditAction::UserEnable } else { AuditAction::UserDisable };
        change.finish(action, user.id, json!({ "email": user.email }), ()).await
    }

    /// Sets whether a user may do everything in every domain.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn set_platform_admin(
        &self,
        reference: &UserRef,
        platform_admin: bool,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        let user = lock(&mut change.tx, reference).await?;
        sql("UPDATE patgate.users SET platform_admin = $2 WHERE id = $1")
            .bind(user.id)
            .bind(platform_admin)
            .execute(&mut *change.tx)
            .await?;
        change.outdate_user(UserId(user.id)).await?;
        let details = json!({ "email": user.email, "platform_admin": platform_admin });
        change.finish(AuditAction::UserSetPlatformAdmin, user.id, details, ()).await
    }

    /// Deletes a user with their tokens.
    ///
    /// # Errors
    ///
    /// If the user does not exist.
    pub(crate) async fn delete_user(&self, reference: &UserRef) -> Result<Committed<()>, Error> {
        let mut change = self.bulk_change().await?;
        let user = lock(&mut change.tx, reference).await?;
        change.outdate_user(UserId(user.id)).await?;
        sql("DELETE FROM patgate.users WHERE id = $1")
            .bind(user.id)
            .execute(&mut *change.tx)
            .await?;
        let details = json!({ "email": user.email, "tokens": change.outdated.tokens.len() });
        change.finish(AuditAction::UserDelete, user.id, details, ()).await
    }
}

/// Finds a user, and keeps other changes and new tokens of theirs away until the end of this one.
pub(super) async fn lock(tx: &mut PgConnection, reference: &UserRef) -> Result<User, Error> {
    sql("SELECT FROM patgate.users WHERE id = $1 OR email = $2 FOR UPDATE")
        .bind(reference.id())
        .bind(reference.email())
        .execute(&mut *tx)
        .await?;
    find(tx, reference).await
}

pub(super) async fn find(tx: &mut PgConnection, reference: &UserRef) -> Result<User, Error> {
    sql_as(concat!(
        "SELECT id, email, name, platform_admin, enabled, ",
        utc!("created_at"),
        " AS created_at FROM patgate.users WHERE id = $1 OR email = $2"
    ))
    .bind(reference.id())
    .bind(reference.email())
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Error::not_found(ObjectKind::User, reference))
}
