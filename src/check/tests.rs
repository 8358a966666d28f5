use std::cell::RefCell;

use futures_util::FutureExt;
use patgate_core::testing::OURS;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::*;
use crate::{
    check::decision_log::RequestedAccess,
    clock::{self, Moment},
    config,
    domain::{Domain, DomainId, DomainRef, Models},
    freshness::{AgeBounds, CheckedVersion, KnownChanges, Lineage, Stamp},
    grounds::Tier,
    keyring::KeyRing,
    operation::{EntityType, Operation},
    postgres::{BackgroundWriter, Counters, Postgres, PostgresSettings},
    principal::{DomainGrants, Principal, UserId},
    process::tasks::Tasks,
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
        checked: CheckedVersion::default(),
        use_notes: Throttle::default(),
        renewal: Renewal::default(),
    }
}

/// A checker whose memory knows one token of one domain, and whose Postgres is not there. The token
/// may use the model `m`, and so many others.
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

    let domain = DomainId(Uuid::from_u128(1));
    let operations = Operation::ALL.iter().copied().collect();
    let mut grants = DomainGrants::new(domain, "acme".parse().unwrap(), operations);
    grants.add_scope(EntityType::Models, "*", Operation::LlmRead);
    grants.add_scope(EntityType::Models, "m", Operation::LlmChatCompletions);
    for other in 0..others {
        grants.add_scope(EntityType::Models, &format!("m{other}"), Operation::LlmChatCompletions);
    }
    let principal = Principal::new(
        token.id,
        token.digest.clone(),
        Moment(0)..Moment(moment.0 * 2),
        false,
        UserId(Uuid::from_u128(2)),
        true,
        vec![grants],
    );
    let domain =
        Domain::new(domain, "acme".parse().unwrap(), true, "model-acme".into(), Models::All);
    let changes = Arc::new(KnownChanges::of(OURS));
    let lineage = Lineage { installation: OURS, timeline: 1, life: 1 };
    let stamp = Arc::new(Stamp { lineage, snapshot: "10:10:".parse().unwrap() });
    changes.meet(&stamp, now).unwrap();
    let principals = MemoryTier::new(1 << 20, 10);
    principals.insert(token.id, Arc::new(found(principal, now, moment, &stamp)));
    let domains = MemoryTier::new(1 << 20, 10);
    let reference = DomainRef::Slug(domain.slug.clone());
    domains.insert(reference, Arc::new(found(domain, now, moment, &stamp)));

    let nowhere = PostgresSettings {
        key: "postgres.url",
        url: "postgres://127.0.0.1:1/none".into(),
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
        ring: KeyRing::parse(RING).unwrap(),
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
    Checker {
        apis: Arc::new(ArcSwap::from_pointee(Apis::embedded().unwrap())),
        tokens,
        resolver: Resolver { principals, domains, backends },
        clock,
        last_uses: LastUses::new(writer, metrics.clone()).0,
        model_reading: ModelReading::WhenNeeded,
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
    }
}

/// The decision that a check ended with.
fn decided<T>((checked, about): (CheckOutcome, T)) -> (Decision, T) {
    match checked {
        CheckOutcome::Decided(decision) => (decision, about),
        CheckOutcome::AwaitsBody(_) => panic!("it is still to be decided"),
    }
}

fn decide_at_once(
    checker: &Checker,
    token: &str,
    path: &str,
) -> Option<(&'static str, &'static str)> {
    let bearer = format!("Bearer {token}");
    let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
    let method = "GET";
    let authority = "gateway";
    let parts = Parts { method, authority, target: path, header, body: b"" };
    // Polled once: whoever had to wait for anything would not be ready.
    let apis = checker.apis.load();
    let checked = checker.check(&parts, &apis, CheckStep::Only, clock::now()).now_or_never()?;
    let (decision, _) = decided(checked);
    Some((decision.outcome(), decision.code()))
}

/// That checker, its keys, and its token.
pub(crate) fn hot(registry: &mut Registry) -> (Checker, Tokens, PlainToken) {
    hot_for(registry, 0)
}

