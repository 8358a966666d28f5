//! The roles of domains and their members, for those who govern them.

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    created,
    domains::OfDomain,
    done, forms,
    input::{Body, Named, Parameters, Part, PartQuery, Signed, domain, parsed, read, some},
};
use crate::{
    admin::{RoleName, UserRef, web::RoleEntry},
    domain::DomainRef,
    operation::Operation,
    web::problem::Problem,
};

/// The role that the path names, in a domain by slug or id.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfRole {
    #[serde(deserialize_with = "domain")]
    #[param(value_type = forms::DomainName, inline)]
    domain: DomainRef,
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = forms::RoleName, inline)]
    role: RoleName,
}

/// The member of a role that the path names, by address or id.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfMember {
    #[serde(deserialize_with = "domain")]
    #[param(value_type = forms::DomainName, inline)]
    domain: DomainRef,
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = forms::RoleName, inline)]
    role: RoleName,
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = forms::UserName, inline)]
    user: UserRef,
}

/// A part of the list of a domain's roles.
#[derive(Serialize, ToSchema)]
pub(super) struct Roles {
    total: usize,
    offset: u32,
    limit: u32,
    roles: Vec<RoleEntry>,
}

/// Lists the roles of a domain, by name.
#[utoipa::path(
    get, path = "/domains/{domain}/roles", tag = "roles", params(OfDomain, PartQuery),
    responses((status = OK, body = Roles), (status = FORBIDDEN))
)]
pub(super) async fn list(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Parameters(query): Parameters<PartQuery>,
) -> Result<Json<Roles>, Problem> {
    let part = query.read()?;
    let (total, roles) = part.of(site.service.roles(&caller, &domain).await?);
    let Part { offset, limit } = part;
    Ok(Json(Roles { total, offset, limit, roles }))
}

/// Shows a role.
#[utoipa::path(
    get, path = "/domains/{domain}/roles/{role}", tag = "roles", params(OfRole),
    responses((status = OK, body = RoleEntry), (status = FORBIDDEN))
)]
pub(super) async fn show(
    Signed { site, caller }: Signed,
    Named(OfRole { domain, role }): Named<OfRole>,
) -> Result<Json<RoleEntry>, Problem> {
    let mut all = site.service.roles(&caller, &domain).await?.into_iter();
    let found = all.find(|entry| entry.name == role.as_str());
    found.map(Json).ok_or_else(|| Problem::not_found("the role does not exist"))
}

/// A role to create, and as it was created.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleInput {
    #[schema(value_type = forms::RoleName)]
    name: String,
    /// What it permits.
    #[schema(value_type = Vec<forms::OperationName>)]
    operations: Vec<Operation>,
}

/// Creates a role with operations that the caller has, too.
#[utoipa::path(
    post, path = "/domains/{domain}/roles", tag = "roles", params(OfDomain),
    request_body = RoleInput, responses((status = CREATED, body = RoleInput))
)]
pub(super) async fn create(
    Signed { site, caller }: Signed,
    Named(OfDomain { domain }): Named<OfDomain>,
    Body(new): Body<RoleInput>,
) -> Result<Response, Problem> {
    let role: RoleName = read("name", &new.name)?;
    done(site.service.create_role(&caller, &domain, &role, &new.operations).await?);
    let path = ["domains", &domain.to_string(), "roles", role.as_str()];
    Ok(created(&path, Json(new)))
}

/// Which operations to add to a role, and which to take from it.
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleChanges {
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Vec<forms::OperationName>, min_items = 1)]
    grant: Vec<Operation>,
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Vec<forms::OperationName>, min_items = 1)]
    revoke: Vec<Operation>,
}

/// Adds operations to a role, and takes others from it.
#[utoipa::path(
    patch, path = "/domains/{domain}/roles/{role}", tag = "roles", params(OfRole),
    request_body = RoleChanges, responses((status = NO_CONTENT))
)]
pub(super) async fn update(
    Signed { site, caller }: Signed,
    Named(OfRole { domain, role }): Named<OfRole>,
    Body(changes): Body<RoleChanges>,
) -> Result<StatusCode, Problem> {
    let RoleChanges { grant, revoke } = changes;
    if grant.is_empty() && revoke.is_empty() {
        return Err(Problem::no_change("`grant` or `revoke`"));
    }
    done(site.service.change_role(&caller, &domain, &role, &grant, &revoke).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a role.
#[utoipa::path(
    delete, path = "/domains/{domain}/roles/{role}", tag = "roles", params(OfRole),
    responses((status = NO_CONTENT))
)]
pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfRole { domain, role }): Named<OfRole>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_role(&caller, &domain, &role).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a role to a user.
#[utoipa::path(
    put, path = "/domains/{domain}/roles/{role}/members/{user}", tag = "roles", params(OfMember),
    responses((status = NO_CONTENT))
)]
pub(super) async fn add_member(
    Signed { site, caller }: Signed,
    Named(OfMember { domain, role, user }): Named<OfMember>,
) -> Result<StatusCode, Problem> {
    done(site.service.add_member(&caller, &domain, &role, &user).await?);
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role from a user.
#[utoipa::path(
    delete, path = "/domains/{domain}/roles/{role}/members/{user}", tag = "roles",
    params(OfMember), responses((status = NO_CONTENT))
)]
pub(super) async fn remove_member(
    Signed { site, caller }: Signed,
    Named(OfMember { domain, role, user }): Named<OfMember>,
) -> Result<StatusCode, Problem> {
    done(site.service.remove_member(&caller, &domain, &role, &user).await?);
    Ok(StatusCode::NO_CONTENT)
}
