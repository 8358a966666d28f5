//! Lets a test end one background task of a running process. Compiled only into builds with debug
//! assertions, so no release has it.

use std::{
    env,
    future::{Future, pending},
    path::PathBuf,
    time::Duration,
};

use tokio::time::sleep;

use super::Task;

/// Names the task that panics. Not `PATGATE_…`, which would be a setting.
const TASK: &str = "TEST_PANIC_IN";
/// The path of a file: the task panics as soon as it exists.
const WHEN: &str = "TEST_PANIC_WHEN";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Does `work`, and panics meanwhile if the environment says so.
pub(super) async fn armed(task: Task, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = called_for(task) => panic!("as {TASK} demands"),
    }
}

async fn called_for(task: Task) {
    let when = env::var_os(WHEN).map(PathBuf::from);
    let (Some(when), true) = (when, env::var(TASK).is_ok_and(|named| named == task.name())) else {
        return pending().await;
    };
    while !when.exists() {
        sleep(LOOK_EVERY).await;
    }
}
