//! deploy/observability in a real Prometheus that scrapes real replicas: each alert is silent until
//! its event and fires for it, and each query of the dashboard and of the runbook has an answer.
//!
//! By `make alerts-test`, which needs Debian's package `prometheus`.

pub(crate) mod commands;
mod events;
mod files;
mod healthy;
mod pauses;
pub(crate) mod rotations;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
    sync::Arc,
    time::Instant,
};

use futures_util::future::join;
use patgate_testing::{
    http,
    prometheus::{Prometheus, find, promtool},
};
use tokio::{io::AsyncWriteExt as _, process::Command};

use self::{healthy::Healthy, pauses::Pauses, stage::Stage};
use crate::{metrics, support::Suite};

/// Not caused here. Only a defect causes the first, and none is known. The others are about processes
/// beside the replicas: `tests/alerts/run.py` causes them, except the one that needs a Kubernetes.
const NOT_CAUSED: &[&str] = &[
    "PatgatePanics",
    "PatgateSyncDown",
    "PatgateSyncStale",
    "PatgateSyncBackendsRefused",
    "PatgateSyncForeignObjects",
    "PatgateAdminDown",
    "PatgateAdminNotReady",
    "PatgateAdminFailing",
    "PatgateAdminRefused",
    "PatgateSignInsFailed",
];

/// `make alerts-test` says so.
pub(crate) fn are_wanted() -> bool {
    std::env::var("TESTED_ALERTS").is_ok_and(|wanted| !wanted.is_empty())
}

/// The rules, and their unit tests: one in which each alert fires, one in which it does not. And what
/// the runbook and the dashboard say of them.
pub(crate) async fn rules_and_their_tests_pass_promtool(_: Arc<Suite>) {
    let folder = files::folder();
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let ran = promtool(&folder, &arguments);
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {said}");
    }
    let tests = files::tests();
    for alert in files::alerts() {
        let name = &alert.name;
        for kind in ["fires", "is silent"] {
            let test = format!("{name} {kind}: ");
            assert!(tests.contains(&test), "no unit test {test:?}");
        }
        for (key, value) in [("severity", &alert.severity), ("summary", &alert.summary)] {
            assert!(!value.is_empty(), "{name} has no {key}");
        }
        assert!(!alert.description.is_empty(), "{name} has no description");
        let anchor = name.to_lowercase();
        assert_eq!(alert.runbook_url, format!("docs/runbook.md#{anchor}"), "{name}");
    }
    let named: BTreeSet<String> = files::alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(named, files::runbook_entries(), "each alert has its entry in the runbook");
    let sources = files::sources();
    for message in files::quoted_messages() {
        assert!(sources.contains(&message), "no such message in the log: {message:?}");
    }
    let dashboard = files::dashboard();
    for metric in metrics::documented().keys() {
        assert!(dashboard.contains(metric.as_str()), "{metric} is not in the dashboard");
    }
}

/// The classic text, which a client gets that asks for nothing else.
pub(crate) async fn the_page_of_metrics_passes_promtool(suite: Arc<Suite>) {
    let world = suite.world().await;
    let relay = crate::support::relay::relayed(&world);
    let replica = world.serve(&relay.each_ref().map(String::as_str)).await;
    let reply = http::send(replica.http.port(), "GET", "/metrics", &[], "").await;
    let format = reply.header("content-type");
    assert_eq!(format, Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new(find("promtool").expect("promtool on the PATH"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut page = promtool.stdin.take().unwrap();
    page.write_all(reply.body.as_bytes()).await.unwrap();
    drop(page);
    let ran = promtool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.trim().is_empty(), "{said}");
}

/// For each alert an event on a replica of its own, all at once; and beside them a healthy fleet.
pub(crate) async fn each_fires_for_its_event_and_for_nothing_else(suite: Arc<Suite>) {
    let folder = suite.dir.path().join("prometheus");
    fs::create_dir(&folder).unwrap();
    let prometheus = Prometheus::start(&suite.stack, &folder, &files::hastened_rules()).await;
    // It knows of no replica yet.
    let nothing = "ALERTS{alertname=\"PatgateAllDown\",alertstate=\"firing\",job=\"\"}";
    prometheus.until("the alert on no replica at all", nothing).await;

    let healthy = Healthy::start(&suite, &prometheus).await;
    let stage = Stage::new(&suite, &prometheus, events::STORIES.len());
    let told = events::all(&stage);
    let world = suite.world().await;
    let pauses = Pauses::watch(&world);
    let directed = async {
        let quiet_since = stage.direct().await;
        // Those before are over.
        pauses.seen();
        // What a healthy fleet shows is looked at while the others fall ill.
        healthy.answers_every_query(&prometheus).await;
        stage.judge(judge(&prometheus, quiet_since, &pauses)).await;
    };
    join(told, directed).await;
    suite.stack.stop(&prometheus.server);
}

/// Each alert has fired for the event that causes it, and no other alert.
async fn judge(prometheus: &Prometheus, quiet_since: Instant, pauses: &Pauses) {
    for rule in prometheus.rules().await {
        assert_eq!(rule.health, "ok", "{}: {} in {}", rule.name, rule.last_error, rule.query);
    }
    for alert in prometheus.alerts().await {
        for (name, text) in &alert.annotations {
            assert!(!text.contains("<error"), "{name} of {:?}: {text}", alert.labels);
        }
    }
    let mut fired = fired_since(prometheus, quiet_since).await;
    let (mut caused, mut false_alarms) = (BTreeSet::new(), Vec::new());
    for story in events::STORIES {
        let fired = fired.remove(story.job).unwrap_or_default();
        for name in story.fires {
            assert!(fired.contains(*name), "{}: {name} did not fire", story.job);
            caused.insert((*name).to_owned());
        }
        let known = |name: &String| story.fires.iter().chain(story.may).any(|known| known == name);
        let unknown = fired.into_iter().filter(|name| !known(name));
        false_alarms.extend(unknown.map(|name| (story.job.to_owned(), name)));
    }
    // The healthy fleet has none.
    let others = fired
        .into_iter()
        .flat_map(|(job, names)| names.into_iter().map(move |name| (job.clone(), name)));
    false_alarms.extend(others);
    if pauses.seen() {
        println!("the machine paused, so alerts about time may be right: {false_alarms:?}");
        false_alarms.retain(|(_, name)| !pauses::ALERTS.contains(&name.as_str()));
    }
    assert!(false_alarms.is_empty(), "{false_alarms:#?}");
    let mut named: BTreeSet<String> = files::alerts().into_iter().map(|alert| alert.name).collect();
    for name in NOT_CAUSED {
        assert!(named.remove(*name), "no alert is called {name}");
    }
    assert_eq!(caused, named, "each alert has an event");
}

/// The alerts that fired since then, by job.
async fn fired_since(
    prometheus: &Prometheus,
    since: Instant,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut fired = BTreeMap::<String, BTreeSet<String>>::new();
    let seconds = since.elapsed().as_secs() + 1;
    let alerts = format!("ALERTS{{alertstate=\"firing\",job!=\"\"}}[{seconds}s]");
    let since = format!("group by (job, alertname) (max_over_time({alerts}))");
    for mut sample in prometheus.query(&since).await.unwrap() {
        let mut label = |name| sample.labels.remove(name).unwrap();
        fired.entry(label("job")).or_default().insert(label("alertname"));
    }
    fired
}
