//! The time from the commit of a revocation to its first refusal, on three replicas under load: by
//! replicas that listen, that only poll, and that follow a relay.
//!
//! Each replica reaches Postgres's feed and Redis through a [`Tap`], which shows when it hears of a
//! change and when it has read it. The taps and the clients share one core, and add to each step.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bench::{Bench, ask_all, chats},
    grpc::{Connection, Pace, Requests},
    servers::{self, Launcher, Running, until},
    site::{Database, Issued},
    statistics::{Dice, quantile},
    tap::{Passed, Tap},
};

/// The promise of docs/guarantees.md, for the way that takes longest.
pub(crate) const LONGEST: &str = "revocation_polling_p95_ms";
const REPLICAS: usize = 3;
/// Tokens of the checks meanwhile.
const HOT: usize = 1000;
/// Each replica gets this many checks together, this often: all three get 5,000 a second.
const TOGETHER: usize = 5;
const EVERY: Duration = Duration::from_millis(3);
/// A revocation may come at any time between two polls, which come every 400 ms.
const SPREAD_MS: usize = 400;
/// After this time, the revoked token is sent only every [`LATER`], so that these checks do not
/// become the load.
const AT_ONCE: Duration = Duration::from_millis(25);
const LATER: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(30);

/// How a change reaches a replica.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The change is notified, as all commands do.
    Listening,
    /// By bare SQL, which notifies no replica.
    Polling,
    /// As in the first one, but only the leader reads Postgres.
    Relay,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Polling => "polling",
            Self::Relay => "relay",
        }
    }

    fn notifies(self) -> bool {
        self != Self::Polling
    }
}

/// A replica, and what passes between it and the stores.
struct Tapped {
    running: Running,
    postgres: Tap,
    redis: Tap,
}

/// The moments of one revocation at one replica. A step that this replica does not take is `None`.
struct Times {
    committed: Instant,
    notified: Option<Instant>,
    polled: Option<Instant>,
    relayed: Option<Instant>,
    refused: Instant,
}

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("revocations under load");
    let revocations = if bench.plan.quick { 4 } else { 25 };
    let mut database = bench.site.database("revocations", 1);
    bench.site.issue(&mut database, HOT + 3 * revocations, 1);
    let mut doomed = database.tokens.split_off(HOT);
    let rates: Vec<f64> = [&[Way::Listening, Way::Polling][..], &[Way::Relay]]
        .into_iter()
        .map(|ways| {
            let taken = doomed.split_off(doomed.len() - revocations * ways.len());
            with_fleet(bench, &database, ways, &taken)
        })
        .collect();
    bench.report.rounds("revocation_checks_per_second_meanwhile", &rates);
}

/// Revokes these tokens, in each way in turn, and returns the checks per second meanwhile.
fn with_fleet(bench: &mut Bench, database: &Database, ways: &[Way], doomed: &[Issued]) -> f64 {
    let fleet: Vec<_> = (0..REPLICAS).map(|_| Tapped::start(bench, database, ways)).collect();
    let hot = chats(&database.tokens);
    let all = chats(doomed);
    for Tapped { running, .. } in &fleet {
        ask_all(running, &hot);
        ask_all(running, &all);
    }
    if ways.contains(&Way::Relay) {
        until(LIMIT, "one replica to lead, and two to follow", || {
            fleet.iter().filter(|tapped| tapped.leads()).count() == 1
                && fleet.iter().all(|tapped| tapped.leads() || tapped.follows())
        });
    }
    let stop = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let started = Instant::now();
    let mut times: Vec<(Way, Vec<Times>)> = Vec::new();
    thread::scope(|scope| {
        for (number, Tapped { running, .. }) in fleet.iter().enumerate() {
            let (hot, stop, served) = (&hot, &stop, &served);
            scope.spawn(move || load(running, hot, number as u64, stop, served));
        }
        for (number, token) in doomed.iter().enumerate() {
            thread::sleep(Duration::from_millis(bench.dice.below(SPREAD_MS) as u64));
            let way = ways[number % ways.len()];
            times.push((way, revoke(bench, database, way, &fleet, token)));
        }
        stop.store(true, Relaxed);
    });
    let rate = served.load(Relaxed) as f64 / started.elapsed().as_secs_f64();
    for way in ways {
        let of_it = times.iter().filter(|(other, _)| other == way).flat_map(|(_, times)| times);
        report(bench, *way, &of_it.collect::<Vec<_>>());
    }
    for Tapped { running, .. } in fleet {
        running.stop(&bench.site.stack);
    }
    rate
}

impl Tapped {
    fn start(bench: &Bench, database: &Database, ways: &[Way]) -> Self {
        let site = &bench.site;
        // The first byte of Postgres's message about a notification.
        let postgres = Tap::to(&site.runtime, site.postgres_port(), |bytes| bytes[0] == b'A');
        // The name of the stream, in an answer to the replica that reads it.
        let frame = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"feed\r\n");
        let redis = Tap::to(&site.runtime, site.redis_port(), frame);
        let feed = database.url_at(postgres.port);
        let cache = format!("redis://127.0.0.1:{}/{}", redis.port, 5);
        let relay = if ways.contains(&Way::Relay) { "redis" } else { "off" };
        let settings = [("FEED_URL", &*feed), ("REDIS_URL", &*cache), ("FEED_RELAY", relay)];
        // On all cores, as in production.
        let running = servers::patgate(site, &Launcher::default(), database, &settings);
        Self { running, postgres, redis }
    }

    fn leads(&self) -> bool {
        self.running.metric("patgate_relay_leader") == 1.0
    }

    fn follows(&self) -> bool {
        self.running.metric("patgate_relay_frames_total{result=\"applied\"}") > 0.0
    }
}

