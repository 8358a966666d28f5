//! What is done about a request, whichever edge it came by: parse → resolve → decide → record.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::poll;
use tokio::time::timeout;

use crate::{
    api::{Apis, Manner},
    clock::{Clock, Tick},
    decide::{self, ModelReading},
    decision::{Decision, Denial, Grounds, Refusal},
    decision_log::{DecisionLog, Named, Record},
    domain::{Domain, DomainRef},
    last_use::LastUses,
    mode::{Mode, Treatment},
    request::{self, AuthRequest, Parts},
    resolve::{Resolver, Unavailable},
    response::{self, HeaderNames},
    telemetry::Metrics,
    token::Tokens,
};

/// Everything a check needs.
pub(crate) struct Checker {
    /// Replaced as a whole on reload; a check keeps those that it began with.
    pub(crate) apis: Arc<ArcSwap<Apis>>,
    pub(crate) tokens: Tokens,
    pub(crate) resolver: Resolver,
    pub(crate) clock: Arc<Clock>,
    pub(crate) last_uses: LastUses,
    /// When the body is read for the model.
    pub(crate) model_reading: ModelReading,
    /// Whether denials are carried out.
    pub(crate) mode: Mode,
    pub(crate) log: DecisionLog,
    pub(crate) names: HeaderNames,
    /// For resolving; past it the answer is 503.
    pub(crate) deadline: Duration,
    pub(crate) metrics: Metrics,
}

impl Checker {
    /// Decides about a request that came at `started`, whichever edge it came by.
    pub(crate) async fn check<'a, H>(
        &self,
        parts: &Parts<'a, H>,
        started: Tick,
    ) -> (Decision, Particulars)
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let apis = self.apis.load();
        let mut about = Particulars::default();
        let denial = match request::parse(parts, &apis, &self.tokens) {
            Ok(request) => {
                about.manner = request.manner;
                let decided = {
                    let work = pin!(self.decide(&request, parts, started, &mut about));
                    self.in_time(started, work).await
                };
                match decided {
                    Ok(Ok(permit)) => return (permit, about),
                    Ok(Err(denial)) => denial,
                    Err(unavailable) => unavailable.into(),
                }
            }
            Err(rejected) => {
                about.manner = rejected.manner;
                rejected.refusal.into()
            }
        };
        if self.mode.depends_on_domain(denial.refusal) && about.domain.is_none() {
            let reference = request::named(parts, &apis).domain;
            let domain = self.whose(reference, started, &mut about.grounds).await;
            about.treatment = Some(self.mode.treatment(domain.as_deref()));
            return (self.mode.rule(denial, domain.as_deref()), about);
        }
        (self.mode.rule(denial, about.domain.as_deref()), about)
    }

    /// The domain whose mode applies, if that can be known before the time is up.
    async fn whose(
        &self,
        reference: Option<DomainRef>,
        started: Tick,
        grounds: &mut Grounds,
    ) -> Option<Arc<Domain>> {
        let reference = reference?;
        let found = pin!(self.resolver.domains.get(&reference, Tick::now()));
        let known = self.in_time(started, found).await.ok()?.ok()?;
        grounds.add(known.grounds());
        known.found.value.clone()
    }

    /// Waits for what is not known at once, though no longer than the deadline of a check.
    async fn in_time<F: Future>(
        &self,
        started: Tick,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Unavailable> {
        // Known at once, it needs no timer.
        if let Poll::Ready(done) = poll!(work.as_mut()) {
            return Ok(done);
        }
        let left = self.deadline.saturating_sub(Tick::now().since(started));
        timeout(left, work).await.map_err(|_| Unavailable)
    }

    /// A stage that cannot be decided ends the check: nothing after it is asked.
    async fn decide<'a, H>(
        &self,
        request: &AuthRequest<'_>,
        parts: &Parts<'a, H>,
        started: Tick,
        about: &mut Particulars,
    ) -> Result<Decision, Denial>
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let action = request.action.as_ref();
        let known = self.resolver.principals.get(&request.token.id, started).await?;
        about.grounds = known.grounds();
        let now = self.clock.now(known.at).ok_or(Unavailable)?;
        let principal = decide::authenticate(&request.token, known.found.value.as_deref(), now)?;
        // Whatever it may do: its owner, or a thief, has used it.
        self.last_uses.note(principal.token, &known.found.noted, known.at);
        let (action, reference) = decide::domain_of(principal, action)?;
        let named = self.resolver.domains.get(&reference, known.at).await?;
        about.grounds.add(named.grounds());
        let (domain, read) = (&named.found.value, |form| parts.model(form));
        let authorized =
            decide::authorize(principal, action, domain.as_ref(), self.model_reading, read);
        authorized.map(Decision::Allow).inspect_err(|_| about.domain = domain.clone())
    }

    /// Leaves what was decided to the decision log.
    pub(crate) fn record<'a, H>(
        &self,
        parts: Option<&Parts<'a, H>>,
        (decision, about): (Decision, Particulars),
        request_id: String,
        at: Tick,
        took: Duration,
    ) where
        H: Fn(&str) -> Option<&'a str>,
    {
        let named = parts.map(|parts| Named::by(parts, &self.apis.load(), &decision));
        let rests_on = match &decision {
            Decision::Allow(permit) => Some(&permit.domain),
            Decision::Pass(_) | Decision::Deny(_) => about.domain.as_ref(),
        };
        let treatment =
            about.treatment.unwrap_or_else(|| self.mode.treatment(rests_on.map(|d| &**d)));
        self.log.write(Record {
            at,
            took,
            request_id,
            status: response::status(&decision, about.manner),
            treatment,
            tier: about.grounds.tier,
            domain: about.domain,
            named: named.unwrap_or_default(),
            decision,
        });
    }
}

/// What else came of a check.
#[derive(Debug, Default)]
pub(crate) struct Particulars {
    /// How the API in question answers.
    pub(crate) manner: Manner,
    /// What it rests on.
    pub(crate) grounds: Grounds,
    /// The domain that a denial rests on.
    domain: Option<Arc<Domain>>,
    /// What applied, where it took another look-up to know.
    treatment: Option<Treatment>,
}

impl From<Unavailable> for Denial {
    fn from(Unavailable: Unavailable) -> Self {
        Refusal::Unavailable.into()
    }
}

#[cfg(test)]
pub(crate) mod tests;
