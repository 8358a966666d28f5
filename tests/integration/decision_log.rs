//! The decision log: what it records, what it omits, and that no check waits for it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use futures_util::future::join_all;
use patgate_testing::eventually;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Replica, Suite, Token, World,
    cli::Cli,
    decision_log::{ALL, decisions, file, lines, logging},
    outcome, process, request,
    tokens::reader,
};

const MODELS: &str = "/proxy/acme/v1/models";
pub(crate) const EMBEDDINGS: &str = "/proxy/acme/v1/embeddings";

/// Returns what was not logged, by code, and the number of dropped records.
fn omitted(lines: &[Value]) -> (BTreeMap<String, u64>, u64) {
    let mut left_out = BTreeMap::new();
    let mut dropped = 0;
    for line in lines.iter().filter(|line| line.get("left_out").is_some()) {
        dropped += line["dropped"].as_u64().unwrap();
        for (code, count) in line["left_out"].as_object().unwrap() {
            *left_out.entry(code.clone()).or_default() += count.as_u64().unwrap();
        }
    }
    (left_out, dropped)
}

pub(crate) async fn ask(
    replica: &Replica,
    path: &str,
    id: &str,
    bearer: Option<&str>,
) -> (u16, String) {
    let method = if path == MODELS { "GET" } else { "POST" };
    let mut headers = vec![("x-request-id", id)];
    headers.extend(bearer.map(|bearer| ("authorization", bearer)));
    outcome(&replica.check(method, path, &headers).await)
}

/// Returns a line without the values that no test can predict.
fn told(line: &Value) -> Value {
    let mut line = line.clone();
    let members = line.as_object_mut().unwrap();
    let time: jiff::Timestamp = members.remove("time").unwrap().as_str().unwrap().parse().unwrap();
    assert!(time.as_second() > 0);
    assert!(members.remove("micros").unwrap().is_u64());
    line
}

pub(crate) async fn holds_what_was_decided(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let log = file(&world, "all");
    let replica = logging(&world, &log, &ALL).await;
    let bearer = token.bearer();
    for (path, id, bearer) in [
        (MODELS, "r-1", Some(&*bearer)),
        (MODELS, "r-2", Some(&*bearer)),
        (EMBEDDINGS, "r-3", Some(&*bearer)),
        (MODELS, "r-4", None),
        ("/proxy/acme/v1/models/", "r-5", None),
    ] {
        ask(&replica, path, id, bearer).await;
    }
    let mut lines: Vec<Value> = decisions(&log, 5).await.iter().map(told).collect();
    lines.sort_by_key(|line| line["request_id"].as_str().unwrap().to_owned());
    let acme = world.id("acme").to_string();
    let ann = world.id("ann").to_string();
    let allowed = |id: &str, tier: &str| {
        json!({
            "request_id": id, "outcome": "allow", "code": "ok", "enforced": true,
            "mode": "enforce", "status": 200, "pat_id": token.id.to_string(), "user_id": ann,
            "domain": "acme", "domain_id": acme, "domain_slug": "acme", "operation": "llm_read",
            "upstream": "model-acme", "tier": tier,
        })
    };
    assert_eq!(lines[0], allowed("r-1", "postgres"));
    assert_eq!(lines[1], allowed("r-2", "memory"));
    assert_eq!(
        lines[2],
        json!({
            "request_id": "r-3", "outcome": "deny", "code": "permission_denied", "enforced": true,
            "mode": "enforce", "status": 403, "pat_id": token.id.to_string(), "user_id": ann,
            "domain": "acme", "domain_id": acme, "domain_slug": "acme",
            "operation": "llm_embeddings", "tier": "memory",
        })
    );
    assert_eq!(
        lines[3],
        json!({
            "request_id": "r-4", "outcome": "deny", "code": "missing_credential",
            "enforced": true, "mode": "enforce", "status": 401, "domain": "acme",
            "operation": "llm_read", "tier": "none",
        })
    );
    assert_eq!(
        lines[4],
        json!({
            "request_id": "r-5", "outcome": "deny", "code": "bad_request", "enforced": true,
            "mode": "enforce", "status": 400, "tier": "none",
        })
    );
}

