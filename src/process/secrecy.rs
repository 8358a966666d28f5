//! Keeps what this process has in memory, keys and tokens among it, out of files and other processes.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Forbids core dumps. On Linux, also hides the memory from other processes of the same user, and from
/// programs that take the dump by a pipe, for which the limit does not count.
pub(crate) fn hide_memory() {
    // To lower a limit needs no right, and no process may be refused its own mark.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
