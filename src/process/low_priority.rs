//! Threads of low priority, for work that takes long and that nothing else should wait for.
//!
//! The scheduler lets two threads of one priority take turns of several milliseconds. A thread of
//! low priority gets a smaller share of a busy processor, but a share, so its work always ends.
//!
//! Such a thread must not hold a lock that other threads wait for, except for a moment: the scheduler
//! could take its processor meanwhile. So the work borrows what it reads, and its caller frees it.

use std::{
    io,
    panic::resume_unwind,
    thread::{self, Builder},
};

/// Runs `work` on a new thread of low priority, and blocks the calling thread meanwhile. A panic of
/// `work` is the caller's.
///
/// Starting a thread costs little beside such work. A pool of threads would cost more: its idle
/// threads look for work before they sleep.
///
/// # Errors
///
/// Returns an error if the operating system does not start a thread.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = Builder::new().name("low-priority".to_owned()).spawn_scoped(scope, || {
            lower_priority();
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// How much the threads are nicer than the process. Beside one other busy thread, they get a tenth of
/// a processor. With 19, the most that there is, they would get a seventieth: a long body would be
/// read too late on a busy machine.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// Lowers the priority of the calling thread. This needs no privilege; but if it is forbidden, the
/// work is done at the priority of the process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux, this is about the calling thread, and not about the process.
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "a thread keeps the priority of the process");
    }
}

/// Elsewhere, only the whole process has a priority.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[cfg(target_os = "linux")]
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_done_at_low_priority_and_nothing_else() {
        let priority = || getpriority_process(None).unwrap();
        let own = priority();
        let low = run(priority).unwrap();
        assert!(low > own, "{low} is not lower than {own}");
        assert_eq!(low, 19.min(own + NICER));
        assert_eq!(priority(), own);
    }

    #[test]
    fn a_panic_is_the_callers() {
        let text = String::from("borrowed");
        let panics = || run(|| assert!(text.is_empty(), "on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(run(|| text.len()).unwrap(), 8);
    }
}
