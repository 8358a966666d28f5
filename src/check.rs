//! What is done about a request, whichever edge it came by: parse → resolve → decide → record.

mod awaited_bodies;
mod denial_rates;
mod long_bodies;
mod step;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::poll;
use tokio::{task::yield_now, time::timeout};

pub(crate) use self::{
    awaited_bodies::AwaitedBodies, denial_rates::DenialRates, long_bodies::LongBodies,
    long_bodies::aside, step::Step,
};
use crate::{
    api::{Action, Apis, Entity, Manner},
    body::{Ask, Body, Form, MAX_SHOWN, ModelName},
    clock::{Clock, Tick},
    decide::{self, Authorized, AwaitsBody, BeforeBody, ModelReading},
    decision::Decision,
    decision_log::{DecisionLog, MAX_MODEL, Named, Record},
    domain::{Domain, DomainRef},
    grounds::Grounds,
    last_use::LastUses,
    legible::logged,
    operation::EntityType,
    principal::{Principal, UserId},
    refusal::{Denial, NoModel, Refusal},
    request::{self, AuthRequest, Parts, Place},
    resolve::{Resolver, Unavailable},
    response::{self, AnswerSettings, Facts},
    rollout::{Mode, Treatment},
    telemetry::Metrics,
    token::{TokenId, Tokens, VerifiedToken},
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
    /// How often one token is denied.
    pub(crate) denials: DenialRates,
    pub(crate) long_bodies: LongBodies,
    /// Bodies that first steps have asked for.
    pub(crate) awaited: AwaitedBodies,
    pub(crate) log: DecisionLog,
    pub(crate) answers: AnswerSettings,
    /// For resolving; past it the answer is 503.
    pub(crate) deadline: Duration,
    pub(crate) metrics: Metrics,
}

/// What comes of a check.
#[derive(Debug)]
pub(crate) enum Checked {
    /// It is decided.
    Decided(Decision),
    /// Nothing is decided, counted or logged yet: the gateway shall ask again, and show the body.
    /// Only a first step ends so.
    AwaitsBody(AwaitsBody),
}

/// What a second step may take beyond the deadline of a check: its body may be long, and many may
/// wait for being read.
const FOR_A_BODY: Duration = Duration::from_secs(5);