/// Sends checks of tokens that are allowed, until `stop`.
fn load(running: &Running, hot: &Requests, seed: u64, stop: &AtomicBool, served: &AtomicU64) {
    let mut connection = Connection::open(&running.tcp()).expect("a connection");
    let mut dice = Dice::new(seed);
    let mut due = Instant::now();
    while !stop.load(Relaxed) {
        let mut left = TOGETHER;
        let next = || {
            left = left.checked_sub(1)?;
            Some(dice.below(hot.len()))
        };
        let tally = connection.run(hot, Pace::Together(TOGETHER), next).expect("an allow");
        served.fetch_add(tally.checks, Relaxed);
        due += EVERY;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Revokes a token that all replicas know, and waits until each refuses it.
fn revoke(
    bench: &Bench,
    database: &Database,
    way: Way,
    fleet: &[Tapped],
    token: &Issued,
) -> Vec<Times> {
    let request = chats(std::slice::from_ref(token));
    for Tapped { running, postgres, redis } in fleet {
        ask_all(running, &request);
        postgres.clear();
        redis.clear();
    }
    thread::scope(|scope| {
        let asked: Vec<_> = fleet
            .iter()
            .map(|tapped| scope.spawn(|| first_refusal(&tapped.running, &request)))
            .collect();
        let committed = database.revoke(&bench.site.runtime, token.id);
        if way.notifies() {
            database.notify(&bench.site.runtime);
        }
        let refused = asked.into_iter().map(|asked| asked.join().expect("a refusal"));
        fleet
            .iter()
            .zip(refused)
            .map(|(tapped, refused)| tapped.times(way, committed, refused))
            .collect()
    })
}

/// Sends the check of one token until it is refused.
fn first_refusal(running: &Running, request: &Requests) -> Instant {
    let mut connection = Connection::open(&running.tcp()).expect("a connection");
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < LIMIT, "{} never refused", running.server.id);
        let mut once = Some(0);
        let Err(refused) = connection.run(request, Pace::Closed(1), || once.take()) else {
            if started.elapsed() > AT_ONCE {
                thread::sleep(LATER);
            }
            continue;
        };
        let refused_at = Instant::now();
        let text = refused.to_string();
        assert!(text.contains("token_revoked"), "{text}");
        return refused_at;
    }
}

impl Tapped {
    fn times(&self, way: Way, committed: Instant, refused: Instant) -> Times {
        let in_time = |at: &Instant| *at <= refused;
        let follows = way == Way::Relay && !self.leads();
        let first = |tap: &Tap, what, after| tap.first(what, after).filter(in_time);
        let notified = match way {
            Way::Polling => None,
            _ => first(&self.postgres, Passed::Marked, committed),
        };
        let asked = match way {
            Way::Polling => first(&self.postgres, Passed::Sent, committed),
            _ => notified.and_then(|heard| first(&self.postgres, Passed::Sent, heard)),
        };
        let polled = asked.and_then(|asked| first(&self.postgres, Passed::Answered, asked));
        // Frames without the change may come before it: the leader also relays polls without news.
        let relayed =
            if follows { self.redis.last(Passed::Marked, committed..=refused) } else { None };
        Times { committed, notified, polled, relayed, refused }
    }
}

/// Reports how long it took in all, and its steps.
fn report(bench: &mut Bench, way: Way, times: &[&Times]) {
    let name = |what: &str| format!("revocation_{}_{what}_ms", way.name());
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    // What followers do says how the relay works; its leader listens.
    let times: Vec<_> = match way {
        Way::Relay => times.iter().filter(|times| times.relayed.is_some()).collect(),
        _ => times.iter().collect(),
    };
    let all: Vec<_> = times.iter().map(|times| ms(times.committed, times.refused)).collect();
    bench.report.rounds(name("commit_to_refusal"), &all);
    let mut micros: Vec<_> = all.iter().map(|ms| (ms * 1e3) as u32).collect();
    bench.report.value(name("p95"), quantile(&mut micros, 0.95) / 1e3);
    let mut hop = |what: &str, hop: &dyn Fn(&Times) -> Option<f64>| {
        let taken: Vec<_> = times.iter().filter_map(|times| hop(times)).collect();
        bench.report.rounds(name(what), &taken);
    };
    match way {
        Way::Listening => {
            hop("commit_to_notified", &|t| Some(ms(t.committed, t.notified?)));
            hop("notified_to_polled", &|t| Some(ms(t.notified?, t.polled?)));
            hop("polled_to_refusal", &|t| Some(ms(t.polled?, t.refused)));
        }
        Way::Polling => {
            hop("commit_to_polled", &|t| Some(ms(t.committed, t.polled?)));
            hop("polled_to_refusal", &|t| Some(ms(t.polled?, t.refused)));
        }
        Way::Relay => {
            hop("commit_to_frame", &|t| Some(ms(t.committed, t.relayed?)));
            hop("frame_to_refusal", &|t| Some(ms(t.relayed?, t.refused)));
        }
    }
}
