//! Decides. Pure: no I/O, no clock, no cache.

mod listing;
mod permit;

use std::sync::Arc;

pub use self::{
    listing::{AnsweredList, Listing, UnansweredList},
    permit::Permit,
};
use crate::{
    api::{Action, Entity},
    backend::{Backend, UnopenedCredential},
    body::BodyForm,
    clock::Moment,
    domain::{Domain, DomainRef},
    model_list::{ListForm, UsableModels},
    operation::{EntityType, Operation},
    principal::{DomainGrants, Principal, UserId},
    refusal::{Denial, LimitedBy, NoModel, Refusal},
    token::{TokenId, VerifiedToken},
    vocabulary::vocabulary,
};

vocabulary! {
    /// When the model of a call is read from its body.
    ModelReading, "reading of models" {
        WhenNeeded = "when-needed",
        Always = "always",
    }
}

/// By how much Postgres's clock may be behind the one by which a token was issued: that of another
/// server, before a fail-over. In microseconds.
const ISSUE_LEEWAY: i64 = 60_000_000;

/// Is this token good, now? `principal` is what the store knows under the token's id.
///
/// That a token has expired, was revoked or belongs to a disabled owner is told only to somebody
/// who proved possession of it.
///
/// # Errors
///
/// A refusal of the credential.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
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
    } else if principal.issued_at.0 > now.0.saturating_add(ISSUE_LEEWAY) {
        // `now` is at least what Postgres's clock shows, so no delay explains it.
        Refusal::TokenNotYetIssued
    } else if now >= principal.expires_at {
        Refusal::TokenExpired
    } else if !principal.owner_enabled {
        Refusal::OwnerDisabled
    } else {
        return Ok(principal);
    };
    Err(Denial { subject: Some((principal.token, principal.owner)), ..refusal.into() })
}

/// The rule that the request falls under, and the domain that must be looked up to decide: the one
/// that the request names, which is given beside its rule.
///
/// # Errors
///
/// `NotFound` when no rule names the request, `PermissionDenied` when no scope of the token names
/// the domain.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub fn domain_of<'r>(
    principal: &Principal,
    action: Option<&'r Action<'r>>,
    named: Option<&'r DomainRef>,
) -> Result<(&'r Action<'r>, &'r DomainRef), Denial> {
    let Some(action) = action else {
        return Err(Denial { refusal: Refusal::NotFound, ..denied(principal, None) });
    };
    let named = named.filter(|reference| principal.names(reference));
    Ok((action, named.ok_or_else(|| denied(principal, Some(action)))?))
}

/// What is permitted.
#[derive(Debug, PartialEq)]
pub enum Authorized<'p> {
    /// The request passes.
    Permit(Permit),
    /// The request is answered by patgate, because it is for models that token or domain are limited
    /// to. The mode decides whether it already is.
    List(Listing<'p>),
}

/// How far the decision about an authenticated request has come.
#[derive(Debug, PartialEq)]
pub enum AuthorizationProgress<'p, 's> {
    /// It is permitted.
    Authorized(Authorized<'p>),
    /// All but the model permits it, and its body names the model.
    NeedsModel(NeedsModel<'p, 's>),
}

/// May this authenticated principal do this in this domain?
///
/// The model that the body names is needed only if the answer depends on it: if the token's scopes
/// name particular models, or the domain lists its models, or it is to be read from every call.
///
/// `own` is the backend that the rule or its table names, if one does: then address and credential
/// both come from it, and otherwise both from the domain.
///
/// # Errors
///
/// `PermissionDenied`, alike for a domain that is unknown, disabled or out of reach; `OtherEntity`
/// if the operation is permitted on others. `Unavailable` if the backend has a credential that
/// cannot be opened, or is named by the table and does not exist.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub fn authorize<'p, 's>(
    principal: &'p Principal,
    action: &'s Action<'s>,
    domain: Option<&'s Arc<Domain>>,
    own: Option<&'s Backend>,
    reading: ModelReading,
) -> Result<AuthorizationProgress<'p, 's>, Denial> {
    let denied = || denied(principal, Some(action));
    let (operation, on) = (action.operation, action.entity_type);
    let (domain, grants) = domain
        .filter(|domain| domain.enabled)
        .and_then(|domain| Some((domain, principal.grants_in(domain.id)?)))
        .filter(|(_, grants)| grants.permits(operation))
        .ok_or_else(denied)?;
    let every = grants.scoped(operation, on, None);
    let permitted = Permitted { principal, action, domain, grants, own, every };
    let entity = match action.entity {
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
            return Ok(AuthorizationProgress::NeedsModel(NeedsModel { permitted, form }));
        }
    };
    permitted.authorize(entity).map(AuthorizationProgress::Authorized)
}

