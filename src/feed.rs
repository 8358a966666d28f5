//! Keeps in touch with Postgres in the background.
//!
//! A trip a second relates Postgres's clock to ours, also while every look-up is answered from
//! memory or Redis.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::resolve::postgres::Postgres;

const EVERY: Duration = Duration::from_secs(1);

/// Makes trips until `shutdown`. Logs when contact is lost and when it is back.
pub(crate) async fn run(postgres: Postgres, shutdown: CancellationToken) {
    let mut connected = true;
    loop {
        let trip = postgres.trip().await;
        match &trip {
            Ok(()) if !connected => tracing::info!("Postgres is back"),
            Err(error) if connected => tracing::warn!(
                %error,
                "Postgres cannot be reached; tokens in use are served until what is known of them \
                 is older than max_staleness",
            ),
            _ => {}
        }
        connected = trip.is_ok();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
