//! Reads files again and again while patgate serves, and takes up their content when it has changed.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::files::{
    patient::{HANGS, PatientReader},
    settled::Settled,
};

/// How often the files are read. They are few and small, and comparing their content works on every
/// file system, unlike notifications and modification times.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Time until the files are read again after a signal, because their writer may not have finished.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// Files that decide something while patgate serves.
pub(super) trait WatchedFiles: Sized + Send {
    /// What is read, errors of reading included.
    type Content: Clone + PartialEq + Send + 'static;

    /// Returns a function that reads the files. It may block.
    fn reader(&self) -> impl FnOnce() -> Self::Content + Send + 'static;

    /// Returns the content that says why the files cannot be read.
    fn unreadable(&self, why: &str) -> Self::Content;

    /// Takes up new content, or refuses it and keeps what is in use.
    fn take_up(&mut self, content: Self::Content) -> impl Future<Output = ()> + Send;

    /// Is called after each read that has found nothing new.
    fn unchanged(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Reads the files every second until `stop`, and at once when `asked` is notified: then what they hold
/// is taken up whether or not it has changed. `in_use` is what was read at startup.
pub(super) async fn watch<W: WatchedFiles>(
    mut files: W,
    in_use: W::Content,
    asked: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut settled = Settled::new(in_use);
    let mut reader = PatientReader::new();
    while let Some(in_time) = stop.run_until_cancelled(timeout(EVERY, asked.notified())).await {
        // The process ends if this fails.
        let Ok(read) = reader.read(files.reader()).await else { return };
        let Some(read) = read else {
            // What was to be taken up is not.
            let hangs = files.unreadable(HANGS);
            if let Some(hangs) = settled.take_at_once(hangs) {
                files.take_up(hangs).await;
            }
            continue;
        };
        if in_time.is_err() {
            match settled.take(read) {
                Some(read) => files.take_up(read).await,
                None => files.unchanged().await,
            }
            continue;
        }
        sleep(AGAIN).await;
        let Ok(again) = reader.read(files.reader()).await else { return };
        match again {
            Some(again) if again == read => {
                settled.force(again.clone());
                files.take_up(again).await;
            }
            // Read again until it has settled.
            _ => asked.notify_one(),
        }
    }
}