/// A request whose operation the owner's roles permit in its domain. Scopes are still to be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Permitted<'p, 's> {
    principal: &'p Principal,
    action: &'s Action<'s>,
    domain: &'s Arc<Domain>,
    grants: &'p DomainGrants,
    /// The backend that the rule or its table names.
    own: Option<&'s Backend>,
    /// Whether a scope covers every entity of the type.
    every: bool,
}

impl<'p> Permitted<'p, '_> {
    /// Authorizes a request about one entity, or about none in particular.
    #[inline(always)] // Once for each of the two callers, as parts of what is counted there.
    fn authorize(self, entity: Option<&str>) -> Result<Authorized<'p>, Denial> {
        let Self { principal, action, domain, grants, own, every } = self;
        let (operation, on) = (action.operation, action.entity_type);
        let denied = || denied(principal, Some(action));
        let another = |limit| Denial { refusal: Refusal::OtherEntity(limit), ..denied() };
        let form =
            action.answer.filter(|form| answers(*form, UsableModels::new(grants, domain), entity));
        let whole = every || grants.scoped(operation, on, entity);
        let some = grants.scoped_to_some(operation, on);
        if !whole {
            match entity {
                // A list that patgate makes shows no more than scopes name.
                None if some && form.is_some() => {}
                Some(_) if some => return Err(another(LimitedBy::Scopes)),
                None | Some(_) => return Err(denied()),
            }
        }
        let model = entity.filter(|_| on == EntityType::Models);
        // Whether the domain may see the model is asked wherever the request then goes.
        let of_domain = domain.upstream_for(model).ok_or_else(|| another(LimitedBy::Domain))?;
        let unavailable = |UnopenedCredential| Denial { refusal: Refusal::Unavailable, ..denied() };
        let (upstream, credential) = match action.upstream {
            None => (of_domain, domain.credential_for(of_domain)),
            // Never the domain's in its place: that has another credential.
            Some(name) => {
                let own = own.filter(|backend| backend.name() == name.as_str());
                (name.as_str(), own.ok_or(UnopenedCredential).and_then(Backend::credential))
            }
        };
        let permit = Permit {
            token: principal.token,
            owner: principal.owner,
            domain: Arc::clone(domain),
            operation,
            model: model.map(Box::from),
            upstream: upstream.into(),
            credential: credential.map_err(unavailable)?.cloned(),
        };
        Ok(match form {
            None => Authorized::Permit(permit),
            Some(form) => Authorized::List(Listing::new(permit, grants, form, whole)),
        })
    }
}

/// A request that nothing speaks against yet, whose model has to be read from its body. It is no
/// permit, and becomes one only with the model. Made by [`authorize`] alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeedsModel<'p, 's> {
    permitted: Permitted<'p, 's>,
    form: BodyForm,
}

