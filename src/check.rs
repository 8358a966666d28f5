//! The life of a request, from any edge: parse → resolve → authenticate → authorize → enforce →
//! answer → record. The stages are those of `stages.rs`. This module gives them what they need:
//! data from the tiers, bodies, the time, and the budgets of tokens.

mod awaited_bodies;
mod bodies;
mod call;
pub(crate) mod decision_log;
mod denial_rates;
mod details;
mod enforcing;
mod gate;
pub(crate) mod last_use;
mod long_bodies;
mod record;
mod step;

use std::{
    borrow::Cow,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt, poll};
use tokio::time::timeout;
use uuid::Uuid;

pub(crate) use self::{
    awaited_bodies::AwaitedBodies,
    call::CallMetadata,
    denial_rates::DenialRates,
    gate::{StoreGate, Stores},
    long_bodies::LongBodies,
    step::CheckStep,
};
use self::{
    details::{CheckDetails, PendingDenial, WithGrounds},
    record::Asked,
};
use crate::{
    answer::{Answer, AnswerContext, AnswerSettings, ClientHeaders, IdTexts},
    api::{ApiStyle, Apis},
    backend::ReservedNames,
    body::ModelName,
    check::decision_log::DecisionLog,
    clock::{self, Tick},
    decide::{AuthorizationProgress, Authorized, AwaitsBody, ModelReading},
    decision::Decision,
    enforce::Enforcement,
    provenance::Provenance,
    refusal::{Denial, NoModel, Refusal},
    request::{self, AuthRequest, RejectedRequest, RequestParts},
    resolve::{LookupKind, Resolved, Resolver, Tiers, Unavailable},
    rollout::Mode,
    telemetry::{CheckSpan, Metrics, Traces},
    token::Tokens,
    trace_context::TraceContext,
    wording::MessageContext,
};

/// Decides and answers checks. One serves all connections of the process.
pub(crate) struct Checker {
    /// Replaced as a whole on reload; a check keeps the tables with which it began.
    pub(crate) apis: Arc<ArcSwap<Apis>>,
    pub(crate) tokens: Tokens,
    /// Closed until the stores have passed the checks of the start; until then, every answer is 503.
    pub(crate) stores: StoreGate,
    /// When the body is read for the model.
    pub(crate) model_reading: ModelReading,
    /// The names that no backend may have.
    pub(crate) reserved: ReservedNames,
    /// For which domains verdicts are enforced.
    pub(crate) mode: Mode,
    /// Limits how often one token is denied.
    pub(crate) denials: DenialRates,
    pub(crate) long_bodies: LongBodies,
    /// The bodies that first steps have asked for.
    pub(crate) awaited: AwaitedBodies,
    pub(crate) log: DecisionLog,
    pub(crate) answers: AnswerSettings,
    /// Time limit for resolving; after it, the answer is 503.
    pub(crate) deadline: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
}

/// How a check ended.
#[derive(Debug)]
pub(crate) enum CheckOutcome {
    /// With a decision.
    Decided(Decision),
    /// Without a decision; nothing is counted or logged yet. The gateway must ask again, with the
    /// body. Only a first step ends like this.
    AwaitsBody(AwaitsBody),
}

/// How long a second step may take beyond the deadline of a check: its body may be long, and many
/// bodies may wait to be read.
const FOR_A_BODY: Duration = Duration::from_secs(5);

