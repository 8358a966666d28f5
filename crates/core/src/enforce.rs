//! Decides whether a verdict of `decide` is enforced, or only recorded. It is pure, like `decide`.
//!
//! An operator who adds patgate to a gateway does not have to close it to all clients at once. In
//! shadow, a request that patgate would answer with 401, 403 or 404, or refuse for its body or for
//! several credentials that differ, passes as it did without patgate: without an identity, without
//! patgate's credentials, with the client's own `authorization`. A ramp then enforces for a share of a
//! domain's tokens, and the operator raises that share step by step.
//!
//! Only [`Mode::apply_to_denial`] and [`Mode::apply_to_list`] make an [`UnenforcedVerdict`]. In doubt
//! they enforce. They always enforce 400 `bad_request` (except for several credentials that differ), 429 and 503,
//! and denials of requests that they cannot attribute to a domain that is known and enabled.

use crate::{
    decide::{Listing, UnansweredList},
    domain::Domain,
    operation::Operation,
    principal::UserId,
    refusal::{Denial, MalformedPart, Refusal},
    rollout::{Mode, Treatment},
    token::TokenId,
    vocabulary::vocabulary,
};

vocabulary! {
    /// What patgate decided about a request, whether or not it is enforced.
    Verdict, "verdict" {
        Allow = "allow",
        Answered = "answered",
        Deny = "deny",
    }
}

/// What the mode makes of a verdict of type `V`.
#[derive(Debug, PartialEq)]
pub enum Enforcement<V> {
    /// patgate acts on the verdict.
    Enforced(V),
    /// patgate only records the verdict, and the request goes on.
    Unenforced(UnenforcedVerdict),
}

/// A verdict that is not enforced: a denial, or a list of models that patgate would answer. Only
/// [`Mode::apply_to_denial`] and [`Mode::apply_to_list`] make one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnenforcedVerdict {
    verdict: Withheld,
    by: Treatment,
}

/// What enforcing would have done.
#[derive(Clone, Debug, PartialEq)]
enum Withheld {
    Denial(Denial),
    List(UnansweredList),
}

impl UnenforcedVerdict {
    /// Returns the denial that enforcing would have made.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Withheld::Denial(denial) => Some(denial),
            Withheld::List(_) => None,
        }
    }

    /// Returns the list that enforcing would have answered.
    pub fn list(&self) -> Option<&UnansweredList> {
        match &self.verdict {
            Withheld::Denial(_) => None,
            Withheld::List(list) => Some(list),
        }
    }

    /// Returns the verdict that is not enforced.
    pub fn outcome(&self) -> Verdict {
        match &self.verdict {
            Withheld::Denial(_) => Verdict::Deny,
            Withheld::List(_) => Verdict::Answered,
        }
    }

    /// Returns the token and its owner, if possession of the token was proven.
    pub fn subject(&self) -> Option<(TokenId, UserId)> {
        match &self.verdict {
            Withheld::Denial(denial) => denial.subject,
            Withheld::List(list) => Some(list.subject()),
        }
    }

    /// Returns the operation of the request, if it is known.
    pub fn operation(&self) -> Option<Operation> {
        match &self.verdict {
            Withheld::Denial(denial) => denial.operation,
            Withheld::List(list) => Some(list.operation()),
        }
    }

    /// Returns the treatment that does not enforce it.
    pub fn by(&self) -> Treatment {
        self.by
    }
}

impl Mode {
    /// Returns whether [`Self::apply_to_denial`] needs the domain that the request names, for a denial
    /// with this refusal.
    pub fn depends_on_domain(self, refusal: Refusal) -> bool {
        self == Self::PerDomain && may_go_unenforced(refusal)
    }

    /// Returns what applies to requests for `domain`; `None` stands for a domain that is not known.
    pub fn treatment(self, domain: Option<&Domain>) -> Treatment {
        match (self, domain) {
            (Self::Shadow, _) => Treatment::Shadow,
            (Self::PerDomain, Some(domain)) => domain.rollout.treatment(),
            (Self::PerDomain, None) | (Self::Enforce, _) => Treatment::Enforce,
        }
    }

