//! The files in deploy/observability, and the runbook.

use std::{collections::BTreeSet, fs, path::PathBuf};

use patgate_testing::stack::project;
use serde_json::Value;

/// An alert as its rule defines it.
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) severity: String,
    pub(super) summary: String,
    pub(super) description: String,
    pub(super) runbook_url: String,
}

pub(super) fn folder() -> String {
    project("deploy/observability")
}

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", folder())).unwrap()
}

pub(super) fn tests() -> String {
    read("alerts_test.yaml")
}

pub(super) fn alerts() -> Vec<Alert> {
    let rules: Value = serde_saphyr::from_str(&read("alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules
        .filter(|rule| rule["alert"].is_string())
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            severity: text(&rule["labels"]["severity"]),
            summary: text(&rule["annotations"]["summary"]),
            description: text(&rule["annotations"]["description"]),
            runbook_url: text(&rule["annotations"]["runbook_url"]),
        })
        .collect()
}

/// The rules for a test: a minute is a second, and each story has a job of its own.
pub(super) fn hastened_rules() -> String {
    let mut rules = read("alerts.yaml").replace("job=\"patgate\"", "job=~\"patgate.*\"");
    for (window, hastened) in [
        ("[5m]", "[5s]"),
        ("[15m]", "[15s]"),
        ("[30m]", "[30s]"),
        ("[1h]", "[60s]"),
        ("[6h]", "[360s]"),
    ] {
        assert!(rules.contains(window), "no rule has the window {window}");
        rules = rules.replace(window, hastened);
    }
    for minutes in [1, 2, 5] {
        rules = rules.replace(&format!("for: {minutes}m\n"), &format!("for: {minutes}s\n"));
    }
    for kept in ["m]", "h]", "m\n        labels"] {
        assert!(!rules.contains(kept), "a duration that is not known here: {kept:?}");
    }
    rules
}

/// The headings of the runbook that name alerts.
pub(super) fn runbook_entries() -> BTreeSet<String> {
    let headings = runbook();
    let headings = headings.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(str::to_owned).collect()
}

fn runbook() -> String {
    fs::read_to_string(project("docs/runbook.md")).unwrap()
}

/// The queries of the dashboard's panels, with the title of each, for one job.
pub(super) fn dashboard_queries(job: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&dashboard()).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "10s")
                .replace("$job", job)
                .replace("$instance", ".*");
            assert!(!query.contains('$'), "{title}: a variable that is not known here: {query}");
            queries.push((title.to_owned(), query));
        }
    }
    assert!(queries.len() > 40, "{} queries in the dashboard", queries.len());
    queries
}

/// The commands of the runbook, each once.
pub(super) fn runbook_commands() -> BTreeSet<String> {
    let runbook = runbook();
    let commands: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
    assert!(commands.len() > 10, "{} commands in the runbook", commands.len());
    commands
}

/// The filter that blocks an address, in YAML.
pub(super) fn runbook_filter() -> String {
    let runbook = runbook();
    let blocks: Vec<_> = runbook.split("```yaml\n").skip(1).collect();
    assert_eq!(blocks.len(), 1, "blocks of YAML in the runbook");
    blocks[0].split("```").next().unwrap().to_owned()
}

/// The messages of the log that the runbook quotes.
pub(super) fn quoted_messages() -> BTreeSet<String> {
    let runbook = runbook();
    let lines = runbook.lines().filter(|line| line.contains(" log") && !line.starts_with("$ "));
    let quoted = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let messages: BTreeSet<_> = quoted.map(str::to_owned).collect();
    assert!(messages.len() > 5, "{messages:?}");
    messages
}

/// The text of the sources, in which a message is on one line.
pub(super) fn sources() -> String {
    let (mut text, mut folders) = (String::new(), vec![PathBuf::from(project("src"))]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut pieces = text.split("\\\n");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.trim_start())
}

pub(super) fn dashboard() -> String {
    read("dashboard.json")
}

/// The queries of the runbook: every line of its blocks of PromQL.
pub(super) fn runbook_queries(job: &str) -> Vec<String> {
    let runbook = runbook();
    let blocks = runbook.split("```promql\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let queries: Vec<_> =
        lines.map(|line| line.replace("\"patgate\"", &format!("\"{job}\""))).collect();
    assert!(queries.len() > 10, "{} queries in the runbook", queries.len());
    queries
}
