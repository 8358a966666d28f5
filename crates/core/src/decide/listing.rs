//! Permitted requests that patgate answers itself, because the backend's answer would show models
//! that the token must not use.

use std::sync::Arc;

use super::Permit;
use crate::{
    domain::Domain,
    model_list::{ListForm, UsableModels, body},
    operation::Operation,
    principal::{DomainGrants, UserId},
    token::TokenId,
};

/// A permitted request for a list of models, or about one model, where the token or the domain is
/// limited to some models. It is not a decision yet: the mode says whether patgate answers it. Only
/// `decide::authorize` makes one.
#[derive(Debug, PartialEq)]
pub struct Listing<'p> {
    permit: Permit,
    grants: &'p DomainGrants,
    form: ListForm,
    /// Whether the request would be permitted if patgate answered none.
    whole: bool,
}

impl<'p> Listing<'p> {
    /// Makes a listing of a permit. `whole` says whether the permit covers all models, and not only
    /// those that scopes name.
    pub(super) fn new(
        permit: Permit,
        grants: &'p DomainGrants,
        form: ListForm,
        whole: bool,
    ) -> Self {
        Self { permit, grants, form, whole }
    }

    /// Returns the token that the client sent.
    pub(crate) fn token(&self) -> TokenId {
        self.permit.token
    }

    /// Returns the owner of the token.
    pub fn owner(&self) -> UserId {
        self.permit.owner
    }

    /// Returns the same request in another form, about another model.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn for_tests(self, form: ListForm, model: Option<&str>) -> Self {
        let permit = Permit { model: model.map(Box::from), ..self.permit };
        Self { permit, form, ..self }
    }

    /// Returns the domain whose models are listed.
    pub(crate) fn domain(&self) -> &Domain {
        &self.permit.domain
    }

    /// Returns whether [`Self::answer`] takes so long that other checks should not wait for it.
    pub fn takes_long(&self) -> bool {
        let all = !self.form.is_of_one() && self.form != ListForm::OllamaPs;
        all && UsableModels::new(self.grants, &self.permit.domain).takes_long()
    }

    /// Answers the request, with the models that the token may use.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub fn answer(self) -> AnsweredList {
        let Permit { token, owner, domain, operation, model, .. } = self.permit;
        let body = match &model {
            Some(name) => body(self.form, &[name]),
            None => body(self.form, &UsableModels::new(self.grants, &domain).names()),
        };
        AnsweredList { token, owner, domain, operation, model, body }
    }

    /// Returns what is left if the mode does not enforce: the request goes to a backend.
    pub(crate) fn unanswered(self) -> UnansweredList {
        let Permit { token, owner, operation, .. } = self.permit;
        let domain = Arc::clone(&self.permit.domain);
        UnansweredList {
            token,
            owner,
            domain,
            operation,
            permit: self.whole.then_some(self.permit),
        }
    }
}

/// The answer that patgate gives in place of a backend. It has neither a backend nor a credential, so
/// no request can be let through with it. Only [`Listing::answer`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredList {
    token: TokenId,
    owner: UserId,
    domain: Arc<Domain>,
    operation: Operation,
    model: Option<Box<str>>,
    body: String,
}

impl AnsweredList {
    /// Returns the token and its owner.
    pub fn subject(&self) -> (TokenId, UserId) {
        (self.token, self.owner)
    }

    /// Returns the domain whose models are listed.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Returns the operation of the request.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the model that the request is about; `None` for a list of all models.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the body of the answer, as JSON.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// A request that patgate would answer, if the mode enforced. Only
/// [`Mode::apply_to_list`](crate::rollout::Mode::apply_to_list) makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnansweredList {
    token: TokenId,
    owner: UserId,
    domain: Arc<Domain>,
    operation: Operation,
    permit: Option<Permit>,
}

impl UnansweredList {
    /// Returns the token and its owner.
    pub fn subject(&self) -> (TokenId, UserId) {
        (self.token, self.owner)
    }

