//! Whether a denial is carried out, or only recorded: enforcing, shadowing, and what lies between.
//!
//! A gateway that has served without patgate is not closed to everybody at once. In shadow, what
//! would have been a 401, 403 or 404, or a refusal of a body or of several credentials that differ,
//! passes as what it was before patgate came: without identity, without credentials of ours, with the
//! client's own `authorization`. A ramp then enforces for a share of a domain's tokens, and for more
//! of them by and by.
//!
//! [`Mode::rule`] and [`Mode::rule_on_list`] alone make a [`Softened`]. Whatever they are not sure
//! of, they enforce: always 400 `bad_request` (except for several credentials that differ), 429 and
//! 503, and what they cannot attribute to a domain that is known and in use.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{
    decide::{Listing, Unanswered},
    decision::{Decision, Denial, Malformed, Refusal},
    domain::{Domain, DomainId},
    operation::{Operation, vocabulary},
    percent,
    principal::UserId,
    token::TokenId,
};

vocabulary! {
    /// Whose denials are carried out, by the configuration of a replica.
    Mode, "mode" {
        Enforce = "enforce",
        PerDomain = "per-domain",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// A domain's own setting, which counts where the configuration says `per-domain`.
    DomainMode, "mode of a domain" {
        Enforce = "enforce",
        Shadow = "shadow",
    }
}

vocabulary! {
    /// What applied to one request.
    Treatment, "treatment" {
        Enforce = "enforce",
        Shadow = "shadow",
        Ramp = "ramp",
    }
}

/// How far patgate is enforced in a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rollout {
    /// For everybody.
    pub mode: DomainMode,
    /// Of the tokens, where the mode is to enforce.
    pub share: Share,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { mode: DomainMode::Enforce, share: Share::ALL }
    }
}

impl Rollout {
    /// What it means for a request.
    pub fn treatment(self) -> Treatment {
        match self.mode {
            DomainMode::Shadow => Treatment::Shadow,
            DomainMode::Enforce if self.share == Share::ALL => Treatment::Enforce,
            DomainMode::Enforce => Treatment::Ramp,
        }
    }
}

/// Per cent of a domain's tokens.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Share(u8);

/// A text that is no share.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole percentage from `0%` to `100%`")]
pub struct ShareError;

impl Share {
    /// Every token.
    pub const ALL: Self = Self(100);

    /// Nothing where there is no such share.
    pub fn new(percent: u8) -> Option<Self> {
        (percent <= Self::ALL.0).then_some(Self(percent))
    }

    /// From 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// Whether a token is among those. It has one place in each domain for good: a larger share
    /// has all that a smaller one has, and no replica sees it otherwise. The places differ from
    /// domain to domain, so that not the same tokens come first everywhere.
    pub fn includes(self, domain: DomainId, token: TokenId) -> bool {
        let hash = Sha256::new_with_prefix(b"patgate ramp\0")
            .chain_update(domain.0)
            .chain_update(token.0)
            .finalize();
        let place = hash.iter().take(8).fold(0u64, |place, byte| place << 8 | u64::from(*byte));
        // Below the share of all the places that there are.
        u128::from(place) * 100 < u128::from(self.0) << 64
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        percent::number(text).and_then(Self::new).ok_or(ShareError)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A verdict that is not carried out: a denial, or a list of models that patgate would answer.
/// Nothing but [`Mode::rule`] and [`Mode::rule_on_list`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Softened {
    verdict: Verdict,
    by: Treatment,
}

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Denial(Denial),
    List(Unanswered),
}

impl Softened {
    /// What enforcing would have refused.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.verdict {
            Verdict::Denial(denial) => Some(denial),
            Verdict::List(_) => None,
        }
    }

    /// What patgate would have answered when enforcing.
    pub fn list(&self) -> Option<&Unanswered> {
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

    /// Why it was not.
    pub fn by(&self) -> Treatment {
        self.by
    }
}

