//! Explains a decision step by step, to an administrator. Pure, and beside the decision: it is made
//! by [`decide`] out of the functions that the service calls; explaining only says what they saw.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    api::{Action, Apis, Entity, Manner, Method},
    body::{self, Form, ModelName},
    clock::Moment,
    decide,
    decision::{Decision, Denial, Malformed, NoModel, Permit, Refusal},
    domain::{Domain, DomainRef, Unopened},
    operation::{EntityType, Operation},
    principal::{DomainGrants, Principal},
    request::{AuthRequest, Rejected},
};

/// A request, and all that was known when it was decided.
pub struct Evidence<'a> {
    /// The tables of the APIs.
    pub apis: &'a Apis,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The model that a body would name.
    pub model: Option<&'a str>,
    /// Whether possession of the token was taken as proven, no token being shown.
    pub presumed: bool,
    /// What became of reading the request.
    pub request: Result<&'a AuthRequest<'a>, &'a Rejected>,
    /// What the store knows under the token's id.
    pub principal: Option<&'a Principal>,
    /// What it knows under the domain that the request names.
    pub domain: Option<&'a Arc<Domain>>,
    /// When.
    pub now: Moment,
}

/// One thing that had to hold.
#[derive(Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub step: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// Why it was decided so.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// In the order of the service, up to the one that failed: nothing after it is asked.
    pub steps: Vec<Step>,
    /// What came closest to an allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// A step that failed, as its name, what was seen, and what came closest.
