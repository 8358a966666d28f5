//! Decides whether a request is permitted, and as what. It is pure: no I/O, no clock, no cache.
//!
//! The stages follow each other: `authenticate` checks the token, `domain_of` finds the domain
//! that must be looked up, and `authorize` compares what the request does with the roles of the
//! token's owner, the token's scopes and the domain. If the answer depends on the model that the
//! body names, [`NeedsModel`] waits for it.
//!
//! Only [`stages`](crate::stages) calls these functions, in this order: outside of this package, a
//! request can be authorized only as what an earlier stage has made of it.

mod authenticate;
mod listing;
mod needs_model;
mod permit;
mod upstream;

use std::sync::Arc;

pub(crate) use self::authenticate::authenticate;
pub(crate) use self::upstream::{NoUpstream, choose_upstream};
pub use self::{
    listing::{AnsweredList, Listing, UnansweredList},
    needs_model::{AwaitsBody, NeedsModel},
    permit::Permit,
};
use crate::{
    api::{Entity, MatchedRule},
    backend::{Backend, ReservedNames},
    domain::{Domain, DomainRef},
    model_list::{ListForm, UsableModels},
    operation::EntityType,
    principal::{DomainGrants, Principal},
    refusal::{Denial, LimitedBy, Refusal},
    vocabulary::vocabulary,
};

vocabulary! {
    /// When patgate reads the model of a call from its body.
    ModelReading, "reading of models" {
        WhenNeeded = "when-needed",
        Always = "always",
    }
}

/// Returns the rule for the request, and the domain that must be looked up to decide it. `named` is
/// the domain that the request names.
///
/// # Errors
///
/// Returns `NotFound` if no rule names the request, and `PermissionDenied` if no scope of the token
/// names the domain.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub(crate) fn domain_of<'r>(
    principal: &Principal,
    rule: Option<&'r MatchedRule<'r>>,
    named: Option<&'r DomainRef>,
) -> Result<(&'r MatchedRule<'r>, &'r DomainRef), Denial> {
    let Some(rule) = rule else {
        return Err(Denial { refusal: Refusal::NotFound, ..denied(principal, None) });
    };
    let named = named.filter(|reference| principal.names(reference));
    Ok((rule, named.ok_or_else(|| denied(principal, Some(rule)))?))
}

/// A request that is permitted.
#[derive(Debug, PartialEq)]
pub enum Authorized<'p> {
    /// A backend serves the request.
    Permit(Permit),
    /// patgate answers the request with a list of models, because the token or the domain is limited
    /// to some of them. Where the mode does not enforce yet, the request goes to a backend.
    List(Listing<'p>),
}

/// How far the authorization of a request has come.
#[derive(Debug, PartialEq)]
pub enum AuthorizationProgress<'p, 's> {
    /// The request is permitted.
    Authorized(Authorized<'p>),
    /// The answer depends on the model, which the body names.
    NeedsModel(NeedsModel<'p, 's>),
}

/// Decides whether an authenticated principal may do this in this domain.
///
/// `domain` is what the store holds under the name that the request gives. `own` is the backend that
/// the rule or its table names, if it names one: then address and credential both come from it,
/// otherwise both from the domain.
///
/// The model that the body names is needed only if the answer depends on it (the token's scopes name
/// particular models, or the domain lists its models), or if `reading` asks for it on every call.
///
/// # Errors
///
/// Returns `PermissionDenied` without a difference between a domain that is unknown, disabled or out
/// of the token's reach; `OtherEntity` if the operation is permitted on other entities; and
/// `Unavailable` if the backend's credential could not be opened, the backend that the table names does
/// not exist, or its name is one of `reserved`.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub(crate) fn authorize<'p, 's>(
    principal: &'p Principal,
    rule: &'s MatchedRule<'s>,
    domain: Option<&'s Arc<Domain>>,
    own: Option<&'s Backend>,
    reading: ModelReading,
    reserved: &'s ReservedNames,
) -> Result<AuthorizationProgress<'p, 's>, Denial> {
    let denied = || denied(principal, Some(rule));
    let operation = rule.operation;
    let on = rule.entity_type;
    let (domain, grants) = domain
        .filter(|domain| domain.enabled)
        .and_then(|domain| Some((domain, principal.grants_in(domain.id)?)))
        .filter(|(_, grants)| grants.permits(operation))
        .ok_or_else(denied)?;
    let every = grants.scoped(operation, on, None);
    let permitted = Permitted { principal, rule, domain, grants, own, reserved, every };
    let entity = match rule.entity {
        Entity::None => None,
        Entity::Named(name) => Some(name),
        Entity::Unread(_)
            if every && !domain.lists_models() && reading == ModelReading::WhenNeeded =>
        {
            None
        }
        Entity::Unread(_) if !every && !grants.scoped_to_some(operation, on) => {
            return Err(denied());
        }
        Entity::Unread(form) => {
            return Ok(AuthorizationProgress::NeedsModel(NeedsModel::new(permitted, form)));
        }
    };
    permitted.authorize(entity).map(AuthorizationProgress::Authorized)
}