impl Checker {
    /// Decides about a request that came at `started`, whichever edge it came by.
    pub(crate) async fn check<'r, 'a: 'r, H>(
        &self,
        parts: &Parts<'a, H>,
        apis: &'r Apis,
        step: Step,
        started: Tick,
    ) -> (Checked, Particulars<'r>)
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let mut about = Particulars::default();
        let denial = match request::parse(parts, apis, &self.tokens) {
            Ok(request) => {
                about.manner = request.manner;
                let decided = {
                    let work = pin!(self.decide(&request, parts, step, started, &mut about));
                    self.in_time(self.deadline_of(step), started, work).await
                };
                about.place = request.place;
                about.action = Some(request.action);
                match decided {
                    Ok(Ok(checked)) => return (checked, about),
                    Ok(Err(denial)) => denial,
                    Err(unavailable) => unavailable.into(),
                }
            }
            Err(rejected) => {
                about.manner = rejected.manner;
                about.place = rejected.place;
                let subject = match rejected.among {
                    // A ramp is for tokens that are proven.
                    Some(token) if self.mode.depends_on_domain(rejected.refusal) => {
                        self.proven(&token, started, &mut about.grounds).await
                    }
                    _ => None,
                };
                Denial { subject, ..rejected.refusal.into() }
            }
        };
        if self.mode.depends_on_domain(denial.refusal) && about.domain.is_none() {
            about.read_domain();
            let domain = self.whose(about.named.as_ref(), started, &mut about.grounds).await;
            about.treatment = Some(self.mode.treatment(domain.as_deref()));
            let ruled = self.enforce(denial, domain.as_deref(), started);
            return (Checked::Decided(ruled), about);
        }
        let ruled = self.enforce(denial, about.domain.as_deref(), started);
        (Checked::Decided(ruled), about)
    }

    /// Makes a decision of a denial. A token that is denied too often has to wait. Only denials that
    /// are enforced count: for its client, a request that passes in a rollout was not denied.
    fn enforce(&self, denial: Denial, domain: Option<&Domain>, now: Tick) -> Decision {
        let counts = |refusal| {
            use Refusal::{NoModel, RateLimited, TooManyBodies, Unavailable};
            let busy = matches!(refusal, NoModel(why) if why.fault().is_temporary());
            !busy && !matches!(refusal, RateLimited | TooManyBodies | Unavailable)
        };
        match self.mode.rule(denial, domain) {
            Ok(unenforced) => Decision::Pass(unenforced),
            Err(denial)
                if counts(denial.refusal)
                    && let Some((token, _)) = denial.subject
                    && !self.denials.take(token, now) =>
            {
                Decision::Deny(Denial { refusal: Refusal::RateLimited, ..denial })
            }
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// The domain whose mode applies, if that can be known before the time is up.
    async fn whose(
        &self,
        reference: Option<&DomainRef>,
        started: Tick,
        grounds: &mut Grounds,
    ) -> Option<Arc<Domain>> {
        let reference = reference?;
        let found = pin!(self.resolver.domains.get(reference, Tick::now()));
        let known = self.in_time(self.deadline, started, found).await.ok()?.ok()?;
        grounds.add(known.grounds());
        known.found.value.clone()
    }

    /// Whose token it is, if it can be known before the time is up that the token is good.
    async fn proven(
        &self,
        token: &VerifiedToken,
        started: Tick,
        grounds: &mut Grounds,
    ) -> Option<(TokenId, UserId)> {
        let found = pin!(self.resolver.principals.get(&token.id, started));
        let known = self.in_time(self.deadline, started, found).await.ok()?.ok()?;
        grounds.add(known.grounds());
        let now = self.clock.now(known.at)?;
        let principal = decide::authenticate(token, known.found.value.as_deref(), now).ok()?;
        Some((principal.token, principal.owner))
    }

    fn deadline_of(&self, step: Step) -> Duration {
        match step {
            Step::Only | Step::First => self.deadline,
            Step::Second => self.deadline + FOR_A_BODY,
        }
    }

    /// Waits for what is not known at once, though no longer than the deadline.
    async fn in_time<F: Future>(
        &self,
        deadline: Duration,
        started: Tick,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Unavailable> {
        // Known at once, it needs no timer.
        if let Poll::Ready(done) = poll!(work.as_mut()) {
            return Ok(done);
        }
        // The connection polls a check once, and makes a task of what is not ready then. A timer
        // would poll it again right here, where a long body would be read after all.
        yield_now().await;
        let left = deadline.saturating_sub(Tick::now().since(started));
        timeout(left, work).await.map_err(|_| Unavailable)
    }

    /// A stage that cannot be decided ends the check: nothing after it is asked.
    async fn decide<'a, H>(
        &self,
        request: &AuthRequest<'_>,
        parts: &Parts<'a, H>,
        step: Step,
        started: Tick,
        about: &mut Particulars<'_>,
    ) -> Result<Checked, Denial>
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let action = request.action.as_ref();
        // Until it is decided about: so long its bytes are held here.
        let _awaited =
            (step == Step::Second).then(|| self.awaited.held(request.token.id, parts.request_id()));
        let until = started.after(self.deadline_of(step));
        let (mut long, mut at) = (None::<Result<Box<ModelName>, NoModel>>, started);
        // For a list that takes long to make.
        let mut turn = None;
        loop {
            let known = self.resolver.principals.get(&request.token.id, at).await?;
            about.grounds = known.grounds();
            let now = self.clock.now(known.at).ok_or(Unavailable)?;
            let known_as = known.found.value.as_deref();
            let principal = decide::authenticate(&request.token, known_as, now)?;
            // Whatever it may do: its owner, or a thief, has used it.
            self.last_uses.note(principal.token, &known.found.noted, known.at);
            about.named = request.place.as_ref().and_then(Place::domain);
            let (action, reference) = decide::domain_of(principal, action, about.named.as_ref())
                .inspect_err(|_| about.principal = known.found.value.clone())?;
            let named = self.resolver.domains.get(reference, known.at).await?;
            about.grounds.add(named.grounds());
            let own = match action.upstream {
                None => None,
                Some(backend) => Some(self.resolver.backends.get(backend, known.at).await?),
            };
            own.iter().for_each(|own| about.grounds.add(own.grounds()));
            let own = own.as_ref().and_then(|own| own.found.value.as_deref());
            let domain = named.found.value.as_ref();
            let (token, owner, reading) = (principal.token, principal.owner, self.model_reading);
            let (mut short, mut asked) = (None, None);
            let authorized = if step == Step::First {
                match decide::before_body(principal, action, domain, own, reading) {
                    Ok(BeforeBody::Authorized(authorized)) => Ok(authorized),
                    Ok(BeforeBody::Awaits(awaits)) => {
                        let asked = self.ask_for_body(awaits, parts, started);
                        return asked.inspect_err(|_| {
                            about.domain = domain.cloned();
                            about.principal = known.found.value.clone();
                        });
                    }
                    Err(denial) => Err(denial),
                }
            } else {
                decide::authorize(principal, action, domain, own, reading, |form| {
                    if let Some(read) = &long {
                        return read.as_ref().map(|model| model.as_str()).map_err(|why| *why);
                    }
                    let body = parts.shown();
                    if self.denials.is_spent(token, started) || LongBodies::is_long(&body) {
                        asked = Some((form, body));
                        return Err(NoModel::NotShown);
                    }
                    let read = request::model(parts.target, body, form, &mut |_| Ok(()));
                    Ok(short.insert(read?).as_str())
                })
            };
            if let Some((form, body)) = asked {
                if self.denials.is_spent(token, started) {
                    let (subject, operation) = (Some((token, owner)), Some(action.operation));
                    return Err(Denial { refusal: Refusal::RateLimited, subject, operation });
                }
                // That may take its time, in which the token may be revoked: all else is asked again.
                // Boxed, so that the future of every check is not longer by a name.
                let read = || self.read_long(token, parts, (form, body), until).map(Box::new);
                long = Some(self.long_bodies.read(owner, read).await?);
                at = Tick::now();
                continue;
            }
            let listing = match authorized {
                Ok(Authorized::Permit(permit)) => {
                    return Ok(Checked::Decided(Decision::Allow(permit)));
                }
                Ok(Authorized::List(listing)) => match self.mode.rule_on_list(listing) {
                    Ok(listing) => listing,
                    Err(goes_on) => {
                        return Ok(Checked::Decided(Decision::Pass(*goes_on)));
                    }
                },
                Err(denial) => {
                    let read = long.as_ref().and_then(|read| read.as_deref().ok());
                    about.domain = domain.cloned();
                    about.principal = known.found.value.clone();
                    about.model = read.or(short.as_ref()).map(|model| model.as_str().into());
                    return Err(denial);
                }
            };
            let answered = match &turn {
                None if listing.takes_long() => {
                    turn = Some(self.long_bodies.turn(owner).await?);
                    at = Tick::now();
                    continue;
                }
                None => listing.answer(),
                Some(turn) => turn.aside(|| listing.answer()),
            };
            return Ok(Checked::Decided(Decision::Answer(answered)));
        }
    }

    /// Reads the model of a long body. What it is decoded to counts as long bodies do, while it is read.
    fn read_long<'a, H>(
        &self,
        token: TokenId,
        parts: &Parts<'a, H>,
        (form, body): (Form, Body<'a>),
        until: Tick,
    ) -> Result<ModelName, NoModel>
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        let (mut counted, mut held) = (None, None);
        request::model(parts.target, body, form, &mut |ask| match ask {
            Ask::Time if Tick::now() < until => Ok(()),
            Ask::Time => Err(NoModel::NotInTime),
            Ask::Memory(bytes) => {
                let (id, now) = (parts.request_id(), Tick::now());
                let share = self.awaited.decoded(token, id, bytes as u64, now);
                counted = Some(share.ok_or(NoModel::TooMuchAtOnce)?);
                let bytes = u32::try_from(bytes).map_err(|_| NoModel::NotInTime)?;
                let room = self.long_bodies.room().try_acquire_many(bytes);
                held = Some(room.map_err(|_| NoModel::NotInTime)?);
                Ok(())
            }
        })
    }

    /// What a first step ends with that needs the body: it asks for it, unless the body could not
    /// help, or too much is awaited for the token already.
    fn ask_for_body<'a, H>(
        &self,
        awaits: AwaitsBody,
        parts: &Parts<'a, H>,
        now: Tick,
    ) -> Result<Checked, Denial>
    where
        H: Fn(&str) -> Option<&'a str>,
    {
        if self.denials.is_spent(awaits.token(), now) {
            return Err(awaits.refused(Refusal::RateLimited));
        }
        parts.may_name_a_model(awaits.form()).map_err(|why| awaits.refused(why.into()))?;
        let bytes = parts.length().unwrap_or(MAX_SHOWN);
        // The gateway would collect all that it can show, and then refuse it.
        if bytes > MAX_SHOWN {
            return Err(awaits.refused(NoModel::Cut.into()));
        }
        match self.awaited.admit(awaits.token(), parts.request_id(), bytes, now) {
            true => Ok(Checked::AwaitsBody(awaits)),
            false => Err(awaits.refused(Refusal::TooManyBodies)),
        }
    }

    /// The record of a decision about a request with this method, out of what was read for it.
    pub(crate) fn record(
        &self,
        method: &str,
        (decision, about): (Decision, Particulars<'_>),
        request_id: String,
        at: Tick,
        took: Duration,
    ) -> Record {
        let rests_on = decision.domain().or(about.domain.as_ref());
        let treatment =
            about.treatment.unwrap_or_else(|| self.mode.treatment(rests_on.map(|d| &**d)));
        Record {
            at,
            took,
            request_id,
            status: response::status(&decision, about.manner),
            treatment,
            tier: about.grounds.tier,
            domain: about.domain.clone(),
            named: about.into_named(method, &decision),
            decision,
        }
    }
}