impl Checker {
    /// Answers a request that arrived at `started`, or the reason why it could not be decoded. An
    /// edge only decodes the request and passes `encode`, which writes the answer.
    pub(crate) async fn answer<'a, H, A>(
        &self,
        parts: Result<&RequestParts<'a, H>, Refusal>,
        call: CallMetadata,
        started: Tick,
        encode: impl Fn(&Answer<'_>) -> A,
    ) -> A
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        let apis = self.apis.load();
        let span = self.traces.check(call.trace, started);
        let (outcome, details) = match parts {
            Ok(parts) => {
                let check = self.check(parts, &apis, call.step, started, span.as_deref());
                guard(&self.metrics, check, || (parts.request_id(), call.trace)).await
            }
            Err(refusal) => denied(refusal),
        };
        // A bug in an answer's text or bytes must not end more than this answer either.
        let calling = (call, span);
        let finish = || self.finish(parts, &apis, (outcome, details), calling, started, &encode);
        catch_unwind(AssertUnwindSafe(finish)).unwrap_or_else(|_| {
            self.metrics.panicked();
            let id = parts.map_or("", RequestParts::request_id);
            self.outage(if is_request_id(id) { id } else { "" }, &encode)
        })
    }

    /// Answers a call that did not show that the operator's Envoy makes it, with 503. Nothing of it
    /// is read or decided, so no decision is counted or logged: a stranger must be able neither to
    /// fill the decision log nor to raise an alert on the answers of clients.
    pub(crate) fn refuse_stranger<A>(&self, encode: impl Fn(&Answer<'_>) -> A) -> A {
        self.outage(&Uuid::new_v4().to_string(), &encode)
    }

    /// Makes and encodes the answer 503, which says nothing about the request.
    fn outage<A>(&self, request_id: &str, encode: &impl Fn(&Answer<'_>) -> A) -> A {
        let decision = Decision::denied(Refusal::Unavailable);
        let headers = ClientHeaders { header: |_: &str| None, cookies: &[], tokens: &self.tokens };
        let (style, message) = (ApiStyle::default(), MessageContext::default());
        let context = AnswerContext::new(&decision, headers, request_id, style, message);
        let mut ids = IdTexts::default();
        encode(&Answer::new(&context, &Provenance::default(), &self.answers, &mut ids))
    }

    /// Makes the answer from what was decided, encodes it, and records it.
    fn finish<'a, H, A>(
        &self,
        parts: Result<&RequestParts<'a, H>, Refusal>,
        apis: &Apis,
        (outcome, details): (CheckOutcome, CheckDetails<'_>),
        (call, span): (CallMetadata, Option<Box<CheckSpan>>),
        started: Tick,
        encode: &impl Fn(&Answer<'_>) -> A,
    ) -> A
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        let decision = match outcome {
            CheckOutcome::Decided(decision) => decision,
            CheckOutcome::AwaitsBody(awaits) => {
                self.metrics.asked_for_a_body();
                if let Some(span) = span {
                    record::end_undecided(*span, &details);
                }
                return encode(&Answer::awaiting(&awaits, &self.answers));
            }
        };
        let header = |name: &str| parts.ok().and_then(|parts| (parts.header)(name));
        let request_id = header("x-request-id").filter(|id| is_request_id(id));
        let request_id = request_id.map_or_else(|| Uuid::new_v4().to_string().into(), Cow::from);
        let headers = ClientHeaders { header, cookies: details.cookies(), tokens: &self.tokens };
        let message = parts.map(|parts| details.message_context(parts, apis)).unwrap_or_default();
        let style = details.api_style;
        let context = AnswerContext::new(&decision, headers, &request_id, style, message);
        let mut ids = IdTexts::default();
        let answer = Answer::new(&context, &details.provenance, &self.answers, &mut ids);
        let encoded = encode(&answer);
        let asked = parts.map_or_else(|_| Asked::default(), Asked::of);
        self.record(asked, (decision, details), request_id, (call, span), started);
        encoded
    }

    /// Parses a request, authorizes it, and applies the mode if it is denied.
    async fn check<'r, 'a: 'r, H>(
        &self,
        parts: &RequestParts<'a, H>,
        apis: &'r Apis,
        step: CheckStep,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> (CheckOutcome, CheckDetails<'r>)
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        let parsed = request::parse(parts, apis, &self.tokens);
        let Ok(stores) = self.stores.stores() else { return before_the_start(parsed) };
        let (refused, details) = match parsed {
            Ok(request) => match self.authorize(stores, &request, parts, step, started, span).await
            {
                Ok((outcome, provenance)) => {
                    return (outcome, CheckDetails::of(request, provenance));
                }
                Err(refused) => (refused, CheckDetails::of(request, Provenance::default())),
            },
            Err(rejected) => self.reject(stores, rejected, started, span).await,
        };
        self.enforce(stores, refused, details, started, span).await
    }

    /// Resolves what the request names, and authorizes it. A stage that fails ends the check: later
    /// stages look nothing up.
    async fn authorize<'a, H>(
        &self,
        stores: &Stores,
        request: &AuthRequest<'_>,
        parts: &RequestParts<'a, H>,
        step: CheckStep,
        started: Tick,
        span: Option<&CheckSpan>,
    ) -> Result<(CheckOutcome, Provenance), PendingDenial>
    where
        H: Fn(&str) -> Option<&'a str> + Sync,
    {
        // A body that a first step asked for counts until the decision, because Envoy holds it
        // until then.
        let _awaited = (step == CheckStep::Second)
            .then(|| self.awaited.held(request.token().id(), parts.in_progress()));
        let until = started.after(self.deadline_of(step));
        // A body may wait for its turn for seconds; what is looked up meanwhile must not.
        let lookups_until = |at: Tick| until.min(at.after(self.deadline));
        let mut provenance = Provenance::default();
        // Of what an earlier round has asked a store for.
        let mut earlier = None;
        let mut at = started;
        // Boxed, so that the name does not make the future of every check longer.
        let mut long: Option<Result<Box<ModelName>, NoModel>> = None;
        // The turn of a list that takes long to make.
        let mut turn = None;
        loop {
            let Resolver { principals, domains, backends } = &stores.resolver;
            let known = known_by(lookups_until(at), principals, &request.token().id(), at, span)
                .await
                .with_grounds(provenance)?;
            provenance = known.provenance();
            earlier.iter().for_each(|earlier| provenance.add(*earlier));
            let principal = &known.found.value;
            let now = stores.clock.now(known.at).ok_or(Unavailable).with_grounds(provenance)?;
            let authenticated =
                request.authenticate(principal.as_deref(), now).with_grounds(provenance)?;
            // Noted whatever the token may do: its owner, or a thief, has used it.
            stores.last_uses.note(request.token().id(), &known.found.use_notes, known.at);
            let located = authenticated.locate().with_grounds(provenance);
            let located = located.map_err(|refused| refused.of(principal.as_ref()))?;
            let named =
                known_by(lookups_until(known.at), domains, located.domain(), known.at, span)
                    .await
                    .with_grounds(provenance)?;
            provenance.add(named.provenance());
            let domain = named.found.value.as_ref();
            let own = match located.backend() {
                None => None,
                Some(name) => {
                    let until = lookups_until(named.at);
                    let known = known_by(until, backends, name, named.at, span).await;
                    Some(known.with_grounds(provenance)?)
                }
            };
            own.iter().for_each(|own| provenance.add(own.provenance()));
            // The token may have been revoked while a store was asked about the domain or the
            // backend. Once is enough: memory has both now.
            let latest = own.as_ref().map_or(named.at, |own| own.at);
            if latest > known.at && earlier.is_none() {
                earlier = Some(provenance);
                at = latest;
                continue;
            }
            // A key may have left the ring while a store was asked. From here to the decision, nothing
            // is waited for.
            if !self.tokens.still_verify(request.token()) {
                return Err(Refusal::InvalidToken).with_grounds(provenance);
            }
            let in_force = principals.is_in_force(&known.found)
                && domains.is_in_force(&named.found)
                && own.as_ref().is_none_or(|own| backends.is_in_force(&own.found));
            if !in_force {
                at = clock::now();
                continue;
            }
            let own = own.as_ref().and_then(|own| own.found.value.as_deref());
            let mut short = None;
            let authorized = located.authorize(domain, own, self.model_reading, &self.reserved);
            let authorized = match authorized {
                Ok(AuthorizationProgress::Authorized(authorized)) => Ok(authorized),
                Err(denial) => Err(denial),
                Ok(AuthorizationProgress::NeedsModel(needs)) if step == CheckStep::First => {
                    let asked = self.ask_for_body(needs.await_body(), parts, started);
                    let asked = asked.map(|awaits| (CheckOutcome::AwaitsBody(awaits), provenance));
                    return asked
                        .with_grounds(provenance)
                        .map_err(|refused| refused.of(principal.as_ref()).in_domain(domain));
                }
                Ok(AuthorizationProgress::NeedsModel(needs)) => match &long {
                    Some(read) => {
                        needs.with(read.as_ref().map(|model| model.as_str()).map_err(|why| *why))
                    }
                    None if self.denials.is_spent(request.token().id(), started) => {
                        return Err(needs.refused(Refusal::RateLimited)).with_grounds(provenance);
                    }
                    None => {
                        let body = parts.shown();
                        let form = needs.form();
                        if LongBodies::is_long(&body) {
                            // Reading takes time, and the token may be revoked meanwhile. So
                            // everything else is looked up again afterwards.
                            let read =
                                || self.read_long(request.token().id(), parts, form, body, until);
                            let read = self.long_bodies.read(needs.owner(), read);
                            let (read, _counted) =
                                done_by(until, read).await.with_grounds(provenance)?;
                            long = Some(read);
                            at = clock::now();
                            continue;
                        }
                        let read = request::model(parts.target, body, form, &mut |_| Ok(()));
                        needs.with(read.map(|model| short.insert(model).as_str()))
                    }
                },
            };
            let listing = match authorized {
                Ok(Authorized::Permit(permit)) => {
                    return decided(Decision::Allow(permit), provenance);
                }
                Ok(Authorized::List(listing)) => match self.mode.apply_to_list(listing) {
                    Enforcement::Enforced(listing) => listing,
                    Enforcement::Unenforced(unenforced) => {
                        return decided(Decision::Unenforced(unenforced), provenance);
                    }
                },
                Err(denial) => {
                    let read = long.as_ref().and_then(|read| read.as_deref().ok());
                    let model = read.or(short.as_ref()).map(ModelName::as_str);
                    return Err(denial).with_grounds(provenance).map_err(|refused| {
                        refused.of(principal.as_ref()).in_domain(domain).about(model)
                    });
                }
            };
            let answered = match &turn {
                None if listing.takes_long() => {
                    let owner = listing.owner();
                    turn = Some(
                        done_by(until, self.long_bodies.turn(owner))
                            .await
                            .with_grounds(provenance)?,
                    );
                    at = clock::now();
                    continue;
                }
                None => listing.answer(),
                Some(turn) => turn.aside(|| listing.answer()).with_grounds(provenance)?,
            };
            return decided(Decision::AnswerList(answered), provenance);
        }
    }

    fn deadline_of(&self, step: CheckStep) -> Duration {
        match step {
            CheckStep::Only | CheckStep::First => self.deadline,
            CheckStep::Second => self.deadline + FOR_A_BODY,
        }
    }
}