/// The gateway's, from the metadata of its call; not what the client sends.
pub(crate) async fn names_the_trace_of_the_call(suite: Arc<Suite>) {
    const TRACEPARENT: &str = "traceparent";
    let world = suite.world().await;
    let bearer = reader(&world).await.bearer();
    let log = file(&world, "traces");
    let replica = logging(&world, &log, &ALL).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let sampled = format!("00-{trace}-00f067aa0ba902b7-01");
    let unsampled = format!("00-{trace}-00f067aa0ba902b7-00");
    let upper = sampled.to_uppercase();
    for (id, metadata, status) in [
        ("r-1", &[(TRACEPARENT, &*sampled)][..], 200),
        ("r-2", &[(TRACEPARENT, &unsampled), ("patgate-step", "second")], 200),
        // Refused because of its step, and found by its trace all the same.
        ("r-3", &[(TRACEPARENT, &sampled), ("patgate-step", "third")], 503),
        ("r-4", &[(TRACEPARENT, &upper)], 200),
        ("r-5", &[(TRACEPARENT, &sampled), (TRACEPARENT, &unsampled)], 200),
        ("r-6", &[], 200),
    ] {
        let headers = [("authorization", &*bearer), ("x-request-id", id), (TRACEPARENT, &*sampled)];
        let answer = replica.raw_with(metadata, request("GET", MODELS, &headers)).await;
        assert_eq!(outcome(&answer).0, status, "{id}");
    }
    let mut lines = decisions(&log, 6).await;
    // A request that is not read has an id that patgate made.
    let by_id = |line: &Value| line["request_id"].as_str().unwrap().to_owned();
    lines.sort_by_key(|line| (!by_id(line).starts_with("r-"), by_id(line)));
    let traces: Vec<_> = lines.iter().map(|line| line["trace_id"].as_str()).collect();
    let traced = Some(trace);
    assert_eq!(traces, [traced, traced, None, None, None, traced], "{lines:?}");
    assert_eq!(lines[5]["code"], "unavailable");
}

/// Whatever a client sends, a decision is one line of JSON of limited length.
pub(crate) async fn text_of_clients_stays_within_its_line(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = world.token(&[("acme", "models", "mine", "llm_chat_completions")]).await;
    let log = file(&world, "texts");
    let replica = logging(&world, &log, &ALL).await;
    let models = ["a\"b\\c", "ü\u{2028}\u{202e}😀", "</script>", "{\"outcome\":\"allow\"}"];
    for model in models {
        let body = json!({ "model": model }).to_string();
        let length = body.len().to_string();
        let mut request = request(
            "POST",
            "/proxy/acme/v1/chat/completions",
            &[
                ("authorization", &token.bearer()),
                ("content-type", "application/json"),
                ("content-length", &length),
                ("x-envoy-auth-partial-body", "false"),
                // Not an id that Envoy would make.
                ("x-request-id", "\"}\n{\"outcome\":\"allow\""),
            ],
        );
        let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap();
        http.http.as_mut().unwrap().raw_body = body.into_bytes();
        assert_eq!(outcome(&replica.raw(request).await).0, 403, "{model}");
    }
    let long = format!("/proxy/acme/v1/models/{}", "m".repeat(4000));
    let bearer = token.bearer();
    replica.check("GET", &long, &[("authorization", &bearer)]).await;
    let lines = decisions(&log, models.len() + 1).await;
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), models.len() + 1, "{text}");
    assert!(text.lines().all(|line| line.len() < 2000), "{text}");
    let found: HashSet<&str> = lines.iter().map(|line| line["model"].as_str().unwrap()).collect();
    assert!(models.iter().all(|model| found.contains(model)), "{found:?}");
    assert!(found.contains("m".repeat(256).as_str()), "{found:?}");
    for line in &lines {
        assert_eq!(line["outcome"], "deny");
        let id: Result<Uuid, _> = line["request_id"].as_str().unwrap().parse();
        assert!(id.is_ok(), "{line}");
    }
}

