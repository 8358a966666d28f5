//! Changes the level of the log while patgate serves, by a file.
//!
//! A file, and not a request to the HTTP port, because everyone who reaches that port may use it: a
//! stranger could silence the log, or fill it. A file can be changed where no signal can be sent and
//! the environment cannot be changed: in a container, it is mounted.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config::LogSettings,
    files::{
        patient::{HANGS, PatientReader},
        settled::Settled,
        trusted,
    },
    telemetry,
};

/// How often the file is read.
const EVERY: Duration = Duration::from_secs(1);

/// The content of the file; `None` if there is no file, or nothing in it. An error is a text, which
/// can be compared.
type ReadFilter = Result<Option<String>, String>;

/// Keeps the filter of the log equal to the file.
pub(super) struct LogFilterReader {
    path: PathBuf,
    /// The filter that applies without the file.
    configured: String,
    file: Settled<ReadFilter>,
}

impl LogFilterReader {
    /// Applies the file, if the settings name one. An error in it is logged, and does not prevent a
    /// start.
    pub(super) fn start(settings: &LogSettings) -> Option<Self> {
        let path = settings.filter_file.clone()?;
        let read = read(&path);
        let file = Settled::new(read.clone());
        let reader = Self { path, configured: settings.filter.clone(), file };
        if read != Ok(None) {
            reader.apply(read);
        }
        Some(reader)
    }

    /// Reads the file until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut reader = PatientReader::new();
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let path = self.path.clone();
            let Ok(read) = reader.read(move || read(&path)).await else { return };
            let settled = match read {
                Some(read) => self.file.take(read),
                None => self.file.take_at_once(Err(HANGS.to_owned())),
            };
            if let Some(read) = settled {
                self.apply(read);
            }
        }
    }

    fn apply(&self, read: ReadFilter) {
        let path = self.path.display();
        let filter = match &read {
            Ok(filter) => filter.as_ref().unwrap_or(&self.configured),
            Err(error) => {
                return tracing::error!(
                    error,
                    "log.filter_file: {path} cannot be read; the filter of the log is not changed"
                );
            }
        };
        match telemetry::replace_filter(filter) {
            // By the new filter, this may itself be left out.
            Ok(()) => tracing::info!(filter, "the filter of the log has changed"),
            Err(expected) => tracing::error!(
                "log.filter_file: {path}: expected {expected}; the filter of the log is not changed"
            ),
        }
    }
}

fn read(path: &Path) -> ReadFilter {
    match trusted::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|filter| !filter.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
