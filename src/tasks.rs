//! Tasks that have to run for as long as the process does: the reader of the feed, the listeners,
//! the queues before the stores.
//!
//! A panic in a task ends that task and nothing else. Checks would go on without, for example, the
//! feed, and revocations would only be obeyed by `max_staleness`. So the process ends when one of
//! these tasks ends before it should: it says which, drains as on SIGTERM, and exits with an error,
//! and whatever runs patgate starts it again.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why the process has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {task} {how}; this is a bug in patgate, and the log says where")]
pub struct TaskEnded {
    task: &'static str,
    how: &'static str,
}

/// Starts tasks and watches them. Clones watch for the same process.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    first: OnceLock<TaskEnded>,
    ended: CancellationToken,
}

impl Tasks {
    /// Spawns a task that must not end before [`Tasks::stop`], and must never panic. `task` names it
    /// in the reason for which the process ends otherwise.
    pub(crate) fn spawn<T>(
        &self,
        task: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        self.spawn_owned(task, async move {
            work.await;
            if !tasks.0.stopping.load(SeqCst) {
                tasks.fail(TaskEnded { task, how: "ended before the process did" });
            }
        })
    }

    /// Likewise, a task that may end before, as one that serves a queue does when nothing is left
    /// that could send to it.
    pub(crate) fn spawn_owned(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        tokio::spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tasks.fail(TaskEnded { task, how: "panicked" });
            }
        })
    }

    /// From now on tasks may end.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, SeqCst);
    }

    /// Ends when a task has ended that should not have.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// The first task that ended before it should, if one did.
    pub(crate) fn outcome(&self) -> Result<(), TaskEnded> {
        self.0.first.get().cloned().map_or(Ok(()), Err)
    }

    fn fail(&self, ended: TaskEnded) {
        tracing::error!(%ended, "a required task has ended; patgate exits");
        let _ = self.0.first.set(ended);
        self.0.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_the_reason_to_end() {
        for (panics, how) in [(true, "panicked"), (false, "ended before the process did")] {
            let tasks = Tasks::default();
            assert_eq!(tasks.outcome(), Ok(()));
            let other = tasks.spawn("other task", std::future::pending::<()>());
            drop(tasks.spawn("feed", async move { assert!(!panics, "on purpose") }));
            tasks.ended().await;
            assert_eq!(tasks.outcome(), Err(TaskEnded { task: "feed", how }));
            assert!(!other.is_finished());
        }
    }

    #[tokio::test]
    async fn a_task_that_has_an_owner_may_return_and_not_panic() {
        let tasks = Tasks::default();
        tasks.spawn_owned("queue", async {}).await.unwrap();
        assert_eq!(tasks.outcome(), Ok(()));
        tasks.spawn_owned("queue", async { panic!("on purpose") }).await.unwrap();
        assert_eq!(tasks.outcome(), Err(TaskEnded { task: "queue", how: "panicked" }));
    }

    #[tokio::test]
    async fn while_the_process_ends_a_task_may_return_and_not_panic() {
        let tasks = Tasks::default();
        tasks.stop();
        tasks.spawn("feed", async {}).await.unwrap();
        assert_eq!(tasks.outcome(), Ok(()));
        tasks.spawn("canary", async { panic!("on purpose") }).await.unwrap();
        assert_eq!(tasks.outcome(), Err(TaskEnded { task: "canary", how: "panicked" }));
    }
}
