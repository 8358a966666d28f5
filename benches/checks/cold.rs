//! Measures checks that memory cannot answer: their time, and their commands to the stores.

use std::{thread, time::Duration};

use crate::{
    bench::{Bench, chats},
    grpc::{Connection, Pace, Requests},
    servers::{self, PATIENT, Running, until},
    site::{Database, Site},
    statistics::median,
};

/// Longer than a check takes, and fewer queries than patgate's own limit per second, so that no
/// check waits for another one.
const PAUSE: Duration = Duration::from_millis(6);
/// Checks per side of a round.
const TOKENS: usize = 100;

/// The time and the store commands of checks with pauses in between.
struct Seen {
    /// The times in microseconds.
    waits: Vec<f64>,
    redis: f64,
    postgres: f64,
}

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("cold checks");
    round_trips(bench);
    growth(bench);
}

/// Sends one check per token, each alone.
fn ask_slowly(running: &Running, requests: &Requests, numbers: std::ops::Range<usize>) -> Seen {
    let count = numbers.len() as f64;
    let mut connection = Connection::open(&running.tcp()).unwrap();
    let asked =
        |store: &str| running.metric(&format!("patgate_store_commands_total{{store=\"{store}\"}}"));
    // The feed also makes queries, with or without checks.
    let polls = || {
        let polls =
            |result| running.metric(&format!("patgate_feed_polls_total{{result=\"{result}\"}}"));
        polls("ok") + polls("failed")
    };
    let commands = || (asked("redis"), asked("postgres") - polls());
    let before = commands();
    let mut waits = Vec::new();
    for number in numbers {
        let mut once = Some(number);
        let run = connection.run(requests, Pace::Closed(1), || once.take()).unwrap();
        waits.extend(run.latencies.iter().map(|wait| f64::from(*wait) / 1e3));
        thread::sleep(PAUSE);
    }
    let after = commands();
    Seen { waits, redis: (after.0 - before.0) / count, postgres: (after.1 - before.1) / count }
}

/// Tokens of many domains, of which the stores' caches know nothing. Then the same from Redis, once
/// with the domain in memory, as it nearly always is, and once without.
fn round_trips(bench: &mut Bench) {
    let site = &bench.site;
    let mut scattered = site.database("scattered", TOKENS);
    site.issue(&mut scattered, TOKENS, TOKENS);
    let mut gathered = site.database("gathered", 1);
    site.issue(&mut gathered, TOKENS + 1, 1);

    let (seen, from_redis) = twice(bench, &scattered, 1);
    bench.report.rounds("cold_postgres_p50_us", &seen.waits);
    bench.report.value("postgres_queries", seen.postgres);
    // Including the commands that write after the answer.
    bench.report.value("cold_postgres_redis_commands", seen.redis);
    bench.report.value("redis_round_trips_cold_domain", from_redis.redis);
    let (_, from_redis) = twice(bench, &gathered, 2);
    bench.report.rounds("cold_redis_p50_us", &from_redis.waits);
    bench.report.value("redis_round_trips", from_redis.redis);
    bench.report.value("redis_postgres_queries", from_redis.postgres);
}

/// Asks a replica with an empty Redis, and then another replica. The first token only loads its
/// domain.
fn twice(bench: &Bench, database: &Database, redis: usize) -> (Seen, Seen) {
    let Bench { site, launcher, .. } = bench;
    let url = site.redis_url(redis);
    let settings = [&[("REDIS_URL", url.as_str())][..], &PATIENT].concat();
    let requests = chats(&database.tokens);
    let [first, second] = [true, false].map(|fills| {
        let running = servers::patgate(site, launcher, database, &settings);
        ask_slowly(&running, &requests, 0..1);
        let seen = ask_slowly(&running, &requests, 1..requests.len());
        if fills {
            await_writes(&url, database);
        }
        running.stop(&site.stack);
        seen
    });
    (first, second)
}

/// Waits, because entries are written to Redis after the answers.
fn await_writes(url: &str, database: &Database) {
    let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
    until(Duration::from_secs(10), "all tokens to be in Redis", || {
        let held: usize = redis::cmd("DBSIZE").query(&mut redis).unwrap();
        held > database.tokens.len()
    });
}

/// Measures whether the number of tokens matters.
fn growth(bench: &mut Bench) {
    let large = bench.plan.large.then_some(("10m", 10_000_000));
    let needed = TOKENS * (bench.plan.rounds + 1);
    let small = loaded(&bench.site, "tokens_1k", needed, 1_000.max(needed));
    for (name, total) in [("1m", 1_000_000)].into_iter().chain(large) {
        eprintln!("  loading {total} tokens");
        let large = loaded(&bench.site, &format!("tokens_{name}"), needed, total);
        let sides = [&large, &small].map(|database| {
            let running = servers::patgate(&bench.site, &bench.launcher, database, &PATIENT);
            (running, chats(&database.tokens))
        });
        let mut next = [0, 0];
        let mut turn = |side: usize| {
            let (running, requests) = &sides[side];
            let numbers = next[side]..next[side] + TOKENS;
            next[side] = numbers.end;
            median(&ask_slowly(running, requests, numbers).waits)
        };
        // The first queries make connections and plans.
        let _ = (turn(0), turn(1));
        let rounds = bench.plan.alternate(turn);
        let p50: Vec<_> = rounds.iter().map(|round| round.0).collect();
        bench.report.rounds(format!("cold_postgres_{name}_p50_us"), &p50);
        bench.report.ratio(&format!("cold_postgres_{name}_vs_1k"), rounds);
        for (running, _) in sides {
            running.stop(&bench.site.stack);
        }
    }
}

fn loaded(site: &Site, name: &str, known: usize, total: usize) -> Database {
    let mut database = site.database(name, 1);
    site.issue(&mut database, known, 1);
    database.fill(&site.runtime, total);
    database
}
