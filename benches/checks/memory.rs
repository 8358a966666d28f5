//! Measures the memory of a process, and the time until it is ready.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bench::{Bench, MANY, ask_all, chats},
    grpc::{Connection, Pace},
    servers::{self, Running, environment, fresh, get, program, until},
    site::{Database, strangers},
};

/// As many tokens as one replica holds in memory with its defaults.
const HELD: usize = 100_000;
/// Checks of a flood with forged tokens, each of which is sent ten times.
const FLOOD: usize = 300_000;
const STARTS: usize = 9;

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("memory, with {HELD} tokens");
    let mut database = bench.site.database("many", 1);
    bench.site.issue(&mut database, HELD, 1);
    let redis = bench.site.redis_url(3);
    let settings = [("REDIS_URL", redis.as_str())];
    let running = servers::patgate(&bench.site, &bench.launcher, &database, &settings);
    let requests = chats(&database.tokens);
    let first = chats(&database.tokens[..1]);
    // Memory that the start used is given back, and periodic work has run.
    thread::sleep(Duration::from_secs(3));
    bench.report.value("rss_idle_mib", running.resident());
    ask_all(&running, &first);
    let one = running.resident();
    ask_all(&running, &requests);
    // Once more, so that no writes are pending, and all tokens are in use.
    ask_all(&running, &requests);
    let held = running.metric("patgate_memory_entries{kind=\"principal\",holds=\"value\"}");
    let full = running.resident();
    bench.report.value("rss_100k_tokens_mib", full);
    bench.report.value("tokens_held", held);
    bench.report.value("bytes_per_token", (full - one) * f64::from(1 << 20) / held);

    flood(&running);
    let after = running.resident();
    bench.report.value("rss_after_flood_mib", after);
    bench.report.value("rss_flood_vs_before", after / full);

    bench.throughput("hot_100k_tokens_vs_1", [(&running, &requests), (&running, &first)]);
    running.stop(&bench.site.stack);
    ready(bench, &database, &settings);
}

/// Tokens that a stranger made: well-formed, each a different one.
fn flood(running: &Running) {
    let requests = chats(&strangers(FLOOD / 10));
    let mut numbers = (0..FLOOD).map(|n| n % requests.len());
    let mut connection = Connection::open(&running.tcp()).unwrap().expecting_denials();
    connection.run(&requests, Pace::Closed(MANY), || numbers.next()).unwrap();
}

/// Measures from the start of the process until it reports ready.
fn ready(bench: &mut Bench, database: &Database, settings: &[(&str, &str)]) {
    let starts: Vec<_> = (0..STARTS)
        .map(|_| {
            let port = bench.site.stack.free_port();
            let http = format!("127.0.0.1:{port}");
            let settings: Vec<_> =
                settings.iter().copied().chain([("LISTEN_HTTP", http.as_str())]).collect();
            let socket = fresh(bench.site.dir.path(), "ready");
            let env = environment(&bench.site, database, &socket, &settings);
            let argv = bench.launcher.argv(&[&program(), "serve"]);
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).stdout(Stdio::null()).stderr(Stdio::null());
            command.envs(env.iter().map(|(name, value)| (name, value.as_str().unwrap())));
            let started = Instant::now();
            let _child = Ended(command.spawn().unwrap());
            let at = http.parse().unwrap();
            until(Duration::from_secs(20), "a start", || get(at, "/readyz").is_some());
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    bench.report.rounds("ready_ms", &starts);
}

/// A process that ends with its scope.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