/// Within five standard deviations of a fair draw. Only their own limit applies to denials of known
/// tokens.
pub(crate) async fn allows_are_sampled(suite: Arc<Suite>) {
    const ASKED: usize = 3000;
    let world = suite.world().await;
    let token = reader(&world).await;
    let log = file(&world, "sample");
    let settings = ["decision_log.sample_allows=10%", "decision_log.denials_per_second=1", ALL[2]];
    let replica = logging(&world, &log, &settings).await;
    let bearer = token.bearer();
    for _ in 0..ASKED / 100 {
        join_all((0..100).map(|_| ask(&replica, MODELS, "a", Some(&bearer)))).await;
    }
    const DENIED: usize = 200;
    join_all((0..DENIED).map(|_| ask(&replica, EMBEDDINGS, "d", Some(&bearer)))).await;
    drop(replica);
    let count = |outcome: &str| lines(&log).iter().filter(|l| l["outcome"] == outcome).count();
    eventually("all denials to be written", async || count("deny") == DENIED).await;
    let allowed = count("allow") as f64;
    let expected = ASKED as f64 * 0.1;
    let deviation = (expected * 0.9).sqrt();
    println!("logged {allowed} of {ASKED} allows at 10%");
    assert!((allowed - expected).abs() <= 5.0 * deviation, "{allowed} of {ASKED}");
}

/// A client with a revoked token continues to ask: one line per second, and the number of
/// repetitions. In shadow, the report adds them up.
pub(crate) async fn what_one_token_repeats_is_counted(suite: Arc<Suite>) {
    const ASKED: usize = 1000;
    let world = suite.world().await;
    let token = reader(&world).await;
    let bearer = token.bearer();
    let id = token.id;
    world.sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{id}'")).await;
    let log = file(&world, "repeated");
    for (mode, status) in [("enforce", 401), ("shadow", 200)] {
        fs::write(&log, "").unwrap();
        let settings = [format!("mode={mode}"), "token.denials_per_second=0".to_owned()];
        let settings = settings.each_ref().map(String::as_str);
        let replica = logging(&world, &log, &settings).await;
        let began = std::time::Instant::now();
        for _ in 0..ASKED / 100 {
            let asked = (0..100).map(|_| ask(&replica, MODELS, "r", Some(&bearer)));
            let told = join_all(asked).await;
            assert!(told.iter().all(|(told, _)| *told == status), "{told:?}");
        }
        let seconds = began.elapsed().as_secs_f64();
        let counter = "patgate_decision_log_records_total{result=\"repeated\"}";
        let counted = replica.metric(counter).await;
        drop(replica);
        let repeated =
            || -> u64 { lines(&log).iter().filter_map(|line| line["repeated"].as_u64()).sum() };
        eventually("the summary", async || repeated() == counted).await;
        let logged = lines(&log).iter().filter(|l| l.get("request_id").is_some()).count();
        println!("{mode}: {logged} lines for {ASKED} denials in {seconds:.1} s");
        assert_eq!(logged as u64 + counted, ASKED as u64, "{mode}");
        assert!((1.0..=seconds + 2.0).contains(&(logged as f64)), "{logged} lines");
        assert!(fs::metadata(&log).unwrap().len() < 2000 * (logged as u64 + 3));
    }
    let cli = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
    let report = cli.json(&format!("shadow report --log {}", log.display()));
    let row = &report["not_enforced"][0];
    let told = [&row["domain"], &row["code"], &row["operation"], &row["count"], &row["tokens"]];
    let expected =
        [json!("acme"), json!("token_revoked"), json!("llm_read"), json!(ASKED), json!(1)];
    assert_eq!(told, expected.each_ref(), "{report:#}");
    assert_eq!(row["example"], "r");
    assert_eq!((&report["not_enforced_total"], &report["denied"]), (&json!(ASKED), &json!(0)));
}

pub(crate) async fn what_anybody_can_cause_is_paced_and_counted(suite: Arc<Suite>) {
    const FORGED: usize = 1000;
    let world = suite.world().await;
    let log = file(&world, "paced");
    let replica = logging(&world, &log, &["decision_log.denials_per_second=5"]).await;
    let began = std::time::Instant::now();
    for number in 0..FORGED {
        let bearer = (number % 2 == 0).then_some("Bearer pat_forged");
        assert_eq!(ask(&replica, MODELS, "f", bearer).await.0, 401);
    }
    let seconds = began.elapsed().as_secs_f64();
    let left_out = replica.metric("patgate_decision_log_records_total{result=\"left_out\"}").await;
    drop(replica);
    let sum = || omitted(&lines(&log)).0.values().sum::<u64>();
    eventually("the summary", async || sum() == left_out).await;
    let lines = lines(&log);
    let logged = lines.iter().filter(|line| line.get("request_id").is_some()).count();
    println!("logged {logged} of {FORGED} forged in {seconds:.1} s, left out {left_out}");
    assert!(logged as f64 <= 5.0 * (seconds + 1.0) + 1.0, "{logged} in {seconds} s");
    assert!(logged >= 5 && logged as u64 + left_out == FORGED as u64, "{logged} {left_out}");
    let (by_code, dropped) = omitted(&lines);
    assert_eq!(dropped, 0);
    let codes: Vec<&String> = by_code.keys().collect();
    assert_eq!(codes, ["invalid_token", "missing_credential"]);
}

