//! Coalesces look-ups into batches, and bounds how many batches run at once.
//!
//! No look-up waits for company: while fewer batches run than may, each starts at once; while
//! all run, what arrives meanwhile goes together into the next.

use std::{future::Future, sync::Arc};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Unavailable;

/// Keys in one batch.
const MAX_BATCH: usize = 256;
/// Keys that may wait. A longer queue could not be served within anybody's deadline.
const MAX_QUEUE: usize = 8192;

type Ticket<K, V> = (K, oneshot::Sender<V>);

/// The queue of one kind of look-up.
pub(super) struct Batcher<K, V> {
    queue: mpsc::Sender<Ticket<K, V>>,
}

impl<K: Send + 'static, V: Send + 'static> Batcher<K, V> {
    /// Serves the queue with `run`, which answers the keys in their order, or not at all. A task
    /// of its own ends with the batcher.
    pub(super) fn spawn<F, R>(limit: Arc<Semaphore>, run: F) -> Self
    where
        F: Fn(Vec<K>) -> R + Send + 'static,
        R: Future<Output = Result<Vec<V>, Unavailable>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Ticket<K, V>>(MAX_QUEUE);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                // What arrives until there is a permit joins the batch.
                let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
                let mut tickets = vec![first];
                while tickets.len() < MAX_BATCH
                    && let Ok(ticket) = waiting.try_recv()
                {
                    tickets.push(ticket);
                }
                // Whoever gave up needs no answer.
                let live = tickets.into_iter().filter(|(_, answer)| !answer.is_closed());
                let (keys, answers): (Vec<_>, Vec<_>) = live.unzip();
                if keys.is_empty() {
                    continue;
                }
                let batch = run(keys);
                tokio::spawn(async move {
                    // On failure the answers are dropped, which tells the callers.
                    for (answer, value) in
                        answers.into_iter().zip(batch.await.into_iter().flatten())
                    {
                        let _ = answer.send(value);
                    }
                    drop(permit);
                });
            }
        });
        Self { queue }
    }

    pub(super) async fn get(&self, key: K) -> Result<V, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send((key, answer)).map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)
    }
}
