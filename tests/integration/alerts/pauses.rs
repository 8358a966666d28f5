//! Whether the machine was too busy for alerts about time to be false alarms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use crate::support::World;

/// Between two questions to Postgres, as between two polls of the feed.
const EVERY: Duration = Duration::from_millis(200);
/// A question and the time before it, if they take longer: with that, a poll may come a second late.
const LONG: Duration = Duration::from_millis(400);

/// The alerts that are right on a machine that pauses.
pub(super) const ALERTS: [&str; 4] =
    ["PatgateFeedLagged", "PatgateFeedStale", "PatgateChecksSlow", "PatgateRevocationSlow"];

/// Asks Postgres again and again, as replicas do, and notes whether that ever took long.
pub(super) struct Pauses {
    seen: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pauses {
    pub(super) fn watch(world: &World<'_>) -> Self {
        let seen = Arc::new(AtomicBool::default());
        let (postgres, noted) = (world.postgres.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                sleep(EVERY).await;
                let asked = sqlx::query("SELECT 1").execute(&postgres).await;
                if asked.is_err() || began.elapsed() > LONG {
                    noted.store(true, Relaxed);
                }
            }
        });
        Self { seen, task }
    }

    /// Whether there was one since this was asked last.
    pub(super) fn seen(&self) -> bool {
        self.seen.swap(false, Relaxed)
    }
}
