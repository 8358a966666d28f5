//! A check whose memory knows what it needs.

mod keys;
mod records;
mod waits;

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use futures_util::FutureExt;
use patgate_core::testing::OURS;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::*;
use crate::{
    backend::ReservedNames,
    check::{decision_log::RequestedAccess, last_use::LastUses},
    clock::{self, Clock, Moment},
    config,
    domain::{Domain, DomainId, DomainRef, Models},
    freshness::{AgeBounds, CheckedVersion, KnownChanges, Lineage, Stamp},
    keyring::KeyRing,
    operation::{EntityType, Operation},
    postgres::{Address, BackgroundWriter, Counters, Postgres, PostgresSettings},
    principal::{DomainGrants, Principal, UserId},
    process::tasks::Tasks,
    provenance::Tier,
    resolve::{Found, Load, MemoryTier, Renewal, TierContext, Tiers, postgres::lookups},
    throttle::Throttle,
    token::{PlainToken, Prefixes, TokenId, VerifiedToken},
};

const RING: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn found<V>(value: V, as_of: Tick, verified: Moment, stamp: &Arc<Stamp>) -> Found<V> {
    let value = Some(Arc::new(value));
    let stamp = Arc::clone(stamp);
    Found {
        value,
        as_of,
        verified,
        stamp,
        seal: None,
        opened: OnceLock::new(),
        checked: CheckedVersion::default(),
        use_notes: Throttle::default(),
        renewal: Renewal::default(),
    }
}

/// When the token expires: long after the test, even on a busy machine.
const EXPIRY: Moment = Moment(3_600_000_000);

const DOMAIN: DomainId = DomainId(Uuid::from_u128(1));

/// Makes the principal of a token that may use the model `m`, and `others` more.
fn principal(token: &VerifiedToken, others: usize) -> Principal {
    let others = (0..others).map(|other| format!("m{other}"));
    let models: Vec<_> = ["m".to_owned()].into_iter().chain(others).collect();
    principal_for(token, &models, false)
}

/// Makes the principal of a token that may use these models.
fn principal_for(token: &VerifiedToken, models: &[impl AsRef<str>], revoked: bool) -> Principal {
    let operations = Operation::ALL.iter().copied().collect();
    let mut grants = DomainGrants::new(DOMAIN, "acme".parse().unwrap(), operations);
    grants.add_scope(EntityType::Models, "*", Operation::LlmRead);
    for model in models {
        grants.add_scope(EntityType::Models, model.as_ref(), Operation::LlmChatCompletions);
    }
    Principal::new(
        token.id(),
        token.digest().clone(),
        Moment(0)..EXPIRY,
        revoked,
        UserId(Uuid::from_u128(2)),
        true,
        vec![grants],
    )
}

/// Makes the domain of the token.
fn domain(enabled: bool) -> Domain {
    Domain::new(DOMAIN, "acme".parse().unwrap(), enabled, "model-acme".into(), Models::All)
}

