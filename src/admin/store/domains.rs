//! Reads and changes domains.

use serde_json::json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    AuditAction, BackendName, Committed, DisplayName, DomainModel, Error, ListedModel, ObjectKind,
    PendingChange, Role, Store, domain_models, new_id, roles, sql, sql_as, utc,
};
use crate::{
    domain::{DomainId, DomainRef, Slug},
    operation::Operation,
    rollout::{DomainMode, Rollout, Share},
};

/// A domain, as stored.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
#[expect(missing_docs, reason = "the columns of patgate.domains")]
pub struct DomainSummary {
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

/// A domain to create.
#[derive(Clone, Debug)]
pub struct NewDomain {
    /// Its name in the paths of requests, unique among domains.
    pub slug: Slug,
    /// What people call it, for display only.
    pub name: DisplayName,
    /// The backend that serves it unless a model has its own.
    pub upstream: BackendName,
    /// For how many of its tokens verdicts are enforced.
    pub rollout: Rollout,
    /// The models that it sees.
    pub models: NewModels,
}

/// The models that a new domain sees.
#[derive(Clone, Debug)]
pub enum NewModels {
    /// Every model.
    All,
    /// These models, each served by the domain's backend. If empty, the domain sees no model.
    Listed(Vec<ListedModel>),
}

/// What to change about a domain. An absent field does not change.
#[derive(Clone, Copy, Debug, Default)]
pub struct DomainChanges {
    /// Whether verdicts are enforced or only recorded.
    pub mode: Option<DomainMode>,
    /// The share of its tokens for which denials are enforced.
    pub share: Option<Share>,
    /// Lets the domain see all models, and deletes its list.
    pub all_models: bool,
}

/// A domain and what is in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DomainDetails {
    /// The domain, as stored.
    #[serde(flatten)]
    pub domain: DomainSummary,
    /// The models that it lists. If it lists none, it sees all models or none, as its summary says.
    pub models: Vec<DomainModel>,
    /// Ordered by name.
    pub roles: Vec<Role>,
}

/// The name of the role that every domain begins with.
const ADMIN_ROLE: &str = "admin";