impl<'p> NeedsModel<'p, '_> {
    /// Whose token was shown.
    pub fn owner(&self) -> UserId {
        self.permitted.principal.owner
    }

    /// How the body names the model.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// Authorizes the request with what reading its body found. The caller keeps the name, so that
    /// the body is not read again for a log.
    ///
    /// # Errors
    ///
    /// As [`authorize`], or `NoModel`.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    pub fn with(self, model: Result<&str, NoModel>) -> Result<Authorized<'p>, Denial> {
        match model {
            Ok(model) => self.permitted.authorize(Some(model)),
            Err(why) => Err(self.refused(why.into())),
        }
    }

    /// Ends a first step, whose gateway is asked for the body.
    pub fn await_body(&self) -> AwaitsBody {
        let Permitted { principal, action, .. } = self.permitted;
        let Principal { token, owner, .. } = *principal;
        AwaitsBody { token, owner, operation: action.operation, form: self.form }
    }

    /// Refuses the request for another reason than its model.
    pub fn refused(&self, refusal: Refusal) -> Denial {
        let Permitted { principal, action, .. } = self.permitted;
        Denial { refusal, ..denied(principal, Some(action)) }
    }
}

/// Whether patgate answers a request in this form itself: for what token or domain are limited to,
/// and of one model, if it is known by name.
fn answers(form: ListForm, usable: UsableModels<'_>, entity: Option<&str>) -> bool {
    match (form.is_of_one(), entity) {
        (false, None) => usable.is_limited(),
        (true, Some(model)) => usable.is_limited() && usable.has(model),
        (false, Some(_)) | (true, None) => false,
    }
}

/// A request that ends a first step: its model has to be read from its body. Nothing can be made of
/// it but the question for the body, or a denial. Made by [`NeedsModel::await_body`] alone.
#[derive(Debug, PartialEq)]
pub struct AwaitsBody {
    token: TokenId,
    owner: UserId,
    operation: Operation,
    form: BodyForm,
}

impl AwaitsBody {
    /// Whose body it is.
    pub fn token(&self) -> TokenId {
        self.token
    }

    /// How the body names the model.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// A denial of the same request after all.
    pub fn refused(&self, refusal: Refusal) -> Denial {
        let subject = Some((self.token, self.owner));
        Denial { refusal, subject, operation: Some(self.operation) }
    }
}

