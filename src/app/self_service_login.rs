//! Follows the login of self-service while it serves: another password, login or server.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::web::{Error, SelfService},
    postgres::FollowedPool,
};

/// How often what is known of the address is compared. That costs nothing.
const EVERY: Duration = Duration::from_secs(1);
/// Time limit for the check of another login.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the connections of a service lead to where their address leads.
pub(super) struct LoginFollower {
    pub(super) service: SelfService,
    pub(super) connections: FollowedPool,
}

impl LoginFollower {
    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let Some(mut arrival) = self.connections.change().await else { continue };
            match timeout(PATIENCE, self.service.permits(&mut arrival.connection)).await {
                Ok(Ok(())) => self.connections.follow(arrival).await,
                // Of this login, nothing else is to be expected.
                Ok(Err(error @ (Error::TooPowerful { .. } | Error::OtherInstallation))) => {
                    tracing::error!(
                        %error,
                        "the new login of web.postgres.url is not used; the previous one stays in use"
                    );
                    self.connections.stay(arrival).await;
                }
                Ok(Err(error)) => tracing::warn!(%error, "checking the login of web.postgres.url"),
                Err(_) => tracing::warn!("checking the login of web.postgres.url took too long"),
            }
        }
    }
}
