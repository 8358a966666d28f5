//! Counts the instructions of a check. They are the same on a busy machine as on an idle one, so
//! they can be compared with a committed baseline.

use patgate_testing::stack::project;
use std::{collections::BTreeMap, env, fs, process::ExitCode};

use crate::{
    bench::{Bench, asking, chats},
    callgrind::{self, Profile, profile},
    costly,
    growth::{DOMAINS, RULES, SCOPES, model_calls, scoped, table, tool_calls},
    grpc::Requests,
    requests::Check,
    servers::{self, Launcher, PATIENT, Running},
    site::Database,
};

type Counts = BTreeMap<String, f64>;

const BASELINE: &str = "benches/instructions.json";
/// More than the difference between two runs of the same binary, which is one per cent on a busy
/// machine.
const TOLERANCE: f64 = 0.03;
/// Inlining moves more than that between stages without a change in them: splitting a file in two
/// has made one stage of 4,000 longer by 230.
const SLACK: f64 = 300.0;
/// For a short stage, this share replaces the fixed slack. No stage varies by as much: a stage of
/// 500 differs by two from run to run, one of 1,200 by fifty.
const MOST_SLACK: f64 = 0.15;
/// For comparison only: a change of it says nothing about patgate.
const ALLOW_ALL: &str = "instructions_per_check_allow_all";
pub(crate) const VS_ALLOW_ALL: &str = "instructions_per_check_vs_allow_all";
/// The body arrives in a varying number of frames. In some runs, what these leave behind makes
/// allocations more expensive by two hundred, so no count is compared with the baseline; and the
/// count of putting them together is only reported.
const LONG_BODY: &str = "_64k_body";
/// The two parts of a check, inside patgate's code and around it. Where messages end in the bytes
/// that were read at once decides which part allocates: with messages of some lengths, two thousand
/// instructions move between the two parts from run to run. Both are reported; their sum, which is
/// `per_check`, and each stage are compared.
const PARTS: [&str; 2] = ["instructions_whole", "instructions_http2"];
/// The limit, regardless of the baseline.
pub(crate) const MOST_VS_ALLOW_ALL: f64 = 0.6;
/// For each doubling of the scopes: one more step in each of two binary searches, for the operation
/// and, because patgate answers lists itself, for another use of the model.
const STEP: f64 = 100.0;
const FEW: usize = 1000;
const MANY: usize = 100_000;
const BODY: usize = 64 * 1024;

/// The stages of a check, and the functions that belong to each.
const STAGES: [(&str, &[&str]); 6] = [
    ("decode", &["patgate::wire::codec::HttpRequest::decode"]),
    ("parse", &["patgate_core::request::parse"]),
    (
        "resolve",
        &["patgate::resolve::memory::Memory<K>::get", "patgate::resolve::Tiers<K>::usable"],
    ),
    (
        "decide",
        &[
            "patgate_core::decide::authenticate::authenticate",
            "patgate_core::decide::domain_of",
            "patgate_core::decide::authorize",
            "patgate_core::decide::needs_model::NeedsModel::with",
        ],
    ),
    (
        "respond",
        &["patgate_core::answer::Answer::new", "patgate::wire::response::AnswerEncoder::encode"],
    ),
    // From the request's body to its answer.
    ("whole", &["patgate::edge::grpc::GrpcServer::answer::"]),
];

/// What counting needs in addition to the bench.
struct Counting<'b> {
    bench: &'b Bench,
    launcher: Launcher,
    counts: Counts,
}

/// Counts as a part of all measurements.
pub(crate) fn measure(bench: &mut Bench) {
    if let Some(missing) = callgrind::missing() {
        return bench.report.lacks(VS_ALLOW_ALL, missing);
    }
    let counts = count(bench);
    bench.report.ratio(VS_ALLOW_ALL, [(vs_allow_all(&counts), 1.0)]);
    for (name, count) in counts {
        bench.report.value(name, count);
    }
}

