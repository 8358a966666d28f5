//! Takes up changed settings while patgate serves: those that can change, from the files that hold them.
//!
//! The files are read whole, and judged as at startup: while any setting has an error, nothing is taken
//! up. What has changed and needs a restart is named in the log.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::file_watch::{self, WatchedFiles};
use crate::{
    config::{ConfigSources, ReadSettings},
    edge::grpc::secret::CallSecrets,
    telemetry::{Metrics, ReloadResult},
};

/// Keeps the settings that can change equal to the files.
pub(crate) struct SettingsReloader {
    pub(crate) sources: ConfigSources,
    /// Makes the reloader read at once.
    pub(crate) asked: Arc<Notify>,
    pub(crate) secrets: Arc<CallSecrets>,
    pub(crate) metrics: Metrics,
    /// The settings that patgate has started with.
    pub(crate) at_startup: Option<ReadSettings>,
}

impl SettingsReloader {
    /// Reads the files until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let in_use = self.at_startup.clone();
        let Some(in_use) = in_use.filter(|_| self.sources.have_files()) else {
            return stop.cancelled().await;
        };
        let asked = Arc::clone(&self.asked);
        file_watch::watch(self, Ok(in_use), asked, stop).await;
    }

    fn replace(&self, read: ReadSettings) -> Result<(), String> {
        let secrets = read.config.grpc_secrets.clone();
        self.secrets.replace(secrets).map_err(|error| error.to_string())?;
        let changed = self.at_startup.as_ref().map(|before| read.restart_only(before));
        match changed.filter(|changed| !changed.is_empty()) {
            None => tracing::info!("settings reloaded"),
            Some(changed) => tracing::warn!(
                ?changed,
                "settings reloaded, except those that patgate reads only when it starts",
            ),
        }
        Ok(())
    }
}

impl WatchedFiles for SettingsReloader {
    type Content = Result<ReadSettings, String>;

    fn reader(&self) -> impl FnOnce() -> Self::Content + Send + 'static {
        let sources = self.sources.clone();
        move || ReadSettings::read(&sources).map_err(|errors| errors.to_string())
    }

    async fn take_up(&mut self, read: Self::Content) {
        match read.and_then(|read| self.replace(read)) {
            Ok(()) => self.metrics.reloaded_settings(ReloadResult::Loaded),
            Err(errors) => {
                self.metrics.reloaded_settings(ReloadResult::Refused);
                tracing::error!(errors, "settings not reloaded; the previous ones stay in use");
            }
        }
    }
}
