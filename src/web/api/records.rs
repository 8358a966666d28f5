//! What the caller may grant, and what has been done.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    forms,
    input::{Parameters, Part, Signed, read},
};
use crate::{
    admin::{
        AuditActionFilter,
        web::{GrantableDomain, History, HistoryEntry},
    },
    web::problem::Problem,
};

/// What the caller may grant to a token.
#[derive(Serialize, ToSchema)]
pub(super) struct Grantable {
    domains: Vec<GrantableDomain>,
}

/// Lists what the caller may grant to a token.
#[utoipa::path(
    get, path = "/grantable", tag = "pats", responses((status = OK, body = Grantable))
)]
pub(super) async fn grantable(Signed { site, caller }: Signed) -> Result<Json<Grantable>, Problem> {
    Ok(Json(Grantable { domains: site.service.grantable(&caller).await? }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// All entries, for platform administrators, instead of those about the caller and their tokens.
    #[serde(default)]
    everything: bool,
    /// By exactly this actor.
    by: Option<String>,
    /// With this action, or on this kind of object.
    #[param(value_type = Option<forms::AuditWord>, inline)]
    action: Option<String>,
    /// About exactly this object.
    object: Option<String>,
    /// Before the entry with this id.
    #[param(minimum = 1)]
    before: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A part of the audit log, the latest entry first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    limit: u32,
    entries: Vec<HistoryEntry>,
    /// The `before` of the next part; absent in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// Lists what has been done, the latest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = OK, body = AuditPage), (status = FORBIDDEN))
)]
pub(super) async fn audit(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let AuditQuery { everything, by: actor, action, object, before, limit } = query;
    let Part { limit, .. } = Part::read(0, limit)?;
    if before.is_some_and(|id| id < 1) {
        return Err(Problem::invalid("`before` must be the id of an entry"));
    }
    if let Some(word) = &action {
        read::<AuditActionFilter>("action", word)?;
    }
    let history = History { everything, domain: None, actor, action, object, before, limit };
    let entries = site.service.history(&caller, &history).await?;
    let next = entries.last().filter(|_| entries.len() == limit as usize).map(|last| last.id);
    Ok(Json(AuditPage { limit, entries, next }))
}
