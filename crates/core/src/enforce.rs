//! Whether a verdict is enforced, or only recorded. Pure, like `decide`, whose verdicts it takes.
//!
//! A gateway that has served without patgate is not closed to all clients at once. In shadow, a
//! request that would have been answered with 401, 403 or 404, or refused for its body or for several
//! credentials that differ, passes as it did before patgate came: without identity, without
//! credentials of ours, with the client's own `authorization`. A ramp then enforces for a share of a
//! domain's tokens, and the operator raises that share step by step.
//!
//! [`Mode::rule`] and [`Mode::rule_on_list`] alone make an [`UnenforcedVerdict`]. In doubt they
//! enforce: always 400 `bad_request` (except for several credentials that differ), 429 and 503, and
//! verdicts on requests that they cannot attribute to a domain that is known and enabled.

use crate::{
    decide::{Listing, UnansweredList},
    domain::Domain,
    operation::Operation,
    principal::UserId,
    refusal::{Denial, MalformedPart, Refusal},
    rollout::{Mode, Treatment},
    token::TokenId,
};

/// A verdict that is not enforced: a denial, or a list of models that patgate would answer. Only
/// [`Mode::rule`] and [`Mode::rule_on_list`] make one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnenforcedVerdict {
    verdict: Verdict,
    by: Treatment,
}

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Denial(Denial),
    List(UnansweredList),
}

impl UnenforcedVerdict {
    /// What enforcing would have refused.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Verdict::Denial(denial) => Some(denial),
            Verdict::List(_) => None,
        }
    }

    /// What patgate would have answered when enforcing.
    pub fn list(&self) -> Option<&UnansweredList> {
        match &self.verdict {
            Verdict::Denial(_) => None,
            Verdict::List(list) => Some(list),
        }
    }

    /// The verdict in a word.
    pub fn outcome(&self) -> &'static str {
        match &self.verdict {
            Verdict::Denial(_) => "deny",
            Verdict::List(_) => "answered",
        }
    }

    /// The token and its owner, once possession of the token was proven.
    pub fn subject(&self) -> Option<(TokenId, UserId)> {
        match &self.verdict {
            Verdict::Denial(denial) => denial.subject,
            Verdict::List(list) => Some(list.subject()),
        }
    }

    /// What the request would have done, as far as it is known.
    pub fn operation(&self) -> Option<Operation> {
        match &self.verdict {
            Verdict::Denial(denial) => denial.operation,
            Verdict::List(list) => Some(list.operation()),
        }
    }

    /// The treatment because of which it was not enforced.
    pub fn by(&self) -> Treatment {
        self.by
    }
}

impl Mode {
    /// Whether [`Self::rule`] needs the domain that the request names, for a denial of this kind.
    pub fn depends_on_domain(self, refusal: Refusal) -> bool {
        self == Self::PerDomain && may_go_unenforced(refusal)
    }

    /// What applies to requests for `domain`, as far as it is known.
    pub fn treatment(self, domain: Option<&Domain>) -> Treatment {
        match (self, domain) {
            (Self::Shadow, _) => Treatment::Shadow,
            (Self::PerDomain, Some(domain)) => domain.rollout.treatment(),
            (Self::PerDomain, None) | (Self::Enforce, _) => Treatment::Enforce,
        }
    }

    /// Says whether a denial is enforced: the one place that knows. `domain` is the one that the
    /// request names, as far as it is known.
    ///
    /// # Errors
    ///
    /// The denial, if it is enforced.
    pub fn rule(
        self,
        denial: Denial,
        domain: Option<&Domain>,
    ) -> Result<UnenforcedVerdict, Denial> {
        let by = self.treatment(domain);
        // An administrator disabled the domain on purpose; no mode opens it again.
        let closed = domain.is_some_and(|domain| !domain.enabled);
        let passes = match by {
            Treatment::Enforce => false,
            Treatment::Shadow => may_go_unenforced(denial.refusal),
            Treatment::Ramp => is_beyond_the_share(&denial, domain),
        };
        if passes && !closed {
            Ok(UnenforcedVerdict { verdict: Verdict::Denial(denial), by })
        } else {
            Err(denial)
        }
    }

    /// Lets patgate answer a list of models, or lets the request go on to a backend as if patgate
    /// never answered lists.
    ///
    /// # Errors
    ///
    /// The verdict that lets it go on, if the mode does not enforce.
    pub fn rule_on_list(self, listing: Listing<'_>) -> Result<Listing<'_>, Box<UnenforcedVerdict>> {
        let domain = listing.domain();
        let by = self.treatment(Some(domain));
        let answers = match by {
            Treatment::Enforce => true,
            Treatment::Shadow => false,
            Treatment::Ramp => domain.rollout.share.includes(domain.id, listing.token()),
        };
        if answers {
            return Ok(listing);
        }
        Err(Box::new(UnenforcedVerdict { verdict: Verdict::List(listing.unanswered()), by }))
    }
}

/// Refusals that become 401, 403 or 404, and those of a body, which was not read before patgate came:
/// also that a compressed one cannot be decoded now. A request with more than one meaning is refused
/// in any mode, because the backend might read the other one. A rate limit is no verdict on a request,
/// and counts only denials that are enforced. And of an outage, the verdict is not known.
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
        // Clients that sent several before patgate came were served by one of them.
        | Refusal::BadRequest(MalformedPart::Credentials) => true,
        Refusal::BadRequest(_)
        | Refusal::RateLimited
        | Refusal::TooManyBodies
        | Refusal::Unavailable => false,
    }
}

/// A ramp is for tokens that are alive and were proven, and whose scopes or roles do not suffice. A
/// request that proves nothing has no place in it.
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
        let (id, slug) = (DomainId(Uuid::from_u128(1)), "acme".parse().unwrap());
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
        mode.rule(denial(refusal), domain).is_ok()
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
        let nobodys = Mode::PerDomain.rule(Refusal::PermissionDenied.into(), Some(&none));
        assert_eq!(nobodys, Err(Refusal::PermissionDenied.into()));
    }
}
