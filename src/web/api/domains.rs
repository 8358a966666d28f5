//! Domains and the models that they see, for platform administrators.

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    created, done, forms,
    input::{Body, Named, Parameters, Part, PartQuery, Signed, domain, present, read},
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
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfDomain {
    #[serde(deserialize_with = "domain")]
    #[param(value_type = forms::DomainName, inline)]
    pub(super) domain: DomainRef,
}

/// A part of the list of domains.
#[derive(Serialize, ToSchema)]
pub(super) struct Domains {
    total: usize,
    offset: u32,
    limit: u32,
    domains: Vec<DomainEntry>,
}

/// Lists domains, by slug.
#[utoipa::path(
    get, path = "/domains", tag = "domains", params(PartQuery),
    responses((status = OK, body = Domains), (status = FORBIDDEN))
)]
pub(super) async fn list(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<PartQuery>,
) -> Result<Json<Domains>, Problem> {
    let part = query.read()?;
    let (total, domains) = part.of(site.service.domains(&caller).await?);
    let Part { offset, limit } = part;
    Ok(Json(Domains { total, offset, limit, domains }))
}

/// Shows a domain with its models.
#[utoipa::path(
    get, path = "/domains/{domain}", tag = "domains", params(OfDomain),
    responses((status = OK, body = DomainEntry), (status = FORBIDDEN))
)]
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

#[derive(Deserialize, ToSchema)]
#[schema(example = json!({
    "slug": "shop", "name": "Shop", "upstream": "model-acme", "models": ["qwen2.5-*"]
}))]
#[serde(deny_unknown_fields)]
pub(super) struct DomainInput {
    #[schema(value_type = forms::Slug)]
    slug: String,
    #[schema(value_type = forms::DisplayName)]
    name: String,
    /// The backend that serves it.
    #[schema(value_type = forms::BackendName)]
    upstream: String,
    /// The domain sees every model that its backend serves.
    #[serde(default)]
    all_models: bool,
    /// The models that it sees instead; with none, it sees no model until one is set.
    #[schema(value_type = Option<Vec<forms::Model>>)]
    models: Option<Vec<String>>,
}

/// A domain that has been created.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedDomain {
    id: Uuid,
    slug: String,
}

/// Creates a domain, enabled, with a role `admin` that has every operation.
#[utoipa::path(
    post, path = "/domains", tag = "domains", request_body = DomainInput,
    responses((status = CREATED, body = CreatedDomain), (status = NOT_FOUND))
)]
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
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainChanges {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::Slug, required = false)]
    slug: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::BackendName, required = false)]
    upstream: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::Mode, required = false)]
    mode: Option<DomainMode>,
    /// In percent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = u8, required = false, maximum = 100)]
    enforced_share: Option<u8>,
    /// Only `true`: lets the domain see all models, and deletes its list.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::True, required = false)]
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

/// Changes a domain.
#[utoipa::path(
    patch, path = "/domains/{domain}", tag = "domains", params(OfDomain),
    request_body = DomainChanges, responses((status = NO_CONTENT))
)]
pub(super) async fn update(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(changes): Body<DomainChanges>,
) -> Result<StatusCode, Problem> {
    done(site.service.update_domain(&caller, &domain, &changes.read()?).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a domain with its models, roles and every scope in it.
#[utoipa::path(
    delete, path = "/domains/{domain}", tag = "domains", params(OfDomain),
    responses((status = NO_CONTENT))
)]
pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_domain(&caller, &domain).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedModelInput {
    /// The name in requests; one `*` stands for letters, digits and `. _ - :`.
    #[schema(value_type = forms::Model)]
    model: String,
    /// The backend that serves it.
    #[schema(value_type = forms::BackendName)]
    upstream: String,
}

// A model's name may hold a `/`, which some proxies decode in a path, so it is in the body.
/// Lets a domain see a model.
#[utoipa::path(
    patch, path = "/domains/{domain}/models/set", tag = "domains", params(OfDomain),
    request_body = ListedModelInput, responses((status = NO_CONTENT))
)]
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

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnlistedModelInput {
    /// The name or pattern on the list.
    #[schema(value_type = forms::Model)]
    model: String,
}

/// Takes a model off a domain's list.
#[utoipa::path(
    patch, path = "/domains/{domain}/models/unset", tag = "domains", params(OfDomain),
    request_body = UnlistedModelInput, responses((status = NO_CONTENT))
)]
pub(super) async fn unset_model(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(unlisted): Body<UnlistedModelInput>,
) -> Result<StatusCode, Problem> {
    let model = read("model", &unlisted.model)?;
    done(site.service.set_model(&caller, &domain, &model, None).await?);
    Ok(StatusCode::NO_CONTENT)
}