impl Mode {
    /// Whether it takes the domain that a request names to rule on a denial of this kind.
    pub(crate) fn depends_on_domain(self, refusal: Refusal) -> bool {
        self == Self::PerDomain && softenable(refusal)
    }

    /// What applies to requests for `domain`, as far as it is known.
    pub fn treatment(self, domain: Option<&Domain>) -> Treatment {
        match (self, domain) {
            (Self::Shadow, _) => Treatment::Shadow,
            (Self::PerDomain, Some(domain)) => domain.rollout.treatment(),
            (Self::PerDomain, None) | (Self::Enforce, _) => Treatment::Enforce,
        }
    }

    /// Carries a denial out, or lets it pass: the one place that knows. `domain` is the one that
    /// the request names, as far as it is known.
    pub fn rule(self, denial: Denial, domain: Option<&Domain>) -> Decision {
        let by = self.treatment(domain);
        // A domain is disabled on purpose; no mode opens it again.
        let closed = domain.is_some_and(|domain| !domain.enabled);
        let passes = match by {
            Treatment::Enforce => false,
            Treatment::Shadow => softenable(denial.refusal),
            Treatment::Ramp => beyond_the_share(&denial, domain),
        };
        match passes && !closed {
            true => Decision::Pass(Softened { verdict: Verdict::Denial(denial), by }),
            false => Decision::Deny(denial),
        }
    }

    /// Has patgate answer a list of models, or lets the request go on to a backend as if
    /// patgate never answered.
    ///
    /// # Errors
    ///
    /// The decision that lets it go on, where the mode does not enforce.
    pub fn rule_on_list<'p>(self, listing: Listing<'p>) -> Result<Listing<'p>, Box<Decision>> {
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
        let verdict = Verdict::List(listing.unanswered());
        Err(Box::new(Decision::Pass(Softened { verdict, by })))
    }
}

/// What stands for 401, 403 and 404, and what is said about a body, which nobody read before: also
/// that a compressed one cannot be decoded now. A request with more than one meaning is refused in
/// any mode: whoever is behind might read the other one. A rate limit is no verdict on a request, and
/// counts no denial that is not carried out. And nobody knows what an outage would have been.
fn softenable(refusal: Refusal) -> bool {
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
        | Refusal::BadRequest(Malformed::Credentials) => true,
        Refusal::BadRequest(_)
        | Refusal::RateLimited
        | Refusal::TooManyBodies
        | Refusal::Unavailable => false,
    }
}

