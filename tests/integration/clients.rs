//! Clients in their real versions, pointed at Envoy: what they make of the answers.

mod drive;
pub(crate) mod recorded;
mod shown;
mod table;

use std::sync::Arc;

use patgate_testing::openai::openai;
use serde_json::json;

use crate::support::{Suite, Token};

pub(crate) use self::{
    drive::{all_are_wanted, chromium, shows_what_its_user_has_to_know},
    table::{CLIENTS, Client},
};

/// The backend's answer, in as many pieces.
const WORDS: [&str; 8] = ["Hello", ",", " this", " is", " a", " streamed", " answer", "."];

pub(crate) async fn openai_reads_models_and_chats(suite: Arc<Suite>) {
    let world = suite.world().await;
    let scopes =
        ["llm_read", "llm_chat_completions"].map(|operation| ("acme", "models", "*", operation));
    let token = world.token(&scopes).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let calls = [
        ("list", ""),
        ("retrieve", "m-7b"),
        ("retrieve", "org/m-7b"),
        ("chat", "org/m-7b"),
        ("stream", "org/m-7b"),
    ];
    let mut results = openai(envoy.port, &token.text, &calls).await;
    // This client escapes the slash in a model's name, and Envoy refuses that: a component that
    // decoded it later would see another path than the one that was checked.
    let escaped = results.remove(2);
    assert_eq!(escaped["error"], "BadRequestError", "{escaped}");
    assert_eq!((&escaped["status"], &escaped["code"]), (&json!(400), &json!("path_not_accepted")));
    let message = escaped["message"].as_str().unwrap();
    assert!(message.contains("Send the slashes in the name of a model as they are"), "{escaped}");
    assert_eq!(
        results,
        [
            json!({ "models": ["model-acme-small"] }),
            json!({ "model": "m-7b" }),
            json!({ "text": WORDS.concat() }),
            json!({ "chunks": WORDS }),
        ]
    );
}

pub(crate) async fn openai_tells_refusals_apart(suite: Arc<Suite>) {
    let world = suite.world().await;
    let unknown = world.token(&[]).await;
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", unknown.id)).await;
    let reader = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let cold = world.token(&[]).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let ask = async |token: &Token| {
        let mut results = openai(envoy.port, &token.text, &[("chat", "m"), ("stream", "m")]).await;
        // A stream is refused before it begins.
        assert_eq!(results.pop(), results.last().cloned());
        results.remove(0)
    };

    let refused = ask(&unknown).await;
    assert_eq!(refused["error"], "AuthenticationError", "{refused}");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(401), &json!("invalid_token")));
    assert!(refused["message"].as_str().unwrap().contains("is not valid"), "{refused}");

    let refused = ask(&reader).await;
    assert_eq!(refused["error"], "PermissionDeniedError", "{refused}");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(403), &json!("permission_denied")));
    assert!(refused["message"].as_str().unwrap().contains("`llm_chat_completions`"), "{refused}");

    // Now the lookup of a token that was not used before fails.
    world.sql("ALTER TABLE patgate.pats RENAME TO lost").await;
    let refused = ask(&cold).await;
    assert_eq!(refused["error"], "InternalServerError", "{refused}");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(503), &json!("unavailable")));
    assert!(refused["message"].as_str().unwrap().contains("temporarily"), "{refused}");
    assert_eq!(refused["retry_after"], "1");
}
