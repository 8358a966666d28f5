//! What the caller may grant, and what has been done.

use axum::Json;
use serde::{Deserialize, Serialize};

use super::input::{Parameters, Part, Signed, read};
use crate::{
    admin::{
        AuditActionFilter,
        web::{GrantableDomain, History, HistoryEntry},
    },
    web::problem::Problem,
};

/// What the caller may grant to a token.
#[derive(Serialize)]
pub(super) struct Grantable {
    domains: Vec<GrantableDomain>,
}

pub(super) async fn grantable(Signed { site, caller }: Signed) -> Result<Json<Grantable>, Problem> {
    Ok(Json(Grantable { domains: site.service.grantable(&caller).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// All entries, for platform administrators, instead of those about the caller and their tokens.
    #[serde(default)]
    everything: bool,
    /// By exactly this actor.
    by: Option<String>,
    /// With this action, or on this kind of object.
    action: Option<String>,
    /// About exactly this object.
    object: Option<String>,
    /// Before the entry with this id.
    before: Option<i64>,
    limit: Option<u32>,
}

/// A part of the audit log, the latest entry first.
#[derive(Serialize)]
pub(super) struct AuditPage {
    limit: u32,
    entries: Vec<HistoryEntry>,
    /// The `before` of the next part; absent in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

pub(super) async fn audit(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let AuditQuery { everything, by: actor, action, object, before, limit } = query;
    let Part { limit, .. } = Part::read(0, limit)?;
    if let Some(word) = &action {
        read::<AuditActionFilter>("action", word)?;
    }
    let history = History { everything, domain: None, actor, action, object, before, limit };
    let entries = site.service.history(&caller, &history).await?;
    let next = entries.last().filter(|_| entries.len() == limit as usize).map(|last| last.id);
    Ok(Json(AuditPage { limit, entries, next }))
}