    /// Decides whether a denial is enforced. `domain` is the domain that the request names; `None` if it
    /// is not known.
    pub fn apply_to_denial(self, denial: Denial, domain: Option<&Domain>) -> Enforcement<Denial> {
        let by = self.treatment(domain);
        // An administrator disabled the domain on purpose; no mode opens it again.
        let closed = domain.is_some_and(|domain| !domain.enabled);
        let passes = match by {
            Treatment::Enforce => false,
            Treatment::Shadow => may_go_unenforced(denial.refusal),
            Treatment::Ramp => is_beyond_the_share(&denial, domain),
        };
        if passes && !closed {
            Enforcement::Unenforced(UnenforcedVerdict { verdict: Withheld::Denial(denial), by })
        } else {
            Enforcement::Enforced(denial)
        }
    }

    /// Decides whether patgate answers a request for a list of models. If not, the request goes to a
    /// backend, as if patgate never answered lists.
    pub fn apply_to_list(self, listing: Listing<'_>) -> Enforcement<Listing<'_>> {
        let domain = listing.domain();
        let by = self.treatment(Some(domain));
        let answers = match by {
            Treatment::Enforce => true,
            Treatment::Shadow => false,
            Treatment::Ramp => domain.rollout.share.includes(domain.id, listing.token()),
        };
        if answers {
            Enforcement::Enforced(listing)
        } else {
            let verdict = Withheld::List(listing.unanswered());
            Enforcement::Unenforced(UnenforcedVerdict { verdict, by })
        }
    }
}

/// Returns whether a denial may go unenforced: refusals that become 401, 403 or 404, and refusals of a
/// body, which the gateway did not read before patgate came. This includes a compressed body that
/// cannot be decoded now. A request with more than one meaning is refused in any mode, because the
/// backend might read the other meaning. A rate limit is no verdict on a request, and counts only
/// denials that are enforced. In an outage, the verdict is not known.
fn may_go_unenforced(refusal: Refusal) -> bool {
    match refusal {
        Refusal::MissingCredential
        | Refusal::NotAToken(_)
        | Refusal::InvalidToken
        | Refusal::TokenNotYetIssued
        | Refusal::TokenExpired
        | Refusal::TokenRevoked
        | Refusal::OwnerDisabled
        | Refusal::NotFound
        | Refusal::PermissionDenied
        | Refusal::OtherEntity(_)
        | Refusal::NoModel(_)
        // Before patgate came, clients that sent several were served with one of them.
        | Refusal::BadRequest(MalformedPart::Credentials) => true,
        Refusal::BadRequest(_)
        | Refusal::RateLimited
        | Refusal::TooManyBodies
        | Refusal::Unavailable => false,
    }
}

/// Returns whether a ramp lets the request pass. A ramp is for tokens that are live and whose possession
/// was proven, and whose scopes or roles do not suffice. A request that proves nothing is denied.
fn is_beyond_the_share(denial: &Denial, domain: Option<&Domain>) -> bool {
    let insufficient = matches!(
        denial.refusal,
        Refusal::NotFound
            | Refusal::PermissionDenied
            | Refusal::OtherEntity(_)
            | Refusal::NoModel(_)
            | Refusal::BadRequest(MalformedPart::Credentials)
    );
    match (denial.subject, domain) {
        (Some((token, _)), Some(domain)) if insufficient => {
            !domain.rollout.share.includes(domain.id, token)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::{DomainId, Models},
        refusal::{Excess, LimitedBy, NoModel, NotAToken},
        rollout::{DomainMode, Rollout, Share},
    };

    fn token(number: u128) -> TokenId {
        TokenId(Uuid::from_u128(number))
    }

    fn domain(mode: DomainMode, share: u8, enabled: bool) -> Domain {
        let id = DomainId(Uuid::from_u128(1));
        let slug = "acme".parse().unwrap();
        let rollout = Rollout { mode, share: Share::new(share).unwrap() };
        Domain::new(id, slug, enabled, "model-acme".into(), Models::All).with_rollout(rollout)
    }

    fn denial(refusal: Refusal) -> Denial {
        Denial { subject: Some((token(1), UserId(Uuid::from_u128(2)))), ..refusal.into() }
    }

    const REFUSALS: [(Refusal, bool); 21] = [
        (Refusal::BadRequest(MalformedPart::Path), false),
        (Refusal::BadRequest(MalformedPart::TokenInQuery), false),
        (Refusal::BadRequest(MalformedPart::Credentials), true),
        (Refusal::NotAToken(NotAToken::NoScheme), true),
        (Refusal::MissingCredential, true),
        (Refusal::InvalidToken, true),
        (Refusal::TokenNotYetIssued, true),
        (Refusal::TokenExpired, true),
        (Refusal::TokenRevoked, true),
        (Refusal::OwnerDisabled, true),
        (Refusal::NotFound, true),
        (Refusal::PermissionDenied, true),
        (Refusal::OtherEntity(LimitedBy::Scopes), true),
        (Refusal::NoModel(NoModel::Absent), true),
        (Refusal::NoModel(NoModel::Cut), true),
        (Refusal::NoModel(NoModel::TooMuchAtOnce), true),
        (Refusal::NoModel(NoModel::NotInTime), true),
        (Refusal::NoModel(NoModel::Excessive(Excess::Members)), true),
        (Refusal::RateLimited, false),
        (Refusal::TooManyBodies, false),
        (Refusal::Unavailable, false),
    ];

    fn passes(mode: Mode, refusal: Refusal, domain: Option<&Domain>) -> bool {
        matches!(mode.apply_to_denial(denial(refusal), domain), Enforcement::Unenforced(_))
    }

    #[test]
    fn shadow_lets_pass_what_was_decided_and_nothing_else() {
        let open = domain(DomainMode::Enforce, 100, true);
        let shadowed = domain(DomainMode::Shadow, 100, true);
        let closed = domain(DomainMode::Shadow, 100, false);
        for (refusal, passes_in_shadow) in REFUSALS {
            assert_eq!(passes(Mode::Shadow, refusal, None), passes_in_shadow, "{refusal:?}");
            assert_eq!(passes(Mode::Shadow, refusal, Some(&open)), passes_in_shadow, "{refusal:?}");
            assert_eq!(
                passes(Mode::PerDomain, refusal, Some(&shadowed)),
                passes_in_shadow,
                "{refusal:?}"
            );
            assert_eq!(Mode::PerDomain.depends_on_domain(refusal), passes_in_shadow, "{refusal:?}");
            for mode in [Mode::Enforce, Mode::Shadow] {
                assert!(!mode.depends_on_domain(refusal), "{refusal:?}");
                assert!(!passes(mode, refusal, Some(&closed)), "{refusal:?}");
            }
            for enforced in [None, Some(&open), Some(&closed)] {
                assert!(!passes(Mode::PerDomain, refusal, enforced), "{refusal:?}");
            }
            assert!(!passes(Mode::Enforce, refusal, Some(&shadowed)), "{refusal:?}");
        }
    }

    #[test]
    fn a_ramp_lets_pass_only_what_a_live_token_lacks() {
        let none = domain(DomainMode::Enforce, 0, true);
        for (refusal, _) in REFUSALS {
            let insufficient = matches!(
                refusal,
                Refusal::NotFound
                    | Refusal::PermissionDenied
                    | Refusal::OtherEntity(_)
                    | Refusal::NoModel(_)
                    | Refusal::BadRequest(MalformedPart::Credentials)
            );
            assert_eq!(passes(Mode::PerDomain, refusal, Some(&none)), insufficient, "{refusal:?}");
        }
        let nobodys = Denial::from(Refusal::PermissionDenied);
        let enforcement = Mode::PerDomain.apply_to_denial(nobodys, Some(&none));
        assert_eq!(enforcement, Enforcement::Enforced(nobodys));
    }
}
