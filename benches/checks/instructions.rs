//! Instructions of a check: the same on a busy machine as on an idle one, so that they can be
//! compared with a committed baseline.

use std::{collections::BTreeMap, env, fs, process::ExitCode};

use crate::{
    bench::{Bench, chats},
    callgrind::{self, Profile, profile},
    growth::{DOMAINS, RULES, table, tool_calls},
    grpc::Requests,
    requests,
    servers::{self, Launcher, Running},
    site::{Database, Issued},
    stack::project,
};

type Counts = BTreeMap<String, f64>;

const BASELINE: &str = "benches/instructions.json";
/// More than the same binary differs from run to run, which is by one per cent on a busy machine.
const TOLERANCE: f64 = 0.03;
/// What the compiler inlines moves between stages by more than that, and with no change of theirs:
/// cutting a file in two has made one of 4,000 longer by 230.
const SLACK: f64 = 300.0;
/// Only to compare with: when it changes, that is nobody's merit here.
const ALLOW_ALL: &str = "instructions_per_check_allow_all";
const FEW: usize = 1000;
const MANY: usize = 100_000;

/// The stages of a check, and the functions that are each of them.
const STAGES: [(&str, &[&str]); 6] = [
    ("decode", &["patgate::codec::HttpRequest::decode"]),
    ("parse", &["patgate::request::parse"]),
    (
        "resolve",
        &["patgate::resolve::memory::Memory<K>::get", "patgate::resolve::Tiers<K>::usable"],
    ),
    (
        "decide",
        &[
            "patgate::decide::authenticate",
            "patgate::decide::domain_of",
            "patgate::decide::authorize",
        ],
    ),
    ("respond", &["patgate::response::Answer::new"]),
    // From the request's body to its answer.
    ("whole", &["patgate::grpc::Grpc::answer::"]),
];

/// What counting needs beside the bench.
struct Counting<'b> {
    bench: &'b Bench,
    launcher: Launcher,
    counts: Counts,
}

/// As part of all measurements.
pub(crate) fn measure(bench: &mut Bench) {
    if let Some(missing) = callgrind::missing() {
        return eprintln!("no instructions: {missing}");
    }
    let counts = count(bench);
    let ratio = counts["instructions_per_check"] / counts[ALLOW_ALL];
    bench.report.ratio("instructions_per_check_vs_allow_all", [(ratio, 1.0)]);
    for (name, count) in counts {
        bench.report.value(name, count);
    }
}

/// Compares with the baseline, or with UPDATE=1 replaces it.
pub(crate) fn gate(bench: Bench) -> ExitCode {
    if let Some(missing) = callgrind::missing() {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    let counts = count(&bench);
    if env::var("UPDATE").is_ok_and(|update| !update.is_empty()) {
        let rounded: BTreeMap<_, _> =
            counts.iter().map(|(name, count)| (name, count.round() as u64)).collect();
        let text = serde_json::to_string_pretty(&rounded).unwrap();
        fs::write(project(BASELINE), text + "\n").unwrap();
        println!("{BASELINE} is what was counted now");
        return ExitCode::SUCCESS;
    }
    let baseline = fs::read_to_string(project(BASELINE)).unwrap();
    let baseline: Counts = serde_json::from_str(&baseline).unwrap();
    let mut mistakes = growing(&counts);
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
    mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
    if mistakes.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("What is meant to cost more is accepted by `make bench-check UPDATE=1`.");
    ExitCode::FAILURE
}

/// As good as `known`.
fn allowed(known: f64) -> f64 {
    known * (1.0 + TOLERANCE) + SLACK
}

/// What costs more where there is more of something, though nothing should but headers.
fn growing(counts: &Counts) -> Vec<String> {
    let mut grown = Vec::new();
    let mut no_more = |name: String, than: f64, what: &str| {
        let now = counts[&name];
        if now > allowed(than) {
            grown.push(format!("{name} is {now:.0}, {what} {than:.0}"));
        }
    };
    for more in ["100k_tokens", "1000_domains", "10000_rules"] {
        let plain = counts["instructions_per_check"];
        no_more(format!("instructions_per_check_{more}"), plain, "without them");
        for (stage, _) in STAGES {
            let plain = counts[&format!("instructions_{stage}")];
            no_more(format!("instructions_{stage}_{more}"), plain, "without them");
        }
    }
    let headers = |more: &str| counts[&format!("instructions_per_check{more}")];
    let linear = 2.0 * headers("_60_headers") - headers("");
    no_more("instructions_per_check_105_headers".to_owned(), linear, "by the bytes at most");
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
        let settings: Vec<_> =
            [("REDIS_URL", redis.as_str())].iter().chain(settings).copied().collect();
        servers::patgate(&self.bench.site, &self.launcher, database, &settings)
    }

    fn profile(&mut self, what: &str, running: &Running, requests: &Requests) -> Profile {
        let profile = profile(running, self.bench.site.dir.path(), requests);
        eprintln!("  {:.0} a check{what}", profile.per_check);
        self.counts.insert(format!("instructions_per_check{what}"), profile.per_check);
        profile
    }

    /// The same, stage by stage.
    fn stages(&mut self, what: &str, running: Running, requests: &Requests) {
        let profile = self.profile(what, &running, requests);
        running.stop(&self.bench.site.stack);
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

    fn plain(&mut self) {
        let database = self.database("counted", FEW, 1);
        let running = self.start(&database, &[]);
        for extra in [45, 90] {
            let chat = |token: &Issued| {
                requests::check(&requests::chat(&token.domain), &token.text, extra)
            };
            let requests = Requests::new(database.tokens.iter().map(chat));
            self.profile(&format!("_{}_headers", 15 + extra), &running, &requests);
        }
        self.stages("", running, &chats(&database.tokens));
    }

    fn many_tokens(&mut self) {
        let database = self.database("counted_tokens", MANY, 1);
        let running = self.start(&database, &[]);
        self.stages("_100k_tokens", running, &chats(&database.tokens));
    }

    fn many_domains(&mut self) {
        let database = self.database("counted_domains", DOMAINS, DOMAINS);
        let running = self.start(&database, &[]);
        self.stages("_1000_domains", running, &chats(&database.tokens));
    }

    fn many_rules(&mut self) {
        let database = self.database("counted_rules", FEW, 1);
        let table = table(self.bench, RULES);
        let running = self.start(&database, &[("APIS", &table)]);
        self.stages("_10000_rules", running, &tool_calls(&database.tokens, RULES));
    }
}