type Failed = (&'static str, String, Option<String>);

impl Evidence<'_> {
    /// Decides as the service does: by the same functions in the same order.
    pub fn decide(&self) -> Decision {
        self.permit().map_or_else(Decision::Deny, Decision::Allow)
    }

    fn permit(&self) -> Result<Permit, Denial> {
        let request = self.request.map_err(|rejected| rejected.refusal)?;
        let principal = decide::authenticate(&request.token, self.principal, self.now)?;
        let (action, _) = decide::domain_of(principal, request.action.as_ref())?;
        decide::authorize(principal, action, self.domain, |form| self.read_model(form))
    }

    /// As if the body named the model that was given.
    fn read_model(&self, form: Form) -> Result<ModelName, NoModel> {
        if body::in_query(self.target) {
            return Err(NoModel::InQuery);
        }
        match (form, self.model) {
            (Form::Other, _) => Err(NoModel::Elsewhere),
            (_, None) => Err(NoModel::NotShown),
            (_, Some(name)) => name.parse(),
        }
    }

    /// How the API in question answers.
    pub fn manner(&self) -> Manner {
        match self.request {
            Ok(request) => request.manner,
            Err(rejected) => rejected.manner,
        }
    }

    /// Says why `decision`, which is this evidence's, is what it is.
    pub fn explain(&self, decision: &Decision) -> Explanation {
        let mut explanation = Explanation::default();
        let refusal = decision.denial().map(|denial| denial.refusal);
        let failed = match self.walk(refusal, &mut explanation.steps) {
            Err(failed) => Some(failed),
            Ok(()) => refusal.map(|refusal| {
                ("decision", format!("{}, for a reason not told here", refusal.code()), None)
            }),
        };
        if let Some((step, detail, nearest)) = failed {
            explanation.steps.push(Step { step, passed: false, detail });
            explanation.nearest = nearest;
        }
        explanation
    }

    /// `refusal` says which stage failed, wherever it can. Of the many reasons for
    /// `PermissionDenied`, the first is found here.
    fn walk(&self, refusal: Option<Refusal>, steps: &mut Vec<Step>) -> Result<(), Failed> {
        let mut passed = |step, detail| steps.push(Step { step, passed: true, detail });
        let path = self.target.split_once('?').map_or(self.target, |(path, _)| path);
        if let Some(Refusal::BadRequest(Malformed::Path)) = refusal {
            let detail = format!("not in its one spelling: {}", misspelt(self.target, path));
            return Err(("path", detail, None));
        }
        passed("path", "in its one spelling; the query takes no part".to_owned());
        let surface = self.apis.surface(self.authority, path);
        let served = match &surface {
            Some(surface) => format!("`{}`", surface.name()),
            None => "belongs to no API, by host and path".to_owned(),
        };
        passed("surface", served);

        match refusal {
            Some(Refusal::BadRequest(_)) => {
                let detail = "a comma: more than one value of Authorization".to_owned();
                return Err(("credential", detail, None));
            }
            Some(Refusal::MissingCredential) => {
                return Err(("credential", "none".to_owned(), None));
            }
            Some(Refusal::InvalidToken) => return Err(self.credential()),
            _ => {}
        }
        let (Ok(request), Some(principal)) = (self.request, self.principal) else { return Ok(()) };
        let id = request.token.id;
        passed(
            "credential",
            match self.presumed {
                true => format!("possession of token {id} is taken as proven; none was shown"),
                false => format!("token {id}, with the right tag and secret"),
            },
        );
        let expiry = moment(principal.expires_at);
        let owner = principal.owner;
        let state = match refusal {
            Some(Refusal::TokenRevoked) => Some("revoked".to_owned()),
            Some(Refusal::TokenExpired) => Some(format!("expired at {expiry}")),
            Some(Refusal::OwnerDisabled) => Some(format!("its owner {owner} is disabled")),
            _ => None,
        };
        if let Some(detail) = state {
            return Err(("state", detail, None));
        }
        passed("state", format!("live until {expiry}; its owner {owner} is enabled"));

        let Some(action) = &request.action else { return Err(self.rule(path)) };
        let Action { operation, entity_type: on, .. } = *action;
        passed("rule", format!("{} here is {operation} on {on}", self.method));
        let (domain, grants) = self.reach(principal, action)?;
        passed("domain", format!("{} ({}), named by a scope", domain.slug, domain.id));

        let slug = &domain.slug;
        if !grants.permits(operation) {
            let held = list(grants.permitted().iter().map(Operation::as_str));
            let detail = format!("the owner's roles in {slug} lack {operation}; they have {held}");
            let nearest = match self.covered(grants, action) {
                true => format!("has the scope, but the owner's roles in {slug} lack {operation}"),
                false => format!(
                    "no scope covers it either: {}",
                    scope_miss(grants, operation, on, self.entity(action))
                ),
            };
            return Err(("permission", detail, Some(nearest)));
        }
        passed("permission", format!("the owner's roles in {slug} include {operation}"));

        if let Some(Refusal::NoModel(why)) = refusal {
            let needs = match grants.scoped(operation, on, None) {
                true => "the domain lists its models",
                false => "the token's scopes name particular models",
            };
            let nearest = match why {
                NoModel::NotShown => Some(
                    "it would depend on the model that the body names: give it with --model"
                        .to_owned(),
                ),
                NoModel::Elsewhere => Some(
                    "this call does not name its model where it is read; it passes only where no \
                     particular model matters"
                        .to_owned(),
                ),
                NoModel::InQuery => Some(
                    "the query may choose another model: leave `model` and escaped keys out of it"
                        .to_owned(),
                ),
                _ => Some("a model's name is 1 to 256 characters, none a control one".to_owned()),
            };
            return Err(("model", format!("{needs}, and none is known"), nearest));
        }
        let entity = self.entity(action);
        if !self.covered(grants, action) {
            let miss = scope_miss(grants, operation, on, entity);
            return Err((
                "scope",
                format!("no scope covers {operation} on {}", about(on, entity)),
                Some(miss),
            ));
        }
        passed("scope", format!("a scope covers {operation} on {}", about(on, entity)));

        let model = entity.filter(|_| on == EntityType::Models);
        match (domain.lists_models(), model) {
            (true, Some(model)) if domain.upstream_for(Some(model)).is_none() => {
                let nearest = format!("the domain {slug} lists its models, and not `{model}`");
                return Err(("model", format!("`{model}` is not listed"), Some(nearest)));
            }
            (true, Some(model)) => passed("model", format!("`{model}` is on the domain's list")),
            (false, Some(model)) => {
                passed("model", format!("`{model}`; the domain lists none, so it sees all"));
            }
            (_, None) => passed("model", "nothing depends on it".to_owned()),
        }
        let upstream = domain.upstream_for(model).unwrap_or_default();
        if domain.credential_for(upstream) == Err(Unopened) {
            let detail = format!("the credential of `{upstream}` does not open");
            let nearest = "the key ring lacks its key, or it was changed or moved by other means \
                           than `patgate backend credential`";
            return Err(("upstream", detail, Some(nearest.to_owned())));
        }
        Ok(())
    }

    /// Why a credential proves nothing.
    fn credential(&self) -> Failed {
        let Ok(request) = self.request else {
            let detail = "not a token that a key of this ring signed".to_owned();
            let nearest = "mistyped, cut, of another installation, or signed with a key that was \
                           dropped";
            return ("credential", detail, Some(nearest.to_owned()));
        };
        let id = request.token.id;
        let detail = match self.principal {
            None => format!("the tag is right, but no token has the id {id}"),
            Some(_) => format!("the tag is right, but the secret is not that of token {id}"),
        };
        ("credential", detail, None)
    }

    /// Why no rule names the request.
    fn rule(&self, path: &str) -> Failed {
        if self.apis.surface(self.authority, path).is_none() {
            let names: Vec<&str> = self.apis.list().map(|(name, _)| name).collect();
            let nearest = format!("the APIs are {}; where each is, its table says", list(names));
            return ("rule", "the request belongs to no API".to_owned(), Some(nearest));
        }
        let has_rule = |method: &&Method| {
            let surface = self.apis.surface(self.authority, path);
            surface.is_some_and(|surface| surface.action(method.as_str(), path).is_some())
        };
        let methods: Vec<_> =
            Method::ALL.iter().filter(has_rule).map(|method| method.as_str()).collect();
        let nearest = match methods.is_empty() {
            true => "no method has a rule on this path".to_owned(),
            false => format!("a rule exists for {} on this path", list(methods)),
        };
        ("rule", format!("no rule names {} on this path", self.method), Some(nearest))
    }

    /// The domain, and what the token has there.
    fn reach(
        &self,
        principal: &Principal,
        action: &Action<'_>,
    ) -> Result<(&Domain, &DomainGrants), Failed> {
        let named = &action.domain;
        let failed = |detail, nearest| Err(("domain", detail, nearest));
        let Some(reference) = DomainRef::parse(named) else {
            return failed(
                format!("`{named}` is neither a slug nor an id in lower case with hyphens"),
                None,
            );
        };
        let nearest = || {
            let slugs: Vec<_> = principal.grants().map(|grants| grants.slug().as_str()).collect();
            Some(match slugs.is_empty() {
                true => "the token has no scopes at all".to_owned(),
                false => format!("the token's scopes name {}", list(slugs)),
            })
        };
        let Some(domain) = self.domain else {
            return failed(format!("there is no domain `{reference}`"), nearest());
        };
        let grants = self.principal.and_then(|principal| principal.grants_in(domain.id));
        match grants {
            Some(grants) if principal.names(&reference) => match domain.enabled {
                true => Ok((domain, grants)),
                false => failed(
                    format!("`{reference}` is disabled"),
                    Some("a scope names the domain".to_owned()),
                ),
            },
            _ => failed(format!("no scope of the token names `{reference}`"), nearest()),
        }
    }

    /// The one entity that the request is about, as far as is known.
    fn entity<'e>(&'e self, action: &Action<'e>) -> Option<&'e str> {
        match action.entity {
            Entity::None => None,
            Entity::Named(name) => Some(name),
            Entity::Unread(form) => self.model.filter(|_| self.read_model(form).is_ok()),
        }
    }

    fn covered(&self, grants: &DomainGrants, action: &Action<'_>) -> bool {
        grants.scoped(action.operation, action.entity_type, self.entity(action))
    }
}