impl Store {
    /// Creates a domain, enabled, with an `admin` role that holds every operation.
    ///
    /// # Errors
    ///
    /// If the slug is taken or the backend does not exist.
    pub(crate) async fn create_domain(
        &self,
        new: &NewDomain,
    ) -> Result<Committed<DomainSummary>, Error> {
        let NewDomain { slug, name, upstream, rollout, models } = new;
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
                Error::not_found(ObjectKind::Backend, upstream)
            }
            _ => Error::exists(error, ObjectKind::Domain, slug),
        })?;
        let listed: Vec<&str> = match models {
            NewModels::All => Vec::new(),
            NewModels::Listed(models) => models.iter().map(ListedModel::as_str).collect(),
        };
        sql("INSERT INTO patgate.domain_models (domain_id, model, upstream)
             SELECT DISTINCT $1, model, $2 FROM unnest($3::text[]) AS model")
        .bind(id.0)
        .bind(upstream.as_str())
        .bind(&listed)
        .execute(&mut *change.tx)
        .await?;
        roles::insert(&mut change.tx, id, ADMIN_ROLE, Operation::ALL).await?;
        // A replica may remember that this domain did not exist.
        change.outdate_domain(id, slug).await?;
        let domain = find(&mut change.tx, &DomainRef::Id(id)).await?;
        let details = json!({
            "slug": slug.as_str(), "name": name.as_str(), "upstream": upstream.as_str(),
            "mode": rollout.mode.as_str(), "enforced_share": rollout.share.percent(),
            "all_models": matches!(models, NewModels::All), "models": listed,
        });
        change.finish(AuditAction::DomainCreate, id, details, domain).await
    }

    /// Lists all domains, by slug.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn domains(&self) -> Result<Vec<DomainSummary>, Error> {
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

    /// Returns a domain with its models and roles.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub(crate) async fn domain(&self, reference: &DomainRef) -> Result<DomainDetails, Error> {
        let mut tx = self.read().await?;
        let domain = find(&mut tx, reference).await?;
        let models = domain_models::list(&mut tx, domain.id).await?;
        let roles = roles::list(&mut tx, DomainId(domain.id)).await?;
        tx.commit().await?;
        Ok(DomainDetails { domain, models, roles })
    }

    /// Enables or disables a domain.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub(crate) async fn set_domain_enabled(
        &self,
        reference: &DomainRef,
        enabled: bool,
    ) -> Result<Committed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET enabled = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(enabled)
            .execute(&mut *change.tx)
            .await?;
        let action = if enabled { AuditAction::DomainEnable } else { AuditAction::DomainDisable };
        change.finish(action, domain.id, json!({ "slug": domain.slug }), ()).await
    }

    /// Sets the backend that serves a domain unless a model has its own.
    ///
    /// # Errors
    ///
    /// If the domain or the backend does not exist.
    pub(crate) async fn set_domain_upstream(
        &self,
        reference: &DomainRef,
        upstream: &BackendName,
    ) -> Result<Committed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET upstream = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(upstream.as_str())
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::dangling(error, ObjectKind::Backend, upstream))?;
        let details = json!({
            "slug": domain.slug, "upstream": upstream.as_str(), "upstream_before": domain.upstream,
        });
        change.finish(AuditAction::DomainSetUpstream, domain.id, details, ()).await
    }

    /// Changes how far a domain is enforced, or lets it see all models. Returns the models that its
    /// list held until then.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub(crate) async fn update_domain(
        &self,
        reference: &DomainRef,
        changes: DomainChanges,
    ) -> Result<Committed<Vec<DomainModel>>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        let mut listed = Vec::new();
        if changes.all_models {
            listed = domain_models::list(&mut change.tx, domain.id).await?;
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
        change.finish(AuditAction::DomainUpdate, domain.id, details, listed).await
    }

    /// Gives a domain another slug. The old one stops working at once.
    ///
    /// # Errors
    ///
    /// If the domain does not exist, or the new slug is taken.
    pub(crate) async fn rename_domain(
        &self,
        reference: &DomainRef,
        slug: &Slug,
    ) -> Result<Committed<()>, Error> {
        let (mut change, domain) = self.changing(reference).await?;
        sql("UPDATE patgate.domains SET slug = $2 WHERE id = $1")
            .bind(domain.id)
            .bind(slug.as_str())
            .execute(&mut *change.tx)
            .await
            .map_err(|error| Error::exists(error, ObjectKind::Domain, slug))?;
        change.outdated.domains.push(DomainRef::Slug(slug.clone()));
        let details = json!({ "slug": slug.as_str(), "slug_before": domain.slug });
        change.finish(AuditAction::DomainRename, domain.id, details, ()).await
    }

    /// Deletes a domain with its models, roles and the scopes in it.
    ///
    /// # Errors
    ///
    /// If the domain does not exist.
    pub(crate) async fn delete_domain(
        &self,
        reference: &DomainRef,
    ) -> Result<Committed<()>, Error> {
        let (mut change, domain) = self.bulk_change().await?.of_domain(reference).await?;
        sql("DELETE FROM patgate.domains WHERE id = $1")
            .bind(domain.id)
            .execute(&mut *change.tx)
            .await?;
        let details = json!({ "slug": domain.slug, "tokens": change.outdated.tokens.len() });
        change.finish(AuditAction::DomainDelete, domain.id, details, ()).await
    }

    /// Begins a change of a domain.
    pub(super) async fn changing(
        &self,
        reference: &DomainRef,
    ) -> Result<(PendingChange<'_>, DomainSummary), Error> {
        self.change().await?.of_domain(reference).await
    }
}

impl<'a> PendingChange<'a> {
    /// Locks a domain, and marks it as outdated under the references that it has now.
    async fn of_domain(
        mut self,
        reference: &DomainRef,
    ) -> Result<(PendingChange<'a>, DomainSummary), Error> {
        let domain = lock(&mut self.tx, reference).await?;
        if let Ok(slug) = domain.slug.parse() {
            self.outdate_domain(DomainId(domain.id), &slug).await?;
        }
        Ok((self, domain))
    }
}

/// Finds a domain, and keeps other changes and new scopes in it away until the end of this one.
pub(super) async fn lock(
    tx: &mut PgConnection,
    reference: &DomainRef,
) -> Result<DomainSummary, Error> {
    let (id, slug) = columns(reference);
    sql("SELECT FROM patgate.domains WHERE id = $1 OR slug = $2 FOR UPDATE")
        .bind(id)
        .bind(slug)
        .execute(&mut *tx)
        .await?;
    find(tx, reference).await
}

/// Prevents domains from being deleted, for a change that refers to them later. A domain that does
/// not exist is no error here.
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

pub(super) async fn find(
    tx: &mut PgConnection,
    reference: &DomainRef,
) -> Result<DomainSummary, Error> {
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
    .ok_or_else(|| Error::not_found(ObjectKind::Domain, reference))
}

fn columns(reference: &DomainRef) -> (Option<Uuid>, Option<&str>) {
    match reference {
        DomainRef::Id(id) => (Some(id.0), None),
        DomainRef::Slug(slug) => (None, Some(slug.as_str())),
    }
}