/// What else came of a check. What was read of the request is kept here: nothing is read twice.
#[derive(Debug, Default)]
pub(crate) struct Particulars<'r> {
    /// How the API in question answers.
    pub(crate) manner: Manner,
    /// What it rests on.
    pub(crate) grounds: Grounds,
    /// The domain that a denial rests on.
    domain: Option<Arc<Domain>>,
    /// What applied, where it took another look-up to know.
    treatment: Option<Treatment>,
    /// Where the request goes.
    place: Option<Place<'r>>,
    /// The domain that it names, once that was read.
    named: Option<DomainRef>,
    /// The rule for it, if there is one. `None` if no rule was looked for.
    action: Option<Option<Action<'r>>>,
    /// The model that its body names, if that was read for a denial.
    model: Option<Box<str>>,
    /// The token that was denied, if its possession was proven.
    principal: Option<Arc<Principal>>,
}

impl Particulars<'_> {
    /// What a denial of a request with these parts may say.
    pub(crate) fn facts<'a, H>(&'a self, parts: &Parts<'a, H>, apis: &'a Apis) -> Facts<'a> {
        Facts {
            apis: Some(apis),
            method: parts.method,
            authority: parts.authority,
            target: parts.target,
            shown: parts.body.len(),
            principal: self.principal.as_deref(),
            domain: self.domain.as_deref(),
            action: self.action.as_ref().and_then(Option::as_ref),
            model: self.model.as_deref(),
        }
    }

    /// The names of the cookies that do not go on to a backend.
    pub(crate) fn cookies(&self) -> &[Box<str>] {
        self.place.as_ref().map_or(&[], Place::cookies)
    }

    fn read_domain(&mut self) {
        if self.named.is_none() {
            self.named = self.place.as_ref().and_then(Place::domain);
        }
    }

    /// What a request with this method names, for the record of a decision. What the decision did
    /// not need is read now, so that only requests that are logged pay for it.
    fn into_named(mut self, method: &str, decision: &Decision) -> Named {
        self.read_domain();
        let place = self.place.as_ref();
        let action = self.action.unwrap_or_else(|| place.and_then(|place| place.action(method)));
        let proven = decision.denial().is_some_and(|denial| denial.subject.is_some());
        let about_models = |action: &&Action<'_>| action.entity_type == EntityType::Models;
        let model = action.as_ref().filter(about_models).filter(|_| proven);
        let model = model.and_then(|action| match action.entity {
            Entity::Named(name) => Some(logged(name, MAX_MODEL).into()),
            Entity::Unread(_) => self.model,
            Entity::None => None,
        });
        let operation = action.map(|action| action.operation);
        Named { domain: self.named, operation, model }
    }
}

impl From<Unavailable> for Denial {
    fn from(Unavailable: Unavailable) -> Self {
        Refusal::Unavailable.into()
    }
}

#[cfg(test)]
pub(crate) mod tests;
