//! Domains, their models included.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    BackendName, Change, Changed, Error, Model, Name, Role, Store, new_id, roles, sql, sql_as, utc,
};
use crate::{
    domain::{DomainId, DomainRef, Slug},
    mode::{DomainMode, Rollout, Share},
    operation::Operation,
};

/// A domain.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
#[expect(missing_docs, reason = "the columns of patgate.domains")]
pub struct Domain {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    pub enabled: bool,
    pub mode: String,
    pub enforced_share: i16,
    pub upstream: String,
    pub all_models: bool,
    pub created_at: String,
}

/// The models that a new domain may see.
#[derive(Clone, Debug)]
pub enum NewModels {
    /// All of them.
    All,
    /// These, each served by the domain's backend. Empty: none.
    Listed(Vec<Model>),
}

/// What to change about a domain; the rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct DomainChanges {
    /// How far it is enforced, for every token.
    pub mode: Option<DomainMode>,
    /// Of its tokens, where the mode is to enforce.
    pub share: Option<Share>,
    /// Lets the domain see all models, and deletes its list.
    pub all_models: bool,
}

/// A domain and what is in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DomainDetails {
    /// The domain.
    #[serde(flatten)]
    pub domain: Domain,
    /// The models it may see, unless it sees all. Empty: it sees none.
    pub models: Vec<DomainModel>,
    /// By name.
    pub roles: Vec<Role>,
}

/// A model that a domain may see.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct DomainModel {
    /// As requests name it.
    pub model: String,
    /// The backend that serves it.
    pub upstream: String,
}

/// The name of the role that every domain begins with.
const ADMIN_ROLE: &str = "admin";

impl Store {
    /// Creates a domain, enabled, with an `admin` role that holds every operation.
    ///
    /// # Errors
    ///
    /// When the slug is taken or the backend does not exist.
    pub async fn create_domain(
        &self,
        slug: &Slug,
        name: &Name,
        upstream: &BackendName,
        rollout: Rollout,
        models: &NewModels,
    ) -> Result<Changed<Domain>, Error> {
        let mut change = self.change().await?;
        let id = DomainId(new_id());
        sql("INSERT INTO patgate.domains
                 (id, slug, name, upstream, mode, enforced_share, all_models)
             VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(id.0)
        .bind(slug.as_str())
        .bind(name.as_str())
        .bind(upstream.as_str())
        .bind(rollout.mode.as_str())
        .bind(i16::from(rollout.share.percent()))
        .bind(matches!(models, NewModels::All))
        .execute(&mut *change.tx)
        .await
        .map_err(|error| match error.as_database_error() {
            Some(refusal) if refusal.is_foreign_key_violation() => {
                Error::not_found("backend", upstream)
            }
            _ => Error::exists(error, "domain", slug),
        })?;
        let listed: Vec<&str> = match models {
            NewModels::All => Vec::new(),
            NewModels::Listed(models) => models.iter().map(Model::as_str).collect(),
        };
        sql("INSERT INTO patgate.domain_models (domain_id, model, upstream)
             SELECT DISTINCT $1, model, $2 FROM unnest($3::text[]) AS model")
        .bind(id.0)
        .bind(upstream.as_str())
        .bind(&listed)
        .execute(&mut *change.tx)
        .await?;
        roles::insert(&mut change.tx, id, ADMIN_ROLE, Operation::ALL).await?;
        // A replica may remember that there was no such domain.
        change.touch_domain(id, slug).await?;
        let domain = find(&mut change.tx, &DomainRef::Id(id)).await?;
        let details = json!({
            "slug": slug.as_str(), "name": name.as_str(), "upstream": upstream.as_str(),
            "mode": rollout.mode.as_str(), "enforced_share": rollout.share.percent(),
            "all_models": matches!(models, NewModels::All), "models": listed,
        });
        change.finish("domain.create", id, details, domain).await
    }

    /// All domains, by slug.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn domains(&self) -> Result<Vec<Domain>, Error> {
        let mut tx = self.read().await?;
        let domains = sql_as(concat!(
            "SELECT id, slug, name, enabled, mode, enforced_share, upstream, all_models, ",
            utc!("created_at"),
            " AS created_at FROM patgate.domains ORDER BY slug"
        ));
        let domains = domains.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(domains)
    }

    /// One domain.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn domain(&self, reference: &DomainRef) -> Result<DomainDetails, Error> {
        let mut tx = self.read().await?;
        let domain = find(&mut tx, reference).await?;
        let models = models(&mut tx, domain.id).await?;
        let roles = roles::list(&mut tx, DomainId(domain.id)).await?;
        tx.commit().await?;
        Ok(DomainDetails { domain, models, roles })
    }