/// Makes a checker whose memory has one token of one domain, and whose Postgres does not exist. The
/// token may use the model `m`, and `others` more.
fn checker(
    token: &VerifiedToken,
    tokens: Tokens,
    registry: &mut Registry,
    others: usize,
) -> Checker {
    let metrics = Metrics::new(registry);
    let clock = Arc::new(Clock::default());
    let now = clock::now();
    let moment = Moment(1_000_000);
    clock.observe(now, moment);
    let hour = Duration::from_secs(3600);
    let bounds = AgeBounds { max_staleness: hour, negative_ttl: hour };

    let principal = principal(token, others);
    let domain = domain(true);
    let changes = Arc::new(KnownChanges::of(OURS));
    let lineage = Lineage { installation: OURS, timeline: 1, life: 1 };
    let stamp = Arc::new(Stamp { lineage, snapshot: "10:10:".parse().unwrap() });
    changes.meet(&stamp, now).unwrap();
    let principals = MemoryTier::new(1 << 20, 10);
    principals.insert(token.id(), Arc::new(found(principal, now, moment, &stamp)), |_| true);
    let domains = MemoryTier::new(1 << 20, 10);
    let reference = DomainRef::Slug(domain.slug.clone());
    domains.insert(reference, Arc::new(found(domain, now, moment, &stamp)), |_| true);

    let nowhere = PostgresSettings {
        key: "postgres.url",
        address: Address::of_one("postgres.url", &"postgres://127.0.0.1:1/none".into()).unwrap(),
        max_connections: 1,
        query_timeout: hour,
    };
    let nothing_logged = config::DecisionLogSettings {
        to: config::LogTo::Nowhere,
        sample_allows: 0.0,
        denials_per_second: 1,
        repeats_per_second: 1,
        queue: 1,
    };
    let writer = BackgroundWriter::new(nowhere.clone(), OURS, Counters::default());
    let postgres =
        Postgres::new(&nowhere, Arc::clone(&clock), Arc::clone(&changes), Counters::default());
    let context = TierContext {
        redis: None,
        ring: tokens.ring().clone(),
        reserved: ReservedNames::default(),
        clock: Arc::clone(&clock),
        changes,
        bounds,
        metrics: metrics.clone(),
    };
    let load = Arc::new(Load::new(1, hour));
    let tasks = Tasks::default();
    let (principal_lookup, domain_lookup, backend_lookup) = lookups(&postgres, &load, &tasks);
    let principals = Tiers::new(principals, principal_lookup, context.clone());
    let domains = Tiers::new(domains, domain_lookup, context.clone());
    let backends = Tiers::new(MemoryTier::new(1 << 20, 10), backend_lookup, context);
    let stores = StoreGate::default();
    stores.open(Stores {
        resolver: Resolver { principals, domains, backends },
        clock,
        last_uses: LastUses::new(writer, metrics.clone()).0,
    });
    Checker {
        apis: Arc::new(ArcSwap::from_pointee(Apis::embedded().unwrap())),
        tokens,
        stores,
        model_reading: ModelReading::WhenNeeded,
        reserved: ReservedNames::default(),
        mode: Mode::Enforce,
        denials: DenialRates::new(10),
        long_bodies: LongBodies::new(1),
        awaited: AwaitedBodies::new(
            config::AwaitedBodyLimits { per_token: 2, bytes_per_token: 64 << 20, timeout: hour },
            metrics.clone(),
        ),
        log: DecisionLog::open(&nothing_logged, &metrics).unwrap().0,
        answers: AnswerSettings::new("x-", "gateway-7"),
        deadline: hour,
        metrics,
        traces: Traces::default(),
    }
}

/// Returns the decision with which a check ended.
fn decided<T>((checked, about): (CheckOutcome, T)) -> (Decision, T) {
    match checked {
        CheckOutcome::Decided(decision) => (decision, about),
        CheckOutcome::AwaitsBody(_) => panic!("it is still to be decided"),
    }
}

/// The headers of a request that carries a token and no body.
fn only_token<'b>(bearer: &'b str) -> impl Fn(&str) -> Option<&'b str> {
    move |name| (name == "authorization").then_some(bearer)
}

/// The headers of a request with JSON that patgate sees whole.
fn token_and_json<'b>(bearer: &'b str) -> impl Fn(&str) -> Option<&'b str> {
    move |name| match name {
        "authorization" => Some(bearer),
        "content-type" => Some("application/json"),
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    }
}

fn get<'a, H>(target: &'a str, header: H) -> RequestParts<'a, H> {
    RequestParts { method: "GET", authority: "gateway", target, header, body: b"", stream: b"" }
}

fn chat<'a, H>(body: &'a [u8], header: H) -> RequestParts<'a, H> {
    let target = "/proxy/acme/v1/chat/completions";
    RequestParts { method: "POST", authority: "gateway", target, header, body, stream: b"" }
}

fn decide_at_once(
    checker: &Checker,
    token: &str,
    path: &str,
) -> Option<(&'static str, &'static str)> {
    let bearer = format!("Bearer {token}");
    let header = only_token(&bearer);
    let parts = get(path, header);
    // Polled once: a check that had to wait for anything would not be ready.
    let apis = checker.apis.load();
    let checked =
        checker.check(&parts, &apis, CheckStep::Only, clock::now(), None).now_or_never()?;
    let (decision, _) = decided(checked);
    Some((decision.outcome().as_str(), decision.code()))
}

/// The answer to a permitted request, if this happens while its body is read in a task.
async fn code_of_a_long_body(happens: impl FnOnce(&Checker, &PlainToken)) -> &'static str {
    let prompt = "x".repeat(40_000);
    let body = format!(r#"{{"messages":["{prompt}"],"model":"m"}}"#);
    let (checker, _, plain) = hot(&mut Registry::default());
    let bearer = format!("Bearer {}", plain.expose());
    let header = token_and_json(&bearer);
    let parts = chat(body.as_bytes(), header);
    let apis = checker.apis.load();
    let mut check = pin!(checker.check(&parts, &apis, CheckStep::Only, clock::now(), None));
    assert!(poll!(check.as_mut()).is_pending(), "it was read on the connection");
    happens(&checker, &plain);
    decided(check.await).0.code()
}

