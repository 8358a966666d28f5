//! Reads and changes backends: the servers that serve domains.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    AuditAction, BackendKind, BackendName, BackendUrl, Committed, Error, ObjectKind, Store, sql,
    sql_as, sql_scalar, utc,
};
use crate::domain::{DomainId, Slug};

/// A backend, with the domains that use it.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct BackendSummary {
    /// The name of its Envoy cluster.
    pub name: String,
    /// Its address, which is a note for people, unless `patgate sync` tells the gateway.
    pub url: String,
    /// The API that it offers: `vllm`, `ollama` or `openai`.
    pub kind: String,
    /// Slugs of the domains that use it, in order.
    pub domains: Vec<String>,
    /// What may be shown of its credential, if it has one.
    #[sqlx(json(nullable))]
    pub credential: Option<CredentialNote>,
}

/// What may be shown of a credential.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CredentialNote {
    /// The id of the key of the ring that encrypts it.
    pub key_id: String,
    /// When it was set, in UTC.
    pub set_at: String,
}

/// What to change about a backend. An absent field does not change.
#[derive(Clone, Debug, Default)]
pub struct BackendChanges {
    /// Its address, which is a note for people, unless `patgate sync` tells the gateway.
    pub url: Option<BackendUrl>,
    /// The API that it offers.
    pub kind: Option<BackendKind>,
}

/// The domains that use a backend, by default or for a model.
macro_rules! users_of {
    ($backend:literal) => {
        concat!(
            "SELECT d.id, d.slug FROM patgate.domains d WHERE d.upstream = ",
            $backend,
            " UNION SELECT d.id, d.slug FROM patgate.domain_models m
              JOIN patgate.domains d ON d.id = m.domain_id WHERE m.upstream = ",
            $backend
        )
    };
}

/// For statements whose first parameter is the backend.
pub(super) const USERS: &str = users_of!("$1");

macro_rules! select_backend {
    ($rest:literal) => {
        concat!(
            "SELECT b.name, b.url, b.kind, ARRAY(SELECT slug FROM (",
            users_of!("b.name"),
            ") u ORDER BY slug) AS domains,
             CASE WHEN b.credential IS NOT NULL THEN json_build_object(
                 'key_id', b.credential_key_id, 'set_at', ",
            utc!("b.credential_set_at"),
            ") END AS credential FROM patgate.backends b ",
            $rest
        )
    };
}

impl Store {
    /// Creates a backend.
    ///
    /// # Errors
    ///
    /// If the name is taken.
    pub(crate) async fn create_backend(
        &self,
        name: &BackendName,
        url: &BackendUrl,
        kind: BackendKind,
    ) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        sql("INSERT INTO patgate.backends (name, url, kind) VALUES ($1, $2, $3)")
            .bind(name.as_str())
            .bind(url.as_str())
            .bind(kind.as_str())
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::exists(error, ObjectKind::Backend, name))?;
        change.outdated.backends.push(name.clone());
        let details = json!({ "url": url.as_str(), "kind": kind.as_str() });
        change.finish(AuditAction::BackendCreate, name, details, ()).await
    }

    /// Lists all backends, by name.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn backends(&self) -> Result<Vec<BackendSummary>, Error> {
        let mut tx = self.read().await?;
        let backends = sql_as(select_backend!("ORDER BY b.name")).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(backends)
    }

    /// Returns a backend with the domains that use it.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub(crate) async fn backend(&self, name: &BackendName) -> Result<BackendSummary, Error> {
        let mut tx = self.read().await?;
        let backend = sql_as(select_backend!("WHERE b.name = $1"));
        let backend = backend.bind(name.as_str().to_owned()).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        backend.ok_or_else(|| Error::not_found(ObjectKind::Backend, name))
    }

    /// Changes a backend in place.
    ///
    /// # Errors
    ///
    /// If the backend does not exist.
    pub(crate) async fn update_backend(
        &self,
        name: &BackendName,
        changes: &BackendChanges,
    ) -> Result<Committed<()>, Error> {
        let url = changes.url.as_ref().map(BackendUrl::as_str);
        let kind = changes.kind.map(BackendKind::as_str);
        let mut change = self.change().await?;
        let updated = sql("UPDATE patgate.backends
             SET url = coalesce($2, url), kind = coalesce($3, kind) WHERE name = $1")
        .bind(name.as_str())
        .bind(url)
        .bind(kind)
        .execute(&mut *change.tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::not_found(ObjectKind::Backend, name));
        }
        let users: Vec<(Uuid, String)> =
            sql_as(USERS).bind(name.as_str()).fetch_all(&mut *change.tx).await?;
        for (id, slug) in users {
            if let Ok(slug) = Slug::try_from(slug) {
                change.outdate_domain(DomainId(id), &slug).await?;
            }
        }
        let details = json!({ "url": url, "kind": kind });
        change.finish(AuditAction::BackendUpdate, name, details, ()).await
    }

    /// Deletes a backend that no domain uses.
    ///
    /// # Errors
    ///
    /// If the backend does not exist, or a domain still uses it.
    pub(crate) async fn delete_backend(&self, name: &BackendName) -> Result<Committed<()>, Error> {
        let mut change = self.change().await?;
        // Prevents a domain from starting to use it between the question and the deletion.
        sql_scalar::<String>("SELECT name FROM patgate.backends WHERE name = $1 FOR UPDATE")
            .bind(name.as_str())
            .fetch_optional(&mut *change.tx)
            .await?
            .ok_or_else(|| Error::not_found(ObjectKind::Backend, name))?;
        let users: Vec<String> =
            sql_scalar(concat!("SELECT slug FROM (", users_of!("$1"), ") u ORDER BY slug"))
                .bind(name.as_str())
                .fetch_all(&mut *change.tx)
                .await?;
        if !users.is_empty() {
            return Err(Error::Refused(format!(
                "backend `{name}` is still used by {}; give them another one first with \
                 `patgate domain set-upstream` or `patgate domain model set`",
                users.iter().map(|slug| format!("`{slug}`")).collect::<Vec<_>>().join(", ")
            )));
        }
        sql("DELETE FROM patgate.backends WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut *change.tx)
            .await?;
        change.outdated.backends.push(name.clone());
        change.finish(AuditAction::BackendDelete, name, json!({}), ()).await
    }
}