    /// Says whether anybody may use a domain.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn set_domain_enabled(
        &self,
        reference: &DomainRef,
        enabled: bool,
    ) -> Result<Changed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET enabled = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(enabled)
            .execute(&mut *change.tx)
            .await?;
        let action = if enabled { "domain.enable" } else { "domain.disable" };
        change.finish(action, domain.id, json!({ "slug": domain.slug }), ()).await
    }

    /// Names the backend that serves a domain unless a model has its own.
    ///
    /// # Errors
    ///
    /// When there is no such domain or backend.
    pub async fn set_domain_upstream(
        &self,
        reference: &DomainRef,
        upstream: &BackendName,
    ) -> Result<Changed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET upstream = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(upstream.as_str())
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::dangling(error, "backend", upstream))?;
        let details = json!({
            "slug": domain.slug, "upstream": upstream.as_str(), "upstream_before": domain.upstream,
        });
        change.finish("domain.set_upstream", domain.id, details, ()).await
    }

    /// Says how far a domain is enforced, where replicas leave that to domains, or that it sees all
    /// models. Returns the models that it listed until then.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn update_domain(
        &self,
        reference: &DomainRef,
        changes: DomainChanges,
    ) -> Result<Changed<Vec<DomainModel>>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        let mut listed = Vec::new();
        if changes.all_models {
            listed = models(&mut change.tx, domain.id).await?;
            sql("DELETE FROM patgate.domain_models WHERE domain_id = $1")
                .bind(domain.id)
                .execute(&mut *change.tx)
                .await?;
        }
        let all_models = changes.all_models || domain.all_models;
        let mode = changes.mode.map_or(&*domain.mode, |mode| mode.as_str());
        let share = changes.share.map_or(domain.enforced_share, |share| share.percent().into());
        sql("UPDATE patgate.domains SET mode = $2, enforced_share = $3, all_models = $4
             WHERE id = $1")
        .bind(domain.id)
        .bind(mode)
        .bind(share)
        .bind(all_models)
        .execute(&mut *change.tx)
        .await?;
        let mut details = json!({
            "slug": domain.slug, "mode": mode, "mode_before": domain.mode,
            "enforced_share": share, "enforced_share_before": domain.enforced_share,
        });
        if changes.all_models {
            details["all_models"] = json!(true);
            details["all_models_before"] = json!(domain.all_models);
            details["models_removed"] = json!(listed);
        }
        change.finish("domain.update", domain.id, details, listed).await
    }

    /// Gives a domain another slug. The old one stops working at once.
    ///
    /// # Errors
    ///
    /// When there is no such domain, or the new slug is taken.
    pub async fn rename_domain(
        &self,
        reference: &DomainRef,
        slug: &Slug,
    ) -> Result<Changed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET slug = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(slug.as_str())
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::exists(error, "domain", slug))?;
        change.touched.domains.push(DomainRef::Slug(slug.clone()));
        let details = json!({ "slug": slug.as_str(), "slug_before": domain.slug });
        change.finish("domain.rename", domain.id, details, ()).await
    }

    /// Deletes a domain with its models, roles and the scopes in it.
    ///
    /// # Errors
    ///
    /// When there is no such domain.
    pub async fn delete_domain(&self, reference: &DomainRef) -> Result<Changed<()>, Error> {
        let (mut change, domain) = self.bulk_change().await?.of_domain(reference).await?;
        sql("DELETE FROM patgate.domains WHERE id = $1")
            .bind(domain.id)
            .execute(&mut *change.tx)
            .await?;
        let details = json!({ "slug": domain.slug, "tokens": change.touched.tokens.len() });
        change.finish("domain.delete", domain.id, details, ()).await
    }

    /// Lets a domain see a model, served by a backend. A domain that saw all models sees only this
    /// one from then on; returns whether it did.
    ///
    /// # Errors
    ///
    /// When there is no such domain or backend.
    pub async fn set_domain_model(
        &self,
        reference: &DomainRef,
        model: &Model,
        upstream: &BackendName,
    ) -> Result<Changed<bool>, Error> {
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
        .map_err(|error| Error::dangling(error, "backend", upstream))?;
        let details = json!({
            "slug": domain.slug, "model": model.as_str(), "upstream": upstream.as_str(),
            "all_models_before": domain.all_models,
        });
        change.finish("domain.set_model", domain.id, details, domain.all_models).await
    }

    /// Takes a model off a domain's list, and returns how many are left. Without any, the domain
    /// sees no model.
    ///
    /// # Errors
    ///
    /// When there is no such domain, or it does not list the model.
    pub async fn unset_domain_model(
        &self,
        reference: &DomainRef,
        model: &Model,
    ) -> Result<Changed<usize>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        let deleted = sql("DELETE FROM patgate.domain_models WHERE domain_id = $1 AND model = $2")
            .bind(domain.id)
            .bind(model.as_str())
            .execute(&mut *change.tx)
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(Error::not_found("model", model));
        }
        let left = models(&mut change.tx, domain.id).await?.len();
        let details = json!({
            "slug": domain.slug, "model": model.as_str(), "models_left": left,
        });
        change.finish("domain.unset_model", domain.id, details, left).await
    }

    /// Begins a change of a domain.
    async fn changing(&self, reference: &DomainRef) -> Result<(Change<'_>, Domain), Error> {
        self.change().await?.of_domain(reference).await
    }
}

