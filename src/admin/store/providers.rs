//! The providers whose users may sign in to self-service, and which user each of their subjects is.
//!
//! A session of a provider counts only while the provider is enabled and the subject is linked, and only
//! if it began after the latest enabling and linking (`0026_ended_provider_sessions.sql`). So nothing here
//! deletes sessions, and no open transaction of self-service can keep one from ending.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, Committed, Error, Issuer, ObjectKind, Store, Subject, UserRef, sql, sql_as,
    sql_scalar, users, utc,
};
use crate::legible::without_secrets;

/// A provider whose users may sign in.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Provider {
    /// The claim `iss` of its tokens.
    pub issuer: String,
    /// Whether its users may sign in.
    pub enabled: bool,
    /// Whether a verified e-mail address finds the user at the first sign-in.
    pub trusts_email: bool,
    /// How many users are linked.
    pub users: i64,
}

/// A provider with its links.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProviderDetails {
    /// The provider, as stored.
    #[serde(flatten)]
    pub provider: Provider,
    /// Ordered by the address of the user.
    pub identities: Vec<Identity>,
}

/// Which user a subject of a provider is.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Identity {
    /// The claim `sub`.
    pub subject: String,
    /// The address of the user.
    pub user: String,
    /// When it was linked, in UTC.
    pub linked_at: String,
}

macro_rules! select_provider {
    ($rest:literal) => {
        concat!(
            "SELECT t.issuer, t.enabled, t.trusts_email,
                 (SELECT count(*) FROM patgate.identities i WHERE i.issuer = t.issuer) AS users
             FROM patgate.issuers t ",
            $rest
        )
    };
}

