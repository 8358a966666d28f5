//! The Authorization service: parse → resolve → decide → respond.

use std::{
    borrow::Cow,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt, poll};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    api::{Apis, Manner},
    clock::{Clock, Tick},
    codec::HttpRequest,
    decide,
    decision::{Decision, Denial, Grounds, Malformed, Refusal},
    decision_log::{DecisionLog, Named, Record},
    domain::{Domain, DomainRef},
    last_use::LastUses,
    mode::{Mode, Treatment},
    request::{self, AuthRequest, Parts},
    resolve::{Resolver, Unavailable},
    response::{self, Addressee, Answer, HeaderNames},
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
        let authorized = decide::authorize(principal, action, domain.as_ref(), read);
        authorized.map(Decision::Allow).inspect_err(|_| about.domain = domain.clone())
    }

    /// Leaves what was decided to the decision log.
    fn record<'a, H>(
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
    manner: Manner,
    /// What it rests on.
    grounds: Grounds,
    /// The domain that a denial rests on.
    domain: Option<Arc<Domain>>,
    /// What applied, where it took another look-up to know.
    treatment: Option<Treatment>,
}

/// A bug must neither open the gate nor take the process down.
async fn guard<T>(
    metrics: &Metrics,
    check: impl Future<Output = (Decision, T)>,
    otherwise: T,
) -> (Decision, T) {
    AssertUnwindSafe(check).catch_unwind().await.unwrap_or_else(|_| {
        metrics.panicked();
        (Decision::Deny(Refusal::Unavailable.into()), otherwise)
    })
}

impl From<Unavailable> for Denial {
    fn from(Unavailable: Unavailable) -> Self {
        Refusal::Unavailable.into()
    }
}

/// The gRPC edge: knows protobuf, decides nothing.
#[derive(Clone)]
pub(crate) struct GrpcEdge(pub(crate) Arc<Checker>);

impl GrpcEdge {
    /// How long a check may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Answers a `CheckRequest`, as it came over the wire, or what kept it from coming; what is
    /// none is denied.
    pub(crate) async fn check(&self, message: Result<&[u8], Refusal>) -> Answer {
        const MALFORMED: Refusal = Refusal::BadRequest(Malformed::Message);
        let (checker, started) = (&*self.0, Tick::now());
        let http = message.and_then(|bytes| HttpRequest::decode(bytes).ok_or(MALFORMED));
        let header = |name: &str| http.ok()?.header(name);
        let parts = http.map(|http| {
            let HttpRequest { method, host: authority, path: target, body, .. } = http;
            Parts { method, authority, target, header, body }
        });
        let (decision, about) = match &parts {
            Ok(parts) => {
                guard(&checker.metrics, checker.check(parts, started), Particulars::default()).await
            }
            Err(refusal) => (Decision::Deny((*refusal).into()), Particulars::default()),
        };
        let request_id = header("x-request-id").filter(|id| is_request_id(id));
        let request_id = request_id.map_or_else(|| Uuid::new_v4().to_string().into(), Cow::from);
        let to = Addressee { request_id: &request_id, manner: about.manner };
        let answer = Answer::new(&decision, &about.grounds, &checker.names, &to);
        let ended = Tick::now();
        let took = ended.since(started);
        checker.metrics.decided(decision.effect(), decision.code(), took);
        if checker.log.admits(&decision, ended) {
            let (decided, request_id) = ((decision, about), request_id.into_owned());
            let record = || checker.record(parts.as_ref().ok(), decided, request_id, ended, took);
            // The answer stands, whatever becomes of its record.
            if catch_unwind(AssertUnwindSafe(record)).is_err() {
                checker.metrics.panicked();
            }
        }
        answer
    }
}

