//! Reads the files of logins and certificates again when they change.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    access::{RedisAccess, read},
    connector::ConnectionLimits,
    fault::{RedisFault, is_refused_login},
    file_contents::FileContents,
};
use crate::{
    files::settled::Settled,
    telemetry::{Metrics, OwnCertificate, ReloadResult, Store},
};

/// How often the files are read: they are few and small, and their content is compared.
const EVERY: Duration = Duration::from_secs(1);
/// The time limits of a first login with a new password.
const TRIAL: ConnectionLimits =
    ConnectionLimits { within: Some(Duration::from_secs(2)), silence: Duration::from_secs(1) };

/// Takes up new files. A password is taken up once Redis accepts it, or cannot be asked.
pub(crate) struct RedisReloader {
    access: Arc<RedisAccess>,
    files: Settled<Result<FileContents, String>>,
    /// Files whose password Redis refuses: either may be changed first.
    refused: Option<FileContents>,
    /// The generation that was last reported.
    reported: u64,
    metrics: Metrics,
}

impl RedisReloader {
    /// Returns `None` if the settings name no files.
    pub(crate) fn new(access: &Arc<RedisAccess>, metrics: Metrics) -> Option<Self> {
        if !access.settings.files.are_set() {
            return None;
        }
        let current = access.current();
        metrics.took_up_certificate(OwnCertificate::Redis, current.files.validity());
        Some(Self {
            access: Arc::clone(access),
            files: Settled::new(Ok(current.files.clone())),
            refused: None,
            reported: current.number,
            metrics,
        })
    }

    /// Reads the files until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let read = read(self.access.settings.files.clone()).await;
        match self.files.take(read.map_err(|error| error.to_string())) {
            Some(Ok(files)) => {
                self.refused = None;
                self.consider(files, true).await;
            }
            Some(Err(error)) => {
                self.refused = None;
                self.refuse(&error);
            }
            None => {
                if let Some(files) = self.refused.take() {
                    self.consider(files, false).await;
                }
            }
        }
        // A refused login may have been the reason to read them.
        let current = self.access.current();
        if current.number != self.reported {
            self.reported = current.number;
            self.refused = None;
            self.files.force(Ok(current.files.clone()));
            self.accepted();
            let validity = current.files.validity();
            self.metrics.took_up_certificate(OwnCertificate::Redis, validity);
            tracing::info!("passwords and certificates for Redis reloaded");
        }
    }

    /// Uses the files, unless Redis refuses the password in them. `are_new` if that was not reported
    /// yet.
    async fn consider(&mut self, files: FileContents, are_new: bool) {
        let current = self.access.current();
        if files == current.files {
            // They were changed back.
            return self.accepted();
        }
        let next = match self.access.prepare(files.clone()) {
            Ok(next) => next,
            Err(error) => return self.refuse(&RedisFault::from(&error)),
        };
        if !files.logs_in_as(&current.files)
            && let Err(error) = next.connect(TRIAL).await
            && is_refused_login(&error)
        {
            if are_new {
                self.refuse(&RedisFault::from(&error));
            }
            self.refused = Some(files);
            return;
        }
        if let Err(error) = self.access.take_up(files) {
            self.refuse(&RedisFault::from(&error));
        }
    }

    fn accepted(&self) {
        self.metrics.reloaded_credentials(Store::Redis, ReloadResult::Loaded);
    }

    fn refuse(&self, why: &impl std::fmt::Display) {
        self.metrics.reloaded_credentials(Store::Redis, ReloadResult::Refused);
        tracing::error!(
            %why,
            "passwords and certificates for Redis not reloaded; the previous ones stay in use"
        );
    }
}
