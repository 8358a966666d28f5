//! What the decision log has of the paths that no rule names.

use std::{fs, sync::Arc};

use futures_util::future::join_all;
use patgate_testing::eventually;
use serde_json::Value;

use crate::{
    decision_log::{EMBEDDINGS, ask},
    support::{
        Suite,
        cli::Cli,
        decision_log::{ALL, decisions, file, lines, logging},
        tokens::reader,
    },
};

/// For a verified token, and in a rollout for a request in an API's paths; never with what may be a
/// secret, and never with a query.
pub(crate) async fn a_path_that_no_rule_names_is_told(suite: Arc<Suite>) {
    const NEW: &str = "/proxy/acme/v9/new";
    let world = suite.world().await;
    let token = reader(&world).await;
    let bearer = token.bearer();
    let good = Some(&*bearer);
    // As a client might put it into a path; each row of letters and digits is short.
    let key = format!("sk-proj-{}", "aB3-".repeat(20));
    let with_query = format!("{NEW}?key={key}");
    let with_key = format!("/proxy/acme/keys/{key}/x");
    let with_token = format!("/proxy/acme/keys/{}", token.text);
    let long = format!("/elsewhere/{}", "m".repeat(3000));
    let cut = format!("/elsewhere/{}…", "m".repeat(189));
    for (mode, asked) in [
        (
            "enforce",
            &[
                (NEW, good, Some(NEW)),
                (&*with_query, good, Some(NEW)),
                (&with_key, good, Some("/proxy/acme/keys/(not repeated)/x")),
                (&with_token, good, Some("/proxy/acme/keys/(not repeated)")),
                ("/elsewhere", good, Some("/elsewhere")),
                (&long, good, Some(&*cut)),
                (NEW, None, None),
                (NEW, Some("Bearer pat_forged"), None),
                ("/elsewhere", None, None),
                // A rule names it.
                (EMBEDDINGS, good, None),
                // It has more than one spelling.
                ("/proxy/acme/v9/new/", good, None),
            ][..],
        ),
        (
            "shadow",
            &[
                (NEW, good, Some(NEW)),
                ("/elsewhere", good, Some("/elsewhere")),
                // The client has no token yet.
                (NEW, None, Some(NEW)),
                (&with_query, Some("Bearer their-own-key"), Some(NEW)),
                (&with_key, None, Some("/proxy/acme/keys/(not repeated)/x")),
                // A page of another service, perhaps with its secret.
                ("/login/reset/4f2a9c", None, None),
                (EMBEDDINGS, None, None),
                ("/proxy/acme/v9/new/", None, None),
            ][..],
        ),
    ] {
        let log = file(&world, &format!("paths-{mode}"));
        let replica = logging(&world, &log, &[&format!("mode={mode}"), ALL[1], ALL[2]]).await;
        for (number, (path, bearer, _)) in asked.iter().enumerate() {
            ask(&replica, path, &number.to_string(), *bearer).await;
        }
        let lines = decisions(&log, asked.len()).await;
        for (number, (path, _, expected)) in asked.iter().enumerate() {
            let id = number.to_string();
            let line = lines.iter().find(|line| line["request_id"].as_str() == Some(&id)).unwrap();
            let told = (line["method"].as_str(), line["path"].as_str());
            assert_eq!(told, (expected.map(|_| "POST"), *expected), "{mode} {number}: {path}");
        }
        let text = fs::read_to_string(&log).unwrap();
        for secret in [&*key, "aB3-aB3", token.text.rsplit('_').next().unwrap(), "4f2a9c"] {
            assert!(!text.contains(secret), "{mode}: {secret}: {text}");
        }
        let cli = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
        let told = cli.ok(&format!("why 0 --log {}", log.display()));
        assert!(told.contains("POST /proxy/acme/v9/new, which no rule names"), "{told}");
        let told = cli.ok(&format!("shadow report --log {}", log.display()));
        let refers = told.contains("request -: no rule names it, and its path is not logged");
        assert_eq!(refers, mode == "shadow", "{told}");
    }
}

/// A client that asks for ever new paths gets no more lines than its share, and what is counted says
/// which path it was, or that it does not.
pub(crate) async fn paths_are_counted_apart_up_to_a_number(suite: Arc<Suite>) {
    const PATHS: usize = 40;
    const TIMES: usize = 25;
    let world = suite.world().await;
    let bearer = reader(&world).await.bearer();
    let log = file(&world, "many-paths");
    let replica = logging(&world, &log, &["mode=shadow"]).await;
    let began = std::time::Instant::now();
    for _ in 0..TIMES {
        let paths: Vec<String> = (0..PATHS).map(|n| format!("/proxy/acme/v9/{n}")).collect();
        join_all(paths.iter().map(|path| ask(&replica, path, "p", Some(&bearer)))).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let counter = "patgate_decision_log_records_total{result=\"repeated\"}";
    let counted = replica.metric(counter).await;
    drop(replica);
    let repeated =
        || -> u64 { lines(&log).iter().filter_map(|line| line["repeated"].as_u64()).sum() };
    eventually("the summary", async || repeated() == counted).await;
    let lines = lines(&log);
    let logged = lines.iter().filter(|line| line.get("request_id").is_some()).count();
    println!("{logged} lines for {} denials of {PATHS} paths in {seconds:.1} s", PATHS * TIMES);
    assert_eq!(logged as u64 + counted, (PATHS * TIMES) as u64);
    // Sixteen paths and the others: one line of each in a second.
    assert!(logged as f64 <= 17.0 * (seconds + 2.0), "{logged}");
    let summaries: Vec<&Value> = lines.iter().filter(|line| line["repeated"].is_u64()).collect();
    let with_path = |line: &&&Value| line["path"].is_string() && line["method"] == "POST";
    let left_out = |line: &&&Value| line["paths_left_out"] == true && line.get("path").is_none();
    let apart = summaries.iter().filter(with_path).count();
    let together = summaries.iter().filter(left_out).count();
    assert!(apart >= 16 && together >= 1, "{summaries:#?}");
    assert_eq!(apart + together, summaries.len(), "{summaries:#?}");

    let cli = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
    let report = format!("shadow report --log {} --by path", log.display());
    let rows = cli.json(&report)["not_enforced"].as_array().unwrap().clone();
    let sum: u64 = rows.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, (PATHS * TIMES) as u64);
    let table = cli.ok(&format!("{report} --limit 3"));
    assert!(table.contains("(further paths)"), "{table}");
    let further = rows.len() - 3;
    let denials: u64 = rows[3..].iter().map(|row| row["count"].as_u64().unwrap()).sum();
    let said = format!("and {further} more, with {denials} denials; --limit 0 prints all");
    assert!(table.contains(&said), "no `{said}` in {table}");
    assert_eq!(table.matches("not_found").count(), 3, "{table}");
    let all = cli.ok(&format!("{report} --limit 0"));
    assert_eq!(all.matches("not_found").count(), rows.len(), "{all}");
}