/// A request whose operation the owner's roles permit in its domain. The token's scopes are not
/// compared yet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Permitted<'p, 's> {
    principal: &'p Principal,
    rule: &'s MatchedRule<'s>,
    domain: &'s Arc<Domain>,
    grants: &'p DomainGrants,
    /// The backend that the rule or its table names.
    own: Option<&'s Backend>,
    /// The names that no backend may have.
    reserved: &'s ReservedNames,
    /// Whether a scope covers every entity of the type.
    every: bool,
}

impl<'p> Permitted<'p, '_> {
    /// Authorizes a request about one entity, or about none in particular.
    #[inline(always)] // Once in each of the two callers, as a part of what is counted there.
    fn authorize(self, entity: Option<&str>) -> Result<Authorized<'p>, Denial> {
        let Self { principal, rule, domain, grants, own, reserved, every } = self;
        let operation = rule.operation;
        let on = rule.entity_type;
        let denied = || denied(principal, Some(rule));
        let another = |limit| Denial { refusal: Refusal::OtherEntity(limit), ..denied() };
        let usable = || UsableModels::new(grants, domain);
        let form = rule.answer.filter(|form| answers(*form, usable(), entity));
        let whole = every || grants.scoped(operation, on, entity);
        let some = grants.scoped_to_some(operation, on);
        if !whole {
            match entity {
                // A list that patgate makes shows only models that scopes name.
                None if some && form.is_some() => {}
                Some(_) if some => return Err(another(LimitedBy::Scopes)),
                None | Some(_) => return Err(denied()),
            }
        }
        let model = entity.filter(|_| on == EntityType::Models);
        let chosen = choose_upstream(rule, domain, own, model, reserved);
        let upstream = chosen.map_err(|why| match why {
            NoUpstream::UnlistedModel => another(LimitedBy::Domain),
            NoUpstream::UnknownBackend(_)
            | NoUpstream::ReservedName(_)
            | NoUpstream::UnopenedCredential(_) => {
                Denial { refusal: Refusal::Unavailable, ..denied() }
            }
        })?;
        let permit = Permit {
            token: principal.token,
            owner: principal.owner,
            domain: Arc::clone(domain),
            operation,
            model: model.map(Box::from),
            upstream: upstream.name.into(),
            credential: upstream.credential.cloned(),
        };
        Ok(match form {
            None => Authorized::Permit(permit),
            Some(form) => Authorized::List(Listing::new(permit, grants, form, whole)),
        })
    }
}

/// Returns whether patgate answers a request of this form itself: the token or the domain is limited
/// to some models, and a request about one model names one whose name is known.
fn answers(form: ListForm, usable: UsableModels<'_>, entity: Option<&str>) -> bool {
    match (form.is_of_one(), entity) {
        (false, None) => usable.is_limited(),
        (true, Some(model)) => usable.is_limited() && usable.has(model),
        (false, Some(_)) | (true, None) => false,
    }
}

fn denied(principal: &Principal, rule: Option<&MatchedRule<'_>>) -> Denial {
    Denial {
        refusal: Refusal::PermissionDenied,
        subject: Some((principal.token, principal.owner)),
        operation: rule.map(|rule| rule.operation),
    }
}

#[cfg(test)]
mod tests;