/// Compares with the baseline, or replaces it with UPDATE=1.
pub(crate) fn gate(bench: Bench) -> ExitCode {
    if let Some(missing) = callgrind::missing() {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    let counts = count(&bench);
    let mut mistakes = growing(&counts);
    mistakes.extend(costly::too_costly(&bench));
    let ratio = vs_allow_all(&counts);
    println!("{VS_ALLOW_ALL}: {ratio:.3}, at most {MOST_VS_ALLOW_ALL}");
    if ratio > MOST_VS_ALLOW_ALL {
        mistakes.push(format!("{VS_ALLOW_ALL} is {ratio:.3}, more than {MOST_VS_ALLOW_ALL}"));
    }
    // Limits that no baseline changes.
    let failed = !mistakes.is_empty();
    if !failed && env::var("UPDATE").is_ok_and(|update| !update.is_empty()) {
        let steady = counts.iter().filter(|(name, _)| {
            !name.ends_with(LONG_BODY) && !PARTS.iter().any(|part| name.starts_with(part))
        });
        let rounded: BTreeMap<_, _> =
            steady.map(|(name, count)| (name, count.round() as u64)).collect();
        let text = serde_json::to_string_pretty(&rounded).unwrap();
        fs::write(project(BASELINE), text + "\n").unwrap();
        println!("{BASELINE} is what was counted now");
        return ExitCode::SUCCESS;
    }
    let baseline = fs::read_to_string(project(BASELINE)).unwrap();
    let baseline: Counts = serde_json::from_str(&baseline).unwrap();
    for (name, known) in &baseline {
        let now = counts.get(name).copied().unwrap_or(f64::INFINITY);
        let change = now / known - 1.0;
        println!("{name}: {now:.0}, baseline {known:.0} ({:+.1} %)", change * 100.0);
        if now > allowed(*known) && name != ALLOW_ALL {
            mistakes.push(format!("{name} has grown by {:.1} %", change * 100.0));
        }
        if change < -TOLERANCE {
            println!("  better: `make bench-check UPDATE=1` makes it the baseline");
        }
    }
    for (name, now) in counts.iter().filter(|(name, _)| !baseline.contains_key(*name)) {
        println!("{name}: {now:.0}, compared with no baseline");
    }
    mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
    if mistakes.is_empty() {
        return ExitCode::SUCCESS;
    }
    if !failed {
        eprintln!("What is meant to cost more is accepted by `make bench-check UPDATE=1`.");
    }
    ExitCode::FAILURE
}

fn vs_allow_all(counts: &Counts) -> f64 {
    counts["instructions_per_check"] / counts[ALLOW_ALL]
}

/// Returns whether a count is as good as `known`.
fn allowed(known: f64) -> f64 {
    known * (1.0 + TOLERANCE) + SLACK.min(known * MOST_SLACK)
}

/// Returns the checks whose cost grows with a number, although it should not, or not so much.
fn growing(counts: &Counts) -> Vec<String> {
    let mut grown = Vec::new();
    let mut no_more = |name: String, than: f64, what: &str| {
        let now = counts[&name];
        if now > allowed(than) {
            grown.push(format!("{name} is {now:.0}, {what} {than:.0}"));
        }
    };
    let stages = STAGES.iter().map(|(stage, _)| *stage).filter(|stage| *stage != "whole");
    for what in stages.chain(["per_check"]) {
        let named = |more: &str| format!("instructions_{what}{more}");
        let plain = counts[&named("")];
        for more in ["_100k_tokens", "_1000_domains", "_10000_rules"] {
            no_more(named(more), plain, "without them");
        }
        let found = counts[&named("_1_scope")] + STEP * (SCOPES as f64).log2();
        no_more(named("_1000_scopes"), found, "by a binary search at most");
        let linear = 2.0 * counts[&named("_60_headers")] - plain;
        no_more(named("_105_headers"), linear, "by the bytes at most");
        // Reading it would take as many instructions as it has bytes.
        if what != "per_check" {
            no_more(named(LONG_BODY), plain + SLACK, "without it");
        }
    }
    grown
}

fn count(bench: &Bench) -> Counts {
    eprintln!("instructions, under callgrind");
    let launcher = bench.launcher.under(callgrind::tool(bench.site.dir.path()));
    let mut counting = Counting { bench, launcher, counts: Counts::new() };
    counting.allow_all();
    counting.plain();
    counting.many_tokens();
    counting.many_domains();
    counting.many_scopes();
    counting.many_rules();
    counting.counts
}

impl Counting<'_> {
    fn database(&self, name: &str, tokens: usize, domains: usize) -> Database {
        let mut database = self.bench.site.database(name, domains);
        self.bench.site.issue(&mut database, tokens, domains);
        database
    }

    fn start(&self, database: &Database, settings: &[(&str, &str)]) -> Running {
        let redis = self.bench.site.redis_url(10);
        let settings = [&[("REDIS_URL", redis.as_str())][..], &PATIENT, settings].concat();
        servers::patgate(&self.bench.site, &self.launcher, database, &settings)
    }

    fn profile(&mut self, what: &str, running: &Running, requests: &Requests) -> Profile {
        let profile = profile(running, self.bench.site.dir.path(), requests);
        eprintln!("  {:.0} a check{what}", profile.per_check);
        self.counts.insert(format!("instructions_per_check{what}"), profile.per_check);
        profile
    }

    /// The same comparison, stage by stage.
    fn stages(&mut self, what: &str, running: &Running, requests: &Requests) {
        let profile = self.profile(what, running, requests);
        for (stage, functions) in STAGES {
            let count = profile.within(functions);
            assert!(count > 0.0, "no function of the stage {stage} is in the profile");
            self.counts.insert(format!("instructions_{stage}{what}"), count);
        }
        let transport = profile.per_check - profile.within(STAGES[STAGES.len() - 1].1);
        self.counts.insert(format!("instructions_http2{what}"), transport);
    }

    fn allow_all(&mut self) {
        let tokens = crate::site::strangers(FEW);
        let running = servers::allow_all(&self.bench.site, &self.launcher);
        self.profile("_allow_all", &running, &chats(&tokens));
        running.stop(&self.bench.site.stack);
    }

    /// Counts with one server that is started for it.
    fn alone(
        &mut self,
        what: &str,
        database: &Database,
        settings: &[(&str, &str)],
        requests: &Requests,
    ) {
        let running = self.start(database, settings);
        self.stages(what, &running, requests);
        running.stop(&self.bench.site.stack);
    }

    fn plain(&mut self) {
        let database = self.database("counted", FEW, 1);
        let running = self.start(&database, &[]);
        for extra in [45, 90] {
            let requests = asking(&database.tokens, |check| Check { extra, ..check });
            self.stages(&format!("_{}_headers", 15 + extra), &running, &requests);
        }
        // If it had to be read, all of it had to be read: the model comes last.
        let text = "x".repeat(BODY);
        let model = r#""model":"org/model""#;
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],{model}}}"#);
        let requests = asking(&database.tokens, |check| Check { body: body.as_bytes(), ..check });
        self.stages(LONG_BODY, &running, &requests);
        self.stages("", &running, &chats(&database.tokens));
        running.stop(&self.bench.site.stack);
    }

    fn many_tokens(&mut self) {
        let database = self.database("counted_tokens", MANY, 1);
        self.alone("_100k_tokens", &database, &[], &chats(&database.tokens));
    }

    fn many_domains(&mut self) {
        let database = self.database("counted_domains", DOMAINS, DOMAINS);
        self.alone("_1000_domains", &database, &[], &chats(&database.tokens));
    }

    fn many_scopes(&mut self) {
        for (what, scopes) in [("_1_scope", 1), ("_1000_scopes", SCOPES)] {
            let database = scoped(self.bench, &format!("counted_scopes_{scopes}"), scopes);
            self.alone(what, &database, &[], &model_calls(&database.tokens[0], scopes));
        }
    }

    fn many_rules(&mut self) {
        let database = self.database("counted_rules", FEW, 1);
        let table = table(self.bench, RULES);
        let requests = tool_calls(&database.tokens, RULES);
        self.alone("_10000_rules", &database, &[("APIS", &table)], &requests);
    }
}
