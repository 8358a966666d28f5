//! Conditions that are waited for.

use std::time::Duration;

/// Between two questions whether something has happened yet.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Waits for what happens behind an answer.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}