impl Store {
    /// Adds a provider, enabled.
    ///
    /// # Errors
    ///
    /// If it exists.
    pub(crate) async fn add_provider(
        &self,
        issuer: &Issuer,
        trusts_email: bool,
    ) -> Result<Committed<Provider>, Error> {
        let mut change = self.change().await?;
        sql("INSERT INTO patgate.issuers (issuer, trusts_email) VALUES ($1, $2)")
            .bind(issuer.as_str().to_owned())
            .bind(trusts_email)
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::exists(error, ObjectKind::Provider, issuer))?;
        let provider = find(&mut change.tx, issuer).await?;
        let details = json!({ "trusts_email": trusts_email });
        change.finish(AuditAction::ProviderAdd, issuer, details, provider).await
    }

    /// Lists all providers, by issuer.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn providers(&self) -> Result<Vec<Provider>, Error> {
        let mut tx = self.read().await?;
        let providers = sql_as(select_provider!("ORDER BY t.issuer")).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(providers)
    }

    /// Returns a provider with its links.
    ///
    /// # Errors
    ///
    /// If it does not exist.
    pub(crate) async fn provider(&self, issuer: &Issuer) -> Result<ProviderDetails, Error> {
        let mut tx = self.read().await?;
        let provider = find(&mut tx, issuer).await?;
        let identities = sql_as(concat!(
            "SELECT i.subject, u.email AS user, ",
            utc!("i.linked_at"),
            " AS linked_at FROM patgate.identities i JOIN patgate.users u ON u.id = i.user_id
             WHERE i.issuer = $1 ORDER BY u.email"
        ))
        .bind(issuer.as_str().to_owned());
        let identities = identities.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(ProviderDetails { provider, identities })
    }

    /// Sets whether the users of a provider may sign in. Their sessions end when they may not, and do not
    /// count again later.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub(crate) async fn set_provider_enabled(
        &self,
        issuer: &Issuer,
        enabled: bool,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        sql("UPDATE patgate.issuers SET enabled = $2 WHERE issuer = $1")
            .bind(issuer.as_str().to_owned())
            .bind(enabled)
            .execute(&mut *change.tx)
            .await?;
        let provider = find(&mut change.tx, issuer).await?;
        let action =
            if enabled { AuditAction::ProviderEnable } else { AuditAction::ProviderDisable };
        change.finish(action, issuer, json!({ "users": provider.users }), ()).await
    }

    /// Sets whether a verified e-mail address of this provider finds the user at the first sign-in.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub(crate) async fn trust_email(
        &self,
        issuer: &Issuer,
        trusts_email: bool,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        sql("UPDATE patgate.issuers SET trusts_email = $2 WHERE issuer = $1")
            .bind(issuer.as_str().to_owned())
            .bind(trusts_email)
            .execute(&mut *change.tx)
            .await?;
        find(&mut change.tx, issuer).await?;
        let details = json!({ "trusts_email": trusts_email });
        change.finish(AuditAction::ProviderTrustEmail, issuer, details, ()).await
    }

    /// Removes a provider with all its links, which ends its sessions.
    ///
    /// # Errors
    ///
    /// If the provider does not exist.
    pub(crate) async fn remove_provider(&self, issuer: &Issuer) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        // The links of this moment are those that the audit log counts.
        sql("SELECT FROM patgate.issuers WHERE issuer = $1 FOR UPDATE")
            .bind(issuer.as_str().to_owned())
            .execute(&mut *change.tx)
            .await?;
        let Provider { users, .. } = find(&mut change.tx, issuer).await?;
        sql("DELETE FROM patgate.issuers WHERE issuer = $1")
            .bind(issuer.as_str().to_owned())
            .execute(&mut *change.tx)
            .await?;
        change.finish(AuditAction::ProviderRemove, issuer, json!({ "users": users }), ()).await
    }

    /// Links a subject of a provider to a user.
    ///
    /// # Errors
    ///
    /// If the provider or the user does not exist, or one of subject and user is linked already.
    pub(crate) async fn link_identity(
        &self,
        issuer: &Issuer,
        subject: &Subject,
        user: &UserRef,
    ) -> Result<Committed<String>, Error> {
        let mut change = self.change().await?;
        let user = users::lock(&mut change.tx, user).await?;
        find(&mut change.tx, issuer).await?;
        let linked: Option<String> = sql_scalar(
            "SELECT CASE WHEN i.user_id = $3 THEN i.subject ELSE '' END FROM patgate.identities i
             WHERE i.issuer = $1 AND (i.subject = $2 OR i.user_id = $3) ORDER BY i.subject <> $2",
        )
        .bind(issuer.as_str().to_owned())
        .bind(subject.as_str().to_owned())
        .bind(user.id)
        .fetch_optional(&mut *change.tx)
        .await?;
        match linked.as_deref() {
            None => {}
            Some("") => {
                return Err(Error::Refused(format!(
                    "the subject is linked to another user of provider `{issuer}`; `patgate provider \
                     show` says to whom, and `patgate provider unlink` comes first"
                )));
            }
            Some(_) => {
                return Err(Error::Refused(format!(
                    "user `{}` is linked to a subject of provider `{issuer}` already; `patgate \
                     provider show` says to which, and `patgate provider unlink` comes first",
                    user.email
                )));
            }
        }
        sql("INSERT INTO patgate.identities (issuer, subject, user_id) VALUES ($1, $2, $3)")
            .bind(issuer.as_str().to_owned())
            .bind(subject.as_str().to_owned())
            .bind(user.id)
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::dangling(error, ObjectKind::Provider, issuer))?;
        let details = details(issuer, subject, &user.email);
        change.finish(AuditAction::IdentityLink, user.id, details, user.email).await
    }

    /// Removes the link of a subject, which ends the sessions that it began.
    ///
    /// # Errors
    ///
    /// If the provider or the user does not exist, or the subject is not linked to that user.
    pub(crate) async fn unlink_identity(
        &self,
        issuer: &Issuer,
        subject: &Subject,
        user: &UserRef,
    ) -> Result<Committed<String>, Error> {
        let mut change = self.change().await?;
        let user = users::lock(&mut change.tx, user).await?;
        find(&mut change.tx, issuer).await?;
        let gone: Option<Uuid> = sql_scalar(
            "DELETE FROM patgate.identities WHERE issuer = $1 AND subject = $2 AND user_id = $3
             RETURNING user_id",
        )
        .bind(issuer.as_str().to_owned())
        .bind(subject.as_str().to_owned())
        .bind(user.id)
        .fetch_optional(&mut *change.tx)
        .await?;
        if gone.is_none() {
            let name = format!("{} of {}", without_secrets(subject.as_str()), user.email);
            return Err(Error::not_found(ObjectKind::Subject, name));
        }
        let details = details(issuer, subject, &user.email);
        change.finish(AuditAction::IdentityUnlink, user.id, details, user.email).await
    }
}

fn details(issuer: &Issuer, subject: &Subject, email: &str) -> serde_json::Value {
    json!({ "issuer": issuer.as_str(), "subject": subject.as_str(), "email": email })
}

async fn find(tx: &mut PgConnection, issuer: &Issuer) -> Result<Provider, Error> {
    sql_as(select_provider!("WHERE t.issuer = $1"))
        .bind(issuer.as_str().to_owned())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::not_found(ObjectKind::Provider, issuer))
}
