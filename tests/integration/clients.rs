//! Clients as they are in use, pointed at Envoy: what they make of our answers.

mod drive;
pub(crate) mod recorded;
mod shown;
mod table;

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    harness::{Suite, Token},
    stack::project,
};

pub(crate) use self::{
    drive::{all_are_wanted, shows_what_its_user_has_to_know},
    table::{CLIENTS, Client},
};

/// What the backend says, in as many pieces.
const WORDS: [&str; 8] = ["Hello", ",", " this", " is", " a", " streamed", " answer", "."];

/// What the official Python client of OpenAI makes of each of `calls`: what to do, and the model.
pub(crate) async fn openai(port: u16, key: &str, calls: &[(&str, &str)]) -> Vec<Value> {
    openai_at(port, "/proxy/acme/v1", key, calls).await
}

/// The same, with another base URL.
pub(crate) async fn openai_at(
    port: u16,
    base: &str,
    key: &str,
    calls: &[(&str, &str)],
) -> Vec<Value> {
    let base_url = format!("http://127.0.0.1:{port}{base}");
    // Not as an argument, which everybody on the machine could read.
    let job = json!({ "base_url": base_url, "api_key": key, "calls": calls });
    let run = move || {
        let mut child = Command::new(project(".venv/bin/python"))
            .arg(project("tests/clients/openai_client.py"))
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        write!(child.stdin.take().unwrap(), "{job}").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

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
    let results = openai(envoy.port, &token.text, &calls).await;
    assert_eq!(
        results,
        [
            json!({ "models": ["model-acme-small"] }),
            json!({ "model": "m-7b" }),
            // This client escapes the slash in a model's name, and Envoy refuses that: whoever
            // decodes it later would see another path than the one that was checked.
            json!({
                "error": "BadRequestError",
                "status": 400,
                "code": null,
                "message": "Error code: 400",
                "retry_after": null,
            }),
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

    // Now the look-up of a token that nobody has asked about fails.
    world.sql("ALTER TABLE patgate.pats RENAME TO lost").await;
    let refused = ask(&cold).await;
    assert_eq!(refused["error"], "InternalServerError", "{refused}");
    assert_eq!((&refused["status"], &refused["code"]), (&json!(503), &json!("unavailable")));
    assert!(refused["message"].as_str().unwrap().contains("temporarily"), "{refused}");
    assert_eq!(refused["retry_after"], "1");
}
