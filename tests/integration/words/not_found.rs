//! The refusal of a path without a rule explains itself, but only to a valid token.

use std::sync::Arc;

use patgate_testing::openai::openai_at;
use serde_json::json;

use super::ask;
use crate::support::{Scope, Suite};

const READ: Scope<'static> = ("acme", "models", "*", "llm_read");

pub(crate) async fn a_path_that_no_rule_names_explains_itself(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let bearer = world.token(&[READ]).await.bearer();
    let meant = "Did you mean `POST /proxy/acme/v1/chat/completions`?";
    let base = "A base URL for this domain ends with `/proxy/acme/v1`.";
    let chat = "/proxy/acme/v1/chat/completions";
    let elsewhere = "Did you mean `POST /proxy/<domain>/v1/chat/completions`? \
                     A base URL ends with `/proxy/<domain>/v1`.";
    let by_id = format!("/proxy/{}/chat/completions", world.id("acme"));
    for (request, parts) in [
        (("POST", "/proxy/acme/chat/completions"), vec![meant, base]),
        (("POST", "/proxy/acme/v1/v1/chat/completions?a=b"), vec![meant, base]),
        (
            ("POST", "/proxy/acme/v1/v1/chat/completions"),
            vec!["`POST /proxy/acme/v1/v1/chat/completions` is not served here."],
        ),
        // Only the method is wrong, so the base URL is right.
        (("GET", chat), vec![meant]),
        (("POST", "/v1/chat/completions"), vec![elsewhere]),
        (
            ("POST", "/proxy/v1/chat/completions"),
            vec!["No scope of the access token names a domain `v1`. A base URL ends with"],
        ),
        (("GET", "/proxy/acme/nothing"), vec![base]),
        (("GET", "/nothing"), vec!["The paths of APIs begin with `/proxy/<domain>`."]),
        (("POST", &by_id), vec![&*by_id, "/v1/chat/completions`?"]),
    ] {
        let (status, code, message) = ask(&replica, request, Some(&bearer)).await.unwrap();
        assert_eq!((status, &*code), (404, "not_found"), "{request:?}");
        for part in parts {
            assert!(message.contains(part), "{request:?}: no `{part}` in `{message}`");
        }
    }
    let (_, _, message) = ask(&replica, ("GET", chat), Some(&bearer)).await.unwrap();
    assert!(!message.contains("base URL"), "{message}");
    // A domain that the token does not name gets the same answer as one that does not exist.
    let of = async |domain: &str| {
        let path = format!("/proxy/{domain}/nothing");
        let (_, _, message) = ask(&replica, ("GET", &path), Some(&bearer)).await.unwrap();
        message.replace(domain, "…")
    };
    assert_eq!(of("beta").await, of("nobody").await);
    // The repeated text is short, and contains no secret.
    let secret = format!("/proxy/acme/{}", bearer.trim_start_matches("Bearer "));
    let (_, _, message) = ask(&replica, ("GET", &secret), Some(&bearer)).await.unwrap();
    assert!(message.contains("_(not repeated)` is not served"), "{message}");
    let long = format!("/proxy/acme/{}", "a-".repeat(1900));
    let (_, _, message) = ask(&replica, ("GET", &long), Some(&bearer)).await.unwrap();
    assert!(message.len() < 500 && message.contains("…`"), "{message}");
    // All earlier checks apply: without a valid token, a client learns nothing about the API.
    for (bearer, code) in [(None, "missing_credential"), (Some("Bearer pat_x"), "invalid_token")] {
        let (status, got, message) = ask(&replica, ("GET", "/nothing"), bearer).await.unwrap();
        assert_eq!((status, &*got), (401, code));
        assert!(!message.contains("/nothing"), "{message}");
    }
}

/// In shadow it passes, and so does a token outside of the enforced share.
pub(crate) async fn an_unknown_path_passes_in_a_rollout_where_a_403_does(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[READ]).await.bearer();
    let shadow = world.serve(&["mode=shadow"]).await;
    let per_domain = world.serve(&["mode=per-domain"]).await;
    let request = ("GET", "/proxy/acme/nothing");
    assert_eq!(ask(&shadow, request, Some(&bearer)).await, None);
    let (status, ..) = ask(&per_domain, request, Some(&bearer)).await.unwrap();
    assert_eq!(status, 404);
    world.sql("UPDATE patgate.domains SET enforced_share = 0 WHERE slug = 'acme'").await;
    let ramped = world.serve(&["mode=per-domain"]).await;
    assert_eq!(ask(&ramped, request, Some(&bearer)).await, None);
    // A ramp lets nothing pass without a verified token, and nothing elsewhere.
    let (status, ..) = ask(&ramped, request, None).await.unwrap();
    assert_eq!(status, 401);
    let (status, ..) = ask(&ramped, ("GET", "/proxy/beta/nothing"), Some(&bearer)).await.unwrap();
    assert_eq!(status, 404);
}

pub(crate) async fn a_client_with_a_wrong_base_url_shows_the_right_one(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let token = world.token(&[READ, ("acme", "models", "*", "llm_chat_completions")]).await;
    for (base, right) in [
        ("/proxy/acme", "/proxy/acme/v1`"),
        ("/proxy/acme/v1/v1", "/proxy/acme/v1`"),
        ("/v1", "/proxy/<domain>/v1`"),
        ("", "/proxy/<domain>/v1`"),
    ] {
        let calls = [("chat", "m"), ("stream", "m"), ("list", "")];
        for refused in openai_at(envoy.port, base, &token.text, &calls).await {
            assert_eq!(refused["error"], "NotFoundError", "{base}: {refused}");
            assert_eq!((&refused["status"], &refused["code"]), (&json!(404), &json!("not_found")));
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("Did you mean") && message.contains(right), "{message}");
        }
    }
}
