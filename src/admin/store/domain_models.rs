//! The models that domains list.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, BackendName, Committed, Error, ListedModel, ObjectKind, Store, sql, sql_as,
};
use crate::domain::DomainRef;

/// A model that a domain lists.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct DomainModel {
    /// The name that requests use.
    pub model: String,
    /// The backend that serves it.
    pub upstream: String,
}

impl Store {
    /// Lets a domain see a model, served by a backend. A domain that saw all models sees only this
    /// one from then on; returns whether it did.
    ///
    /// # Errors
    ///
    /// If the domain or the backend does not exist.
    pub(crate) async fn set_domain_model(
        &self,
        reference: &DomainRef,
        model: &ListedModel,
        upstream: &BackendName,
    ) -> Result<Committed<bool>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET all_models = false WHERE id = $1 AND all_models")
            .bind(domain.id)
            .execute(&mut *change.tx)
            .await?;
        sql("INSERT INTO patgate.domain_models (domain_id, model, upstream) VALUES ($1, $2, $3)
             ON CONFLICT (domain_id, model) DO UPDATE SET upstream = excluded.upstream")
        .bind(domain.id)
        .bind(model.as_str())
        .bind(upstream.as_str())
        .execute(&mut *change.tx)
        .await
        .map_err(|error| Error::dangling(error, ObjectKind::Backend, upstream))?;
        let details = json!({
            "slug": domain.slug, "model": model.as_str(), "upstream": upstream.as_str(),
            "all_models_before": domain.all_models,
        });
        change.finish(AuditAction::DomainSetModel, domain.id, details, domain.all_models).await
    }

    /// Takes a model off a domain's list, and returns how many are left. If none is left, the
    /// domain sees no model.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or it does not list the model.
    pub(crate) async fn unset_domain_model(
        &self,
        reference: &DomainRef,
        model: &ListedModel,
    ) -> Result<Committed<usize>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        let deleted = sql("DELETE FROM patgate.domain_models WHERE domain_id = $1 AND model = $2")
            .bind(domain.id)
            .bind(model.as_str())
            .execute(&mut *change.tx)
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(Error::not_found(ObjectKind::Model, model));
        }
        let left = list(&mut change.tx, domain.id).await?.len();
        let details = json!({
            "slug": domain.slug, "model": model.as_str(), "models_left": left,
        });
        change.finish(AuditAction::DomainUnsetModel, domain.id, details, left).await
    }
}

/// Returns the models that a domain lists, without the row that stands for an empty list; see
/// `0011_all_models.sql`.
pub(super) async fn list(tx: &mut PgConnection, domain: Uuid) -> Result<Vec<DomainModel>, Error> {
    Ok(sql_as(
        "SELECT model, upstream FROM patgate.domain_models
         WHERE domain_id = $1 AND model <> '(none) *' ORDER BY model",
    )
    .bind(domain)
    .fetch_all(&mut *tx)
    .await?)
}
