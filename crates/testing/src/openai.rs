//! The official Python client of OpenAI.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::stack::project;

/// What the official Python client of OpenAI makes of each of `calls`: what to do, and the model.
pub async fn openai(port: u16, key: &str, calls: &[(&str, &str)]) -> Vec<Value> {
    openai_at(port, "/proxy/acme/v1", key, calls).await
}

/// The same, with another base URL.
pub async fn openai_at(port: u16, base: &str, key: &str, calls: &[(&str, &str)]) -> Vec<Value> {
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
