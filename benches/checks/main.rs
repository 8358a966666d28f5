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
mod cold;
mod envoy;
#[path = "../../tests/integration/eventually.rs"]
mod eventually;
mod gateway;
mod growth;
mod grpc;
mod http1;
mod instructions;
mod memory;
mod report;
mod requests;
mod servers;
mod site;
#[path = "../../tests/integration/stack.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod stack;
mod statistics;
mod throughput;

use std::process::ExitCode;

use bench::{Bench, HOT, Plan, ask_all, chats};
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
        ["check"] => return instructions::gate(Bench::prepare(Plan::chosen(false))),
        [] => everything(Plan::chosen(false)),
        ["large"] => everything(Plan::chosen(true)),
        _ => {
            eprintln!("usage: checks [large | check | allow-all SOCKET]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

impl Bench {
    fn prepare(plan: Plan) -> Self {
        // Before this process is bound to a core: the stores may use both.
        let site = Site::launch();
        let launcher = Launcher::pinned();
        Self { site, launcher, plan, report: Report::default(), dice: Dice::new(7) }
    }
}

fn everything(plan: Plan) {
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
    throughput::cross_check(&bench, &patgate, &allow_all, &database.tokens[0]);
    envoy::measure(&mut bench, &patgate, &allow_all, &database.tokens);
    patgate.stop(&bench.site.stack);
    allow_all.stop(&bench.site.stack);
    cold::measure(&mut bench);
    memory::measure(&mut bench);
    growth::measure(&mut bench);
    instructions::measure(&mut bench);

    let Plan { rounds, time, .. } = plan;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    bench.report.finish(&format!(
        "{rounds} alternating rounds of {time:?} a side; {}, cores {}.",
        processor.unwrap_or("an unknown processor"),
        cores.trim(),
    ));
}