/// The same with a token for so many models more.
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
    let grounds = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
        let method = "GET";
        let authority = "gateway";
        let target = "/proxy/acme/v1/models";
        let parts = Parts { method, authority, target, header, body: b"" };
        let apis = checker.apis.load();
        checker.check(&parts, &apis, CheckStep::Only, known.after(later)).await.1.grounds
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
    assert_eq!(check("/proxy/acme/api/version"), Some(("allow", "ok")));
    assert_eq!(check("/proxy/acme/v1/models"), Some(("answered", "ok")));
    assert_eq!(check("/proxy/beta/v1/models"), Some(("deny", "permission_denied")));
    assert_eq!(check("/proxy/acme/v1/models/"), Some(("deny", "bad_request")));
    let forged = decide_at_once(&checker, "pat_forged", "/proxy/acme/v1/models");
    assert_eq!(forged, Some(("deny", "invalid_token")));
    // One that memory does not know has to wait.
    let unknown = tokens.mint(TokenId(Uuid::from_u128(8))).unwrap().plain;
    assert_eq!(decide_at_once(&checker, unknown.expose(), "/proxy/acme/v1/models"), None);
}

/// Counts what is asked of the request: the media type once for each reading of the body, the
/// credential once for each reading of the request.
#[tokio::test]
async fn nothing_is_read_twice_for_the_record() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let asked = RefCell::new(Vec::new());
    let bearer = format!("Bearer {}", plain.expose());
    let body = br#"{"messages":[],"model":"other"}"#;
    let header = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        match name {
            "authorization" => Some(bearer.as_str()),
            "content-type" => Some("application/json"),
            "x-envoy-auth-partial-body" => Some("false"),
            _ => None,
        }
    };
    let method = "POST";
    let authority = "gateway";
    let target = "/proxy/acme/v1/chat/completions";
    let parts = Parts { method, authority, target, header, body };
    let apis = checker.apis.load();
    let now = clock::now();
    let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now).await);
    assert_eq!((decided.0.outcome(), decided.0.code()), ("deny", "permission_denied"));
    let record = checker.record_of(method, decided, "r-1".to_owned(), now, Duration::ZERO);
    let RequestedAccess { domain, operation, model } = record.requested;
    assert_eq!(domain.map(|domain| domain.to_string()).as_deref(), Some("acme"));
    assert_eq!(operation, Some(Operation::LlmChatCompletions));
    assert_eq!(model.as_deref(), Some("other"));
    for name in ["authorization", "content-type"] {
        let times = asked.borrow().iter().filter(|asked| *asked == name).count();
        assert_eq!(times, 1, "{name}: {asked:?}");
    }
}

#[tokio::test]
async fn what_a_record_names_is_read_whatever_was_refused() {
    let (checker, tokens, plain) = hot(&mut Registry::default());
    let other = tokens.mint(TokenId(Uuid::from_u128(7))).unwrap().plain;
    let apis = checker.apis.load();
    let read = Some(Operation::LlmRead);
    for (token, target, code, domain, operation) in [
        ("", "/proxy/acme/v1/models", "invalid_token", Some("acme"), read),
        (other.expose(), "/proxy/acme/v1/models", "invalid_token", Some("acme"), read),
        (plain.expose(), "/proxy/beta/v1/models", "permission_denied", Some("beta"), read),
        (plain.expose(), "/proxy/acme/none", "not_found", Some("acme"), None),
        (plain.expose(), "/elsewhere", "not_found", None, None),
        (plain.expose(), "/proxy/acme/v1/models/", "bad_request", None, None),
    ] {
        let bearer = format!("Bearer {token}");
        let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
        let method = "GET";
        let authority = "gateway";
        let parts = Parts { method, authority, target, header, body: b"" };
        let decided = decided(checker.check(&parts, &apis, CheckStep::Only, clock::now()).await);
        assert_eq!(decided.0.code(), code, "{target}");
        let record =
            checker.record_of(method, decided, "r-1".to_owned(), clock::now(), Duration::ZERO);
        let named = record.requested;
        assert_eq!(named.domain.map(|domain| domain.to_string()).as_deref(), domain, "{target}");
        assert_eq!(named.operation, operation, "{target}");
    }
}

