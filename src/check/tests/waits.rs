//! Bodies and lists for which a check waits.

use super::*;
use crate::freshness::{Change, Dependency};

/// Only a first step asks for a body, and only for a limited number per token. The second step ends
/// the wait, whatever it decides.
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
        let parts = chat(body, header);
        match checker.check(&parts, &apis, step, clock::now(), None).await.0 {
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
    // A second step does not ask again for a body that the gateway does not show.
    assert_eq!(check(CheckStep::Second, "b", b"").await, "invalid_body");
}

/// What may happen while a check waits.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    /// The token expires.
    Clock,
    /// Another check has found that the token is revoked.
    Revoked,
    /// Another check has found that the token may use other models only.
    OtherModels,
    /// Another check has found that the domain is disabled.
    Disabled,
    /// A poll of the feed brings nothing.
    Poll,
    /// A poll of the feed says that the token has changed. What it is now is not known, because there is
    /// no Postgres.
    Change,
}

impl Event {
    /// Every event, with the code of the answer to a request that is permitted without it.
    const ALL: [(Self, &str); 7] = [
        (Self::Nothing, "ok"),
        (Self::Clock, "token_expired"),
        (Self::Revoked, "token_revoked"),
        (Self::OtherModels, "permission_denied"),
        (Self::Disabled, "permission_denied"),
        (Self::Poll, "ok"),
        (Self::Change, "unavailable"),
    ];

    fn happen(self, checker: &Checker, token: &VerifiedToken) {
        let stores = checker.stores.stores().unwrap();
        let Resolver { principals, domains, .. } = &stores.resolver;
        let known = principals.remembered(&token.id()).unwrap();
        let now = clock::now();
        let becomes = |principal| {
            let found = found(principal, now, known.verified, &known.stamp);
            principals.remember(token.id(), found);
        };
        match self {
            Self::Nothing => {}
            Self::Clock => stores.clock.observe(now, Moment(EXPIRY.0 + 1)),
            Self::Revoked => becomes(principal_for(token, &["m"], true)),
            Self::OtherModels => becomes(principal_for(token, &["other"], false)),
            Self::Disabled => {
                let disabled = domain(false);
                let named = DomainRef::Slug(disabled.slug.clone());
                domains.remember(named, found(disabled, now, known.verified, &known.stamp));
            }
            Self::Poll => principals.poll(now, &known.stamp, Vec::new()),
            Self::Change => {
                let change = Change::To(Dependency::Token(token.id()));
                principals.poll(now, &known.stamp, vec![change]);
            }
        }
    }
}

/// The body is read in a task, and data from before the wait decides nothing.
#[tokio::test]
async fn what_changes_while_a_long_body_waits_counts() {
    for (event, code) in Event::ALL {
        let happens = |checker: &Checker, plain: &PlainToken| {
            event.happen(checker, &checker.tokens.verify(plain.expose()).unwrap());
        };
        assert_eq!(code_of_a_long_body(happens).await, code, "{event:?}");
    }
}

/// This holds for a short body also, because its decompressed length is unknown. That length counts
/// towards the memory and the token's limit.
#[tokio::test]
async fn a_compressed_body_counts_as_a_long_one() {
    let text = br#"{"messages":[],"model":"m"}"#;
    let mut body = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut body, text, 3).unwrap();
    let (mut checker, _, plain) = hot(&mut Registry::default());
    let token = checker.tokens.verify(plain.expose()).unwrap().id();
    let bearer = format!("Bearer {}", plain.expose());
    let header = |name: &str| match name {
        "authorization" => Some(bearer.as_str()),
        "content-type" => Some("application/json"),
        "content-encoding" => Some("zstd"),
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    };
    let parts = chat(&body, header);
    let apis = checker.apis.load_full();
    let code = async |checker: &Checker| {
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Second, clock::now(), None));
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
        // 27 bytes with memory for 26. Without patgate, no component had to decode them.
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

/// The list is made in a task, and data from before the wait decides nothing.
#[tokio::test]
async fn what_changes_while_a_long_list_waits_counts() {
    let short = (10, false, Event::Nothing, "ok");
    // What the token has lost is not in the list, and the rest is.
    let listed = |event, code| match event {
        Event::OtherModels => "ok",
        _ => code,
    };
    let long = Event::ALL.map(|(event, code)| (2000, true, event, listed(event, code)));
    for (others, long, event, code) in [short].into_iter().chain(long) {
        let (checker, _, plain) = hot_for(&mut Registry::default(), others);
        let bearer = format!("Bearer {}", plain.expose());
        let header = only_token(&bearer);
        let parts = get("/proxy/acme/v1/models", header);
        let apis = checker.apis.load();
        let mut check = pin!(checker.check(&parts, &apis, CheckStep::Only, clock::now(), None));
        let first = poll!(check.as_mut());
        assert_eq!(first.is_pending(), long, "{others} others");
        event.happen(&checker, &checker.tokens.verify(plain.expose()).unwrap());
        let checked = match first {
            Poll::Ready(checked) => checked,
            Poll::Pending => check.await,
        };
        let (decision, _) = decided(checked);
        assert_eq!(decision.code(), code, "{others} others, {event:?}");
        if let Decision::AnswerList(answered) = decision {
            let models = if matches!(event, Event::OtherModels) { 0 } else { others + 1 };
            assert_eq!(answered.body().matches(r#""id":"m"#).count(), models, "{event:?}");
        }
    }
}

/// Such a request needs no body.
#[tokio::test]
async fn a_first_step_answers_a_list() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let bearer = format!("Bearer {}", plain.expose());
    let header = only_token(&bearer);
    let parts = get("/proxy/acme/api/tags", header);
    let apis = checker.apis.load();
    for step in [CheckStep::Only, CheckStep::First, CheckStep::Second] {
        let (decision, _) = decided(checker.check(&parts, &apis, step, clock::now(), None).await);
        let Decision::AnswerList(answered) = decision else { panic!("{step:?}: {decision:?}") };
        assert_eq!(answered.body(), r#"{"models":[{"name":"m","model":"m"}]}"#, "{step:?}");
    }
}