fn decided(
    decision: Decision,
    provenance: Provenance,
) -> Result<(CheckOutcome, Provenance), PendingDenial> {
    Ok((CheckOutcome::Decided(decision), provenance))
}

/// Looks up `key` until the deadline. An answer from memory needs no timer.
async fn known_by<K: LookupKind>(
    until: Tick,
    tiers: &Arc<Tiers<K>>,
    key: &K::Key,
    at: Tick,
    span: Option<&CheckSpan>,
) -> Result<Resolved<K::Value>, Unavailable> {
    let mut known = pin!(tiers.get(key, at, span));
    if let Poll::Ready(known) = poll!(known.as_mut()) {
        return known;
    }
    done_by(until, known).await
}

/// Waits for `work` until the deadline.
fn done_by<T>(
    until: Tick,
    work: impl Future<Output = Result<T, Unavailable>>,
) -> impl Future<Output = Result<T, Unavailable>> {
    timeout(until.since(clock::now()), work).map(|done| done.map_err(|_| Unavailable).flatten())
}

/// A bug must neither allow a request nor end the process. This is not an `async fn`, whose future
/// would contain that of the check twice. `ids` are those of the request and of the trace.
fn guard<'r, 'a>(
    metrics: &Metrics,
    check: impl Future<Output = (CheckOutcome, CheckDetails<'r>)>,
    ids: impl FnOnce() -> (&'a str, Option<TraceContext>),
) -> impl Future<Output = (CheckOutcome, CheckDetails<'r>)> {
    AssertUnwindSafe(check).catch_unwind().map(|checked| {
        checked.unwrap_or_else(|_| {
            metrics.panicked();
            let (request_id, trace) = ids();
            tracing::error!(
                request_id = Some(request_id).filter(|id| is_request_id(id)),
                trace_id = trace.map(|trace| tracing::field::display(trace.trace_id)),
                "a check panicked, and was answered with 503; the line before says where"
            );
            denied(Refusal::Unavailable)
        })
    })
}

/// Answers 503 to every request. A key ring that has not been compared with the live tokens says
/// nothing about a token, so no other refusal is given either. The request is read for the form of
/// the error, which the path decides.
fn before_the_start<'r>(
    parsed: Result<AuthRequest<'r>, RejectedRequest<'r>>,
) -> (CheckOutcome, CheckDetails<'r>) {
    let details = match parsed {
        Ok(request) => CheckDetails::of(request, Provenance::default()),
        Err(RejectedRequest { api_path, api_style, .. }) => {
            CheckDetails::of_rejected(api_path, api_style)
        }
    };
    (CheckOutcome::Decided(Decision::denied(Refusal::Unavailable)), details)
}

fn denied<'r>(refusal: Refusal) -> (CheckOutcome, CheckDetails<'r>) {
    (CheckOutcome::Decided(Decision::denied(refusal)), CheckDetails::default())
}

/// Envoy makes a request id for each request. Any other value may be a client's, and is not
/// repeated to it.
fn is_request_id(id: &str) -> bool {
    id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(&byte))
}

impl From<Unavailable> for Denial {
    fn from(Unavailable: Unavailable) -> Self {
        Refusal::Unavailable.into()
    }
}

#[cfg(test)]
pub(crate) mod tests;
