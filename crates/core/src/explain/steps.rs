//! Examines the conditions in the order of the service, up to the one that failed.

use super::{
    Evidence, Explanation, Step,
    words::{about, list, misspelt, moment, scope_miss},
};
use crate::{
    api::{MatchedRule, Method},
    decide::{NoUpstream, choose_upstream},
    domain::{Domain, DomainRef},
    model_list::UsableModels,
    operation::{EntityType, Operation},
    principal::{DomainGrants, Principal},
    refusal::{MalformedPart, NoModel, Refusal},
    request::{self, AuthRequest, without_query},
    wording,
};

pub(super) struct Walk<'e> {
    evidence: &'e Evidence<'e>,
    /// Determines which step failed, if the refusal shows it. For the many reasons of
    /// `PermissionDenied`, the first one that applies is found here.
    refusal: Option<Refusal>,
    /// The one entity that the request is about, if it is known.
    entity: Option<&'e str>,
    /// Whether patgate answers instead of a backend.
    answered: bool,
    steps: Vec<Step>,
}

/// A step that failed.
struct Failed {
    step: &'static str,
    /// The facts that were examined.
    detail: String,
    /// What came closest to an allow.
    nearest: Option<String>,
}

fn failed<T>(
    step: &'static str,
    detail: impl Into<String>,
    nearest: Option<String>,
) -> Result<T, Failed> {
    Err(Failed { step, detail: detail.into(), nearest })
}

impl<'e> Walk<'e> {
    pub(super) fn new(
        evidence: &'e Evidence<'e>,
        refusal: Option<Refusal>,
        entity: Option<&'e str>,
        answered: bool,
    ) -> Self {
        Self { evidence, refusal, entity, answered, steps: Vec::new() }
    }

    pub(super) fn explanation(mut self) -> Explanation {
        let refused = match (self.walk(), self.refusal) {
            (Err(failed), _) => Some(failed),
            (Ok(()), Some(refusal)) => {
                let detail = format!("{}; the reason cannot be shown here", refusal.code());
                Some(Failed { step: "decision", detail, nearest: None })
            }
            (Ok(()), None) => None,
        };
        let mut nearest = None;
        if let Some(Failed { step, detail, nearest: closest }) = refused {
            self.steps.push(Step { step, passed: false, detail });
            nearest = closest;
        }
        Explanation { steps: self.steps, nearest }
    }

    fn walk(&mut self) -> Result<(), Failed> {
        self.path()?;
        self.api();
        self.credential()?;
        let Evidence { request: Ok(request), principal: Some(principal), .. } = *self.evidence
        else {
            return Ok(());
        };
        self.proven(request);
        self.state(principal)?;
        let rule = self.rule(request)?;
        let (domain, grants) = self.domain(principal, rule)?;
        self.permission(domain, grants, rule)?;
        self.body(domain, grants, rule)?;
        self.scope(grants, rule)?;
        self.model(domain, rule)?;
        self.answer(domain, grants);
        Ok(())
    }