/// Whether it is permitted or not, and wherever it was named.
#[tokio::test]
async fn a_token_in_place_of_a_model_is_not_logged() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let token = plain.expose();
    let bearer = format!("Bearer {}", plain.expose());
    let secret = token.rsplit('_').next().unwrap();
    let path = format!("/proxy/acme/v1/models/{token}");
    let body = format!(r#"{{"model":"{token}"}}"#);
    let chat = "/proxy/acme/v1/chat/completions";
    let header = |name: &str| match name {
        "authorization" => Some(bearer.as_str()),
        "content-type" => Some("application/json"),
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    };
    let apis = checker.apis.load();
    for (method, target, body, outcome) in
        [("GET", &*path, "", "allow"), ("DELETE", &path, "", "deny"), ("POST", chat, &body, "deny")]
    {
        let body = body.as_bytes();
        let parts = Parts { method, authority: "gateway", target, header, body };
        let now = clock::now();
        let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now).await);
        assert_eq!(decided.0.outcome(), outcome, "{method}");
        let record = checker.record_of(method, decided, token.to_owned(), now, Duration::ZERO);
        let line = serde_json::to_string(&record.line(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        assert!(!line.contains(secret), "{line}");
        if method != "DELETE" {
            let model = token.replace(secret, "(not repeated)");
            assert!(line.contains(&format!(r#""model":"{model}""#)), "{line}");
        }
    }
}

/// Though patgate would answer it when enforcing.
#[tokio::test]
async fn a_list_that_goes_on_is_logged_with_its_backend() {
    for (mode, upstream) in [(Mode::Enforce, None), (Mode::Shadow, Some("model-acme"))] {
        let (checker, _, plain) = hot(&mut Registry::default());
        let checker = Checker { mode, ..checker };
        let bearer = format!("Bearer {}", plain.expose());
        let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
        let method = "GET";
        let authority = "gateway";
        let target = "/proxy/acme/v1/models";
        let parts = Parts { method, authority, target, header, body: b"" };
        let apis = checker.apis.load();
        let now = clock::now();
        let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now).await);
        assert_eq!(decided.0.outcome(), "answered", "{mode}");
        let record = checker.record_of(method, decided, "r-1".to_owned(), now, Duration::ZERO);
        let line = record.line(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(line.upstream.as_deref(), upstream, "{mode}");
    }
}

/// Only a first step asks for a body, and for so many of a token. The second ends the wait, whatever
/// it decides.
#[tokio::test]
async fn a_first_step_asks_for_a_body_and_counts_it() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let bearer = format!("Bearer {}", plain.expose());
    let apis = checker.apis.load();
    let check = async |step, id: &str, body: &[u8]| {
        let header = |name: &str| match name {
            "authorization" => Some(bearer.as_str()),
            "content-type" => Some("application/json"),
            "x-request-id" => Some(id),
            "x-envoy-auth-partial-body" if !body.is_empty() => Some("false"),
            _ => None,
        };
        let method = "POST";
        let authority = "gateway";
        let target = "/proxy/acme/v1/chat/completions";
        let parts = Parts { method, authority, target, header, body };
        match checker.check(&parts, &apis, step, clock::now()).await.0 {
            CheckOutcome::Decided(decision) => decision.code(),
            CheckOutcome::AwaitsBody(_) => "awaits its body",
        }
    };
    let body = br#"{"messages":[],"model":"other"}"#;
    assert_eq!(check(CheckStep::Only, "a", b"").await, "invalid_body");
    assert_eq!(check(CheckStep::First, "a", b"").await, "awaits its body");
    assert_eq!(check(CheckStep::First, "b", b"").await, "awaits its body");
    assert_eq!(check(CheckStep::First, "c", b"").await, "rate_limited");
    assert_eq!(check(CheckStep::Second, "a", body).await, "permission_denied");
    assert_eq!(check(CheckStep::First, "c", b"").await, "awaits its body");
    assert_eq!(check(CheckStep::First, "d", b"").await, "rate_limited");
    // What a second step is not shown, it does not ask for again.
    assert_eq!(check(CheckStep::Second, "b", b"").await, "invalid_body");
}

/// It is read in a task, and what was known before it waited decides nothing.
#[tokio::test]
async fn what_changes_while_a_long_body_waits_counts() {
    let prompt = "x".repeat(40_000);
    let body = format!(r#"{{"messages":["{prompt}"],"model":"m"}}"#);
    for (changes, code) in [(false, "ok"), (true, "token_expired")] {
        let (checker, _, plain) = hot(&mut Registry::default());
        let bearer = format!("Bearer {}", plain.expose());
        let header = |name: &str| match name {
            "authorization" => Some(bearer.as_str()),
            "content-type" => Some("application/json"),
            "x-envoy-auth-partial-body" => Some("false"),
            _ => None,
        };
        let method = "POST";
        let authority = "gateway";
        let target = "/proxy/acme/v1/chat/completions";
        let parts = Parts { method, authority, target, header, body: body.as_bytes() };
        let apis = checker.apis.load();
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Only, clock::now()));
        assert!(poll!(check.as_mut()).is_pending(), "it was read on the connection");
        if changes {
            // Its last moment has passed.
            checker.clock.observe(clock::now(), Moment(3_000_000));
        }
        assert_eq!(decided(check.await).0.code(), code);
    }
}

