//! Takes up changed tables of APIs while requests go on.
//!
//! A check uses the tables that were current when it began. Tables with a mistake are not taken up:
//! those before them stay.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Apis, Source, TableErrors},
    telemetry::Metrics,
};

/// How often the files are read. They are few and small, and comparing what they say works on every
/// file system, as notifications and times of change do not.
const EVERY: Duration = Duration::from_secs(1);

/// How soon they are read again when somebody asked: who does so may still be writing.
const AGAIN: Duration = Duration::from_millis(50);

type Read = Result<Vec<Source>, TableErrors>;

/// Keeps the tables as their files are.
pub(crate) struct ApiReloader {
    pub(crate) apis: Arc<ArcSwap<Apis>>,
    /// To read at once, and to take up what is there, whether or not anything has changed.
    pub(crate) asked: Arc<Notify>,
    paths: Vec<PathBuf>,
    metrics: Metrics,
    /// What was last tried: a mistake is told once, not with every look.
    tried: Read,
    /// What was seen once. It is not tried before it is seen again: the next look may find the rest
    /// of a file that is being written, and half a table may protect less.
    seen: Option<Read>,
}

impl ApiReloader {
    /// Loads the tables, which at the start must be free of mistakes.
    pub(crate) fn load(paths: Vec<PathBuf>, metrics: Metrics) -> Result<Self, TableErrors> {
        let sources = Source::read(&paths)?;
        let apis = Arc::new(ArcSwap::from_pointee(Apis::compile(&sources)?));
        let asked = Arc::default();
        Ok(Self { apis, asked, paths, metrics, tried: Ok(sources), seen: None })
    }

    /// Looks until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // What the binary carries does not change.
        if self.paths.is_empty() {
            return stop.cancelled().await;
        }
        let asked = Arc::clone(&self.asked);
        while let Some(asked) = stop.run_until_cancelled(timeout(EVERY, asked.notified())).await {
            let Some(read) = self.read().await else { return };
            if asked.is_err() {
                if self.is_settled(&read) {
                    self.take_up(read).await;
                }
                continue;
            }
            sleep(AGAIN).await;
            let Some(again) = self.read().await else { return };
            if again == read {
                self.take_up(read).await;
            } else {
                // Looked at until it has settled.
                self.asked.notify_one();
            }
        }
    }

    /// Nothing when the process ends.
    async fn read(&self) -> Option<Read> {
        let paths = self.paths.clone();
        spawn_blocking(move || Source::read(&paths)).await.ok()
    }

    /// Whether this is another reading than the one last tried, for the second time.
    fn is_settled(&mut self, read: &Read) -> bool {
        if *read == self.tried {
            self.seen = None;
            return false;
        }
        let again = self.seen.as_ref() == Some(read);
        self.seen = Some(read.clone());
        again
    }

    async fn take_up(&mut self, read: Read) {
        self.seen = None;
        self.tried = read.clone();
        let compile = move || read.and_then(|sources| Apis::compile(&sources));
        let Ok(compiled) = spawn_blocking(compile).await else { return };
        match compiled {
            Ok(apis) => {
                self.apis.store(Arc::new(apis));
                self.metrics.reloaded_apis("ok");
                tracing::info!("API tables reloaded");
            }
            Err(errors) => {
                self.metrics.reloaded_apis("refused");
                tracing::error!(%errors, "API tables not reloaded; the previous ones stay in use");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prometheus_client::registry::Registry;

    use super::*;

    /// What somebody asks for in the middle of a write is read when it is written.
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
        let (apis, asked) = (Arc::clone(&reloader.apis), Arc::clone(&reloader.asked));
        let rules = || apis.load().list().map(|(_, rules)| rules).collect::<Vec<_>>();
        let stop = CancellationToken::new();
        let running = tokio::spawn(reloader.run(stop.clone()));

        // A beginning that is a table in itself.
        fs::write(file.path(), table(&["/a", "/b"])).unwrap();
        asked.notify_one();
        sleep(AGAIN / 2).await;
        fs::write(file.path(), table(&["/a", "/b", "/c"])).unwrap();
        sleep(AGAIN).await;
        assert_eq!(rules(), [1]);
        // Long before it would be looked at without being asked.
        sleep(EVERY / 4).await;
        assert_eq!(rules(), [3]);
        stop.cancel();
        running.await.unwrap();
    }
}