/// The log goes into a pipe that nothing reads.
pub(crate) async fn a_full_queue_holds_up_nobody(suite: Arc<Suite>) {
    const ASKED: u64 = 3000;
    let world = suite.world().await;
    let token = reader(&world).await;
    let pipe = file(&world, "pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opened for both, so that opening does not wait for the other end.
    let mut reading = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let settings = [ALL[0], ALL[1], "decision_log.queue=10"];
    let replica = logging(&world, &pipe, &settings).await;
    let bearer = token.bearer();
    for _ in 0..ASKED / 100 {
        let asked = (0..100).map(|_| ask(&replica, MODELS, "a", Some(&bearer)));
        assert!(join_all(asked).await.iter().all(|(status, _)| *status == 200));
    }
    let count = async |result: &str| {
        let labels = format!("{{result=\"{result}\"}}");
        replica.metric(&format!("patgate_decision_log_records_total{labels}")).await
    };
    let dropped = count("dropped").await;
    let written = count("written").await;
    println!("of {ASKED} records {dropped} were dropped and {written} written into a full pipe");
    assert!(dropped > 0, "the queue was never full");
    assert!(dropped + written < ASKED, "nothing waits: the pipe was read");

    // The pipe is read at last: the queued lines arrive, and the count of the others.
    let (lines, arrived) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while let Ok(read) = reading.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            while let Some((line, rest)) = text.split_once('\n') {
                let _ = lines.send(serde_json::from_str::<Value>(line).unwrap());
                text = rest.to_owned();
            }
        }
    });
    drop(replica);
    let all = std::cell::RefCell::new(Vec::new());
    eventually("the summary", async || {
        all.borrow_mut().extend(arrived.try_iter());
        omitted(&all.borrow()).1 == dropped
    })
    .await;
    let logged = all.borrow().iter().filter(|line| line.get("request_id").is_some()).count();
    assert_eq!(logged as u64 + dropped, ASKED);
}

/// A full disk loses records, not answers; an invalid path is reported at the start.
pub(crate) async fn a_log_that_cannot_be_written_holds_up_nobody(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = reader(&world).await.bearer();
    let replica = logging(&world, Path::new("/dev/full"), &ALL).await;
    for _ in 0..100 {
        assert_eq!(ask(&replica, MODELS, "a", Some(&bearer)).await.0, 200);
    }
    let failed = "patgate_decision_log_records_total{result=\"failed\"}";
    eventually("the loss to be counted", async || replica.metric(failed).await == 100).await;
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let line =
        log.lines().find(|line| line.contains("the decision log cannot be written")).unwrap();
    assert!(line.contains("decision_log.to") && line.contains("/dev/full"), "{line}");

    let cli = Cli::of(&world)
        .with("listen.grpc", "127.0.0.1:0")
        .with("listen.http", "127.0.0.1:0")
        .with("postgres.url", &suite.postgres_url("server", &world.database))
        .with("decision_log.to", "/not/there/decisions.log");
    cli.refused("serve", 1, "decision_log.to");
}

/// Its folder was removed, for example. The file that is open stays in use, and a metric says so.
pub(crate) async fn a_file_that_cannot_be_opened_again_is_reported(suite: Arc<Suite>) {
    let world = suite.world().await;
    let folder = suite.dir.path().join(format!("{}.decisions", world.database));
    let away = folder.with_extension("away");
    fs::create_dir(&folder).unwrap();
    let to = format!("decision_log.to={}", folder.join("current").display());
    let process = process::serve(&world, &[&to, ALL[0], ALL[1], ALL[2]]).await;
    let not_reopened = async || process.replica.metric("patgate_decision_log_not_reopened").await;
    assert_eq!(not_reopened().await, 0);
    fs::rename(&folder, &away).unwrap();
    suite.stack.signal(&process.server, "HUP");
    eventually("the failure to be counted", async || not_reopened().await == 1).await;
    let log = fs::read_to_string(&process.server.log).unwrap();
    let line = log.lines().find(|line| line.contains("cannot be opened again")).unwrap();
    assert!(line.contains("decision_log.to"), "{line}");
    fs::rename(&away, &folder).unwrap();
    suite.stack.signal(&process.server, "HUP");
    eventually("it to be over", async || not_reopened().await == 0).await;
}

