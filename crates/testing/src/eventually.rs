//! Waits for conditions.

use std::time::Duration;

/// The pause between two evaluations of a condition.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Waits for an effect that follows an answer.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}
