//! Reads files without waiting forever: a network file system may hang.

use std::time::Duration;

use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout,
};

/// The time after which a read counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to say then.
pub(crate) const HANGS: &str = "reading has not ended within 5 seconds; the file system may hang";

/// Reads the same files again and again, on a thread that may wait for them. While a read hangs, there
/// is no other: each would hold a thread.
pub(crate) struct PatientReader<C> {
    hanging: Option<JoinHandle<C>>,
    patience: Duration,
}

impl<C: Send + 'static> PatientReader<C> {
    pub(crate) fn new() -> Self {
        Self { hanging: None, patience: PATIENCE }
    }

    /// Returns what was read, or `None` if reading hangs. If a read has hung, its result comes first: it
    /// may be old, so a caller takes nothing up that it has read only once.
    ///
    /// # Errors
    ///
    /// If `read` panics, or the runtime ends.
    pub(crate) async fn read(
        &mut self,
        read: impl FnOnce() -> C + Send + 'static,
    ) -> Result<Option<C>, JoinError> {
        let mut reading = self.hanging.take().unwrap_or_else(|| spawn_blocking(read));
        match timeout(self.patience, &mut reading).await {
            Ok(read) => read.map(Some),
            Err(_) => {
                self.hanging = Some(reading);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    };

    use super::*;

    #[tokio::test]
    async fn a_read_that_hangs_is_reported_and_not_repeated_meanwhile() {
        let mut reader = PatientReader { hanging: None, patience: Duration::from_millis(20) };
        let (answer, waiting) = channel();
        assert_eq!(reader.read(move || waiting.recv().unwrap()).await.unwrap(), None);
        let others = Arc::new(AtomicUsize::new(0));
        let other = || {
            let others = Arc::clone(&others);
            move || others.fetch_add(1, SeqCst)
        };
        assert_eq!(reader.read(other()).await.unwrap(), None);
        assert_eq!(others.load(SeqCst), 0);
        answer.send(7).unwrap();
        reader.patience = PATIENCE;
        assert_eq!(reader.read(other()).await.unwrap(), Some(7));
        assert_eq!(reader.read(other()).await.unwrap(), Some(0));
        assert!(reader.read(|| panic!("on purpose")).await.is_err());
    }
}
