//! Envoy's access log.

use std::{fs, time::Duration};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{http::Reply, stack::Server, wire::PATIENCE};

/// Returns the line about the request that `reply` answers. Envoy writes it a moment later.
pub async fn line(envoy: &Server, reply: &Reply) -> Value {
    let id = reply.header("x-request-id").expect("Envoy returns the request id");
    let found = async {
        loop {
            let log = fs::read_to_string(&envoy.access_log).unwrap();
            // The last line may be incomplete.
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = lines.into_iter().find(|line| line["request_id"] == id) {
                return line;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line with request id {id}"))
}
