//! Writes and reads decision logs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use patgate_testing::eventually;
use serde_json::Value;

use crate::support::{Replica, World};

/// Everything, for tests that look at single lines.
pub(crate) const ALL: [&str; 3] = [
    "decision_log.sample_allows=100%",
    "decision_log.denials_per_second=100000",
    "decision_log.repeats_per_second=100000",
];

/// A file for one log, in the folder that is searched for leaks.
pub(crate) fn file(world: &World<'_>, name: &str) -> PathBuf {
    world.suite.dir.path().join(format!("{}.{name}.decisions", world.database))
}

pub(crate) async fn logging(world: &World<'_>, to: &Path, settings: &[&str]) -> Replica {
    let to = format!("decision_log.to={}", to.display());
    world.serve(&[&[to.as_str()], settings].concat()).await
}

/// Returns the lines of a log so far. The last one may be incomplete.
pub(crate) fn lines(from: &Path) -> Vec<Value> {
    let text = fs::read_to_string(from).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns the decisions, once there are this many.
pub(crate) async fn decisions(from: &Path, count: usize) -> Vec<Value> {
    let decisions = || -> Vec<Value> {
        lines(from).into_iter().filter(|line| line.get("request_id").is_some()).collect()
    };
    eventually("decisions to be written", async || decisions().len() >= count).await;
    decisions()
}
