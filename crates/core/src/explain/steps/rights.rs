//! The conditions in the domain: the rights of the token and of its owner, the model, and the backend.

use super::{
    Evidence, Failed, Walk, failed,
    words::{about, list, scope_miss},
};
use crate::{
    api::MatchedRule,
    decide::{NoUpstream, choose_upstream},
    domain::{Domain, DomainRef},
    model_list::UsableModels,
    operation::{EntityType, Operation},
    principal::{DomainGrants, Principal},
    refusal::{NoModel, Refusal},
    wording,
};

impl<'e> Walk<'e> {
    /// Examines the domain, and the token's rights in it.
    pub(super) fn domain(
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
            let detail = match self.evidence.domain_may_be_hidden {
                true => format!(
                    "domain `{reference}` does not exist, or neither you nor the token may do \
                     anything in it"
                ),
                false => format!("domain `{reference}` does not exist"),
            };
            return failed("domain", detail, nearest());
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

    pub(super) fn permission(
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
    pub(super) fn body(
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
                "the answer depends on the model that the body names: give the model, or the body"
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

    pub(super) fn scope(
        &mut self,
        grants: &DomainGrants,
        rule: &MatchedRule<'_>,
    ) -> Result<(), Failed> {
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
    pub(super) fn model(&mut self, domain: &Domain, rule: &MatchedRule<'_>) -> Result<(), Failed> {
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
        let Evidence { backend, reserved, .. } = *self.evidence;
        let chosen = choose_upstream(rule, domain, backend, model, reserved);
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
        if let Err(NoUpstream::ReservedName(name)) = chosen {
            let detail = format!(
                "the backend is called `{name}`, which is the name of one of the gateway's own clusters"
            );
            let nearest = "make it again under another name, and let the domain or the API table name \
                           that (routes.reserved)";
            return failed("upstream", detail, Some(nearest.to_owned()));
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
    pub(super) fn answer(&mut self, domain: &Domain, grants: &DomainGrants) {
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
