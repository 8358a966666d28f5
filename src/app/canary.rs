//! The revocation canary: measures how long it takes this replica to obey a revocation.
//!
//! If it is configured to, a replica owns one token, which no client can use
//! (`0004_revocation_canary.sql`). It revokes it and reissues it in turn, and looks it up like any
//! other until it sees the change. Then it notifies, as the commands do. The measurement begins
//! before the change is sent, and ends after the lookup that saw it. The commit is somewhere in
//! between, so the figure is an upper bound of the time from the commit.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use sqlx::{Row, types::Uuid};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    installation::Installation,
    postgres::{BackgroundWriter, WriteError},
    resolve::{Principals, Tiers},
    telemetry::{CanaryRound, Metrics},
    token::TokenId,
};

/// How often the canary looks into memory for the change; this is the precision of the measurement.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Other replicas remove a canary that has not changed for this time, and for some rounds.
const LEAST_LIFETIME: Duration = Duration::from_secs(5 * 60);
const ROUNDS_OF_LIFE: u32 = 4;

pub(crate) struct Canary {
    id: TokenId,
    every: Duration,
    /// A round that takes longer has failed: the promise on staleness, and the time for a lookup.
    bound: Duration,
    /// The statement that wakes the replicas that listen.
    notify: String,
    principals: Arc<Tiers<Principals>>,
    writer: BackgroundWriter,
    metrics: Metrics,
}

impl Canary {
    pub(crate) fn new(
        every: Duration,
        bound: Duration,
        installation: Installation,
        principals: Arc<Tiers<Principals>>,
        writer: BackgroundWriter,
        metrics: Metrics,
    ) -> Self {
        let notify = format!("SELECT pg_notify('{}', '')", installation.channel());
        Self { id: TokenId(Uuid::new_v4()), every, bound, notify, principals, writer, metrics }
    }

    /// Runs until `stop`, and then removes the canary.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Replicas that were started together must not change their canaries together.
        let spread = u32::from(self.id.0.as_bytes()[0]);
        let mut pause = self.every / 256 * spread;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let Some(round) = stop.run_until_cancelled(self.round()).await else { break };
            self.metrics.canary_round(round);
            pause = self.every;
        }
        let remove = format!("SELECT patgate.remove_canary('{}')", self.id);
        if let Err(error) = self.writer.run(&remove).await {
            tracing::debug!(%error, "removing the canary; others will");
        }
    }

    async fn round(&mut self) -> CanaryRound {
        // Loads the canary into memory, so that memory holds what is about to change.
        let _ = self.principals.get(&self.id, clock::now(), None).await;
        let sent = clock::now();
        let revoked = match self.flip().await {
            Ok(revoked) => revoked,
            Err(error) => {
                tracing::debug!(%error, "flipping the canary");
                return CanaryRound::NotMade;
            }
        };
        let Self { id, notify, principals, writer, .. } = self;
        let seen = async {
            while !shows(principals, id, revoked).await {
                sleep(LOOK_EVERY).await;
            }
            clock::now()
        };
        let left = self.bound.saturating_sub(clock::now().since(sent));
        // The poll comes in any case.
        let (seen, _) = join(timeout(left, seen), writer.run(notify)).await;
        let Ok(seen) = seen else { return CanaryRound::NotSeen };
        self.metrics.propagated(seen.since(sent));
        CanaryRound::Seen
    }

    async fn flip(&mut self) -> Result<bool, WriteError> {
        let lifetime = LEAST_LIFETIME + self.every * ROUNDS_OF_LIFE;
        let flip = format!(
            "SELECT patgate.flip_canary('{}', {} * interval '1 second') AS revoked",
            self.id,
            lifetime.as_secs()
        );
        Ok(self.writer.run(&flip).await?.try_get("revoked")?)
    }
}

/// Returns whether memory shows this state. A lookup without an answer shows nothing.
async fn shows(principals: &Arc<Tiers<Principals>>, canary: &TokenId, revoked: bool) -> bool {
    let known = principals.get(canary, clock::now(), None).await;
    known.is_ok_and(|known| {
        known.found.value.as_ref().is_some_and(|canary| canary.revoked == revoked)
    })
}
