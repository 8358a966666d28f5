//! Reads the feed: one statement on every notification, and every 400 ms.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use sqlx::Row;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Lease,
    lease::{self, LeaseRow, RENEW_EVERY},
    listener::ChangeListener,
    poll::{self, ErrorKind, PollError, Polled},
};
use crate::{
    clock::{self, Clock, Tick},
    freshness::{AppliedPoll, KnownChanges, Poll},
    postgres::{AskError, Postgres, PostgresSettings},
    process::tasks::{Task, Tasks},
    snapshot::Snapshot,
    telemetry::Metrics,
    throttle::Throttle,
};

/// How long a change may go unnoticed if its notification is lost.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(400);
/// How long to wait after a failure, so that not all replicas return to a server at once. With the
/// time limit of a poll it stays below the five seconds within which the feed has to be back.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Prunes a slice of the changes, and says whether more can be pruned.
const PRUNE: &str = "SELECT patgate.prune_changes() AS more";
/// Notifications within this time count as one: otherwise each of many changes in a row would wake
/// every replica.
const BUNCH: Duration = Duration::from_millis(5);

/// Reads the feed for one replica.
pub(crate) struct FeedReader {
    pub(crate) changes: Arc<KnownChanges>,
    pub(crate) clock: Arc<Clock>,
    /// The address, for what takes a connection of its own.
    pub(crate) settings: PostgresSettings,
    /// Whether a connection to that address is this replica's alone, so that it may listen. A pooler
    /// in transaction mode hands the connection that listens to other clients, whose statements
    /// would be interrupted by notifications, even by their own.
    pub(crate) listens: bool,
    pub(crate) postgres: Postgres,
    pub(crate) lease: Lease,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) max_staleness: Duration,
    /// Notified when a key has left the ring that had sealed relayed polls: they count no more.
    pub(crate) distrusted: Arc<Notify>,
}

/// What is remembered from one poll to the next.
pub(super) struct PollState {
    /// The kinds of errors that were logged since the feed was last read; empty while it is read.
    logged: Vec<ErrorKind>,
    renewed: Option<Tick>,
    prune_at: Tick,
    prunes: bool,
    /// When a pooler that prevents leading was reported.
    pub(super) pooled: Throttle,
}

impl Default for PollState {
    fn default() -> Self {
        let prune_at = clock::now().after(PRUNE_EVERY);
        let pooled = Throttle::default();
        Self { logged: Vec::new(), renewed: None, prune_at, prunes: true, pooled }
    }
}