pub(crate) async fn a_renamed_file_is_let_go(suite: Arc<Suite>) {
    let world = suite.world().await;
    let log = file(&world, "current");
    let to = format!("decision_log.to={}", log.display());
    let process = process::serve(&world, &[&to, ALL[0], ALL[1], ALL[2]]).await;
    ask(&process.replica, MODELS, "before", None).await;
    decisions(&log, 1).await;
    let rotated = file(&world, "rotated");
    fs::rename(&log, &rotated).unwrap();
    ask(&process.replica, MODELS, "between", None).await;
    assert_eq!(decisions(&rotated, 2).await[1]["request_id"], "between");
    suite.stack.signal(&process.server, "HUP");
    eventually("the file to be there again", async || log.exists()).await;
    ask(&process.replica, MODELS, "after", None).await;
    let lines = decisions(&log, 1).await;
    assert_eq!((lines.len(), &lines[0]["request_id"]), (1, &json!("after")));
    assert_eq!(decisions(&rotated, 2).await.len(), 2);
}

/// By default, and separately from the process's own log.
pub(crate) async fn goes_to_standard_output_and_is_finished_at_the_end(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = world.token(&[]).await;
    let process = process::serve(&world, &["drain.delay=0s", ALL[2]]).await;
    let bearer = token.bearer();
    let asked: Vec<String> = (0..300).map(|number| format!("last-{number}")).collect();
    join_all(asked.iter().map(|id| ask(&process.replica, MODELS, id, Some(&bearer)))).await;
    suite.stack.signal(&process.server, "TERM");
    assert_eq!(suite.stack.exit_code(&process.server).await, 0);
    let logged: HashSet<String> = lines(Path::new(&process.server.log))
        .iter()
        .filter_map(|line| line["request_id"].as_str().map(str::to_owned))
        .collect();
    assert!(asked.iter().all(|id| logged.contains(id)), "{} of 300", logged.len());
}

/// Writes the log of a replica in shadow, among other lines.
async fn shadow_log(world: &World<'_>, token: &Token) -> PathBuf {
    let log = file(world, "shadow");
    let replica = logging(world, &log, &["mode=shadow", ALL[0], ALL[1], ALL[2]]).await;
    let bearer = token.bearer();
    let by_id = format!("/proxy/{}/v1/embeddings", world.id("acme"));
    for (path, id, bearer) in [
        (MODELS, "good", Some(&*bearer)),
        (EMBEDDINGS, "lacks-1", Some(&*bearer)),
        (by_id.as_str(), "lacks-2", Some(&*bearer)),
        (EMBEDDINGS, "none-1", None),
        (EMBEDDINGS, "none-2", None),
        (EMBEDDINGS, "none-3", None),
        ("/proxy/beta/v1/embeddings", "other", Some(&*bearer)),
        ("/nowhere", "nowhere", Some(&*bearer)),
        ("/proxy/acme/v1/models/", "bad", None),
    ] {
        ask(&replica, path, id, bearer).await;
    }
    decisions(&log, 9).await;
    let summary =
        r#"{"time":"2026-11-22T09:00:00.000000Z","left_out":{"invalid_token":7},"dropped":2}"#;
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, format!("starting\n{{\"level\":\"INFO\"}}\n{text}{summary}\n")).unwrap();
    log
}

