//! The server alone, over gRPC.

use std::{fs, process::Command};

use crate::{
    bench::{Bench, MANY, chats, run},
    grpc::{Connection, Pace, Requests, Tally},
    requests,
    servers::Running,
    site::{Issued, strangers},
    statistics::{median, quantile},
};

/// A run that counted denials would be worth nothing. So each begins by showing that it cannot.
pub(crate) fn refuses_to_count_denials(patgate: &Running) {
    let forged = chats(&strangers(1));
    let mut once = Some(0);
    let run = Connection::open(&patgate.tcp())
        .and_then(|mut connection| connection.run(&forged, Pace::Closed(1), || once.take()));
    assert!(run.is_err(), "a forged token was counted as an allow");
}

/// What one side of a round shows.
struct Seen {
    rate: f64,
    cpu: f64,
    busy: f64,
}

pub(crate) fn measure(
    bench: &mut Bench,
    patgate: &Running,
    allow_all: &Running,
    requests: &Requests,
) {
    eprintln!("gRPC over TCP");
    let (plan, dice) = (bench.plan, &mut bench.dice);
    let servers = [patgate, allow_all];
    let rounds = plan.alternate(|side| {
        let before = servers[side].cpu();
        let tally = run(servers[side], plan.time, requests, MANY, dice);
        let cpu = (servers[side].cpu() - before).as_secs_f64();
        let (checks, took) = (tally.checks as f64, tally.took.as_secs_f64());
        Seen { rate: tally.rate(), cpu: cpu / checks * 1e6, busy: cpu / took }
    });
    let each =
        |of: fn(&Seen) -> f64| rounds.iter().map(move |(ours, theirs)| (of(ours), of(theirs)));
    bench.report.ratio("grpc_100_streams_vs_allow_all", each(|seen| seen.rate));
    bench.report.ratio("cpu_per_check_vs_allow_all", each(|seen| seen.cpu));
    for (name, pick) in [("patgate", 0), ("allow_all", 1)] {
        let middle = |of: fn(&Seen) -> f64| {
            let values = each(of).map(|pair| [pair.0, pair.1][pick]);
            median(&values.collect::<Vec<_>>())
        };
        bench.report.value(format!("grpc_100_streams_{name}_per_second"), middle(|seen| seen.rate));
        bench.report.value(format!("cpu_per_check_{name}_us"), middle(|seen| seen.cpu));
        let busy = middle(|seen| seen.busy);
        bench.report.value(format!("grpc_100_streams_{name}_cores_busy"), busy);
        if busy < 0.95 {
            eprintln!("  the server was not kept busy: the client, or the machine, was slower");
        }
    }

    let mut waits = [Vec::new(), Vec::new()];
    let rounds = plan.alternate(|side| {
        let Tally { checks, took, mut latencies } =
            run(servers[side], plan.time, requests, 1, dice);
        waits[side].push(quantile(&mut latencies, 0.5) / 1e3);
        checks as f64 / took.as_secs_f64()
    });
    bench.report.ratio("grpc_1_stream_vs_allow_all", rounds);
    for (name, waits) in ["patgate", "allow_all"].iter().zip(&waits) {
        bench.report.value(format!("grpc_1_stream_{name}_p50_us"), median(waits));
    }
}

/// The same question, always with one token, by a client that others wrote.
pub(crate) fn cross_check(bench: &Bench, patgate: &Running, allow_all: &Running, token: &Issued) {
    let message = requests::check(&requests::chat(&token.domain), &token.text, 0);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = bench.site.dir.path().join("check");
    fs::write(&body, [&[0], &length[..], &message].concat()).unwrap();
    let mut dice = crate::statistics::Dice::new(3);
    let requests = Requests::new([message]);
    for (name, running) in [("patgate", patgate), ("allow_all", allow_all)] {
        let ours = run(running, bench.plan.time, &requests, MANY, &mut dice);
        let calls = ours.checks.max(1000).to_string();
        let url = format!("http://{}/envoy.service.auth.v3.Authorization/Check", running.grpc);
        let theirs = Command::new("h2load")
            .args(["-c", "1", "-t", "1", "-n", &calls, "-m", &MANY.to_string()])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"])
            .arg(&body)
            .arg(url)
            .output();
        let Ok(theirs) = theirs else {
            return eprintln!("  no cross-check: h2load (nghttp2-client) is not installed");
        };
        let text = String::from_utf8_lossy(&theirs.stdout);
        let line = text.lines().find(|line| line.starts_with("finished in")).unwrap_or("nothing");
        eprintln!("  one token, {name}: {:.0} checks/s; h2load {line}", ours.rate());
    }
}
