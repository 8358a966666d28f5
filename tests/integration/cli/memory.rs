//! What a process of patgate has in memory leaves it in no core dump.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    sync::Arc,
};

use patgate_testing::eventually;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Suite, process::program};

/// Even if whoever starts it permits dumps: then it ends by the same signal, without one.
pub(crate) async fn is_in_no_core_dump(_: Arc<Suite>) {
    let folder = TempDir::new().unwrap();
    // A command that waits for its standard input.
    let script = format!("ulimit -S -c $(ulimit -H -c) && exec {} doctor -", program());
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let is_off = || {
        let limits = fs::read_to_string(&limits).unwrap_or_default();
        let line = limits.lines().find(|line| line.starts_with("Max core file size"));
        line.is_some_and(|line| line.split_whitespace().skip(4).take(2).all(|word| word == "0"))
    };
    eventually("core dumps are off", async || cfg!(not(target_os = "linux")) || is_off()).await;
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