pub(crate) async fn why_finds_a_request(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let log = shadow_log(&world, &token).await;
    // The command needs neither database nor settings.
    let cli = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
    let path = log.display();

    let told = cli.ok(&format!("why lacks-1 --log {path}"));
    for part in [
        "deny 403 permission_denied",
        "let through nevertheless (mode shadow)",
        &token.id.to_string(),
        &world.id("ann").to_string(),
        "acme (",
        "llm_embeddings",
        "answered from memory",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    let told = cli.feed("why none-1", &fs::read_to_string(&log).unwrap());
    assert_eq!(told.code, 0, "{told:#?}");
    assert!(told.stdout.contains("acme, as the request names it"), "{told:#?}");
    let found = cli.json(&format!("why good --log {path}"));
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!((&found[0]["outcome"], &found[0]["tier"]), (&json!("allow"), &json!("postgres")));

    let absent = format!("why not-there --log {path}");
    cli.refused(&absent, 3, "no decision about request not-there among 9");
    cli.refused(&absent, 3, "allows are sampled");
    cli.refused(&absent, 3, "only if `outcome` is `deny` there");
    cli.refused(&absent, 3, "9 records were left out");
    cli.refused(&absent, 3, "1 lines were not JSON");
    cli.refused("why x --log /not/there", 1, "--log /not/there: ");
}

pub(crate) async fn a_report_counts_what_would_be_denied(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let log = shadow_log(&world, &token).await;
    let cli = Cli::of(&world).with("postgres.url", "").with("keyring_file", "");
    let report = cli.json(&format!("shadow report --log {}", log.display()));
    let row =
        |domain: &str, code: &str, operation: &str, count: u64, tokens: u64, example: &str| {
            json!({ "domain": domain, "code": code, "operation": operation, "count": count,
                "owners": tokens, "tokens": tokens, "example": example })
        };
    let mut nowhere = row("-", "not_found", "-", 1, 1, "nowhere");
    nowhere["method"] = "POST".into();
    nowhere["path"] = "/nowhere".into();
    let mut rows = report["not_enforced"].as_array().unwrap().clone();
    // Given by id and by slug, it is one domain; which example is shown is unspecified.
    let example = rows[1]["example"].take();
    assert!(example == "lacks-1" || example == "lacks-2", "{report:#}");
    rows[1]["example"] = "lacks".into();
    assert_eq!(
        rows,
        [
            row("acme", "missing_credential", "llm_embeddings", 3, 0, "none-3"),
            row("acme", "permission_denied", "llm_embeddings", 2, 1, "lacks"),
            nowhere.clone(),
            row("beta", "permission_denied", "llm_embeddings", 1, 1, "other"),
        ],
        "{report:#}"
    );
    let totals = ["not_enforced_total", "denied", "allowed", "dropped", "not_json"];
    let totals = totals.map(|name| report[name].as_u64().unwrap());
    assert_eq!((totals, &report["left_out"]), ([7, 1, 1, 2, 1], &json!({ "invalid_token": 7 })));

    // Whose requests they are, without those that have no verified token.
    let (ann, id) = (world.id("ann"), token.id);
    let by_token = report["by_token"].as_array().unwrap();
    assert_eq!((by_token.len(), &report["without_token"]), (3, &json!(3)), "{report:#}");
    assert!(by_token.iter().all(|row| {
        row["user_id"] == json!(ann) && row["pat_id"] == json!(id) && row.get("owner").is_none()
    }));
    let expected = json!({ "user_id": ann, "domain": "-", "code": "not_found", "operation": "-",
        "method": "POST", "path": "/nowhere", "count": 1, "tokens": 1, "example": "nowhere" });
    assert_eq!(report["by_owner"][1], expected, "{report:#}");

    let text = fs::read_to_string(&log).unwrap();
    let told = cli.feed("shadow report", &text).stdout;
    for part in [
        "denied, not enforced: 7",
        "which requests\nDOMAIN",
        "whose requests, by token\nOWNER",
        "POST /nowhere",
        &id.to_string(),
        &ann.to_string(),
        "without a verified token: 3 denials",
        "--names",
        "not in the log: 7 denials with invalid_token",
        "not in the log: 2 records",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    assert!(!told.contains("by owner") && !told.contains("ann@example.com"), "{told}");

    // The database knows what the ids are called.
    let cli = Cli::of(&world);
    world.sql(&format!("UPDATE patgate.pats SET name = 'laptop' WHERE id = '{id}'")).await;
    let told = cli.feed("shadow report --by owner,token --names", &text).stdout;
    for part in ["whose requests, by owner\nOWNER", "ann@example.com", &format!("laptop ({id})")] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    assert!(!told.contains(&ann.to_string()) && !told.contains("which requests"), "{told}");
    let named = &cli.json(&format!("shadow report --names --log {}", log.display()))["by_token"][0];
    let names = (&named["owner"], &named["token"]);
    assert_eq!(names, (&json!("ann@example.com"), &json!("laptop")), "{named}");
}
