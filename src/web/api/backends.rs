//! Backends, for platform administrators. Their credentials are neither shown nor set here.

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    created, done, forms,
    input::{Body, Named, Parameters, Part, PartQuery, Signed, parsed, present, read},
};
use crate::{
    admin::{BackendChanges, BackendKind, BackendName, BackendUrl, web::BackendEntry},
    web::problem::Problem,
};

/// The backend that the path names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfBackend {
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = forms::BackendName, inline)]
    backend: BackendName,
}

/// A part of the list of backends.
#[derive(Serialize, ToSchema)]
pub(super) struct Backends {
    total: usize,
    offset: u32,
    limit: u32,
    backends: Vec<BackendEntry>,
}

/// Lists backends, by name.
#[utoipa::path(
    get, path = "/backends", tag = "backends", params(PartQuery),
    responses((status = OK, body = Backends), (status = FORBIDDEN))
)]
pub(super) async fn list(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<PartQuery>,
) -> Result<Json<Backends>, Problem> {
    let part = query.read()?;
    let (total, backends) = part.of(site.service.backends(&caller).await?);
    let Part { offset, limit } = part;
    Ok(Json(Backends { total, offset, limit, backends }))
}

/// Shows a backend.
#[utoipa::path(
    get, path = "/backends/{backend}", tag = "backends", params(OfBackend),
    responses((status = OK, body = BackendEntry), (status = FORBIDDEN))
)]
pub(super) async fn show(
    Signed { site, caller }: Signed,
    Named(OfBackend { backend }): Named<OfBackend>,
) -> Result<Json<BackendEntry>, Problem> {
    let mut all = site.service.backends(&caller).await?.into_iter();
    let found = all.find(|entry| entry.name == backend.as_str());
    found.map(Json).ok_or_else(|| Problem::not_found("the backend does not exist"))
}

/// A backend to create, and as it was created.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "vllm", "url": "http://10.0.0.7:8000", "kind": "vllm"
}))]
#[serde(deny_unknown_fields)]
pub(super) struct BackendInput {
    /// The name of its Envoy cluster.
    #[schema(value_type = forms::BackendName)]
    name: String,
    /// Its address. With `patgate sync`, the gateway sends requests there; otherwise it is a note for people.
    #[schema(value_type = forms::BackendUrl)]
    url: String,
    /// The API that it offers.
    #[schema(value_type = forms::BackendKind)]
    kind: String,
}

/// Creates a backend, without a credential.
#[utoipa::path(
    post, path = "/backends", tag = "backends", request_body = BackendInput,
    responses((status = CREATED, body = BackendInput))
)]
pub(super) async fn create(
    Signed { site, caller }: Signed,
    Body(new): Body<BackendInput>,
) -> Result<Response, Problem> {
    let name: BackendName = read("name", &new.name)?;
    let url: BackendUrl = read("url", &new.url)?;
    let kind: BackendKind = read("kind", &new.kind)?;
    done(site.service.create_backend(&caller, &name, &url, kind).await?);
    Ok(created(&["backends", name.as_str()], Json(new)))
}

/// What to change about a backend.
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendEdit {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::BackendUrl, required = false)]
    url: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = forms::BackendKind, required = false)]
    kind: Option<String>,
}

/// Changes a backend in place.
#[utoipa::path(
    patch, path = "/backends/{backend}", tag = "backends", params(OfBackend),
    request_body = BackendEdit, responses((status = NO_CONTENT))
)]
pub(super) async fn update(
    Signed { site, caller }: Signed,
    Named(OfBackend { backend }): Named<OfBackend>,
    Body(edit): Body<BackendEdit>,
) -> Result<StatusCode, Problem> {
    let changes = BackendChanges {
        url: edit.url.map(|url| read("url", &url)).transpose()?,
        kind: edit.kind.map(|kind| read("kind", &kind)).transpose()?,
    };
    if changes.url.is_none() && changes.kind.is_none() {
        return Err(Problem::no_change("`url` or `kind`"));
    }
    done(site.service.update_backend(&caller, &backend, &changes).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a backend that no domain uses.
#[utoipa::path(
    delete, path = "/backends/{backend}", tag = "backends", params(OfBackend),
    responses((status = NO_CONTENT))
)]
pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfBackend { backend }): Named<OfBackend>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_backend(&caller, &backend).await?);
    Ok(StatusCode::NO_CONTENT)
}
