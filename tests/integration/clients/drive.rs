//! Drives each client in its own environment: the client gets one job, runs its cases, and its
//! output to the user is compared with what the user must learn from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use patgate_testing::{
    eventually, http,
    stack::{Server, project},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    shown::Shown,
    table::{Client, Runtime},
};
use crate::support::{Replica, Suite, Token};

/// Set by `make client-test`: also runs the clients that need Node, and the browser.
const ALL: &str = "TESTED_CLIENTS";
/// The model that the limited token may use, and one for which it asks.
pub(crate) const MODEL: &str = "m-7b";
pub(crate) const OTHER_MODEL: &str = "m-70b";

pub(crate) fn all_are_wanted() -> bool {
    env::var(ALL).as_deref() == Ok("all")
}

/// A line of a script's report: see tests/clients/calls/report.py.
#[derive(Debug, Deserialize)]
struct Line {
    case: String,
    #[serde(flatten)]
    shown: Shown,
}

/// A gateway for one client, and the tokens of its users.
pub(super) struct Stage {
    pub(super) envoy: Server,
    /// A token for all models.
    pub(super) token: Token,
    /// A token for one of them.
    limited: Token,
    pub(super) expired: Token,
    _replica: Replica,
}

impl Stage {
    pub(super) async fn set(suite: &Suite) -> Self {
        let world = suite.world().await;
        let operations = ["llm_read", "llm_chat_completions"];
        let all = operations.map(|operation| ("acme", "models", "*", operation));
        let one = [("*", "llm_read"), (MODEL, "llm_read"), (MODEL, "llm_chat_completions")];
        let one = one.map(|(model, operation)| ("acme", "models", model, operation));
        let replica = world.serve(&[]).await;
        Self {
            envoy: replica.envoy(suite),
            token: world.token(&all).await,
            limited: world.token(&one).await,
            expired: world.token_for("ann", "-1 day", &all).await,
            _replica: replica,
        }
    }
}

pub(crate) async fn shows_what_its_user_has_to_know(suite: Arc<Suite>, client: &'static Client) {
    let chromium = if client.runs_in_a_browser() { chromium() } else { None };
    if client.runs_in_a_browser() && chromium.is_none() {
        return;
    }
    let Stage { envoy, token, limited, expired, .. } = &Stage::set(&suite).await;
    let job = json!({
        "base": format!("https://127.0.0.1:{}/proxy/acme", http::tls_port(envoy.port)),
        "ca": suite.dir.path().join(http::CERTIFICATE),
        "key": suite.dir.path().join(http::KEY),
        "chromium": chromium,
        "token": token.text,
        "limited": limited.text,
        "expired": expired.text,
        "model": MODEL,
        "other_model": OTHER_MODEL,
    });
    let lines = tokio::task::spawn_blocking(move || run(client, &job)).await.unwrap();

    let mut wrong = Vec::new();
    let mut reported = BTreeMap::new();
    for Line { case, shown } in lines {
        if let Some(earlier) = reported.insert(case.clone(), shown) {
            wrong.push(format!("{case} is reported twice, before as {earlier:?}"));
        }
    }
    for (case, expected) in client.cases() {
        match reported.remove(&case) {
            Some(shown) => {
                wrong.extend(expected.missed(&shown).map(|why| format!("{case}: {why}")))
            }
            None => wrong.push(format!("{case} is not reported")),
        }
    }
    wrong.extend(reported.into_iter().map(|(case, shown)| format!("{case} is new: {shown:?}")));
    assert!(wrong.is_empty(), "{}:\n{}", client.script, wrong.join("\n"));

    let protocols = || {
        let log = fs::read_to_string(&envoy.access_log).unwrap();
        // The last line may be incomplete.
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| line["protocol"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    eventually("lines in the access log", async || !protocols().is_empty()).await;
    assert_eq!(protocols(), [client.protocol.to_owned()].into(), "{}", client.script);
}

fn run(client: &Client, job: &Value) -> Vec<Line> {
    let mut command = command(client);
    let home = TempDir::new().unwrap();
    // Nothing from the environment of the test run: neither keys nor proxies.
    command.env_clear().env("HOME", home.path()).env("PATH", env::var_os("PATH").unwrap());
    // For clients whose scripts cannot set which certificate to trust.
    command.env("SSL_CERT_FILE", job["ca"].as_str().unwrap());
    // Otherwise it fetches prices from the Internet, and waits for them.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/install_clients.sh first"));
    // Not an argument, which every user of the machine could read.
    write!(child.stdin.take().unwrap(), "{job}").unwrap();
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}: {}\n{stdout}\n{stderr}", client.script, output.status);
    let parsed = stdout.lines().map(|line| {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error}: {line}", client.script))
    });
    parsed.collect()
}

/// Finds the browser; no package of npm or PyPI includes it. Without one, the test says that it skips
/// itself, and in CI it fails.
pub(crate) fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut places = env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = places.find(|place| place.is_file());
    if found.is_none() {
        let skipped = "skipped: Chromium is not installed (Debian: apt-get install chromium)";
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
        println!("{skipped}");
    }
    found
}

fn command(client: &Client) -> Command {
    let home = project(&format!(".clients/{}", client.home));
    match client.runtime {
        Runtime::Python => {
            let mut command = Command::new(format!("{home}/bin/python"));
            command.arg(project(&format!("tests/clients/calls/{}.py", client.script)));
            command
        }
        Runtime::Node => {
            let mut command = Command::new(project(".clients/node/bin/node"));
            command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
            command.arg(format!("{home}/calls/{}.mjs", client.script));
            command
        }
    }
}
