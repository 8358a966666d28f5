//! Reloads changed API tables while patgate serves.
//!
//! A check uses the tables that were current when it began. Tables with an error are not loaded:
//! the previous ones stay in use.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::file_watch::{self, WatchedFiles};
use crate::{
    api::{Apis, TableError, TableErrors, TableSource},
    files::api_tables,
    telemetry::{Metrics, ReloadResult},
};

type ReadSources = Result<Vec<TableSource>, TableErrors>;

/// Keeps the loaded tables equal to the files.
pub(crate) struct ApiReloader {
    pub(crate) apis: Arc<ArcSwap<Apis>>,
    /// Makes the reloader read at once, and load the files whether or not they have changed.
    pub(crate) asked: Arc<Notify>,
    paths: Vec<PathBuf>,
    metrics: Metrics,
    /// Half a table may protect less, so content is taken up once it has settled.
    in_use: Vec<TableSource>,
}

impl ApiReloader {
    /// Loads the tables. At startup, they must have no errors.
    pub(crate) fn load(paths: Vec<PathBuf>, metrics: Metrics) -> Result<Self, TableErrors> {
        let in_use = api_tables::read(&paths)?;
        let apis = Arc::new(ArcSwap::from_pointee(Apis::compile(&in_use)?));
        Ok(Self { apis, asked: Arc::default(), paths, metrics, in_use })
    }

    /// Reads the files until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // The table in the binary does not change.
        if self.paths.is_empty() {
            return stop.cancelled().await;
        }
        let in_use = Ok(std::mem::take(&mut self.in_use));
        let asked = Arc::clone(&self.asked);
        file_watch::watch(self, in_use, asked, stop).await;
    }
}

impl WatchedFiles for ApiReloader {
    type Content = ReadSources;

    fn reader(&self) -> impl FnOnce() -> ReadSources + Send + 'static {
        let paths = self.paths.clone();
        move || api_tables::read(&paths)
    }

    fn unreadable(&self, why: &str) -> ReadSources {
        let file = self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let error =
            TableError { file: file.join(", "), line: 0, rule: None, problem: why.to_owned() };
        Err(TableErrors::new(vec![error]))
    }

    async fn take_up(&mut self, read: ReadSources) {
        let compile = move || read.and_then(|sources| Apis::compile(&sources));
        let Ok(compiled) = spawn_blocking(compile).await else { return };
        match compiled {
            Ok(apis) => {
                self.apis.store(Arc::new(apis));
                self.metrics.reloaded_apis(ReloadResult::Loaded);
                tracing::info!("API tables reloaded");
            }
            Err(errors) => {
                self.metrics.reloaded_apis(ReloadResult::Refused);
                tracing::error!(%errors, "API tables not reloaded; the previous ones stay in use");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prometheus_client::registry::Registry;
    use tokio::time::sleep;

    use super::*;
    use crate::app::file_watch::{AGAIN, EVERY};

    /// If the signal comes during a write, the file is read after the write.
    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_being_written_is_not_taken_up_cut_short() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rule = |path: &str| {
            format!("- {{ methods: [GET], path: {path}, operation: read, entity: scim }}\n")
        };
        let table = |paths: &[&str]| {
            let rules: String = paths.iter().map(|path| rule(path)).collect();
            format!("name: x\ndomain: acme\nerrors: scim\nrules:\n{rules}")
        };
        fs::write(file.path(), table(&["/a"])).unwrap();
        let reloader =
            ApiReloader::load(vec![file.path().to_owned()], Metrics::new(&mut Registry::default()))
                .unwrap();
        let apis = Arc::clone(&reloader.apis);
        let asked = Arc::clone(&reloader.asked);
        let rules = || apis.load().list().map(|(_, rules)| rules).collect::<Vec<_>>();
        let stop = CancellationToken::new();
        let running = tokio::spawn(reloader.run(stop.clone()));

        // The beginning of the file, which is itself a valid table.
        fs::write(file.path(), table(&["/a", "/b"])).unwrap();
        asked.notify_one();
        sleep(AGAIN / 2).await;
        fs::write(file.path(), table(&["/a", "/b", "/c"])).unwrap();
        sleep(AGAIN).await;
        assert_eq!(rules(), [1]);
        // Long before the next regular read.
        sleep(EVERY / 4).await;
        assert_eq!(rules(), [3]);
        stop.cancel();
        running.await.unwrap();
    }
}
