//! Measures the server alone, over gRPC.

use std::{fs, path::Path, process::Command};

use crate::{
    bench::{Bench, MANY, asking, chats, run},
    grpc::{Connection, Pace, Requests},
    requests::{Check, chat},
    servers::Running,
    site::{Issued, strangers},
    statistics::quantile,
};

/// A run that counted denials would be worthless, so each run first shows that it does not.
pub(crate) fn refuses_to_count_denials(patgate: &Running) {
    let forged = chats(&strangers(1));
    let mut once = Some(0);
    let run = Connection::open(&patgate.tcp())
        .and_then(|mut connection| connection.run(&forged, Pace::Closed(1), || once.take()));
    assert!(run.is_err(), "a forged token was counted as an allow");
}

/// The result of one side of a round.
struct Seen {
    rate: f64,
    /// Microseconds of processor time per check.
    cpu: f64,
    busy: f64,
    p50: f64,
}

pub(crate) fn measure(
    bench: &mut Bench,
    patgate: &Running,
    allow_all: &Running,
    requests: &Requests,
) {
    eprintln!("gRPC over TCP");
    let servers = [patgate, allow_all];
    for (at_once, streams, cpu) in
        [(MANY, "100_streams", "cpu_per_check"), (1, "1_stream", "cpu_per_check_1_stream")]
    {
        let plan = bench.plan;
        let dice = &mut bench.dice;
        let rounds = plan.alternate(|side| {
            let before = servers[side].cpu();
            let mut tally = run(servers[side], plan.time, requests, at_once, dice);
            let cpu = (servers[side].cpu() - before).as_secs_f64();
            Seen {
                rate: tally.rate(),
                cpu: cpu / tally.checks as f64 * 1e6,
                busy: cpu / tally.took.as_secs_f64(),
                p50: quantile(&mut tally.latencies, 0.5) / 1e3,
            }
        });
        let each =
            |of: fn(&Seen) -> f64| rounds.iter().map(move |(ours, theirs)| (of(ours), of(theirs)));
        let report = &mut bench.report;
        report.ratio(&format!("grpc_{streams}_vs_allow_all"), each(|seen| seen.rate));
        report.ratio(&format!("{cpu}_vs_allow_all"), each(|seen| seen.cpu));
        for (name, pick) in [("patgate", 0), ("allow_all", 1)] {
            let one = |of| each(of).map(|pair| [pair.0, pair.1][pick]).collect::<Vec<_>>();
            let figure = |what| format!("grpc_{streams}_{name}_{what}");
            report.rounds(format!("{cpu}_{name}_us"), &one(|seen| seen.cpu));
            if at_once == 1 {
                report.rounds(figure("p50_us"), &one(|seen| seen.p50));
                continue;
            }
            report.rounds(figure("per_second"), &one(|seen| seen.rate));
            report.rounds(figure("cores_busy"), &one(|seen| seen.busy));
        }
    }
}

/// Repeats the comparison with an independent client, always with one token.
pub(crate) fn cross_check(
    bench: &mut Bench,
    patgate: &Running,
    allow_all: &Running,
    token: &Issued,
) {
    if Command::new("h2load").arg("--version").output().is_err() {
        return eprintln!(
            "NOT CROSS-CHECKED: h2load is missing, with which others measure. Debian and Ubuntu: \
             apt-get install nghttp2-client"
        );
    }
    let message = Check::post(chat(&token.domain), &token.text).encode();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = bench.site.dir.path().join("check");
    fs::write(&body, [&[0], &length[..], &message].concat()).unwrap();
    let plan = bench.plan;
    let servers = [patgate, allow_all];
    // h2load takes a number of requests, not a duration, and does not look at the answers.
    let question = asking(std::slice::from_ref(token), |check| check);
    let calls = servers
        .map(|server| run(server, plan.time, &question, MANY, &mut bench.dice).checks.max(1000));
    let rounds = plan.alternate(|side| h2load(servers[side], &body, calls[side]));
    bench.report.ratio("h2load_100_streams_vs_allow_all", rounds);
}

/// Requests per second.
fn h2load(running: &Running, body: &Path, calls: u64) -> f64 {
    let calls = calls.to_string();
    let done = Command::new("h2load")
        .args(["-c", "1", "-t", "1", "-n", &calls, "-m", &MANY.to_string()])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"])
        .arg(body)
        .arg(format!("http://{}/envoy.service.auth.v3.Authorization/Check", running.grpc))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains(&format!("{calls} succeeded, 0 failed")), "h2load: {text}");
    // Such as `finished in 1.50s, 61234.56 req/s, 24.01MB/s`.
    let rate = text.lines().find_map(|line| {
        let line = line.strip_prefix("finished in ")?;
        line.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()
    });
    rate.unwrap_or_else(|| panic!("h2load: {text}"))
}
