//! The current way to Redis: its logins and certificates can change while patgate serves.

use std::{future::pending, panic::resume_unwind, sync::Arc};

use arc_swap::ArcSwap;
use redis::RedisError;
use tokio::{
    sync::Mutex,
    task::{JoinError, spawn_blocking},
};

use super::{
    connection::RedisConnection,
    connector::{ConnectionLimits, Connector},
    fault,
    file_contents::{FileContents, RedisFileError},
};
use crate::config::{RedisFiles, RedisSettings, RedisTopology};

/// Why Redis cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RedisAccessError {
    /// A file of logins or certificates has an error.
    #[error(transparent)]
    File(#[from] RedisFileError),
    /// The settings cannot be used together.
    #[error("redis.url: {0}")]
    Settings(#[from] RedisError),
}

/// Connects to Redis with what the files hold now.
pub(crate) struct RedisAccess {
    pub(super) settings: RedisSettings,
    current: ArcSwap<Generation>,
    /// Held while the files are read because of a refused login.
    rereading: Mutex<()>,
}

/// What connections are made with for a while.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) files: FileContents,
    connector: Connector,
}

impl RedisAccess {
    /// Reads the files. Connects to nothing.
    ///
    /// # Errors
    ///
    /// If a file or a setting cannot be used.
    pub(crate) fn open(settings: &RedisSettings) -> Result<Arc<Self>, RedisAccessError> {
        let files = FileContents::read(&settings.files)?;
        let connector = Connector::new(settings, &files)?;
        let generation = Generation { number: 0, files, connector };
        Ok(Arc::new(Self {
            settings: settings.clone(),
            current: ArcSwap::from_pointee(generation),
            rereading: Mutex::default(),
        }))
    }

    /// Makes one connection. If the login is refused, the files are read at once: the password may
    /// have been replaced a moment ago.
    ///
    /// # Errors
    ///
    /// If Redis cannot be reached, or refuses the user, the password or the database.
    pub(crate) async fn connect(
        &self,
        limits: ConnectionLimits,
    ) -> Result<RedisConnection, RedisError> {
        let current = self.current();
        let refused = match current.connect(limits).await {
            Err(error) if fault::is_refused_login(&error) => error,
            outcome => return outcome,
        };
        match self.newer(&current).await {
            Some(newer) => newer.connect(limits).await,
            None => Err(refused),
        }
    }

    pub(crate) fn is_current(&self, connection: &RedisConnection) -> bool {
        self.current.load().number == connection.generation
    }

    /// Whether the servers may change their roles, so that a connection that leads to a replica
    /// leads to the wrong server.
    pub(crate) fn finds_the_master(&self) -> bool {
        matches!(self.settings.topology, RedisTopology::Sentinel(_))
    }

    pub(super) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Returns a generation whose login may be accepted although that of `refused` was not.
    async fn newer(&self, refused: &Generation) -> Option<Arc<Generation>> {
        if !self.settings.files.are_set() {
            return None;
        }
        let _only_one = self.rereading.lock().await;
        let current = self.current();
        if current.number != refused.number {
            return Some(current);
        }
        let files = read(self.settings.files.clone()).await.ok()?;
        if files.logs_in_as(&current.files) {
            return None;
        }
        self.take_up(files).ok()
    }

    /// Uses other files from now on.
    pub(super) fn take_up(&self, files: FileContents) -> Result<Arc<Generation>, RedisError> {
        let next = self.prepare(files)?;
        self.current.store(Arc::clone(&next));
        Ok(next)
    }

    /// A generation that is not in use yet.
    pub(super) fn prepare(&self, files: FileContents) -> Result<Arc<Generation>, RedisError> {
        let connector = Connector::new(&self.settings, &files)?;
        let number = self.current().number + 1;
        Ok(Arc::new(Generation { number, files, connector }))
    }
}

impl Generation {
    pub(super) async fn connect(
        &self,
        limits: ConnectionLimits,
    ) -> Result<RedisConnection, RedisError> {
        let nodes = self.connector.connect(limits).await?;
        Ok(RedisConnection { generation: self.number, nodes })
    }
}

/// Reads the files on a thread that may wait for them.
pub(super) async fn read(files: RedisFiles) -> Result<FileContents, RedisFileError> {
    match spawn_blocking(move || FileContents::read(&files))
        .await
        .map_err(JoinError::try_into_panic)
    {
        Ok(read) => read,
        // This task is watched.
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime is being shut down.
        Err(Err(_)) => pending().await,
    }
}