/// A ramp is for tokens that are alive and were proven, and whose scopes or roles do not suffice:
/// whatever proves nothing has no place in it.
fn beyond_the_share(denial: &Denial, domain: Option<&Domain>) -> bool {
    let insufficient = matches!(
        denial.refusal,
        Refusal::NotFound
            | Refusal::PermissionDenied
            | Refusal::OtherEntity(_)
            | Refusal::NoModel(_)
            | Refusal::BadRequest(Malformed::Credentials)
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
        decision::{Excess, Limit, NoModel, NotAToken},
        principal::UserId,
    };

    const TOKENS: u128 = 10_000;

    fn token(number: u128) -> TokenId {
        TokenId(Uuid::from_u128(number))
    }

    fn domain(mode: DomainMode, share: u8, enabled: bool) -> Domain {
        let (id, slug) = (DomainId(Uuid::from_u128(1)), "acme".parse().unwrap());
        let rollout = Rollout { mode, share: Share::new(share).unwrap() };
        Domain::new(id, slug, enabled, "model-acme".into(), crate::domain::Models::All)
            .with_rollout(rollout)
    }

    fn denial(refusal: Refusal) -> Denial {
        Denial { subject: Some((token(1), UserId(Uuid::from_u128(2)))), ..refusal.into() }
    }

    const REFUSALS: [(Refusal, bool); 21] = [
        (Refusal::BadRequest(Malformed::Path), false),
        (Refusal::BadRequest(Malformed::TokenInQuery), false),
        (Refusal::BadRequest(Malformed::Credentials), true),
        (Refusal::NotAToken(NotAToken::NoScheme), true),
        (Refusal::MissingCredential, true),
        (Refusal::InvalidToken, true),
        (Refusal::TokenNotYetIssued, true),
        (Refusal::TokenExpired, true),
        (Refusal::TokenRevoked, true),
        (Refusal::OwnerDisabled, true),
        (Refusal::NotFound, true),
        (Refusal::PermissionDenied, true),
        (Refusal::OtherEntity(Limit::Scopes), true),
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
        matches!(mode.rule(denial(refusal), domain), Decision::Pass(_))
    }

    #[test]
    fn shadow_lets_pass_what_was_decided_and_nothing_else() {
        let open = domain(DomainMode::Enforce, 100, true);
        let shadowed = domain(DomainMode::Shadow, 100, true);
        let closed = domain(DomainMode::Shadow, 100, false);
        for (refusal, softens) in REFUSALS {
            assert_eq!(passes(Mode::Shadow, refusal, None), softens, "{refusal:?}");
            assert_eq!(passes(Mode::Shadow, refusal, Some(&open)), softens, "{refusal:?}");
            assert_eq!(passes(Mode::PerDomain, refusal, Some(&shadowed)), softens, "{refusal:?}");
            assert_eq!(Mode::PerDomain.depends_on_domain(refusal), softens, "{refusal:?}");
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
    fn a_ramp_softens_only_what_a_live_token_lacks() {
        let none = domain(DomainMode::Enforce, 0, true);
        for (refusal, _) in REFUSALS {
            let insufficient = matches!(
                refusal,
                Refusal::NotFound
                    | Refusal::PermissionDenied
                    | Refusal::OtherEntity(_)
                    | Refusal::NoModel(_)
                    | Refusal::BadRequest(Malformed::Credentials)
            );
            assert_eq!(passes(Mode::PerDomain, refusal, Some(&none)), insufficient, "{refusal:?}");
        }
        let nobodys = Mode::PerDomain.rule(Refusal::PermissionDenied.into(), Some(&none));
        assert_eq!(nobodys, Decision::Deny(Refusal::PermissionDenied.into()));
    }

    #[test]
    fn a_larger_share_has_all_that_a_smaller_one_has() {
        let domain = DomainId(Uuid::from_u128(1));
        for number in 0..TOKENS / 10 {
            let shares = (0..=100).map(|percent| Share(percent).includes(domain, token(number)));
            let shares: Vec<bool> = shares.collect();
            assert!(shares.is_sorted() && !shares[0] && shares[100], "{number}");
        }
    }

    /// Within five standard deviations of a fair draw.
    #[test]
    fn a_share_is_what_it_says_and_differs_from_domain_to_domain() {
        let count = |what: &dyn Fn(TokenId) -> bool| {
            (0..TOKENS).filter(|number| what(token(*number))).count() as f64
        };
        let fair = |counted: f64, p: f64| {
            let expected = TOKENS as f64 * p;
            (counted - expected).abs() <= 5.0 * (expected * (1.0 - p)).sqrt()
        };
        let domains = [1, 2].map(|number| DomainId(Uuid::from_u128(number)));
        for percent in [1, 30, 50, 99] {
            let (share, p) = (Share(percent), f64::from(percent) / 100.0);
            for domain in domains {
                let counted = count(&|token| share.includes(domain, token));
                assert!(fair(counted, p), "{percent}: {counted}");
            }
            let both = count(&|token| domains.iter().all(|domain| share.includes(*domain, token)));
            assert!(fair(both, p * p), "{percent}: {both} in both");
        }
    }

    #[test]
    fn reads_percentages_and_nothing_else() {
        for (text, percent) in [("0%", 0), ("30%", 30), ("100%", 100)] {
            assert_eq!(text.parse(), Ok(Share(percent)), "{text}");
        }
        assert_eq!(Share(30).to_string(), "30%");
        for text in ["", "%", "30", "101%", "-1%", "+1%", "1.5%", "30%%", " 30%", "thirty"] {
            assert_eq!(text.parse::<Share>(), Err(ShareError), "{text}");
        }
    }
}
