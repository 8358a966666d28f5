//! The official Python client of OpenAI.

use std::process::Command;

use serde_json::{Value, json};

use crate::{script::answer_of, stack::project};

/// Runs `calls` with OpenAI's official Python client, each an action and a model, and returns the
/// results.
pub async fn openai(port: u16, key: &str, calls: &[(&str, &str)]) -> Vec<Value> {
    openai_at(port, "/proxy/acme/v1", key, calls).await
}

/// The same, with another base URL.
pub async fn openai_at(port: u16, base: &str, key: &str, calls: &[(&str, &str)]) -> Vec<Value> {
    let base_url = format!("http://127.0.0.1:{port}{base}");
    // Not an argument, which every user of the machine could read.
    let job = json!({ "base_url": base_url, "api_key": key, "calls": calls });
    let run = move || {
        let mut python = Command::new(project(".venv/bin/python"));
        python.arg(project("tests/clients/openai_client.py")).env("NO_PROXY", "127.0.0.1");
        answer_of(&mut python, &job.to_string())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}
