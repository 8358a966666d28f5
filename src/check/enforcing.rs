//! Makes a decision from a denial: finds the owner of the denied token and the mode that applies,
//! and limits how often a token is denied.

use super::{
    CheckOutcome, Checker, Stores,
    details::{CheckDetails, PendingDenial},
    known_by,
};
use crate::{
    clock::{self, Tick},
    decision::Decision,
    domain::{Domain, DomainRef},
    enforce::Enforcement,
    principal::UserId,
    provenance::Provenance,
    refusal::{Denial, Refusal},
    request::RejectedRequest,
    resolve::Resolved,
    stages::proven_subject,
    telemetry::CheckSpan,
    token::{TokenId, VerifiedToken},
};

impl Checker {
    /// Denies a request that was rejected before any lookup.
    pub(super) async fn reject<'r>(
        &self,
        stores: &Stores,
        rejected: RejectedRequest<'r>,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> (PendingDenial, CheckDetails<'r>) {
        let RejectedRequest { refusal, api_path, api_style, among } = rejected;
        // The ramp's share counts only verified tokens.
        let among = among.filter(|_| self.mode.depends_on_domain(refusal));
        let proven = match &among {
            Some(token) => self.proven(stores, token, started, span).await,
            None => None,
        };
        let (subject, provenance) = proven.unwrap_or_default();
        let refused = PendingDenial::new(Denial { subject, ..refusal.into() }, provenance);
        (refused, CheckDetails::of_rejected(api_path, api_style))
    }

    /// Makes a decision from a denial.
    pub(super) async fn enforce<'r>(
        &self,
        stores: &Stores,
        refused: PendingDenial,
        details: CheckDetails<'r>,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> (CheckOutcome, CheckDetails<'r>) {
        let mut details = CheckDetails { provenance: refused.provenance, ..details };
        let denial = refused.denial;
        let decision =
            if self.mode.depends_on_domain(denial.refusal) && refused.context.domain.is_none() {
                let named = details.named();
                let known = self.named_domain(stores, named.as_ref(), started, span).await;
                if let Some(known) = &known {
                    details.provenance.add(known.provenance());
                }
                // Only for the mode: a denial says nothing about a domain on which it is not based.
                let domain = known.as_ref().and_then(|known| known.found.value.as_deref());
                details.treatment = Some(self.mode.treatment(domain));
                self.apply_mode(denial, domain, started)
            } else {
                self.apply_mode(denial, refused.context.domain.as_deref(), started)
            };
        details.context = refused.context;
        (CheckOutcome::Decided(decision), details)
    }

    /// Applies the mode to a denial. A token that is denied too often must wait. Only enforced
    /// denials count: to its client, a request that passes in a rollout was not denied.
    fn apply_mode(&self, denial: Denial, domain: Option<&Domain>, now: Tick) -> Decision {
        let counts = |refusal| {
            use Refusal::{NoModel, RateLimited, TooManyBodies, Unavailable};
            let busy = matches!(refusal, NoModel(why) if why.kind().is_temporary());
            !busy && !matches!(refusal, RateLimited | TooManyBodies | Unavailable)
        };
        match self.mode.apply_to_denial(denial, domain) {
            Enforcement::Unenforced(unenforced) => Decision::Unenforced(unenforced),
            Enforcement::Enforced(denial)
                if counts(denial.refusal)
                    && let Some((token, _)) = denial.subject
                    && !self.denials.take(token, now) =>
            {
                Decision::Deny(Denial { refusal: Refusal::RateLimited, ..denial })
            }
            Enforcement::Enforced(denial) => Decision::Deny(denial),
        }
    }

    /// Looks up the domain whose mode applies, until the deadline.
    async fn named_domain(
        &self,
        stores: &Stores,
        named: Option<&DomainRef>,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> Option<Resolved<Domain>> {
        let until = started.after(self.deadline);
        let domains = &stores.resolver.domains;
        let known = known_by(until, domains, named?, clock::now(), span).await.ok();
        // Its key may have left the ring meanwhile.
        known.filter(|known| domains.is_in_force(&known.found))
    }

    /// Verifies the token and returns its owner, if that succeeds before the deadline.
    async fn proven(
        &self,
        stores: &Stores,
        token: &VerifiedToken,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> Option<(Option<(TokenId, UserId)>, Provenance)> {
        let until = started.after(self.deadline);
        let principals = &stores.resolver.principals;
        let known = known_by(until, principals, &token.id(), started, span).await.ok()?;
        // A key may have left the ring meanwhile.
        if !self.tokens.still_verify(token) || !principals.is_in_force(&known.found) {
            return None;
        }
        let principal = known.found.value.as_deref();
        let now = stores.clock.now(known.at);
        let proven = now.and_then(|now| proven_subject(token, principal, now));
        Some((proven, known.provenance()))
    }
}
