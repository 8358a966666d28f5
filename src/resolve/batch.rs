//! Collects lookups into batches.
//!
//! A lookup does not wait for others: while fewer batches run than are allowed (`load.rs`), each
//! lookup starts at once. While all run, new lookups go together into the next batch. `queue.rs`
//! decides which lookups go first.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicI64},
};

use tokio::sync::oneshot;

use super::{
    Unavailable,
    lanes::Lane,
    load::{Load, UNKNOWN},
    queue::{Batch, LaneQueue},
};
use crate::{
    clock,
    process::tasks::{Task, Tasks},
    telemetry::{LookupResult, RoundTrip},
};

/// How many keys one batch holds.
pub(super) const MAX_BATCH: usize = 256;

/// A key, and the sender for its answer with the round trip that brought it.
type Ticket<K, V> = (K, oneshot::Sender<(V, RoundTrip)>);

/// The queue of one kind of lookup.
pub(super) struct Batcher<K, V> {
    queue: Arc<LaneQueue<Ticket<K, V>>>,
    load: Arc<Load>,
    /// When the batch that is being gathered will be sent.
    due: Arc<AtomicI64>,
}

impl<K, V> Drop for Batcher<K, V> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The lookup was not started: the answer would have come too late.
    Shed,
    /// The store failed, or did not answer in time.
    Failed,
}

impl Unanswered {
    pub(super) fn result(self) -> LookupResult {
        match self {
            Self::Shed => LookupResult::Shed,
            Self::Failed => LookupResult::Unavailable,
        }
    }
}

impl<K: Send + 'static, V: Send + 'static> Batcher<K, V> {
    /// Serves the queue with `run`, which answers the keys in their order, or none of them. The
    /// task that does so ends with the batcher.
    pub(super) fn spawn<F, R>(tasks: &Tasks, load: Arc<Load>, run: F) -> Self
    where
        F: Fn(Vec<K>) -> R + Send + 'static,
        R: Future<Output = Result<Vec<V>, Unavailable>> + Send + 'static,
    {
        let queue = Arc::new(LaneQueue::<Ticket<K, V>>::new(load.at_once()));
        let waiting = Arc::clone(&queue);
        let bounds = Arc::clone(&load);
        let due = Arc::new(AtomicI64::new(UNKNOWN));
        let announced = Arc::clone(&due);
        tasks.spawn_owned(Task::LookupQueue, async move {
            while waiting.ready().await {
                // Lookups that arrive until then join the batch.
                let Some(turn) = bounds.turn(&announced).await else { return };
                let Batch { tickets, alone } = waiting.take();
                // Callers that gave up need no answer.
                let live = tickets.into_iter().filter(|(_, answer)| !answer.is_closed());
                let (keys, answers): (Vec<_>, Vec<_>) = live.unzip();
                if keys.is_empty() {
                    continue;
                }
                let count = keys.len();
                let batch = run(keys);
                let bounds = Arc::clone(&bounds);
                tokio::spawn(async move {
                    let values = batch.await;
                    let (began, ended) = bounds.ended(turn);
                    let trip = RoundTrip { began, ended, keys: count };
                    drop(alone);
                    // On failure the senders are dropped, which the callers notice.
                    for (answer, value) in answers.into_iter().zip(values.into_iter().flatten()) {
                        let _ = answer.send((value, trip));
                    }
                });
            }
        });
        Self { queue, load, due }
    }

    /// Returns the answer for a key, and the round trip that brought it.
    pub(super) async fn get(&self, key: K, lane: Lane) -> Result<(V, RoundTrip), Unanswered> {
        if !self.load.in_time(self.queue.ahead(lane), &self.due, clock::now()) {
            return Err(Unanswered::Shed);
        }
        let (answer, answered) = oneshot::channel();
        if !self.queue.push(lane, (key, answer)) {
            return Err(Unanswered::Shed);
        }
        answered.await.map_err(|_| Unanswered::Failed)
    }
}
