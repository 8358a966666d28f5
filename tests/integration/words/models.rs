//! The refusal names the refused model, and the models that the token may use instead; an error in
//! a body is not reported as missing permission.

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use patgate_testing::openai::openai_at;
use serde_json::{Value, json};

use super::told;
use crate::support::{Replica, Scope, Suite, World, http_of, request};

const CHAT: &str = "llm_chat_completions";

async fn chat(
    replica: &Replica,
    domain: &str,
    bearer: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> CheckResponse {
    let path = format!("/proxy/{domain}/v1/chat/completions");
    let own = [("authorization", bearer), ("x-envoy-auth-partial-body", "false")];
    let own = [&own[..], &[("content-type", "application/json")]].concat();
    let others = own.into_iter().filter(|(name, _)| headers.iter().all(|(given, _)| given != name));
    let headers: Vec<_> = others.chain(headers.iter().copied()).collect();
    let mut request = request("POST", &path, &headers);
    http_of(&mut request).raw_body = body.into();
    replica.raw(request).await
}

async fn of_models(world: &World<'_>, models: &[&str]) -> String {
    let scopes: Vec<Scope<'_>> = models.iter().map(|m| ("acme", "models", *m, CHAT)).collect();
    world.token(&scopes).await.bearer()
}

pub(crate) async fn a_refused_model_is_named_with_what_may_be_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let seven: Vec<String> = (0..7).map(|at| format!("m-{at}")).collect();
    let seven: Vec<&str> = seven.iter().map(String::as_str).collect();
    let thousands: Vec<String> = (0..1200).map(|at| format!("m-{at:04}")).collect();
    let thousands: Vec<&str> = thousands.iter().map(String::as_str).collect();
    let beginning = format!("The access token does not permit `{CHAT}` on the model `gpt-4o`");
    for (bearer, usable) in [
        (of_models(&world, &["m"]).await, "Available to it: `m`."),
        (of_models(&world, &["org/b", "a"]).await, "Available to it: `a`, `org/b`."),
        (
            of_models(&world, &seven).await,
            "Available to it: `m-0`, `m-1`, `m-2`, `m-3`, `m-4` and 2 more.",
        ),
        (of_models(&world, &thousands).await, "`m-0004` and more than 995 more."),
    ] {
        let response = chat(&replica, "acme", &bearer, &[], r#"{"model":"gpt-4o"}"#).await;
        let (status, code, message) = told(&response).unwrap();
        assert_eq!((status, &*code), (403, "permission_denied"));
        assert!(message.starts_with(&beginning) && message.ends_with(usable), "{message}");
        let body = super::body(&response);
        assert_eq!(
            (&body["error"]["param"], &body["error"]["type"]),
            (&json!("model"), &json!("permission_error"),)
        );
    }
    // The client's text is repeated escaped, shortened and without a secret.
    let bearer = of_models(&world, &["m"]).await;
    let token = bearer.trim_start_matches("Bearer ");
    for (model, shown) in [
        ("a\u{202e}b", "`a\\u{202e}b`".to_owned()),
        (&*"x".repeat(256), format!("`{}…`", "x".repeat(100))),
        (token, "_(not repeated)`".to_owned()),
    ] {
        let body = json!({ "model": model }).to_string();
        let (.., message) = told(&chat(&replica, "acme", &bearer, &[], &body).await).unwrap();
        assert!(message.contains(&shown) && message.len() < 400, "{message}");
    }
    // Without the operation, or in a domain out of reach, no name is revealed.
    let path = "/proxy/acme/v1/embeddings";
    let of = |domain: &str| format!("/proxy/{domain}/v1/chat/completions");
    let of_beta = of("beta");
    for (path, operation, domain) in [(path, "llm_embeddings", "acme"), (&of_beta, CHAT, "beta")] {
        let (_, _, message) = super::ask(&replica, ("POST", path), Some(&bearer)).await.unwrap();
        let plain = format!("does not permit `{operation}` in the domain `{domain}`: it needs");
        assert!(message.contains(&plain) && !message.contains("Available"), "{message}");
    }
    // The domain is repeated as the request names it, whether or not it exists.
    let said = async |domain: &str| {
        let path = of(domain);
        let (status, _, message) =
            super::ask(&replica, ("POST", &path), Some(&bearer)).await.unwrap();
        assert_eq!(status, 403, "{message}");
        message
    };
    let beta = said("beta").await;
    let longest = format!("a{}", "-".repeat(62));
    let unknown = uuid::Uuid::new_v4().to_string();
    let id_of_beta = world.id("beta").to_string();
    for named in ["nowhere", &longest, &unknown, &id_of_beta] {
        assert_eq!(said(named).await, beta.replace("beta", named), "{named}");
    }
    // What cannot be the name of a domain, or may be a secret, is not repeated.
    let too_long = format!("{longest}-");
    let secret = format!("a1{}", "b2".repeat(20));
    for named in ["NO_SLUG", "x", &too_long, &secret, token] {
        let message = said(named).await;
        assert!(message.contains("does not permit `llm_chat_completions` here: it"), "{message}");
    }
}

/// The text about the domain is in the form of each API, and the same as for a domain that is not there.
pub(crate) async fn a_refused_domain_is_named_in_every_form(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let bearer = of_models(&world, &["m"]).await;
    for (path, operation) in [
        ("v1/chat/completions", CHAT),
        ("v1/messages", CHAT),
        ("api/chat", CHAT),
        ("v1/embeddings", "llm_embeddings"),
    ] {
        let mut said = Vec::new();
        for domain in ["beta", "nowhere"] {
            let path = format!("/proxy/{domain}/{path}");
            let (status, code, message) =
                super::ask(&replica, ("POST", &path), Some(&bearer)).await.unwrap();
            assert_eq!((status, &*code), (403, "permission_denied"), "{path}");
            let expected = format!(
                "The access token does not permit `{operation}` in the domain `{domain}`: it needs a \
                 scope for it in this domain, and its owner a role with it."
            );
            assert_eq!(message, expected, "{path}");
            said.push(message.replace(domain, "…"));
        }
        assert_eq!(said[0], said[1]);
    }
}

/// What was sent in place of a token is said, and nothing of it is repeated.
pub(crate) async fn what_is_no_token_is_said_without_repeating_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await.text;
    let end = &token[token.len() - 10..];
    let beginning = &token[..token.len() - 50];
    let quoted = "has quotation marks around it";
    for (sent, expected) in [
        (format!("Bearer \"{token}\""), quoted),
        (format!("Bearer '{token}'"), quoted),
        (format!("\"Bearer {token}\""), quoted),
        (format!("Bearer {beginning}"), "only the beginning of an access token"),
        (format!("Bearer {beginning}..."), "only the beginning of an access token"),
        // With a part of the secret: as any other text that no key has signed.
        (format!("Bearer {}", &token[..60]), "Check that it was copied completely"),
    ] {
        let (status, code, message) =
            super::ask(&replica, ("GET", "/proxy/acme/v1/models"), Some(&sent)).await.unwrap();
        assert_eq!((status, &*code), (401, "invalid_token"), "{sent}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains(end) && !message.contains(beginning), "{message}");
    }
}

pub(crate) async fn a_refusal_by_a_domains_list_names_its_models(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let id = world.id("picky");
    for model in ["b", "a", "q-*"] {
        world
            .sql(&format!(
                "INSERT INTO patgate.domain_models (domain_id, model, upstream) \
                 VALUES ('{id}', '{model}', 'model-acme')"
            ))
            .await;
    }
    let every = world.token(&[("picky", "models", "*", CHAT)]).await.bearer();
    let some = world.token(&[("picky", "models", "b", CHAT), ("picky", "models", "x", CHAT)]);
    let some = some.await.bearer();
    let none = world.token(&[("picky", "models", "x", CHAT)]).await.bearer();
    for (bearer, model, expected) in [
        (
            &every,
            "x",
            "The model `x` is not available in this domain. Available to it: `a`, `b`, \
             `org/listed`, `other`, `q-*`.",
        ),
        (&some, "x", "The model `x` is not available in this domain. Available to it: `b`."),
        (&none, "x", "It permits none that the domain has: ask an administrator."),
    ] {
        let body = json!({ "model": model }).to_string();
        let (status, _, message) =
            told(&chat(&replica, "picky", bearer, &[], &body).await).unwrap();
        assert_eq!(status, 403);
        assert!(message.ends_with(expected), "{message}");
    }
}

/// 403 is for permission; other refusals say what is wrong with the body, and where.
pub(crate) async fn a_body_is_refused_for_what_it_is(suite: Arc<Suite>) {
    let world = suite.world().await;
    let enforced = world.serve(&[]).await;
    let shadow = world.serve(&["mode=shadow"]).await;
    world.sql("UPDATE patgate.domains SET enforced_share = 0 WHERE slug = 'acme'").await;
    let ramp = world.serve(&["mode=per-domain"]).await;
    let bearer = of_models(&world, &["m"]).await;
    let many = format!("{{{}}}", vec![r#""a":1"#; 10_001].join(","));
    for (headers, body, status, code, part) in [
        (&[][..], "{\"model\":\"m\",}", 400, "invalid_body", "near byte 13"),
        (&[], "{}", 400, "invalid_body", "names no model: send `model`"),
        (&[], "", 400, "invalid_body", "No body arrived: send one that names the model."),
        (
            &[],
            "{\"model\":",
            400,
            "invalid_body",
            "ends after 9 bytes, before its JSON object does",
        ),
        (&[], "{\"model\":\"m\",", 400, "invalid_body", "ends after 13 bytes"),
        (&[], "{\"model\":5}", 400, "invalid_body", "not a text of 1 to 256 characters"),
        (&[], r#"{"model":"m","model":"n"}"#, 400, "invalid_body", "more than one model"),
        (&[], &many, 400, "invalid_body", "more than 10000 members"),
        (
            &[("x-envoy-auth-partial-body", "true")],
            "{\"model\":\"m\"",
            413,
            "body_too_large",
            "longer than the 12 bytes of it that the gateway shows",
        ),
        (&[("content-encoding", "br")], "{}", 415, "unsupported_media_type", "Content-Encoding"),
        (&[("content-type", "text/plain")], "{}", 415, "unsupported_media_type", "Send JSON"),
    ] {
        let response = chat(&enforced, "acme", &bearer, headers, body).await;
        let (got, word, message) = told(&response).unwrap();
        assert_eq!((got, &*word), (status, code), "{message}");
        assert!(message.contains(part), "no `{part}` in `{message}`");
        assert_eq!(super::body(&response)["error"]["param"], "model");
        // New refusals must not break a rollout.
        for (mode, replica) in [("shadow", &shadow), ("ramp", &ramp)] {
            let response = chat(replica, "acme", &bearer, headers, body).await;
            assert_eq!(told(&response), None, "{mode}: {code}");
        }
    }
}

pub(crate) async fn a_client_shows_which_models_may_be_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let token = world.token(&[("acme", "models", "m", CHAT)]).await;
    let calls = [("chat", "gpt-4o"), ("stream", "gpt-4o")];
    for refused in openai_at(envoy.port, "/proxy/acme/v1", &token.text, &calls).await {
        assert_eq!(refused["error"], Value::from("PermissionDeniedError"), "{refused}");
        let message = refused["message"].as_str().unwrap();
        for part in ["`gpt-4o`", "Available to it: `m`."] {
            assert!(message.contains(part), "{message}");
        }
    }
}
