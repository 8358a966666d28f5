//! Requests of chat UIs and editors, which cannot run here: written by hand from their source code,
//! which tests/clients/recorded.json names.

use std::{collections::BTreeMap, fs, sync::Arc};

use patgate_testing::{
    http::{Over, Reply, Sent},
    stack::project,
};
use serde::Deserialize;
use serde_json::Value;

use super::drive::Stage;
use crate::support::Suite;

#[derive(Deserialize)]
struct Recorded {
    program: String,
    method: String,
    /// The path after that of the domain.
    path: String,
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    status: u16,
    /// Parts of the answer.
    says: Vec<String>,
}

impl Recorded {
    async fn send(&self, over: Over, port: u16, token: &str) -> Reply {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.replace("{token}", token)))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let target = format!("/proxy/acme{}", self.path);
        let body = if self.body.is_null() { String::new() } else { self.body.to_string() };
        let body = body.as_bytes();
        let sent = Sent {
            method: &self.method,
            target: &target,
            headers: &headers,
            body,
            ..Sent::default()
        };
        over.send(port, sent).await
    }
}

pub(crate) async fn requests_of_chat_uis_and_editors_are_served(suite: Arc<Suite>) {
    let stage = Stage::set(&suite).await;
    let recorded = fs::read(project("tests/clients/recorded.json")).unwrap();
    let recorded: Vec<Recorded> = serde_json::from_slice(&recorded).unwrap();
    for request in recorded {
        let program = &request.program;
        for over in Over::ALL {
            let reply = request.send(over, stage.envoy.port, &stage.token.text).await;
            assert_eq!(reply.status, request.status, "{program} {over:?}: {reply:?}");
            for fact in &request.says {
                assert!(reply.body.contains(fact), "{program} {over:?}: {fact}: {reply:?}");
            }
            // The backend repeats all that it received.
            assert!(!reply.body.contains(&stage.token.text), "{program} {over:?}: {reply:?}");
            assert!(!reply.body.contains("\"session_id\""), "{program} {over:?}: {reply:?}");

            let reply = request.send(over, stage.envoy.port, &stage.expired.text).await;
            assert_eq!(reply.status, 401, "{program} {over:?}: {reply:?}");
            assert!(reply.body.contains("has expired"), "{program} {over:?}: {reply:?}");
        }
    }
}