impl<'a> Change<'a> {
    /// Locks a domain, and notes that this outdates it under the references it has now.
    async fn of_domain(mut self, reference: &DomainRef) -> Result<(Change<'a>, Domain), Error> {
        let domain = lock(&mut self.tx, reference).await?;
        if let Ok(slug) = domain.slug.parse() {
            self.touch_domain(DomainId(domain.id), &slug).await?;
        }
        Ok((self, domain))
    }
}

/// Finds a domain, and keeps other changes and new scopes in it away until the end of this one.
pub(super) async fn lock(tx: &mut PgConnection, reference: &DomainRef) -> Result<Domain, Error> {
    let (id, slug) = columns(reference);
    sql("SELECT FROM patgate.domains WHERE id = $1 OR slug = $2 FOR UPDATE")
        .bind(id)
        .bind(slug)
        .execute(&mut *tx)
        .await?;
    find(tx, reference).await
}

/// Keeps domains where they are, for whoever refers to them later on. One that does not exist is not
/// missed here.
pub(super) async fn hold(
    tx: &mut PgConnection,
    references: impl IntoIterator<Item = &DomainRef>,
) -> Result<(), Error> {
    let (ids, slugs): (Vec<_>, Vec<_>) = references.into_iter().map(columns).unzip();
    sql("SELECT FROM patgate.domains WHERE id = ANY($1) OR slug = ANY($2)
         ORDER BY id FOR KEY SHARE")
    .bind(ids)
    .bind(slugs)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

pub(super) async fn find(tx: &mut PgConnection, reference: &DomainRef) -> Result<Domain, Error> {
    let (id, slug) = columns(reference);
    sql_as(concat!(
        "SELECT id, slug, name, enabled, mode, enforced_share, upstream, all_models, ",
        utc!("created_at"),
        " AS created_at FROM patgate.domains WHERE id = $1 OR slug = $2"
    ))
    .bind(id)
    .bind(slug)
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Error::not_found("domain", reference))
}

/// What a domain lists. The row that stands for an empty list is none of them; see
/// `0011_all_models.sql`.
async fn models(tx: &mut PgConnection, domain: Uuid) -> Result<Vec<DomainModel>, Error> {
    Ok(sql_as(
        "SELECT model, upstream FROM patgate.domain_models
         WHERE domain_id = $1 AND model <> '(none) *' ORDER BY model",
    )
    .bind(domain)
    .fetch_all(&mut *tx)
    .await?)
}

fn columns(reference: &DomainRef) -> (Option<Uuid>, Option<&str>) {
    match reference {
        DomainRef::Id(id) => (Some(id.0), None),
        DomainRef::Slug(slug) => (None, Some(slug.as_str())),
    }
}