/// What the scopes in a domain give that comes closest.
fn scope_miss(
    grants: &DomainGrants,
    operation: Operation,
    on: EntityType,
    entity: Option<&str>,
) -> String {
    let for_it = || grants.scopes().filter(|(.., operations)| operations.contains(operation));
    let named: Vec<_> = for_it().filter(|(of, ..)| *of == on).filter_map(|(_, id, _)| id).collect();
    if !named.is_empty() {
        let named = list(named.iter().map(|id| format!("`{id}`")));
        let (on, about) = (one(on), about(on, entity));
        return format!("the scope is for {on} {named}, the request is about {about}");
    }
    let elsewhere: Vec<_> = for_it().map(|(of, id, _)| about(of, id)).collect();
    if !elsewhere.is_empty() {
        return format!("has {operation} on {}, lacks it on {on}", list(elsewhere));
    }
    let held = grants.scopes().fold(Vec::new(), |mut held, (.., operations)| {
        held.extend(
            operations.iter().filter(|operation| !held.contains(operation)).collect::<Vec<_>>(),
        );
        held
    });
    match held.is_empty() {
        true => format!("has no scope here that means anything, lacks {operation}"),
        false => format!("has {} here, lacks {operation}", list(held)),
    }
}

fn about(on: EntityType, entity: Option<&str>) -> String {
    match entity {
        Some(entity) => format!("{} `{entity}`", one(on)),
        None => format!("{on}, none in particular"),
    }
}

/// The word for one of a type.
fn one(on: EntityType) -> &'static str {
    on.as_str().strip_suffix('s').unwrap_or(on.as_str())
}

/// A few of them.
fn list(words: impl IntoIterator<Item = impl ToString>) -> String {
    const SHOWN: usize = 8;
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.len() {
        0 => "none".to_owned(),
        len if len > SHOWN => format!("{} and {} more", words[..SHOWN].join(", "), len - SHOWN),
        _ => words.join(", "),
    }
}

fn moment(Moment(micros): Moment) -> String {
    let at = Timestamp::from_second(micros.div_euclid(1_000_000));
    at.map_or_else(|_| "a time beyond all calendars".to_owned(), |at| at.to_string())
}

/// What gives a path another spelling. `request.rs` is who refuses it.
fn misspelt(target: &str, path: &str) -> String {
    if let Some(found) = target.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        return format!("it holds {found:?}");
    }
    if let Some(found) = path.chars().find(|c| matches!(c, '%' | ';' | '\\')) {
        return format!("it holds {found:?}");
    }
    let Some(segments) = path.strip_prefix('/') else {
        return "it does not begin with /".to_owned();
    };
    if path.len() > 1 && path.ends_with('/') {
        "it ends with /".to_owned()
    } else if segments.split('/').any(|segment| matches!(segment, "." | "..")) {
        "it has a segment . or ..".to_owned()
    } else if segments.split('/').any(str::is_empty) {
        "it has an empty segment".to_owned()
    } else {
        "it is too long".to_owned()
    }
}