/// Returns that checker, its keys, and its token.
pub(crate) fn hot(registry: &mut Registry) -> (Checker, Tokens, PlainToken) {
    hot_for(registry, 0)
}

/// The same, with a token for `others` more models.
fn hot_for(registry: &mut Registry, others: usize) -> (Checker, Tokens, PlainToken) {
    let ring = KeyRing::parse(RING).unwrap();
    let tokens = Tokens::new(Prefixes::default(), ring);
    let plain = tokens.mint(TokenId(Uuid::from_u128(7))).unwrap().plain;
    let token = tokens.verify(plain.expose()).unwrap();
    (checker(&token, tokens.clone(), registry, others), tokens, plain)
}

#[tokio::test]
async fn an_answer_says_how_old_its_grounds_are() {
    let before = clock::now();
    let (checker, _, plain) = hot(&mut Registry::default());
    let known = clock::now();
    let later = Duration::from_secs(7);
    let provenance = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let header = only_token(&bearer);
        let parts = get("/proxy/acme/v1/models", header);
        let apis = checker.apis.load();
        checker.check(&parts, &apis, CheckStep::Only, known.after(later), None).await.1.provenance
    };
    let told = provenance(plain.expose()).await;
    assert_eq!(told.tier, Tier::Memory);
    let filled_within = known.since(before);
    assert!((later..=later + filled_within).contains(&told.age), "{told:?}");
    assert_eq!(provenance("pat_forged").await, Provenance::default());
}

#[tokio::test]
async fn an_answer_from_memory_waits_for_nothing() {
    let (checker, tokens, plain) = hot(&mut Registry::default());
    let check = |path| decide_at_once(&checker, plain.expose(), path);
    assert_eq!(check("/proxy/acme/api/version"), Some(("allow", "ok")));
    assert_eq!(check("/proxy/acme/v1/models"), Some(("answered", "ok")));
    assert_eq!(check("/proxy/beta/v1/models"), Some(("deny", "permission_denied")));
    assert_eq!(check("/proxy/acme/v1/models/"), Some(("deny", "bad_request")));
    let forged = decide_at_once(&checker, "pat_forged", "/proxy/acme/v1/models");
    assert_eq!(forged, Some(("deny", "invalid_token")));
    // A check of an unknown token has to wait.
    let unknown = tokens.mint(TokenId(Uuid::from_u128(8))).unwrap().plain;
    assert_eq!(decide_at_once(&checker, unknown.expose(), "/proxy/acme/v1/models"), None);
}

/// Of the code that words and encodes an answer, too.
#[tokio::test]
async fn a_panic_while_answering_is_an_outage_and_counted() {
    let mut registry = Registry::default();
    let (checker, _, plain) = hot(&mut registry);
    let bearer = format!("Bearer {}", plain.expose());
    let parts = get("/proxy/acme/v1/models", only_token(&bearer));
    let call = CallMetadata { step: CheckStep::Only, trace: None };
    let first = AtomicBool::new(true);
    let encode = |answer: &Answer<'_>| {
        assert!(!first.swap(false, SeqCst), "on purpose");
        match answer {
            Answer::Reply(reply) => reply.status(),
            _ => 200,
        }
    };
    assert_eq!(checker.answer(Ok(&parts), call, clock::now(), encode).await, 503);
    assert_eq!(checker.answer(Ok(&parts), call, clock::now(), encode).await, 200);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    assert!(page.contains("patgate_panics_total 1"), "{page}");
}

#[tokio::test]
async fn a_panic_is_denied_and_counted() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let (decision, _) =
        decided(guard(&metrics, async { panic!("on purpose") }, || ("r-1", None)).await);
    assert_eq!(decision, Decision::Deny(Refusal::Unavailable.into()));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    assert!(page.contains("patgate_panics_total 1"), "{page}");
}

/// Memory holds everything that the answers below need, and they may not use it: nothing has
/// checked yet whose it is. A refusal that a client takes as final needs the same checks.
#[tokio::test]
async fn before_the_start_has_ended_every_answer_is_an_outage() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let closed = Checker { stores: StoreGate::default(), ..checker };
    for token in [plain.expose(), "pat_forged"] {
        for path in ["/proxy/acme/v1/models", "/proxy/acme/nothing", "//"] {
            let answered = decide_at_once(&closed, token, path);
            assert_eq!(answered, Some(("deny", "unavailable")), "{token} {path}");
        }
    }
}
