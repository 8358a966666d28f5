//! What is recorded of a decision.

use super::*;

/// Counts the accesses to the request: the media type once per reading of the body, the credential
/// once per reading of the request.
#[tokio::test]
async fn nothing_is_read_twice_for_the_record() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let asked = Mutex::new(Vec::new());
    let bearer = format!("Bearer {}", plain.expose());
    let body = br#"{"messages":[],"model":"other"}"#;
    let header = |name: &str| {
        asked.lock().unwrap().push(name.to_owned());
        match name {
            "authorization" => Some(bearer.as_str()),
            "content-type" => Some("application/json"),
            "x-envoy-auth-partial-body" => Some("false"),
            _ => None,
        }
    };
    let parts = chat(body, header);
    let apis = checker.apis.load();
    let now = clock::now();
    let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now, None).await);
    assert_eq!((decided.0.outcome().as_str(), decided.0.code()), ("deny", "permission_denied"));
    let record =
        checker.record_of(Asked::of(&parts), decided, "r-1".to_owned(), now, Duration::ZERO);
    let RequestedAccess { domain, operation, model, unnamed } = record.requested;
    assert_eq!(unnamed, None);
    assert_eq!(domain.map(|domain| domain.to_string()).as_deref(), Some("acme"));
    assert_eq!(operation, Some(Operation::LlmChatCompletions));
    assert_eq!(model.as_deref(), Some("other"));
    for name in ["authorization", "content-type"] {
        let times = asked.lock().unwrap().iter().filter(|asked| *asked == name).count();
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
        let header = only_token(&bearer);
        let parts = get(target, header);
        let decided =
            decided(checker.check(&parts, &apis, CheckStep::Only, clock::now(), None).await);
        assert_eq!(decided.0.code(), code, "{target}");
        let record = checker.record_of(
            Asked::of(&parts),
            decided,
            "r-1".to_owned(),
            clock::now(),
            Duration::ZERO,
        );
        let named = record.requested;
        assert_eq!(named.domain.map(|domain| domain.to_string()).as_deref(), domain, "{target}");
        assert_eq!(named.operation, operation, "{target}");
        let unnamed = named.unnamed.map(|unnamed| unnamed.path);
        let expected = (code == "not_found").then_some(target);
        assert_eq!(unnamed.as_deref(), expected, "{target}");
    }
}

/// The answer carries it whether the request is permitted or not, and wherever the model was named.
#[tokio::test]
async fn a_token_in_place_of_a_model_is_not_logged() {
    let (checker, _, plain) = hot(&mut Registry::default());
    let token = plain.expose();
    let bearer = format!("Bearer {}", plain.expose());
    let secret = token.rsplit('_').next().unwrap();
    let path = format!("/proxy/acme/v1/models/{token}");
    let body = format!(r#"{{"model":"{token}"}}"#);
    let chat = "/proxy/acme/v1/chat/completions";
    let header = token_and_json(&bearer);
    let apis = checker.apis.load();
    for (method, target, body, outcome) in
        [("GET", &*path, "", "allow"), ("DELETE", &path, "", "deny"), ("POST", chat, &body, "deny")]
    {
        let body = body.as_bytes();
        let parts = RequestParts {
            method,
            authority: "gateway",
            target,
            header: &header,
            body,
            stream: b"",
        };
        let now = clock::now();
        let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now, None).await);
        assert_eq!(decided.0.outcome().as_str(), outcome, "{method}");
        let record =
            checker.record_of(Asked::of(&parts), decided, token.to_owned(), now, Duration::ZERO);
        let line = serde_json::to_string(&record.line(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        assert!(!line.contains(secret), "{line}");
        if method != "DELETE" {
            let model = token.replace(secret, "(not repeated)");
            assert!(line.contains(&format!(r#""model":"{model}""#)), "{line}");
        }
    }
}

/// patgate would answer it when enforcing.
#[tokio::test]
async fn a_list_that_goes_on_is_logged_with_its_backend() {
    for (mode, upstream) in [(Mode::Enforce, None), (Mode::Shadow, Some("model-acme"))] {
        let (checker, _, plain) = hot(&mut Registry::default());
        let checker = Checker { mode, ..checker };
        let bearer = format!("Bearer {}", plain.expose());
        let header = only_token(&bearer);
        let parts = get("/proxy/acme/v1/models", header);
        let apis = checker.apis.load();
        let now = clock::now();
        let decided = decided(checker.check(&parts, &apis, CheckStep::Only, now, None).await);
        assert_eq!(decided.0.outcome().as_str(), "answered", "{mode}");
        let record =
            checker.record_of(Asked::of(&parts), decided, "r-1".to_owned(), now, Duration::ZERO);
        let line = record.line(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(line.upstream.as_deref(), upstream, "{mode}");
    }
}
