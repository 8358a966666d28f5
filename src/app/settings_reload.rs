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
    /// The settings that patgate has started with. The files may have changed since they were read.
    pub(crate) at_startup: ReadSettings,
}

impl SettingsReloader {
    /// Reads the files until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if !self.sources.have_files() {
            return stop.cancelled().await;
        }
        let in_use = self.at_startup.clone();
        let asked = Arc::clone(&self.asked);
        file_watch::watch(self, Ok(in_use), asked, stop).await;
    }

    fn replace(&self, read: ReadSettings) -> Result<(), String> {
        let secrets = read.config.grpc_secrets.clone();
        self.secrets.replace(secrets).map_err(|error| error.to_string())?;
        let changed = read.restart_only(&self.at_startup);
        if changed.is_empty() {
            tracing::info!("settings reloaded");
        } else {
            tracing::warn!(
                ?changed,
                "settings reloaded, except those that patgate reads only when it starts",
            );
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

    fn unreadable(&self, why: &str) -> Self::Content {
        Err(why.to_owned())
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use prometheus_client::registry::Registry;
    use tokio::time::sleep;

    use super::*;
    use crate::{
        app::file_watch::EVERY,
        config::{Config, ConfigPurpose},
    };

    const OLD: &str = "old-0123456789abcdef0123456789abcdef";
    const NEW: &str = "new-0123456789abcdef0123456789abcdef";

    /// The start takes a while, and the file may change meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_secret_that_changed_before_the_first_read_is_taken_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), OLD).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let mut sources = ConfigSources::of_process(None, Vec::new());
        sources.env = [
            ("PATGATE_POSTGRES_URL", "postgres://h/db"),
            ("PATGATE_KEYRING_FILE", "keyring"),
            ("PATGATE_GRPC_SECRET_FILE", file.path().to_str().unwrap()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let config = Config::load(&sources, ConfigPurpose::Serve).unwrap();
        fs::write(file.path(), NEW).unwrap();

        let secrets = CallSecrets::new(config.grpc_secrets.clone());
        let reloader = SettingsReloader {
            sources,
            asked: Arc::default(),
            secrets: Arc::clone(&secrets),
            metrics: Metrics::new(&mut Registry::default()),
            at_startup: ReadSettings { config },
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(reloader.run(stop.clone()));
        sleep(4 * EVERY).await;
        let call = |secret: &str| {
            [("patgate-secret", secret)]
                .map(|(name, value)| {
                    (
                        http::HeaderName::from_static(name),
                        http::HeaderValue::from_str(value).unwrap(),
                    )
                })
                .into_iter()
                .collect()
        };
        assert!(secrets.admit(&call(NEW)) && !secrets.admit(&call(OLD)));
        stop.cancel();
        running.await.unwrap();
    }
}
