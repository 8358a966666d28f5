//! The roles of domains and their members, for those who govern them.

use axum::{Json, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    created,
    domains::OfDomain,
    done,
    input::{Body, Named, Parameters, Part, PartQuery, Signed, domain, parsed, read},
};
use crate::{
    admin::{RoleName, UserRef, web::RoleEntry},
    domain::DomainRef,
    operation::Operation,
    web::problem::Problem,
};

/// The role that the path names, in a domain by slug or id.
#[derive(Deserialize)]
pub(super) struct OfRole {
    #[serde(deserialize_with = "domain")]
    domain: DomainRef,
    #[serde(deserialize_with = "parsed")]
    role: RoleName,
}

/// The member of a role that the path names, by address or id.
#[derive(Deserialize)]
pub(super) struct OfMember {
    #[serde(deserialize_with = "domain")]
    domain: DomainRef,
    #[serde(deserialize_with = "parsed")]
    role: RoleName,
    #[serde(deserialize_with = "parsed")]
    user: UserRef,
}

/// A part of the list of a domain's roles.
#[derive(Serialize)]
pub(super) struct Roles {
    total: usize,
    offset: u32,
    limit: u32,
    roles: Vec<RoleEntry>,
}

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

pub(super) async fn show(
    Signed { site, caller }: Signed,
    Named(OfRole { domain, role }): Named<OfRole>,
) -> Result<Json<RoleEntry>, Problem> {
    let mut all = site.service.roles(&caller, &domain).await?.into_iter();
    let found = all.find(|entry| entry.name == role.as_str());
    found.map(Json).ok_or_else(|| Problem::not_found("the role does not exist"))
}

/// A role to create, and as it was created.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleInput {
    name: String,
    /// What it permits.
    operations: Vec<Operation>,
}

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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleChanges {
    #[serde(default)]
    grant: Vec<Operation>,
    #[serde(default)]
    revoke: Vec<Operation>,
}

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

pub(super) async fn delete(
    Signed { site, caller }: Signed,
    Named(OfRole { domain, role }): Named<OfRole>,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_role(&caller, &domain, &role).await?);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn add_member(
    Signed { site, caller }: Signed,
    Named(OfMember { domain, role, user }): Named<OfMember>,
) -> Result<StatusCode, Problem> {
    done(site.service.add_member(&caller, &domain, &role, &user).await?);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_member(
    Signed { site, caller }: Signed,
    Named(OfMember { domain, role, user }): Named<OfMember>,
) -> Result<StatusCode, Problem> {
    done(site.service.remove_member(&caller, &domain, &role, &user).await?);
    Ok(StatusCode::NO_CONTENT)
}
