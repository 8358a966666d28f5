//! Tasks that must run as long as the process: the reader of the feed, the listeners, the queues in
//! front of the stores.
//!
//! A panic in a task ends only that task. Without the feed, for example, checks would continue and
//! revocations would be obeyed only after `max_staleness`. So the process ends when one of these
//! tasks ends too early: it names the task, drains as on SIGTERM, and exits with an error, and its
//! supervisor starts it again.

use std::{
    fmt,
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

#[cfg(debug_assertions)]
mod failpoint;

macro_rules! tasks {
    ($($task:ident = $name:literal,)*) => {
        /// A background task, by its part of the program. Each has a variant, so that a test can try
        /// what happens when it ends; `tests/architecture.rs` lists the other places that spawn.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Task {
            $($task,)*
        }

        impl Task {
            pub(crate) const ALL: &[Self] = &[$(Self::$task,)*];

            /// Names the task in messages.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$task => $name,)*
                }
            }
        }
    };
}

tasks! {
    ApiReloader = "reader of API tables",
    Canary = "canary",
    CertificateReloader = "reader of certificates",
    ChangeListener = "listener for changes",
    DecisionLogWriter = "writer of the decision log",
    FeedReader = "reader of the feed",
    GrpcListener = "gRPC listener",
    HangupReceiver = "receiver of SIGHUP",
    HttpListener = "HTTP listener",
    LastUseWriter = "writer of last uses",
    LogFilterReader = "reader of the log's filter",
    LookupQueue = "queue of lookups",
    PostgresWatch = "watch of Postgres",
    RedisFileReloader = "reader of the files for Redis",
    RedisProbe = "first contact with Redis",
    RedisWriter = "writer to Redis",
    RingReloader = "reader of the key ring",
    RingWatch = "watch of the key ring",
    RouteKeeper = "keeper of the routes",
    SettingsReloader = "reader of settings",
    Start = "start",
    TerminationReceiver = "receiver of SIGTERM",
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {} {how}; this is a bug in patgate, and the log says where", .task.name())]
pub struct TaskEnded {
    task: Task,
    how: HowEnded,
}

/// How a task ended that should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HowEnded {
    Returned,
    Panicked,
}

impl fmt::Display for HowEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "ended before the process did",
            Self::Panicked => "panicked",
        })
    }
}

/// Starts tasks and watches them. Clones watch the same tasks.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<TasksState>);

#[derive(Default)]
struct TasksState {
    stopping: AtomicBool,
    first: OnceLock<TaskEnded>,
    ended: CancellationToken,
}

impl Tasks {
    /// Spawns a task that must not end before [`Tasks::stop`], and must never panic. `task` names it
    /// in the reason for which the process ends otherwise.
    pub(crate) fn spawn<T>(
        &self,
        task: Task,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        let work = Box::pin(work);
        self.spawn_owned(task, async move {
            work.await;
            if !tasks.0.stopping.load(SeqCst) {
                tasks.fail(TaskEnded { task, how: HowEnded::Returned });
            }
        })
    }

    /// Spawns a task that may also end before the process, as a task that serves a queue does when
    /// all its senders are gone. It must never panic.
    pub(crate) fn spawn_owned(
        &self,
        task: Task,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        // Boxed, because each layer around it would copy it on the stack, and some are large.
        let work = Box::pin(work);
        #[cfg(debug_assertions)]
        let work = failpoint::armed(task, work);
        tokio::spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tasks.fail(TaskEnded { task, how: HowEnded::Panicked });
            }
        })
    }

    /// Permits tasks to end from now on.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, SeqCst);
    }

    /// Completes when a task has ended that should not have.
    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Returns the first task that ended too early, if there is one.
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
        for (panics, how) in [(true, HowEnded::Panicked), (false, HowEnded::Returned)] {
            let tasks = Tasks::default();
            assert_eq!(tasks.outcome(), Ok(()));
            let other = tasks.spawn(Task::Canary, std::future::pending::<()>());
            drop(tasks.spawn(Task::FeedReader, async move { assert!(!panics, "on purpose") }));
            tasks.ended().await;
            assert_eq!(tasks.outcome(), Err(TaskEnded { task: Task::FeedReader, how }));
            assert!(!other.is_finished());
        }
    }

    #[tokio::test]
    async fn a_task_that_has_an_owner_may_return_and_not_panic() {
        let tasks = Tasks::default();
        tasks.spawn_owned(Task::LookupQueue, async {}).await.unwrap();
        assert_eq!(tasks.outcome(), Ok(()));
        tasks.spawn_owned(Task::LookupQueue, async { panic!("on purpose") }).await.unwrap();
        assert_eq!(
            tasks.outcome(),
            Err(TaskEnded { task: Task::LookupQueue, how: HowEnded::Panicked })
        );
    }

    #[tokio::test]
    async fn while_the_process_ends_a_task_may_return_and_not_panic() {
        let tasks = Tasks::default();
        tasks.stop();
        tasks.spawn(Task::FeedReader, async {}).await.unwrap();
        assert_eq!(tasks.outcome(), Ok(()));
        tasks.spawn(Task::Canary, async { panic!("on purpose") }).await.unwrap();
        assert_eq!(tasks.outcome(), Err(TaskEnded { task: Task::Canary, how: HowEnded::Panicked }));
    }
}