    fn passed(&mut self, step: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { step, passed: true, detail: detail.into() });
    }

    fn path_alone(&self) -> &'e str {
        without_query(self.evidence.target)
    }

    fn path(&mut self) -> Result<(), Failed> {
        let refused = self.refusal == Some(Refusal::BadRequest(MalformedPart::Path));
        if let Some(found) = request::misspelling(self.evidence.target).filter(|_| refused) {
            let detail = format!("not in canonical form: {}", misspelt(found));
            return failed("path", detail, None);
        }
        self.passed("path", "in canonical form, apart from the query");
        if self.evidence.authority.contains(',') {
            return failed("host", "a comma: more than one value of Host", None);
        }
        Ok(())
    }

    fn api(&mut self) {
        let Evidence { apis, authority, .. } = *self.evidence;
        let served = match apis.find(authority, self.path_alone()) {
            Some(api) => format!("`{}`", api.name()),
            None => "belongs to no API, by host and path".to_owned(),
        };
        self.passed("api", served);
    }

    /// Explains why a credential was not accepted.
    fn credential(&self) -> Result<(), Failed> {
        match self.refusal {
            Some(Refusal::BadRequest(MalformedPart::Authorization)) => {
                failed("credential", "a comma: more than one value of Authorization", None)
            }
            Some(Refusal::BadRequest(MalformedPart::TokenInQuery)) => {
                failed("credential", "a token in the query, where it is not accepted", None)
            }
            Some(Refusal::MissingCredential) => failed("credential", "none", None),
            Some(Refusal::NotAToken(_) | Refusal::InvalidToken) => {
                let (detail, nearest) = match self.evidence.request {
                    Ok(request) => (self.unproven(request), None),
                    Err(_) => self.unread(),
                };
                failed("credential", detail, nearest)
            }
            _ => Ok(()),
        }
    }

    fn unread(&self) -> (String, Option<String>) {
        let sources = self.evidence.api_style().sources;
        let value = self.evidence.authorization.unwrap_or_default();
        if request::behind_scheme(value, &sources).is_err() {
            let accepted = list(sources.schemes().map(|scheme| format!("`{scheme} <token>`")));
            return (
                "not a scheme of this API, one space, and a token".to_owned(),
                Some(format!("it accepts {accepted}")),
            );
        }
        let nearest = "mistyped, cut, of another installation, or signed with a key that was \
                       dropped";
        ("not a token that a key of this ring signed".to_owned(), Some(nearest.to_owned()))
    }

    fn unproven(&self, request: &AuthRequest<'_>) -> String {
        let id = request.token().id();
        match self.evidence.principal {
            None => format!("the tag is right, but no token has the id {id}"),
            Some(_) => format!("the tag is right, but the secret is not that of token {id}"),
        }
    }

    fn proven(&mut self, request: &AuthRequest<'_>) {
        let id = request.token().id();
        let how = match self.evidence.presumed {
            true => format!("possession of token {id} is presumed, because only its id was given"),
            false => format!("token {id}, with the right tag and secret"),
        };
        self.passed("credential", how);
    }

    fn state(&mut self, principal: &Principal) -> Result<(), Failed> {
        let (expiry, owner) = (moment(principal.expires_at), principal.owner);
        match self.refusal {
            Some(Refusal::TokenRevoked) => failed("state", "revoked", None),
            Some(Refusal::TokenNotYetIssued) => {
                let issued = moment(principal.issued_at);
                let nearest = "its row was not written by `patgate token`, or Postgres's clock was \
                               set back: revoke it, and create a new one";
                failed(
                    "state",
                    format!("issued in the future, at {issued}"),
                    Some(nearest.to_owned()),
                )
            }
            Some(Refusal::TokenExpired) => failed("state", format!("expired at {expiry}"), None),
            Some(Refusal::OwnerDisabled) => {
                failed("state", format!("its owner {owner} is disabled"), None)
            }
            _ => {
                self.passed("state", format!("live until {expiry}; its owner {owner} is enabled"));
                Ok(())
            }
        }
    }

    fn rule(&mut self, request: &'e AuthRequest<'e>) -> Result<&'e MatchedRule<'e>, Failed> {
        let method = self.evidence.method;
        let Some(rule) = request.rule() else { return self.no_rule() };
        let MatchedRule { operation, entity_type: on, .. } = rule;
        self.passed("rule", format!("{method} here is {operation} on {on}"));
        Ok(rule)
    }

    fn no_rule<T>(&self) -> Result<T, Failed> {
        let Evidence { apis, authority, method, .. } = *self.evidence;
        let path = self.path_alone();
        let api = || apis.find(authority, path);
        if api().is_none() {
            let names: Vec<&str> = apis.list().map(|(name, _)| name).collect();
            let nearest =
                format!("the APIs are {}; the table of each says where it is", list(names));
            return failed("rule", "the request belongs to no API", Some(nearest));
        }
        let has_rule = |method: &&str| api().is_some_and(|it| it.rule(method, path).is_some());
        let methods = Method::ALL.iter().map(|method| method.as_str());
        let methods: Vec<_> = methods.filter(has_rule).collect();
        let nearest = match methods.is_empty() {
            true => "no method has a rule on this path".to_owned(),
            false => format!("a rule exists for {} on this path", list(methods)),
        };
        failed("rule", format!("no rule names {method} on this path"), Some(nearest))
    }

    /// Examines the domain, and the token's rights in it.
    fn domain(
        &mut self,
        principal: &'e Principal,
        rule: &MatchedRule<'_>,
    ) -> Result<(&'e Domain, &'e DomainGrants), Failed> {
        let named = &rule.domain;
        let Some(reference) = DomainRef::parse(named) else {
            let detail =
                format!("`{named}` is neither a slug nor an id in lower case with hyphens");
            return failed("domain", detail, None);
        };
        let nearest = || {
            let slugs: Vec<_> = principal.grants().map(|grants| grants.slug().as_str()).collect();
            Some(match slugs.is_empty() {
                true => "the token has no scopes".to_owned(),
                false => format!("the token's scopes name {}", list(slugs)),
            })
        };
        let Some(domain) = self.evidence.domain else {
            return failed("domain", format!("domain `{reference}` does not exist"), nearest());
        };
        let grants = principal.grants_in(domain.id).filter(|_| principal.names(&reference));
        let Some(grants) = grants else {
            let detail = format!("no scope of the token names `{reference}`");
            return failed("domain", detail, nearest());
        };
        if !domain.enabled {
            let nearest = "a scope names the domain".to_owned();
            return failed("domain", format!("`{reference}` is disabled"), Some(nearest));
        }
        self.passed("domain", format!("{} ({}), named by a scope", domain.slug, domain.id));
        Ok((domain, grants))
    }

    fn permission(
        &mut self,
        domain: &Domain,
        grants: &DomainGrants,
        rule: &MatchedRule<'_>,
    ) -> Result<(), Failed> {
        let (slug, operation) = (&domain.slug, rule.operation);
        if grants.permits(operation) {
            self.passed("permission", format!("the owner's roles in {slug} include {operation}"));
            return Ok(());
        }
        let held = list(grants.permitted().iter().map(Operation::as_str));
        let detail = format!("the owner's roles in {slug} lack {operation}; they have {held}");
        let nearest = match self.covered(grants, rule) {
            true => format!("has the scope, but the owner's roles in {slug} lack {operation}"),
            false => format!("no scope covers it either: {}", self.miss(grants, rule)),
        };
        failed("permission", detail, Some(nearest))
    }

    /// Explains why a model is needed and could not be read: in the words of the answer, or, if the
    /// command was given no body, by saying so.
    fn body(
        &self,
        domain: &Domain,
        grants: &DomainGrants,
        rule: &MatchedRule<'_>,
    ) -> Result<(), Failed> {
        let why = match self.refusal {
            Some(Refusal::NoModel(why)) => why,
            _ => return Ok(()),
        };
        let needs = if !grants.scoped(rule.operation, rule.entity_type, None) {
            "the token's scopes name particular models"
        } else if domain.lists_models() {
            "the domain lists its models"
        } else {
            "model.read is `always`"
        };
        let nearest = match (why, self.evidence.body) {
            (NoModel::NotShown, None) => {
                "the answer depends on the model that the body names: give the model with --model, \
                 or the body with --body"
                    .into()
            }
            _ => wording::no_model(why, self.evidence.shown()),
        };
        failed(
            "model",
            format!("{needs}, and the request's model is unknown"),
            Some(nearest.into_owned()),
        )
    }

    fn scope(&mut self, grants: &DomainGrants, rule: &MatchedRule<'_>) -> Result<(), Failed> {
        let (operation, on) = (rule.operation, about(rule.entity_type, self.entity));
        let covered = self.covered(grants, rule);
        if self.answered && !covered {
            let detail = format!("scopes cover {operation} on some models");
            self.passed("scope", detail);
            return Ok(());
        }
        if !covered {
            let detail = format!("no scope covers {operation} on {on}");
            return failed("scope", detail, Some(self.miss(grants, rule)));
        }
        self.passed("scope", format!("a scope covers {operation} on {on}"));
        Ok(())
    }

    /// Examines the model in the domain's list, and its upstream.
    fn model(&mut self, domain: &Domain, rule: &MatchedRule<'_>) -> Result<(), Failed> {
        let model = self.entity.filter(|_| rule.entity_type == EntityType::Models);
        match (domain.lists_models(), model) {
            (true, Some(model)) if domain.upstream_for(Some(model)).is_none() => {
                let slug = &domain.slug;
                let mut nearest = format!("the domain {slug} lists its models, but not `{model}`");
                if domain.sees_no_model() {
                    nearest = format!("the domain {slug} lists no model, so it sees none");
                } else if let Some(pattern) = domain.nearest_pattern(model) {
                    let why = "stands for letters, digits and `. _ - :` only";
                    nearest = format!("{nearest}: the `*` of `{pattern}` {why}");
                }
                return failed("model", format!("`{model}` is not listed"), Some(nearest));
            }
            (true, Some(model)) => {
                self.passed("model", format!("`{model}` is on the domain's list"))
            }
            (false, Some(model)) => {
                self.passed("model", format!("`{model}`; the domain sees all models"));
            }
            (_, None) => self.passed("model", "nothing depends on it"),
        }
        self.upstream(domain, rule, model)
    }

    /// Explains why no backend can serve the request, although it is permitted.
    fn upstream(
        &mut self,
        domain: &Domain,
        rule: &MatchedRule<'_>,
        model: Option<&str>,
    ) -> Result<(), Failed> {
        let chosen = choose_upstream(rule, domain, self.evidence.backend, model);
        if let Err(NoUpstream::UnknownBackend(name)) = chosen {
            let detail = format!("the API table names the backend `{name}`, which does not exist");
            let nearest = format!(
                "create it with `patgate backend create {name}`, or name another one as \
                 `upstream` in the table; the domain's backend is not used instead"
            );
            return failed("upstream", detail, Some(nearest));
        }
        if let Some(name) = rule.upstream {
            self.passed("upstream", format!("`{name}`, which the API table names"));
        }
        if let Err(NoUpstream::UnopenedCredential(name)) = chosen {
            let detail = format!("the credential of `{name}` cannot be opened");
            let nearest = "the key ring lacks its key, or something other than `patgate backend \
                           credential` changed or moved it";
            return failed("upstream", detail, Some(nearest.to_owned()));
        }
        Ok(())
    }

    /// Explains what patgate answers itself.
    fn answer(&mut self, domain: &Domain, grants: &DomainGrants) {
        if !self.answered {
            return;
        }
        let usable = UsableModels::new(grants, domain);
        let names: Vec<_> = match self.entity {
            Some(model) => vec![model],
            None => usable.names(),
        };
        let (slug, names) = (&domain.slug, list(names.iter().map(|name| format!("`{name}`"))));
        let limited = match domain.lists_models() {
            true => format!("{slug} lists its models"),
            false => "the token's scopes name particular models".to_owned(),
        };
        let detail = format!(
            "by patgate, instead of a backend, because {limited}; models that are known by name \
             and permitted for more than llm_read: {names}"
        );
        self.passed("answer", detail);
    }

    fn covered(&self, grants: &DomainGrants, rule: &MatchedRule<'_>) -> bool {
        grants.scoped(rule.operation, rule.entity_type, self.entity)
    }

    fn miss(&self, grants: &DomainGrants, rule: &MatchedRule<'_>) -> String {
        scope_miss(grants, rule.operation, rule.entity_type, self.entity)
    }
}
