//! The level of the log of a running process.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
};

use patgate_testing::eventually;
use serde_json::Value;

use crate::support::{Suite, fleet::MODELS, process, tokens::reader};

const CHANGED: &str = "the filter of the log has changed";
const NO_FILTER: &str = "expected a level (`off`";

/// A file replaces the filter while it exists. One with an error changes nothing, and is reported.
pub(crate) async fn is_changed_by_a_file(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = reader(&world).await.bearer();
    let file = suite.dir.path().join(format!("{}.filter", world.database));
    let setting = format!("log.filter_file={}", file.display());
    // The decision log has lines of its own.
    let settings = [&*setting, "log.filter=info", "decision_log.to=none"];
    let process = process::serve(&world, &settings).await;
    let log = || fs::read_to_string(&process.server.log).unwrap();
    let lines = || -> Vec<Value> {
        let text = log();
        // The last line may not be complete.
        let whole = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        whole.collect()
    };
    let count = |message: &str| {
        lines().iter().filter(|line| line["message"].as_str() == Some(message)).count()
    };
    let debug = || lines().iter().filter(|line| line["level"] == "DEBUG").count();
    // A new connection, of which h2 logs at that level.
    let ask = async || {
        let fresh = crate::support::Replica::at(process.replica.grpc, process.replica.http);
        fresh.check("GET", MODELS, &[("authorization", &bearer)]).await;
    };
    ask().await;
    assert_eq!((count(CHANGED), debug()), (0, 0));

    fs::write(&file, "debug\n").unwrap();
    eventually("the level to rise", async || count(CHANGED) == 1).await;
    let rises = async || {
        ask().await;
        debug() > 0
    };
    eventually("lines of that level", rises).await;

    // What is not a filter, and what another user could have written.
    let reported = |text: &str| lines().iter().any(|line| line.to_string().contains(text));
    fs::write(&file, "patgate=loud").unwrap();
    eventually("the mistake to be reported", async || reported(NO_FILTER)).await;
    // A typo, which would otherwise name a target, and silence all others.
    let mistakes = || lines().iter().filter(|line| line.to_string().contains(NO_FILTER)).count();
    fs::write(&file, "warning").unwrap();
    eventually("the typo to be reported", async || mistakes() == 2).await;
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    eventually("the file to be refused", async || reported("chmod go-w")).await;
    let before = debug();
    let still = async || {
        ask().await;
        debug() > before
    };
    eventually("lines of that level, still", still).await;

    fs::remove_file(&file).unwrap();
    eventually("the level to fall", async || count(CHANGED) == 2).await;
    let fallen = lines().iter().rposition(|line| line["message"] == CHANGED).unwrap();
    for _ in 0..10 {
        ask().await;
    }
    // Written after everything that these checks could have logged.
    fs::write(&file, "info,patgate=info").unwrap();
    eventually("a further change", async || count(CHANGED) == 3).await;
    let later: Vec<_> = lines().into_iter().skip(fallen).collect();
    assert!(later.iter().all(|line| line["level"] != "DEBUG"), "{later:#?}");
}
