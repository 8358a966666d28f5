//! How many checks Envoy sends at a time.

use std::sync::Arc;

use patgate_testing::http;
use tokio::task::JoinSet;

use super::gate::{GateAnswer::Silence, MODELS, ROOMY, UNSAID, gate};
use crate::support::Suite;

/// Envoy's default.
const BY_DEFAULT: usize = 1024;
const MORE: usize = 76;

pub(crate) async fn more_checks_at_a_time_than_by_default_are_asked_as_shipped(suite: Arc<Suite>) {
    let gate = gate(&suite).await;
    for (listener, refused) in [(ROOMY, 0), (UNSAID, MORE)] {
        let mut case = gate.case(Silence);
        let fixed = "host: gateway\r\nconnection: close\r\n";
        let request = format!("GET {MODELS} HTTP/1.1\r\n{fixed}{}\r\n", case.header());
        let mut replies = JoinSet::new();
        for _ in 0..BY_DEFAULT + MORE {
            replies.spawn(http::raw(gate.port(listener), request.clone().into_bytes()));
        }
        for asked in 0..BY_DEFAULT + MORE - refused {
            assert_eq!(case.next_check().await.path, MODELS, "{listener}: {asked} were asked");
        }
        // None of those has an answer yet, so a request with an answer was refused without a check.
        for _ in 0..refused {
            assert_eq!(replies.join_next().await.unwrap().unwrap().status, 503, "{listener}");
        }
        assert_eq!((case.checks().len(), replies.len()), (0, BY_DEFAULT + MORE - refused));
        assert!(replies.try_join_next().is_none(), "{listener}");
    }
}