/// Envoy makes one for each request. What else a client might have sent is not repeated to it.
fn is_request_id(id: &str) -> bool {
    id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(&byte))
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::registry::Registry;
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::Moment,
        config,
        decision::Tier,
        domain::{Domain, DomainId, DomainRef},
        feed::{Checked, Feed, Server, Stamp},
        keyring::KeyRing,
        last_use::Noted,
        operation::{EntityType, Operation},
        postgres::Postgres,
        principal::{DomainGrants, Principal, UserId},
        resolve::{Found, Freshness, Load, Memory, Renewal, Shared, Tiers, postgres::lookups},
        token::{PlainToken, Prefixes, TokenId, VerifiedToken},
        writer::Writer,
    };

    const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[tokio::test]
    async fn a_panic_is_denied_and_counted() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (decision, ()) = guard(&metrics, async { panic!("on purpose") }, ()).await;
        assert_eq!(decision, Decision::Deny(Refusal::Unavailable.into()));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        assert!(page.contains("patgate_panics_total 1"), "{page}");
    }

    fn found<V>(value: V, as_of: Tick, verified: Moment, stamp: &Arc<Stamp>) -> Found<V> {
        let (value, stamp) = (Some(Arc::new(value)), Arc::clone(stamp));
        Found {
            value,
            as_of,
            verified,
            stamp,
            checked: Checked::default(),
            noted: Noted::default(),
            renewal: Renewal::default(),
        }
    }

    /// A checker whose memory knows one token of one domain, and whose Postgres is not there.
    fn checker(token: &VerifiedToken, tokens: Tokens, registry: &mut Registry) -> Checker {
        let metrics = Metrics::new(registry);
        let clock = Arc::new(Clock::default());
        let (now, moment) = (Tick::now(), Moment(1_000_000));
        clock.observe(now, moment);
        let hour = Duration::from_secs(3600);
        let freshness = Freshness { max_staleness: hour, negative_ttl: hour };

        let domain = DomainId(Uuid::from_u128(1));
        let operations = Operation::ALL.iter().copied().collect();
        let mut grants = DomainGrants::new(domain, "acme".parse().unwrap(), operations);
        grants.add_scope(EntityType::Models, "*", Operation::LlmRead);
        let principal = Principal::new(
            token.id,
            token.digest.clone(),
            Moment(moment.0 * 2),
            false,
            UserId(Uuid::from_u128(2)),
            true,
            vec![grants],
        );
        let domain =
            Domain::new(domain, "acme".parse().unwrap(), true, "model-acme".into(), Vec::new());
        let feed = Arc::new(Feed::default());
        let server = Server { system: 1, timeline: 1, life: 1 };
        let stamp = Arc::new(Stamp { server, snapshot: "10:10:".parse().unwrap() });
        feed.meet(&stamp, now).unwrap();
        let principals = Memory::new(1 << 20, 10);
        principals.insert(token.id, Arc::new(found(principal, now, moment, &stamp)));
        let domains = Memory::new(1 << 20, 10);
        let reference = DomainRef::Slug(domain.slug.clone());
        domains.insert(reference, Arc::new(found(domain, now, moment, &stamp)));

        let nowhere = config::Postgres {
            url: "postgres://127.0.0.1:1/none".into(),
            max_connections: 1,
            query_timeout: hour,
            max_query_rate: 1,
        };
        let nothing_logged = config::DecisionLog {
            to: config::LogTo::Nowhere,
            sample_allows: 0.0,
            denials_per_second: 1,
            queue: 1,
        };
        let writer = Writer::new(nowhere.clone());
        let postgres =
            Postgres::new(&nowhere, Arc::clone(&clock), Arc::clone(&feed), metrics.clone());
        let shared = Shared {
            redis: None,
            ring: KeyRing::parse(RING).unwrap(),
            clock: Arc::clone(&clock),
            feed,
            freshness,
            metrics: metrics.clone(),
        };
        let (principal_lookup, domain_lookup) = lookups(&postgres, &Arc::new(Load::new(1, hour)));
        let principals = Tiers::new(principals, principal_lookup, shared.clone());
        let domains = Tiers::new(domains, domain_lookup, shared);
        Checker {
            apis: Arc::new(ArcSwap::from_pointee(Apis::embedded().unwrap())),
            tokens,
            resolver: Resolver { principals, domains },
            clock,
            last_uses: LastUses::new(writer, metrics.clone()).0,
            mode: Mode::Enforce,
            log: DecisionLog::open(&nothing_logged, &metrics).unwrap().0,
            names: HeaderNames::new("x-"),
            deadline: hour,
            metrics,
        }
    }

    fn decide_at_once(
        checker: &Checker,
        token: &str,
        path: &str,
    ) -> Option<(&'static str, &'static str)> {
        let bearer = format!("Bearer {token}");
        let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
        let (method, authority) = ("GET", "gateway");
        let parts = Parts { method, authority, target: path, header, body: b"" };
        // Polled once: whoever had to wait for anything would not be ready.
        let (decision, _) = checker.check(&parts, Tick::now()).now_or_never()?;
        Some((decision.outcome(), decision.code()))
    }

    /// That checker, its keys, and its token.
    pub(crate) fn hot(registry: &mut Registry) -> (Checker, Tokens, PlainToken) {
        let ring = KeyRing::parse(RING).unwrap();
        let tokens = Tokens::new(Prefixes::default(), ring);
        let plain = tokens.mint(TokenId(Uuid::from_u128(7))).unwrap().plain;
        let token = tokens.verify(plain.expose()).unwrap();
        (checker(&token, tokens.clone(), registry), tokens, plain)
    }

    #[tokio::test]
    async fn an_answer_says_how_old_its_grounds_are() {
        let before = Tick::now();
        let (checker, _, plain) = hot(&mut Registry::default());
        let (known, later) = (Tick::now(), Duration::from_secs(7));
        let grounds = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
            let (method, authority, target) = ("GET", "gateway", "/proxy/acme/v1/models");
            let parts = Parts { method, authority, target, header, body: b"" };
            checker.check(&parts, known.after(later)).await.1.grounds
        };
        let told = grounds(plain.expose()).await;
        assert_eq!(told.tier, Tier::Memory);
        let filled_within = known.since(before);
        assert!((later..=later + filled_within).contains(&told.age), "{told:?}");
        assert_eq!(grounds("pat_forged").await, Grounds::default());
    }

    #[tokio::test]
    async fn an_answer_from_memory_waits_for_nothing() {
        let (checker, tokens, plain) = hot(&mut Registry::default());
        let check = |path| decide_at_once(&checker, plain.expose(), path);
        assert_eq!(check("/proxy/acme/v1/models"), Some(("allow", "ok")));
        assert_eq!(check("/proxy/beta/v1/models"), Some(("deny", "permission_denied")));
        assert_eq!(check("/proxy/acme/v1/models/"), Some(("deny", "bad_request")));
        let forged = decide_at_once(&checker, "pat_forged", "/proxy/acme/v1/models");
        assert_eq!(forged, Some(("deny", "invalid_token")));
        // One that memory does not know has to wait.
        let unknown = tokens.mint(TokenId(Uuid::from_u128(8))).unwrap().plain;
        assert_eq!(decide_at_once(&checker, unknown.expose(), "/proxy/acme/v1/models"), None);
    }
}