fn denied(principal: &Principal, action: Option<&Action<'_>>) -> Denial {
    Denial {
        refusal: Refusal::PermissionDenied,
        subject: Some((principal.token, principal.owner)),
        operation: action.map(|action| action.operation),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        backend::BackendName,
        credential::{Credential, CredentialScheme, Sealed},
        domain::{DomainId, Slug},
        keyring::KeyRing,
        operation::OperationSet,
        principal::DomainGrants,
        token::{Prefixes, TokenDigest, Tokens},
    };

    const ID: TokenId = TokenId(Uuid::from_u128(7));

    fn token() -> VerifiedToken {
        let ring = KeyRing::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let tokens = Tokens::new(Prefixes::default(), ring);
        tokens.verify(tokens.mint(ID).unwrap().plain.expose()).unwrap()
    }

    fn check(change: impl FnOnce(&mut Principal), now: i64, expected: Option<Refusal>) {
        let token = token();
        let (owner, life) = (UserId(Uuid::from_u128(8)), Moment(0)..Moment(1000));
        let mut principal =
            Principal::new(ID, token.digest.clone(), life, false, owner, true, Vec::new());
        change(&mut principal);
        let outcome = authenticate(&token, Some(&principal), Moment(now));
        assert_eq!(outcome.err().map(|denial| denial.refusal), expected);
    }

    #[test]
    fn a_token_is_good_until_its_last_microsecond() {
        check(|_| {}, 999, None);
        check(|_| {}, 1000, Some(Refusal::TokenExpired));
        check(|_| {}, 1001, Some(Refusal::TokenExpired));
    }

    #[test]
    fn the_secret_comes_first() {
        let other = |p: &mut Principal| p.digest = TokenDigest::from_bytes([0; 32]);
        check(other, 999, Some(Refusal::InvalidToken));
        check(
            |p| {
                other(p);
                p.revoked = true
            },
            2000,
            Some(Refusal::InvalidToken),
        );
        check(|p| p.token = TokenId(Uuid::from_u128(9)), 999, Some(Refusal::InvalidToken));
        assert_eq!(authenticate(&token(), None, Moment(0)), Err(Refusal::InvalidToken.into()));
    }

    /// Address and credential come from one backend, and what does not exist has no substitute.
    #[test]
    fn a_backend_that_the_table_names_is_the_whole_answer() {
        let domain = DomainId(Uuid::from_u128(1));
        let slug: Slug = "acme".parse().unwrap();
        let mut grants =
            DomainGrants::new(domain, slug.clone(), OperationSet::from_iter([Operation::Read]));
        grants.add_scope(EntityType::Scim, "*", Operation::Read);
        let owner = UserId(Uuid::from_u128(8));
        let digest = TokenDigest::from_bytes([0; 32]);
        let principal =
            Principal::new(ID, digest, Moment(0)..Moment(1), false, owner, true, vec![grants]);
        let key = |text: &str| Credential::new(CredentialScheme::Bearer, text).unwrap();
        let sealed = || Sealed { key_id: "k".into(), bytes: [1].into() };
        let opened = |name: &str, text: &str| {
            let backend = Backend::new(name.into(), Some(sealed()));
            backend.open_credential(|_, _| Some(key(text)));
            backend
        };
        let domain =
            Domain::new(domain, slug, true, "of-domain".into(), crate::domain::Models::All);
        let domain = domain.with_credentials(vec![("of-domain".into(), sealed())]);
        domain.open_credentials(|_, _| Some(key("domain")));
        let domain = Arc::new(domain);
        let decide = |upstream: Option<&BackendName>, own: Option<&Backend>, operation| {
            let action = Action {
                domain: "acme".into(),
                operation,
                entity_type: EntityType::Scim,
                entity: Entity::None,
                upstream,
                answer: None,
            };
            match authorize(&principal, &action, Some(&domain), own, ModelReading::WhenNeeded) {
                Ok(AuthorizationProgress::Authorized(Authorized::Permit(permit))) => {
                    Ok((permit.upstream.into_string(), permit.credential))
                }
                Ok(other) => panic!("{other:?}"),
                Err(denial) => Err(denial.refusal),
            }
        };
        let (name, read) = ("own".parse().unwrap(), Operation::Read);
        let of_domain = Ok(("of-domain".to_owned(), Some(key("domain"))));
        let own = opened("own", "own");
        assert_eq!(decide(None, None, read), of_domain);
        // One that nobody asked for changes nothing.
        assert_eq!(decide(None, Some(&own), read), of_domain);
        assert_eq!(decide(Some(&name), Some(&own), read), Ok(("own".to_owned(), Some(key("own")))));
        let bare = Backend::new("own".into(), None);
        assert_eq!(decide(Some(&name), Some(&bare), read), Ok(("own".to_owned(), None)));
        let closed = Backend::new("own".into(), Some(sealed()));
        for none in [None, Some(&closed), Some(&opened("another", "another"))] {
            assert_eq!(decide(Some(&name), none, read), Err(Refusal::Unavailable), "{none:?}");
            // A client that may not do this learns nothing of it.
            let refused = Err(Refusal::PermissionDenied);
            assert_eq!(decide(Some(&name), none, Operation::Delete), refused);
        }
    }

    #[test]
    fn a_token_of_the_future_is_refused() {
        let issued = |at: i64| move |p: &mut Principal| p.issued_at = Moment(at);
        let refused = Some(Refusal::TokenNotYetIssued);
        check(issued(999), 999, None);
        check(issued(999 + ISSUE_LEEWAY), 999, None);
        check(issued(1000 + ISSUE_LEEWAY), 999, refused);
        check(issued(i64::MAX), 999, refused);
        check(issued(i64::MIN), 999, None);
    }

    #[test]
    fn one_reason_at_a_time() {
        check(|p| p.revoked = true, 2000, Some(Refusal::TokenRevoked));
        check(|p| p.owner_enabled = false, 2000, Some(Refusal::TokenExpired));
        check(|p| p.owner_enabled = false, 999, Some(Refusal::OwnerDisabled));
    }
}
