//! The latency of other tokens' checks while one token sends the costliest requests.
//!
//! Checks are sent at fixed times, and each is timed from when it was due. A client that waits for
//! one answer before it sends the next request would send fewer just when the server is slow.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, authorization_client::AuthorizationClient,
};
use patgate_testing::costly_bodies::{Form, bodies, targets};
use rustix::process::{Pid, setpriority_process};
use tokio::runtime::Builder;
use tonic::transport::Channel;

use crate::{
    bench::{Bench, ask_all, chats},
    grpc::{Connection, Pace, Requests, nanoseconds},
    requests::{Check, chat},
    servers::{self, Launcher, Running},
    site::Issued,
    statistics::{Dice, quantile},
};

/// The ratio of the 99th percentiles with and without the costly requests.
pub(crate) const P99: &str = "neighbours_p99_with_costly_vs_without";
const LOWEST_PRIORITY: i32 = 19;
const NEIGHBOURS: usize = 1000;
/// Time between two checks of the neighbours.
const EVERY: Duration = Duration::from_millis(1);
/// Connections that carry the costly requests, and the time between two requests of each: 20 a
/// second in all.
const CLIENTS: usize = 4;
const EACH: Duration = Duration::from_millis(200);
/// The longest body that the shipped configuration shows in one step, and the longest head that
/// Envoy takes.
const BODY: usize = 1_000_000;
const QUERY: usize = 30_000;

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("neighbours of a token that sends the costliest requests");
    let mut database = bench.site.database("neighbours", 1);
    bench.site.issue(&mut database, NEIGHBOURS + 1, 1);
    let sender = database.tokens.pop().expect("the sender's token");
    // Limited to the models that the costly bodies name, so that the bodies are read.
    database.limit(&bench.site.runtime, sender.id, &["m", "org/m"]);
    // On all cores, as in production: the measurement is about how the server shares them.
    let running = servers::patgate(&bench.site, &Launcher::default(), &database, &[]);
    let neighbours = chats(&database.tokens);
    ask_all(&running, &neighbours);
    let costly: Arc<[_]> = costly(&sender).into();
    bench.site.runtime.block_on(all_are_read(&running, &costly));

    // Sending a megabyte also takes time. This must not delay the client whose checks are timed.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(yield_to_others)
        .build()
        .expect("a runtime");
    let plan = bench.plan;
    let dice = &mut bench.dice;
    let sent = Arc::new(AtomicUsize::new(0));
    let rounds = plan.alternate(|side| {
        let clients = if side == 0 { CLIENTS } else { 0 };
        let start = |number| {
            let client = runtime.block_on(connect(&running));
            runtime.spawn(flood(client, Arc::clone(&costly), number, Arc::clone(&sent)))
        };
        let floods: Vec<_> = (0..clients).map(start).collect();
        let mut latencies = paced(&running, &neighbours, EVERY, 2 * plan.time, dice);
        for flood in floods {
            assert!(!flood.is_finished(), "a costly request was not answered");
            flood.abort();
        }
        [0.5, 0.99].map(|share| quantile(&mut latencies, share) / 1e3)
    });
    bench.report.value("neighbours_costly_requests", sent.load(Relaxed) as f64);
    bench.report.ratio(P99, rounds.iter().map(|(with, without)| (with[1], without[1])));
    for (place, name) in ["p50", "p99"].into_iter().enumerate() {
        let with: Vec<_> = rounds.iter().map(|(with, _)| with[place]).collect();
        let without: Vec<_> = rounds.iter().map(|(_, without)| without[place]).collect();
        bench.report.rounds(format!("neighbours_with_costly_{name}_us"), &with);
        bench.report.rounds(format!("neighbours_alone_{name}_us"), &without);
    }
    running.stop(&bench.site.stack);
}

/// Gives the calling thread the lowest priority.
pub(crate) fn yield_to_others() {
    let path = fs::read_link("/proc/thread-self").expect("Linux");
    let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    let thread = number.and_then(Pid::from_raw).expect("a number");
    setpriority_process(Some(thread), LOWEST_PRIORITY).expect("a priority");
}

/// Requests of the sender, and whether each is read to its end and allowed.
fn costly(sender: &Issued) -> Vec<(CheckRequest, bool)> {
    let bodies = bodies(BODY).into_iter().map(|costly| {
        let path = match costly.form {
            Form::Json => chat(&sender.domain),
            Form::Multipart => format!("/proxy/{}/v1/audio/transcriptions", sender.domain),
        };
        (
            request(sender, path, costly.form.media_type(), costly.encoding, &costly.bytes),
            costly.good,
        )
    });
    let queries = targets(QUERY).into_iter().map(|(_, target)| {
        let (_, query) = target.split_once('?').expect("a query");
        let path = format!("{}?{query}", chat(&sender.domain));
        (request(sender, path, "application/json", None, b"{\"model\":\"m\"}"), false)
    });
    bodies.chain(queries).collect()
}

fn request(
    sender: &Issued,
    path: String,
    media_type: &str,
    encoding: Option<&str>,
    body: &[u8],
) -> CheckRequest {
    let headers = [
        ("content-type", media_type),
        ("content-encoding", encoding.unwrap_or("identity")),
        ("x-envoy-auth-partial-body", "false"),
    ];
    Check { body, headers: &headers, ..Check::post(path, &sender.text) }.request()
}

async fn connect(running: &Running) -> AuthorizationClient<Channel> {
    let client = AuthorizationClient::connect(format!("http://{}", running.grpc));
    client.await.expect("a connection")
}

/// Shows that the costly bodies are read to their ends.
async fn all_are_read(running: &Running, requests: &[(CheckRequest, bool)]) {
    let mut client = connect(running).await;
    for (request, _) in requests.iter().filter(|(_, good)| *good) {
        let answer = client.check(request.clone()).await.expect("an answer").into_inner();
        let status = answer.status.expect("a status");
        assert_eq!(status.code, 0, "a costly body was refused: {}", status.message);
    }
}

/// Sends costly requests at a fixed rate, until it is aborted.
async fn flood(
    mut client: AuthorizationClient<Channel>,
    requests: Arc<[(CheckRequest, bool)]>,
    number: usize,
    sent: Arc<AtomicUsize>,
) {
    let mut interval = tokio::time::interval(EACH);
    for (request, _) in requests.iter().cycle().skip(number * requests.len() / CLIENTS) {
        interval.tick().await;
        client.check(request.clone()).await.expect("an answer");
        sent.fetch_add(1, Relaxed);
    }
}

/// Sends a check at this interval, and returns nanoseconds from when each was due.
pub(crate) fn paced(
    running: &Running,
    requests: &Requests,
    every: Duration,
    time: Duration,
    dice: &mut Dice,
) -> Vec<u32> {
    let mut connection = Connection::open(&running.tcp()).expect("a connection");
    let started = Instant::now();
    let dues = (0..).map(|n| every * n).take_while(|due| *due < time);
    dues.map(|due| {
        let due = started + due;
        let early = due.saturating_duration_since(Instant::now());
        thread::sleep(early);
        // A timer may be late by itself; the server must not be charged for that.
        let from = if early.is_zero() { due } else { Instant::now() };
        let mut once = Some(dice.below(requests.len()));
        connection.run(requests, Pace::Closed(1), || once.take()).expect("an allow");
        nanoseconds(from.elapsed())
    })
    .collect()
}
