//! The death of a background task: the process names it, drains, and ends with an error, so that its
//! supervisor starts it again. A replica without one of its tasks would go on with answers that grow
//! old, or without any.

use std::{collections::HashSet, fs, path::Path, sync::Arc};

use patgate::app::App;
use patgate_testing::{eventually, http, stack::Server};
use serde_json::json;

use crate::support::{Suite, World, authority::Authority, process};

/// Ends before anything can be done to it, so it has to be told before the start.
const SHORT_LIVED: &str = "first contact with Redis";
/// Runs only in a replica that does not relay.
const OF_EACH_REPLICA: &str = "listener for changes";

/// Runs only in `patgate sync`; `routes::a_dead_keeper_ends_the_process` is about it.
pub(crate) const OF_SYNC: &str = "keeper of the routes";

/// Each task is made to panic in a process of its own, in which all tasks run.
pub(crate) async fn the_death_of_any_task_ends_the_process(suite: Arc<Suite>) {
    let world = suite.world().await;
    let names: Vec<&str> = App::task_names().collect();
    assert!(names.len() > 10 && names.contains(&SHORT_LIVED) && names.contains(&OF_EACH_REPLICA));
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    let files = suite.dir.path().join(format!("{}.tasks", world.database));
    fs::create_dir(&files).unwrap();
    // Only its reader matters: Valkey has no password, and is not used.
    fs::write(files.join("redis.password"), "none").unwrap();
    fs::write(files.join("filter"), "info").unwrap();
    Authority::new().certify(&["patgate"]).write(&files, "server");
    assert!(names.contains(&OF_SYNC));
    for name in names.into_iter().filter(|name| *name != OF_SYNC) {
        let call = suite.dir.path().join(format!("{}.{}", world.database, name.replace(' ', "-")));
        if name == SHORT_LIVED {
            fs::write(&call, "").unwrap();
        }
        let server = start(&world, &files, name, call.to_str().unwrap());
        if name != SHORT_LIVED {
            eventually("every task to run", async || runs(&server).await).await;
            fs::write(&call, "").unwrap();
        }
        let code = suite.stack.exit_code(&server).await;
        let log = fs::read_to_string(&server.log).unwrap();
        let told = format!("patgate: the {name} panicked; this is a bug in patgate");
        assert_eq!(code, 1, "{name}: {log}");
        assert!(log.lines().any(|line| line.starts_with(&told)), "{name}: no `{told}` in {log}");
        assert!(log.contains("a required task has ended; patgate exits"), "{name}: {log}");
        assert!(log.contains("\"draining\""), "{name}: {log}");
    }
}

/// Starts a process in which every task runs, and one of them panics once the file exists.
fn start(world: &World<'_>, files: &Path, name: &str, call: &str) -> Server {
    let file = |name: &str| files.join(name).display().to_string();
    let settings = [
        format!("feed.url={}", world.url("server", world.port)),
        format!("grpc.tls.certificate_file={}", file("server.crt")),
        format!("grpc.tls.private_key_file={}", file("server.key")),
        format!("decision_log.to={}", file("decisions")),
        format!("redis.password_file={}", file("redis.password")),
        format!("log.filter_file={}", file("filter")),
        "canary.every=100ms".to_owned(),
        "drain.delay=0s".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut env = world.environment(&settings);
    env.insert("TEST_PANIC_IN".to_owned(), name.to_owned());
    env.insert("TEST_PANIC_WHEN".to_owned(), call.to_owned());
    // The tests' own build: no release can be told to panic.
    let argv = [env!("CARGO_BIN_EXE_patgate"), "serve"];
    world.suite.stack.start("process", json!({ "argv": argv, "name": "patgate", "env": env }))
}

/// Whether the process is ready, and a canary was seen, which needs the tasks that start last.
async fn runs(server: &Server) -> bool {
    let Some(http) = process::listening(server).map(|(_, http)| http.port()) else { return false };
    let page = http::send(http, "GET", "/metrics", &[], "").await.body;
    page.lines().any(|line| {
        line.strip_prefix("patgate_revocation_canary_rounds_total{result=\"seen\"} ")
            .is_some_and(|rounds| rounds != "0")
    })
}
