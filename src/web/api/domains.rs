//! Domains and the models that they see, for platform administrators.

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    created, done,
    input::{Body, Named, Parameters, Part, PartQuery, Signed, domain, read},
};
use crate::{
    admin::{
        NewModels,
        web::{DomainEdit, DomainEntry, NewSelfServiceDomain},
    },
    domain::DomainRef,
    rollout::{DomainMode, Share},
    web::problem::Problem,
};

/// The domain that the path names, by slug or id.
#[derive(Deserialize)]
pub(super) struct OfDomain {
    #[serde(deserialize_with = "domain")]
    pub(super) domain: DomainRef,
}

/// A part of the list of domains.
#[derive(Serialize)]
pub(super) struct Domains {
    total: usize,
    offset: u32,
    limit: u32,
    domains: Vec<DomainEntry>,
}

pub(super) async fn list(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<PartQuery>,
) -> Result<Json<Domains>, Problem> {
    let part = query.read()?;
    let (total, domains) = part.of(site.service.domains(&caller).await?);
    let Part { offset, limit } = part;
    Ok(Json(Domains { total, offset, limit, domains }))
}

pub(super) async fn show(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
) -> Result<Json<DomainEntry>, Problem> {
    let all = site.service.domains(&caller).await?;
    let named = |entry: &DomainEntry| match &domain {
        DomainRef::Id(id) => entry.id == id.0,
        DomainRef::Slug(slug) => entry.slug == slug.as_str(),
    };
    let found = all.into_iter().find(named);
    found.map(Json).ok_or_else(|| Problem::not_found("the domain does not exist"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainInput {
    slug: String,
    name: String,
    /// The backend that serves it.
    upstream: String,
    /// The domain sees every model that its backend serves.
    #[serde(default)]
    all_models: bool,
    /// The models that it sees instead; with none, it sees no model until one is set.
    models: Option<Vec<String>>,
}

/// A domain that has been created.
#[derive(Serialize)]
pub(super) struct CreatedDomain {
    id: Uuid,
    slug: String,
}

pub(super) async fn create(
    Signed { site, caller }: Signed,
    Body(new): Body<DomainInput>,
) -> Result<Response, Problem> {
    let models = match (new.all_models, new.models) {
        (true, None) => NewModels::All,
        (false, Some(listed)) => {
            let listed = listed.iter().map(|model| read("models", model));
            NewModels::Listed(listed.collect::<Result<_, _>>()?)
        }
        _ => {
            let detail =
                "say which models the domain sees: either `\"all_models\": true` or `models`";
            return Err(Problem::invalid(detail));
        }
    };
    let new = NewSelfServiceDomain {
        slug: read("slug", &new.slug)?,
        name: read("name", &new.name)?,
        upstream: read("upstream", &new.upstream)?,
        models,
    };
    let id = done(site.service.create_domain(&caller, &new).await?);
    let slug = new.slug.to_string();
    let domain = Json(CreatedDomain { id, slug: slug.clone() });
    Ok(created(&["domains", &slug], domain))
}

/// What to change about a domain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainChanges {
    slug: Option<String>,
    enabled: Option<bool>,
    upstream: Option<String>,
    mode: Option<DomainMode>,
    /// In percent.
    enforced_share: Option<u8>,
    /// Only `true`: lets the domain see all models, and deletes its list.
    all_models: Option<bool>,
}

impl DomainChanges {
    fn read(self) -> Result<DomainEdit, Problem> {
        let Self { slug, enabled, upstream, mode, enforced_share, all_models } = self;
        let share = |percent| {
            let detail = "`enforced_share` must be a whole percentage from 0 to 100";
            Share::new(percent).ok_or_else(|| Problem::invalid(detail))
        };
        let edit = DomainEdit {
            slug: slug.map(|slug| read("slug", &slug)).transpose()?,
            enabled,
            upstream: upstream.map(|name| read("upstream", &name)).transpose()?,
            mode,
            enforced_share: enforced_share.map(share).transpose()?,
            all_models: all_models == Some(true),
        };
        if all_models == Some(false) {
            let detail = "`all_models` can only be set to `true`; a domain sees only listed models \
                          from the first one that is set";
            return Err(Problem::invalid(detail));
        }
        let DomainEdit { slug, enabled, upstream, mode, enforced_share, all_models } = &edit;
        let changes = [
            slug.is_some(),
            enabled.is_some(),
            upstream.is_some(),
            mode.is_some(),
            enforced_share.is_some(),
            *all_models,
        ];
        if !changes.contains(&true) {
            let members = "`slug`, `enabled`, `upstream`, `mode`, `enforced_share` or `all_models`";
            return Err(Problem::no_change(members));
        }
        Ok(edit)
    }
}

pub(super) async fn update(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(changes): Body<DomainChanges>,
) -> Result<StatusCode, Problem> {
    done(site.service.update_domain(&caller, &domain, &changes.read()?).await?);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_domain(&caller, &domain).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedModelInput {
    /// The name in requests; one `*` stands for letters, digits and `. _ - :`.
    model: String,
    /// The backend that serves it.
    upstream: String,
}

// A model's name may hold a `/`, which some proxies decode in a path, so it is in the body.
pub(super) async fn set_model(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(listed): Body<ListedModelInput>,
) -> Result<StatusCode, Problem> {
    let model = read("model", &listed.model)?;
    let upstream = read("upstream", &listed.upstream)?;
    done(site.service.set_model(&caller, &domain, &model, Some(&upstream)).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnlistedModelInput {
    /// The name or pattern on the list.
    model: String,
}

pub(super) async fn unset_model(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(unlisted): Body<UnlistedModelInput>,
) -> Result<StatusCode, Problem> {
    let model = read("model", &unlisted.model)?;
    done(site.service.set_model(&caller, &domain, &model, None).await?);
    Ok(StatusCode::NO_CONTENT)
}