/// However short it is: nobody knows how long it becomes. Of that, room and share are taken.
#[tokio::test]
async fn a_compressed_body_counts_as_a_long_one() {
    let text = br#"{"messages":[],"model":"m"}"#;
    let mut body = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut body, text, 3).unwrap();
    let (mut checker, _, plain) = hot(&mut Registry::default());
    let token = checker.tokens.verify(plain.expose()).unwrap().id;
    let bearer = format!("Bearer {}", plain.expose());
    let header = |name: &str| match name {
        "authorization" => Some(bearer.as_str()),
        "content-type" => Some("application/json"),
        "content-encoding" => Some("zstd"),
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    };
    let method = "POST";
    let authority = "gateway";
    let target = "/proxy/acme/v1/chat/completions";
    let parts = Parts { method, authority, target, header, body: &body };
    let apis = checker.apis.load_full();
    let code = async |checker: &Checker| {
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Second, clock::now()));
        assert!(poll!(check.as_mut()).is_pending(), "it was read on the connection");
        let (decision, _) = decided(check.await);
        assert!(decision.code() == "ok" || decision.permit().is_none());
        (decision.code(), decision.is_enforced())
    };
    let room = Arc::clone(checker.long_bodies.room());
    assert_eq!(code(&checker).await, ("ok", true));
    let all = room.available_permits();
    for mode in [Mode::Enforce, Mode::Shadow] {
        checker.mode = mode;
        let taken = room.try_acquire_many(u32::try_from(all - 26).unwrap()).unwrap();
        // 27 bytes in a room for 26. Before patgate came nobody had to decode them.
        assert_eq!(code(&checker).await, ("unavailable", mode == Mode::Enforce));
        drop(taken);
        assert_eq!(code(&checker).await, ("ok", true));
        assert_eq!(room.available_permits(), all);
    }
    assert!(checker.awaited.admit(token, "another", u64::MAX / 2, clock::now()));
    for mode in [Mode::Shadow, Mode::Enforce] {
        checker.mode = mode;
        assert_eq!(code(&checker).await, ("rate_limited", mode == Mode::Enforce));
    }
}

/// It is made in a task, and what was known before it waited decides nothing.
#[tokio::test]
async fn what_changes_while_a_long_list_waits_counts() {
    for (others, long, changes, outcome) in [
        (10, false, false, "answered"),
        (2000, true, false, "answered"),
        (2000, true, true, "deny"),
    ] {
        let (checker, _, plain) = hot_for(&mut Registry::default(), others);
        let bearer = format!("Bearer {}", plain.expose());
        let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
        let method = "GET";
        let authority = "gateway";
        let target = "/proxy/acme/v1/models";
        let parts = Parts { method, authority, target, header, body: b"" };
        let apis = checker.apis.load();
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Only, clock::now()));
        let first = poll!(check.as_mut());
        assert_eq!(first.is_pending(), long, "{others} others");
        if changes {
            checker.clock.observe(clock::now(), Moment(3_000_000));
        }
        let checked = match first {
            Poll::Ready(checked) => checked,
            Poll::Pending => check.await,
        };
        let (decision, _) = decided(checked);
        assert_eq!(decision.outcome(), outcome, "{others} others");
        if let Decision::Answer(answered) = decision {
            assert_eq!(answered.body().matches(r#""id":"m"#).count(), others + 1);
        }
    }
}

/// It needs no body.
#[tokio::test]
async fn a_first_step_answers_a_list() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let bearer = format!("Bearer {}", plain.expose());
    let header = |name: &str| (name == "authorization").then_some(bearer.as_str());
    let method = "GET";
    let authority = "gateway";
    let target = "/proxy/acme/api/tags";
    let parts = Parts { method, authority, target, header, body: b"" };
    let apis = checker.apis.load();
    for step in [CheckStep::Only, CheckStep::First, CheckStep::Second] {
        let (decision, _) = decided(checker.check(&parts, &apis, step, clock::now()).await);
        let Decision::Answer(answered) = decision else { panic!("{step:?}: {decision:?}") };
        assert_eq!(answered.body(), r#"{"models":[{"name":"m","model":"m"}]}"#, "{step:?}");
    }
}

#[tokio::test]
async fn a_panic_is_denied_and_counted() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let (decision, _) = decided(guard(&metrics, async { panic!("on purpose") }).await);
    assert_eq!(decision, Decision::Deny(Refusal::Unavailable.into()));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    assert!(page.contains("patgate_panics_total 1"), "{page}");
}
