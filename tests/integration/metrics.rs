//! The page of metrics: its two formats, and that every series exists before anything happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
};

use patgate::refusal::Refusal;
use patgate_testing::{http, stack::project};

use crate::support::{Replica, Suite, relay::relayed};

const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const RESULT: &str = "result";

/// The label sets of a metric: each label with each of its values.
type Labels<'a> = &'a [(&'a str, &'a [&'a str])];

/// Each series that a replica shows from its start. Of a histogram, its count.
fn expected(with_relay: bool) -> BTreeSet<String> {
    let (mut all, kinds) = (BTreeSet::new(), ["principal", "domain", "backend"]);
    let mut add = |name: &str, labels: Labels<'_>| {
        let sets = labels.iter().fold(vec![String::new()], |sets, (label, values)| {
            let longer = |set: &String| {
                let comma = if set.is_empty() { "" } else { "," };
                values.iter().map(|value| format!("{set}{comma}{label}=\"{value}\"")).collect()
            };
            sets.iter().flat_map(|set| -> Vec<String> { longer(set) }).collect()
        });
        all.extend(sets.iter().map(|set| match set.as_str() {
            "" => format!("patgate_{name}"),
            set => format!("patgate_{name}{{{set}}}"),
        }));
    };
    for name in [
        "bodies_asked_total",
        "bodies_unasked_total",
        "bodies_awaited",
        "bodies_awaited_bytes",
        "calls_without_secret_total",
        "check_duration_seconds_count",
        "panics_total",
        "redis_dropped_writes_total",
        "unopened_credentials_total",
        "revocation_propagation_seconds_count",
        "decision_log_not_reopened",
        "api_tables_refused",
        "key_ring_refused",
        "settings_refused",
        "feed_changes_total",
        "feed_restarts_total",
        "feed_pooled",
        "feed_triggers_off",
        "feed_triggers_switched_total",
        "feed_watermark_age_seconds",
        "feed_renewed_at_age_seconds_count",
        "deadline_seconds",
        "max_staleness_seconds",
        "ready",
    ] {
        add(name, &[]);
    }
    let both = &["true", "false"];
    let decisions = "decisions_total";
    add(decisions, &[("outcome", &["allow"]), ("code", &["ok"]), ("enforced", &["true"])]);
    add(decisions, &[("outcome", &["answered"]), ("code", &["ok"]), ("enforced", both)]);
    add(decisions, &[("outcome", &["deny"]), ("code", &Refusal::CODES), ("enforced", both)]);
    add("mode", &[("mode", &["enforce", "per-domain", "shadow"])]);
    let records = ["written", "failed", "dropped", "repeated", "left_out"];
    add("decision_log_records_total", &[(RESULT, &records)]);
    for (tier, results) in [
        ("memory", &["hit", "negative"][..]),
        (
            "redis",
            &["hit", "negative", "unavailable", "miss", "stale", "retired", "refused", "open"],
        ),
        ("postgres", &["hit", "negative", "unavailable", "shed"]),
    ] {
        add("lookups_total", &[("kind", &kinds), ("tier", &[tier]), (RESULT, results)]);
    }
    add("memory_entries", &[("kind", &kinds), ("holds", &["value", "negative"])]);
    let stores: Labels<'_> = &[("store", &["redis", "postgres"])];
    add("store_commands_total", stores);
    add("store_failures_total", stores);
    add("store_credentials_refused", stores);
    add(
        "store_credential_reloads_total",
        &[("store", &["redis", "postgres"]), (RESULT, &["ok", "refused"])],
    );
    let settings: Labels<'_> = &[("setting", &["postgres.url", "feed.url"])];
    add("other_installation_answers_total", settings);
    add("postgres_primary_changes_total", settings);
    let certificates = [
        "grpc.tls.certificate_file",
        "http.tls.certificate_file",
        "redis.tls.certificate_file",
        "postgres.url",
        "feed.url",
    ];
    add("certificate_not_before_timestamp_seconds", &[("setting", &certificates)]);
    add("certificate_not_after_timestamp_seconds", &[("setting", &certificates)]);
    let rounds = ["seen", "unseen", "unavailable"];
    add("revocation_canary_rounds_total", &[(RESULT, &rounds)]);
    add("last_used_writes_total", &[(RESULT, &["written", "skipped", "dropped"])]);
    add("log_lines_total", &[(RESULT, &["written", "failed", "dropped"])]);
    add("spans_total", &[(RESULT, &["exported", "failed", "dropped"])]);
    // A replica of the tests has no Unix socket.
    add("grpc_connections", &[("listener", &["tcp"])]);
    let listeners = ("listener", &["grpc", "http"][..]);
    add("tls_handshakes_total", &[listeners, (RESULT, &["done", "failed", "timed_out"])]);
    add("tls_certificates_refused", &[listeners]);
    add("tls_reloads_total", &[listeners, (RESULT, &["ok", "refused"])]);
    add("api_reloads_total", &[(RESULT, &["ok", "refused"])]);
    add("key_ring_reloads_total", &[(RESULT, &["ok", "refused"])]);
    add("settings_reloads_total", &[(RESULT, &["ok", "refused"])]);
    add("feed_polls_total", &[(RESULT, &["ok", "failed"])]);
    add("build_info", &[("version", &[env!("CARGO_PKG_VERSION")])]);
    if with_relay {
        add("relay_leader", &[]);
        add("relay_silences_total", &[]);
        add(
            "relay_frames_total",
            &[(RESULT, &["applied", "gap", "superseded", "retired", "refused"])],
        );
    }
    all
}

async fn page(replica: &Replica, accept: &[(&str, &str)]) -> (String, String) {
    let reply = http::send(replica.http.port(), "GET", "/metrics", accept, "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("vary"), Some("Accept"));
    (reply.header("content-type").unwrap().to_owned(), reply.body)
}

/// The series of a page, each with its value.
fn series(page: &str) -> BTreeMap<&str, &str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap()).collect()
}

/// An alert cannot see the first event of a series that begins with it.
pub(crate) async fn every_series_exists_from_the_start(suite: Arc<Suite>) {
    let world = suite.world().await;
    let relay = relayed(&world);
    let documented = documented();
    let mut shown = BTreeSet::new();
    for (settings, with_relay) in [(&[][..], false), (&relay.each_ref().map(String::as_str), true)]
    {
        let replica = world.serve(settings).await;
        let (_, text) = page(&replica, &[]).await;
        let series = series(&text);
        let found: BTreeSet<String> = series
            .keys()
            .filter(|name| !name.contains("_bucket{") && !name.ends_with("_seconds_sum"))
            .map(|name| (*name).to_owned())
            .collect();
        let expected = expected(with_relay);
        let missing: Vec<_> = expected.difference(&found).collect();
        let unknown: Vec<_> = found.difference(&expected).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{missing:#?} {unknown:#?}");
        // What nothing has caused yet.
        for (name, value) in &series {
            let quiet = name.starts_with("patgate_decisions_total")
                || ["refused", "failed", "dropped", "unseen", "shed", "unavailable"]
                    .iter()
                    .any(|result| name.contains(&format!("result=\"{result}\"")));
            // The log is that of all tests.
            if quiet && !name.starts_with("patgate_log_lines_total") {
                assert_eq!(*value, "0", "{name}");
            }
        }
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        shown.extend(types.map(|line| line.split(' ').next().unwrap().to_owned()));
    }
    let names: BTreeSet<String> = documented.keys().cloned().collect();
    assert_eq!(shown, names, "the documents have each metric, and no other");
    for name in expected(true) {
        let Some((metric, labels)) = name.split_once('{') else { continue };
        let metric = metric.strip_suffix("_count").unwrap_or(metric);
        for pair in labels.trim_end_matches('}').split(',') {
            let (label, value) = pair.split_once('=').unwrap();
            let said = &documented[metric];
            assert!(said.contains(&format!("`{label}`")), "{metric}: {label} is not documented");
            let value = value.trim_matches('"');
            // The codes are those of error bodies, and a version is what it is.
            if !["code", "version"].contains(&label) {
                assert!(said.contains(&format!("`{value}`")), "{metric}: `{value}` is not either");
            }
        }
    }
}

/// The rows of the tables of metrics in the documents, by name. Those of the relay have a table of
/// their own.
pub(crate) fn documented() -> BTreeMap<String, String> {
    let read = |document| fs::read_to_string(project(document)).unwrap();
    let text = ["docs/observing.md", "docs/operations.md"].map(read).concat();
    let mut rows = BTreeMap::new();
    let tables = text.split("\n\n").filter(|block| block.starts_with("| metric |"));
    for row in tables.flat_map(|table| table.lines().skip(2)) {
        let names = row.split('|').nth(1).unwrap();
        for name in names.split('`').filter(|name| name.starts_with("patgate_")) {
            rows.insert(name.to_owned(), row.to_owned());
        }
    }
    rows
}

pub(crate) async fn the_two_formats_say_the_same(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let (format, openmetrics) = page(&replica, &[("accept", PROMETHEUS)]).await;
    assert_eq!(format, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(openmetrics.ends_with("# EOF\n") && openmetrics.contains("# UNIT "));
    for accept in [&[][..], &[("accept", "*/*")], &[("accept", "text/plain")]] {
        let (format, classic) = page(&replica, accept).await;
        assert_eq!(format, "text/plain; version=0.0.4; charset=utf-8");
        assert!(series(&classic).keys().eq(series(&openmetrics).keys()));
        assert!(classic.lines().all(|line| {
            !line.starts_with('#') || line.starts_with("# HELP ") || line.starts_with("# TYPE ")
        }));
        assert!(classic.contains("# TYPE patgate_panics_total counter\npatgate_panics_total 0\n"));
    }
}
