//! Decides. Pure: no I/O, no clock, no cache.

use std::sync::Arc;

use crate::{
    api::{Action, Entity},
    clock::Moment,
    decision::{Denial, Permit, Refusal},
    domain::{Domain, DomainRef},
    operation::EntityType,
    principal::Principal,
    token::VerifiedToken,
};

/// Is this token good, now? `principal` is what the store knows under the token's id.
///
/// That a token has expired, was revoked or belongs to a disabled owner is told only to somebody
/// who proved possession of it.
///
/// # Errors
///
/// A refusal of the credential.
pub fn authenticate<'p>(
    token: &VerifiedToken,
    principal: Option<&'p Principal>,
    now: Moment,
) -> Result<&'p Principal, Denial> {
    let principal = principal
        .filter(|principal| principal.token == token.id && principal.digest == token.digest)
        .ok_or(Refusal::InvalidToken)?;
    let refusal = if principal.revoked {
        Refusal::TokenRevoked
    } else if now >= principal.expires_at {
        Refusal::TokenExpired
    } else if !principal.owner_enabled {
        Refusal::OwnerDisabled
    } else {
        return Ok(principal);
    };
    Err(Denial { subject: Some((principal.token, principal.owner)), ..refusal.into() })
}

/// The rule that the request falls under, and the domain that must be looked up to decide.
///
/// # Errors
///
/// `PermissionDenied` when no rule names the request, or no scope of the token the domain.
pub fn domain_of<'r>(
    principal: &Principal,
    action: Option<&'r Action<'r>>,
) -> Result<(&'r Action<'r>, DomainRef), Denial> {
    action
        .and_then(|action| Some((action, DomainRef::parse(action.domain)?)))
        .filter(|(_, reference)| principal.names(reference))
        .ok_or_else(|| denied(principal, action))
}

/// May this authenticated principal do this in this domain?
///
/// # Errors
///
/// `PermissionDenied`, alike for a domain that is unknown, disabled or out of reach.
pub fn authorize(
    principal: &Principal,
    action: &Action<'_>,
    domain: Option<&Arc<Domain>>,
) -> Result<Permit, Denial> {
    let permit = || {
        let domain = domain.filter(|domain| domain.enabled)?;
        let grants = principal.grants_in(domain.id)?;
        let entity = action.entity.name();
        if !grants.permits(action.operation)
            || !grants.scoped(action.operation, action.entity_type, entity)
        {
            return None;
        }
        // A domain that lists its models must know which one it is asked for.
        if action.entity == Entity::Unread && domain.lists_models() {
            return None;
        }
        let model = entity.filter(|_| action.entity_type == EntityType::Models);
        Some(Permit {
            token: principal.token,
            owner: principal.owner,
            domain: Arc::clone(domain),
            operation: action.operation,
            model: model.map(Box::from),
            upstream: domain.upstream_for(model)?.into(),
        })
    };
    permit().ok_or_else(|| denied(principal, Some(action)))
}

fn denied(principal: &Principal, action: Option<&Action<'_>>) -> Denial {
    Denial {
        refusal: Refusal::PermissionDenied,
        subject: Some((principal.token, principal.owner)),
        operation: action.map(|action| action.operation),
    }
}