impl FeedReader {
    /// Polls until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let mut listener = self.listens.then(|| self.listen(&wake));
        let mut poll_state = PollState::default();
        while !stop.is_cancelled() {
            let began = clock::now();
            let was_lost = !poll_state.logged.is_empty();
            let polled = self.round(&mut poll_state).await;
            if polled.is_some() && was_lost && listener.is_some() {
                // The connection that listens may be lost as well, without a sign of it.
                listener = Some(self.listen(&wake));
            }
            let wait = match polled {
                // Counted from one sending to the next, however long everything else took.
                Some(_) => {
                    let rest = POLL_EVERY.saturating_sub(clock::now().since(began));
                    notified(&wake, rest).left_future()
                }
                None => sleep(jittered(PAUSE)).right_future(),
            };
            let _ = stop.run_until_cancelled(wait).await;
        }
        self.lease.release(&self.postgres).await;
    }

    /// Polls once, renews the lease and prunes if they are due. Logs when contact is lost, once per
    /// kind of error, and when it is back.
    pub(super) async fn round(&self, poll_state: &mut PollState) -> Option<Polled> {
        let polled = self.poll().await;
        match &polled {
            Ok(_) if poll_state.logged.is_empty() => {}
            Ok(_) => {
                tracing::info!("the feed of changes is back");
                poll_state.logged.clear();
            }
            Err(error) if poll_state.logged.contains(&error.kind()) => {}
            Err(error) => {
                poll_state.logged.push(error.kind());
                tracing::warn!(
                    %error,
                    "the feed of changes is lost; until it is back, cached data is used until it \
                     is older than max_staleness",
                );
            }
        }
        let now = clock::now();
        self.metrics.polled(polled.is_ok());
        let polled = polled.ok()?;
        let due = poll_state.renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY);
        if due || polled.poll.brings_news() {
            poll_state.renewed = Some(now);
            if let Err(error) = self.renew(&polled).await {
                tracing::debug!(%error, "renewing the lease");
            }
        }
        if now >= poll_state.prune_at {
            let more = self.prune(poll_state).await;
            let pause = if more { POLL_EVERY } else { PRUNE_EVERY };
            poll_state.prune_at = now.after(pause);
        }
        Some(polled)
    }

    /// Deletes a slice of the changes that every replica has read; returns whether there is more. It
    /// takes less than the time between two polls. Logs when it begins to fail, and when it works
    /// again.
    async fn prune(&self, poll_state: &mut PollState) -> bool {
        let answer = self.postgres.fetch(PRUNE.to_owned()).await.and_then(|rows| {
            Ok(rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<bool, _>("more")?)
        });
        match &answer {
            Ok(_) if !poll_state.prunes => tracing::info!("the feed of changes is pruned again"),
            Err(error) if poll_state.prunes => tracing::warn!(
                %error,
                "the feed of changes cannot be pruned; until it can, patgate.changes grows",
            ),
            _ => {}
        }
        poll_state.prunes = answer.is_ok();
        answer.unwrap_or(false)
    }

    /// Brings the record up to date, and takes the lease: a command that waits for a change has to
    /// know of this replica before the replica answers for the first time. Errors are only logged,
    /// so that a replica also starts on a read-only server.
    pub(crate) async fn begin(&self) {
        let Some(polled) = self.catch_up().await else { return };
        if let Err(error) = self.renew(&polled).await {
            tracing::warn!(
                %error,
                "the lease cannot be written yet; until it is, `token revoke --wait` does not know \
                 of this replica",
            );
        }
    }

    /// Brings the record up to date and writes nothing, since commands do so as well.
    pub(crate) async fn catch_up(&self) -> Option<Polled> {
        let polled = self.poll().await;
        polled
            .inspect_err(|error| tracing::warn!(%error, "the feed of changes cannot be read yet"))
            .ok()
    }

    async fn renew(&self, polled: &Polled) -> Result<(), AskError> {
        let snapshot = polled.poll.stamp.snapshot.clone();
        self.write_leases(&[self.lease.row(snapshot, polled.verified)]).await
    }

    /// Writes leases where commands read them.
    pub(super) async fn write_leases(&self, leases: &[LeaseRow]) -> Result<(), AskError> {
        lease::write(&self.postgres, self.changes.installation(), leases).await
    }

    /// Polls once and records what it brings.
    pub(super) async fn poll(&self) -> Result<Polled, PollError> {
        // Before the first poll nothing is known, and everything that is retained is asked for.
        let mut polled = self.ask(self.changes.polled_to()).await?;
        let applied = self.apply(polled.poll.clone());
        if applied.triggers_switched {
            self.metrics.triggers_switched();
            tracing::warn!(
                "triggers that record changes were off, or created again, since the last poll: \
                 changes meanwhile may be unrecorded, so all cached data is read again"
            );
        }
        if !applied.joined {
            // There is a gap, or another server.
            polled = self.ask(None).await?;
            self.apply(polled.poll.clone());
        }
        if polled.poll.after.is_none() {
            self.metrics.feed_restarted();
        }
        Ok(polled)
    }

    async fn ask(&self, after: Option<Snapshot>) -> Result<Polled, PollError> {
        let polled = poll::ask(&self.postgres, after).await;
        match &polled {
            Ok(Polled { poll, .. }) => {
                self.metrics.recording(true);
                self.metrics.changes_read(poll.changes.len());
            }
            Err(PollError::Unrecorded(_)) => self.metrics.recording(false),
            Err(PollError::Ask(_)) => {}
        }
        polled
    }

    fn apply(&self, poll: Poll) -> AppliedPoll {
        let applied = self.changes.apply(poll);
        if applied.joined
            && let Some(watermark) = applied.earlier_watermark
        {
            // Until now, checks were answered from it.
            self.metrics.renewed_at(clock::now().since(watermark));
        }
        applied
    }

    pub(super) fn listen(&self, wake: &Arc<Notify>) -> AbortOnDropHandle<()> {
        let listener = ChangeListener::new(
            self.settings.clone(),
            self.postgres.clone(),
            self.changes.installation().channel(),
            Arc::clone(wake),
            self.metrics.clone(),
        );
        AbortOnDropHandle::new(self.tasks.spawn(Task::ChangeListener, listener.run()))
    }
}

/// Waits for the next notification, or for `pause` if none arrives.
pub(super) async fn notified(wake: &Notify, pause: Duration) {
    if timeout(pause, wake.notified()).await.is_ok() {
        sleep(BUNCH).await;
    }
}

/// A random time between half and the whole of `pause`, so that replicas do not act at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
