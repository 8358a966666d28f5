//! The conditions on the request itself: its path, its API, its token, and its rule.

use super::{
    Evidence, Failed, Walk, failed,
    words::{list, misspelt, moment},
};
use crate::{
    api::{MatchedRule, Method},
    explain::{Arrival, arrival},
    principal::Principal,
    refusal::{MalformedPart, Refusal},
    request::{self, AuthRequest, without_query},
};

impl<'e> Walk<'e> {
    fn path_alone(&self) -> &'e str {
        without_query(self.evidence.target)
    }

    pub(super) fn path(&mut self) -> Result<(), Failed> {
        let refused = self.refusal == Some(Refusal::BadRequest(MalformedPart::Path));
        if let Some(found) = request::misspelling(self.evidence.target).filter(|_| refused) {
            let detail = format!("not in canonical form: {}", misspelt(found));
            let nearest = match arrival(self.evidence.target) {
                Arrival::Unchanged => None,
                Arrival::Rewritten(target) => Some(format!(
                    "the shipped Envoy merges slashes, resolves `.` and `..`, and decodes what needs \
                     no escape, before it asks: give the path after that, `{}`",
                    without_query(&target)
                )),
                Arrival::Refused => Some(
                    "the shipped Envoy itself refuses such a path, with 400 and \
                     `path_not_accepted`, and does not ask"
                        .to_owned(),
                ),
            };
            return failed("path", detail, nearest);
        }
        self.passed("path", "in canonical form, apart from the query");
        if self.evidence.authority.contains(',') {
            return failed("host", "a comma: more than one value of Host", None);
        }
        Ok(())
    }

    pub(super) fn api(&mut self) {
        let Evidence { apis, authority, .. } = *self.evidence;
        let served = match apis.find(authority, self.path_alone()) {
            Some(api) => format!("`{}`", api.name()),
            None => "belongs to no API, by host and path".to_owned(),
        };
        self.passed("api", served);
    }

    /// Explains why a credential was not accepted.
    pub(super) fn credential(&self) -> Result<(), Failed> {
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

    pub(super) fn proven(&mut self, request: &AuthRequest<'_>) {
        let id = request.token().id();
        let how = match self.evidence.presumed {
            true => format!("possession of token {id} is presumed, because only its id was given"),
            false => format!("token {id}, with the right tag and secret"),
        };
        self.passed("credential", how);
    }

    pub(super) fn state(&mut self, principal: &Principal) -> Result<(), Failed> {
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

    pub(super) fn rule(
        &mut self,
        request: &'e AuthRequest<'e>,
    ) -> Result<&'e MatchedRule<'e>, Failed> {
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
}
