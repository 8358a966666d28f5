//! Coalesces look-ups into batches.
//!
//! No look-up waits for company: while fewer batches run than may (`load.rs`), each starts at
//! once; else, what arrives meanwhile goes together into the next. Who waits for whom, `queue.rs`
//! says.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicI64},
};

use tokio::sync::oneshot;

use super::{
    Unavailable,
    lanes::Lane,
    load::{Load, UNKNOWN},
    queue::{Batch, Queue},
};
use crate::{clock::Tick, tasks::Tasks};

/// Keys in one batch.
pub(super) const MAX_BATCH: usize = 256;

type Ticket<K, V> = (K, oneshot::Sender<V>);

/// The queue of one kind of look-up.
pub(super) struct Batcher<K, V> {
    queue: Arc<Queue<Ticket<K, V>>>,
    load: Arc<Load>,
    /// When the batch that is being gathered will go.
    due: Arc<AtomicI64>,
}

impl<K, V> Drop for Batcher<K, V> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Why a look-up has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It was not begun: the answer would have come too late.
    Shed,
    /// The store was asked in vain.
    Failed,
}

impl Unanswered {
    /// For metrics.
    pub(super) fn result(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::Failed => "unavailable",
        }
    }
}

impl<K: Send + 'static, V: Send + 'static> Batcher<K, V> {
    /// Serves the queue with `run`, which answers the keys in their order, or not at all. A task
    /// of its own ends with the batcher.
    pub(super) fn spawn<F, R>(tasks: &Tasks, load: Arc<Load>, run: F) -> Self
    where
        F: Fn(Vec<K>) -> R + Send + 'static,
        R: Future<Output = Result<Vec<V>, Unavailable>> + Send + 'static,
    {
        let queue = Arc::new(Queue::<Ticket<K, V>>::new(load.at_once()));
        let (waiting, bounds) = (Arc::clone(&queue), Arc::clone(&load));
        let due = Arc::new(AtomicI64::new(UNKNOWN));
        let announced = Arc::clone(&due);
        tasks.spawn_owned("queue of lookups", async move {
            while waiting.ready().await {
                // What arrives until then joins the batch.
                let Some(turn) = bounds.turn(&announced).await else { return };
                let Batch { tickets, alone } = waiting.take();
                // Whoever gave up needs no answer.
                let live = tickets.into_iter().filter(|(_, answer)| !answer.is_closed());
                let (keys, answers): (Vec<_>, Vec<_>) = live.unzip();
                if keys.is_empty() {
                    continue;
                }
                let (batch, bounds) = (run(keys), Arc::clone(&bounds));
                tokio::spawn(async move {
                    let values = batch.await;
                    bounds.ended(turn);
                    drop(alone);
                    // On failure the answers are dropped, which tells the callers.
                    for (answer, value) in answers.into_iter().zip(values.into_iter().flatten()) {
                        let _ = answer.send(value);
                    }
                });
            }
        });
        Self { queue, load, due }
    }

    pub(super) async fn get(&self, key: K, lane: Lane) -> Result<V, Unanswered> {
        if !self.load.in_time(self.queue.ahead(lane), &self.due, Tick::now()) {
            return Err(Unanswered::Shed);
        }
        let (answer, answered) = oneshot::channel();
        if !self.queue.push(lane, (key, answer)) {
            return Err(Unanswered::Shed);
        }
        answered.await.map_err(|_| Unanswered::Failed)
    }
}
