//! What a check costs: `make bench`, `make bench-large`, `make bench-check`. See benches/README.md.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for developers, which ends at the first thing that is not as it should be"
)]

mod allow;
mod allow_all;
mod bench;
mod callgrind;
mod chart;
mod cold;
mod costly;
mod envoy;
mod gateway;
mod growth;
mod grpc;
mod http1;
mod instructions;
mod memory;
mod neighbours;
mod report;
mod requests;
mod revocation;
mod self_service;
mod servers;
mod site;
mod statistics;
mod summary;
mod tap;
mod throughput;
mod traces;

use std::process::{Command, ExitCode};

use bench::{Bench, HOT, Plan, Task, ask_all, chats};
use report::Report;
use servers::Launcher;
use site::Site;
use statistics::Dice;

fn main() -> ExitCode {
    // Cargo adds --bench.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["allow-all", socket] => allow_all::serve(socket.as_ref()),
        ["read-costly", number] => costly::read(number.parse().expect("a number")),
        ["check"] => return check(Plan::chosen(Task::Check)),
        [] => return everything(Plan::chosen(Task::Everything)),
        ["large"] => return everything(Plan::chosen(Task::Large)),
        ["neighbours"] => neighbours::measure(&mut Bench::prepare(Plan::chosen(Task::Everything))),
        ["revocation"] => revocation::measure(&mut Bench::prepare(Plan::chosen(Task::Everything))),
        ["self-service"] => {
            self_service::measure(&mut Bench::prepare(Plan::chosen(Task::Everything)));
        }
        ["traces"] => traces::measure(&mut Bench::prepare(Plan::chosen(Task::Everything))),
        _ => {
            eprintln!(
                "usage: checks [large | check | neighbours | revocation | self-service | traces | \
                 allow-all SOCKET | read-costly NUMBER]"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

impl Bench {
    fn prepare(plan: Plan) -> Self {
        // Before this process is bound to a core, because the stores may use both.
        let site = Site::launch();
        let launcher = Launcher::pinned();
        Self { site, launcher, plan, report: Report::default(), dice: Dice::new(7) }
    }
}

fn check(plan: Plan) -> ExitCode {
    plan.keep_to_the_budget("Nothing was compared.");
    instructions::gate(Bench::prepare(plan))
}

fn everything(plan: Plan) -> ExitCode {
    Report::forget_the_last();
    plan.keep_to_the_budget("target/bench/results.md has what was measured until then.");
    let mut bench = Bench::prepare(plan);
    eprintln!("{HOT} tokens in use");
    let mut database = bench.site.database("hot", 1);
    bench.site.issue(&mut database, HOT, 1);
    let redis = bench.site.redis_url(0);
    let settings = [("REDIS_URL", redis.as_str())];
    let patgate = servers::patgate(&bench.site, &bench.launcher, &database, &settings);
    let allow_all = servers::allow_all(&bench.site, &bench.launcher);
    let requests = chats(&database.tokens);
    ask_all(&patgate, &requests);

    throughput::refuses_to_count_denials(&patgate);
    throughput::measure(&mut bench, &patgate, &allow_all, &requests);
    throughput::cross_check(&mut bench, &patgate, &allow_all, &database.tokens[0]);
    envoy::measure(&mut bench, &patgate, &allow_all, &database.tokens);
    patgate.stop(&bench.site.stack);
    allow_all.stop(&bench.site.stack);
    cold::measure(&mut bench);
    memory::measure(&mut bench);
    growth::measure(&mut bench);
    neighbours::measure(&mut bench);
    revocation::measure(&mut bench);
    instructions::measure(&mut bench);

    bench.report.value("elapsed_s", plan.elapsed().as_secs_f64());
    let short = bench.report.finish(&head(&plan, bench.report.fewest), &plan);
    short.iter().for_each(|promise| eprintln!("{promise}"));
    if short.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Describes the run: what was measured, when, how and where.
fn head(plan: &Plan, fewest: Option<usize>) -> String {
    let said = |program: &str, words: &[&str]| {
        let said = Command::new(program).args(words).output().ok()?.stdout;
        Some(String::from_utf8_lossy(&said).trim().to_owned())
    };
    let commit = said("git", &["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]);
    let date = said("date", &["-u", "+%F"]);
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let rounds = fewest.map_or(plan.rounds, |fewest| fewest.min(plan.rounds));
    format!(
        "Commit {}, {}; {rounds} alternating rounds or more of {:?} a side, {} minutes in all; {}, cores {}.",
        commit.filter(|commit| !commit.is_empty()).as_deref().unwrap_or("unknown"),
        date.as_deref().unwrap_or("today"),
        plan.time,
        plan.elapsed().as_secs().div_ceil(60),
        processor.unwrap_or("an unknown processor"),
        cores.trim(),
    )
}