    /// Returns the operation of the request.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the domain whose models are listed.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Returns the permit with which the request goes to a backend. `None` if scopes name only some
    /// models: then nothing permits the backend's own list.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        api::{Entity, MatchedRule},
        backend::ReservedNames,
        clock::Moment,
        credential::Sealed,
        decide::{AuthorizationProgress, Authorized, ModelReading, authorize},
        decision::Decision,
        domain::{DomainId, Models},
        enforce::Enforcement,
        operation::EntityType,
        principal::Principal,
        refusal::{Denial, NoModel, Refusal},
        rollout::{DomainMode, Mode, Rollout, Share},
        token::TokenDigest,
    };

    use EntityType::Models as M;
    use Operation::{LlmChatCompletions as Chat, LlmRead as Read};

    const DOMAIN: DomainId = DomainId(Uuid::from_u128(1));

    type TestScope<'a> = (EntityType, &'a str, Operation);

    fn principal(permitted: &[Operation], scopes: &[TestScope<'_>]) -> Principal {
        let permitted = permitted.iter().copied().collect();
        let mut grants = DomainGrants::new(DOMAIN, "acme".parse().unwrap(), permitted);
        scopes.iter().for_each(|(on, name, operation)| grants.add_scope(*on, name, *operation));
        let token = TokenId(Uuid::from_u128(7));
        let owner = UserId(Uuid::from_u128(8));
        let digest = TokenDigest::from_bytes([0; 32]);
        Principal::new(token, digest, Moment(0)..Moment(1), false, owner, true, vec![grants])
    }

    fn domain(listed: Option<&[&str]>) -> Domain {
        let models = listed.map_or(Models::All, |names| {
            Models::Listed(names.iter().map(|name| ((*name).into(), "b".into())).collect())
        });
        Domain::new(DOMAIN, "acme".parse().unwrap(), true, "b".into(), models)
    }

    fn ask<'p>(
        principal: &'p Principal,
        domain: &Domain,
        answer: Option<ListForm>,
        entity: Entity<'_>,
    ) -> Result<Authorized<'p>, Denial> {
        let rule = MatchedRule {
            domain: "acme".into(),
            operation: Read,
            entity_type: M,
            entity,
            upstream: None,
            answer,
        };
        let domain = Arc::new(domain.clone());
        let reserved = ReservedNames::default();
        let when = ModelReading::WhenNeeded;
        match authorize(principal, &rule, Some(&domain), None, when, &reserved)? {
            AuthorizationProgress::Authorized(authorized) => Ok(authorized),
            AuthorizationProgress::NeedsModel(needs) => needs.with(Err(NoModel::NotShown)),
        }
    }

    /// Returns the outcome as text: `passes`, `refused`, or the body, with `?` before it if scopes name
    /// only some models.
    fn told(authorized: Result<Authorized<'_>, Denial>) -> String {
        match authorized {
            Ok(Authorized::Permit(_)) => "passes".to_owned(),
            Ok(Authorized::List(listing)) => {
                let limited = if listing.whole { "" } else { "?" };
                format!("{limited}{}", listing.answer().body())
            }
            Err(denial) if denial.refusal.code() == "permission_denied" => "refused".to_owned(),
            Err(denial) => panic!("{denial:?}"),
        }
    }

    #[test]
    fn a_list_is_answered_where_the_backends_would_show_more() {
        let list = |names: &str| format!(r#"{{"models":[{names}]}}"#);
        let a = r#"{"name":"a","model":"a"}"#;
        let both = r#"{"name":"a","model":"a"},{"name":"b","model":"b"}"#;
        let all = [Chat, Read];
        for (permitted, scopes, listed, expected) in [
            (&all[..], &[(M, "*", Read), (M, "*", Chat)][..], None, "passes".to_owned()),
            (&all, &[(M, "*", Read), (M, "*", Chat)], Some(&["b", "a", "x*"][..]), list(both)),
            (&all, &[(M, "*", Read), (M, "a", Chat)], None, list(a)),
            (&all, &[(M, "a", Read), (M, "a", Chat)], None, format!("?{}", list(a))),
            (&all, &[(M, "a", Read), (M, "b", Chat)], Some(&["a"]), format!("?{}", list(""))),
            (&all, &[(M, "xy", Read), (M, "xy", Chat)], Some(&["x*"]), {
                format!("?{}", list(r#"{"name":"xy","model":"xy"}"#))
            }),
            (&all, &[(M, "*", Read), (M, "*", Chat)], Some(&["x*"]), list("")),
            // Without `llm_read`, in scope and role, there is no list.
            (&all, &[(M, "a", Chat)], None, "refused".to_owned()),
            (&all, &[(M, "*", Chat)], Some(&["a"]), "refused".to_owned()),
            (&[Chat], &[(M, "a", Read), (M, "a", Chat)], None, "refused".to_owned()),
            (&[Read], &[(M, "a", Read), (M, "a", Chat)], None, format!("?{}", list(""))),
        ] {
            let principal = principal(permitted, scopes);
            let domain = domain(listed);
            let asked = |form| told(ask(&principal, &domain, form, Entity::None));
            assert_eq!(asked(Some(ListForm::OllamaTags)), expected, "{scopes:?} {listed:?}");
            let reads_all = scopes.contains(&(M, "*", Read)) && permitted.contains(&Read);
            let unmarked = if reads_all { "passes" } else { "refused" };
            assert_eq!(asked(None), unmarked, "{scopes:?} {listed:?}");
            // A request about one model that names none is not answered.
            assert_eq!(asked(Some(ListForm::OpenaiModel)), unmarked, "{scopes:?} {listed:?}");
        }
    }

    #[test]
    fn one_model_is_answered_where_the_list_shows_it() {
        let all = [Chat, Read];
        for (scopes, listed, name, expected) in [
            (&[(M, "*", Read), (M, "*", Chat)][..], None, "a", "passes"),
            (&[(M, "*", Read), (M, "*", Chat)], Some(&["a", "x*"][..]), "a", "answered"),
            (&[(M, "*", Read), (M, "*", Chat)], Some(&["a", "x*"]), "xy", "passes"),
            (&[(M, "*", Read), (M, "*", Chat)], Some(&["a", "x*"]), "b", "refused"),
            (&[(M, "a", Read), (M, "a", Chat)], None, "a", "answered"),
            (&[(M, "a", Read), (M, "a", Chat)], None, "b", "refused"),
            // The token may read about the model, and not use it.
            (&[(M, "a", Read)], None, "a", "passes"),
            (&[(M, "*", Read), (M, "b", Chat)], None, "a", "passes"),
            (&[(M, "a", Chat)], None, "a", "refused"),
            (&[(M, "b", Read), (M, "a", Chat)], None, "a", "refused"),
        ] {
            let principal = principal(&all, scopes);
            let domain = domain(listed);
            let asked = |form| told(ask(&principal, &domain, form, Entity::Named(name)));
            let expected = match expected {
                "answered" => format!(r#"{{"id":"{name}","object":"model"}}"#),
                word => word.to_owned(),
            };
            assert_eq!(asked(Some(ListForm::OpenaiModel)), expected, "{scopes:?} {name}");
        }
    }

    /// A list is answered only after every check that an allow passes.
    #[test]
    fn nothing_is_answered_before_everything_was_checked() {
        let principal = principal(&[Chat, Read], &[(M, "a", Read), (M, "a", Chat)]);
        let asked =
            |domain: &Domain| ask(&principal, domain, Some(ListForm::OllamaPs), Entity::None);
        assert!(matches!(asked(&domain(None)), Ok(Authorized::List(_))));
        let mut disabled = domain(None);
        disabled.enabled = false;
        assert_eq!(asked(&disabled).unwrap_err().refusal, Refusal::PermissionDenied);
        let sealed = Sealed { key_id: "k".into(), bytes: [1].into() };
        let closed = domain(None).with_credentials(vec![("b".into(), sealed)]);
        assert_eq!(asked(&closed).unwrap_err().refusal, Refusal::Unavailable);
    }

    /// Where patgate does not answer yet, the request is permitted only what it is permitted otherwise.
    #[test]
    fn where_the_mode_does_not_enforce_nothing_is_answered() {
        let shadow = Rollout { mode: DomainMode::Shadow, share: Share::ALL };
        let none = Rollout { mode: DomainMode::Enforce, share: Share::new(0).unwrap() };
        for (mode, rollout, answers) in [
            (Mode::Enforce, Rollout::default(), true),
            (Mode::Enforce, shadow, true),
            (Mode::Enforce, none, true),
            (Mode::PerDomain, Rollout::default(), true),
            (Mode::PerDomain, shadow, false),
            (Mode::PerDomain, none, false),
            (Mode::Shadow, Rollout::default(), false),
        ] {
            let domain = domain(Some(&["a"])).with_rollout(rollout);
            for (read, has_permit) in [("*", true), ("a", false)] {
                let principal = principal(&[Chat, Read], &[(M, read, Read), (M, "a", Chat)]);
                let form = Some(ListForm::OpenaiModels);
                let Ok(Authorized::List(listing)) = ask(&principal, &domain, form, Entity::None)
                else {
                    panic!("no list");
                };
                match mode.apply_to_list(listing) {
                    Enforcement::Enforced(_) => assert!(answers, "{mode} {rollout:?}"),
                    Enforcement::Unenforced(unenforced) => {
                        assert!(!answers, "{mode} {rollout:?}");
                        let decision = Decision::Unenforced(unenforced);
                        assert_eq!(
                            (decision.outcome().as_str(), decision.code()),
                            ("answered", "ok")
                        );
                        assert!(!decision.is_enforced() && decision.denial().is_none());
                        assert_eq!(decision.permit().is_some(), has_permit);
                    }
                }
            }
        }
    }
}
