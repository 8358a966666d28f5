//! More load than any honest clients cause.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate::token::TokenId;
use patgate_testing::{
    eventually,
    frames::{Call, Calls},
    http,
    proxy::{Mode, Proxy},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use crate::support::{
    Replica, Scope, Suite, Token, World,
    fleet::{MODELS, answer, polls},
    outcome, process,
    replica::lookups,
    request,
    settings::{PATIENT, SLOW},
    tokens::reader,
};

const READ: Scope<'_> = ("acme", "models", "*", "llm_read");

pub(crate) async fn commands(replica: &Replica, store: &str) -> u64 {
    replica.metric(&format!("patgate_store_commands_total{{store=\"{store}\"}}")).await
}

/// A token of this world that its database does not have.
fn unknown(world: &World<'_>) -> Token {
    world.unknown(TokenId(Uuid::now_v7()))
}

/// Uses a token until told to stop; returns how long each use took, sorted.
fn use_meanwhile(
    replica: &Arc<Replica>,
    token: &Token,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Vec<Duration>> {
    let replica = Arc::clone(replica);
    let token = token.clone();
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut took = Vec::new();
        while !stop.load(Relaxed) {
            let asked = Instant::now();
            assert_eq!(answer(&replica, &token, MODELS).await, 200, "a hot token");
            took.push(asked.elapsed());
        }
        took.sort_unstable();
        took
    })
}

/// Forged tokens cause no store any work, and cost tokens in use only processor time.
pub(crate) async fn forged_tokens_are_turned_away(suite: Arc<Suite>) {
    const BURST: usize = 20;
    let world = suite.world().await;
    let stranger = suite.world().await;
    let replica = Arc::new(world.serve(&[PATIENT[0], PATIENT[1], SLOW[0], SLOW[1]]).await);
    let hot = reader(&world).await;
    assert_eq!(answer(&replica, &hot, MODELS).await, 200);
    let forged: Vec<_> = (0..BURST).map(|_| unknown(&stranger)).collect();
    crate::support::entries::entries_written(&world, 2).await;

    let mut p99 = Vec::new();
    for flooded in [false, true] {
        let polled = polls(&replica).await;
        let before = [commands(&replica, "redis").await, commands(&replica, "postgres").await];
        let stop = Arc::new(AtomicBool::new(false));
        let uses = use_meanwhile(&replica, &hot, &stop);
        let mut pace = interval(Duration::from_millis(20));
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let began = Instant::now();
        let mut turned_away = 0;
        while began.elapsed() < Duration::from_secs(if flooded { 4 } else { 1 }) {
            pace.tick().await;
            if flooded {
                let answers = forged.iter().map(|token| answer(&replica, token, MODELS));
                assert_eq!(join_all(answers).await, [401; BURST]);
                turned_away += BURST;
            }
        }
        stop.store(true, Relaxed);
        let took = uses.await.unwrap();
        p99.push(took[took.len() * 99 / 100]);
        println!("{turned_away} forged, {} in use: p99 {:?}", took.len(), p99[p99.len() - 1]);
        let redis = commands(&replica, "redis").await - before[0];
        let postgres = commands(&replica, "postgres").await - before[1];
        assert_eq!(redis, 0, "commands to Redis");
        // Polls are read first and last, so only an unanswered one may be missing.
        let polls = polls(&replica).await - polled;
        assert!(postgres <= polls + 1, "{postgres} queries and {polls} polls");
    }
    println!("p99 with and without: {:.1}", p99[1].as_secs_f64() / p99[0].as_secs_f64());
}

/// At a fixed rate, to a separate process: its stores and its memory are not affected.
pub(crate) async fn five_thousand_forged_tokens_a_second(suite: Arc<Suite>) {
    const A_SECOND: u64 = 5000;
    const AT_ONCE: usize = 50;
    let world = suite.world().await;
    let stranger = suite.world().await;
    let process = process::serve(&world, &[PATIENT[0], PATIENT[1], SLOW[0], SLOW[1]]).await;
    let replica = &process.replica;
    let hot = reader(&world).await;
    assert_eq!(answer(replica, &hot, MODELS).await, 200);
    crate::support::entries::entries_written(&world, 2).await;
    // With the same id for all, all answers are equal, byte for byte.
    let request = |token: &Token| {
        request("GET", MODELS, &[("authorization", &token.bearer()), ("x-request-id", "flood")])
    };
    let forged: Vec<_> = (0..1000).map(|_| request(&unknown(&stranger))).collect();
    let calls: Vec<_> = forged.iter().map(Call::new).collect();

    let mut p99 = Vec::new();
    let mut resident = 0;
    // Once to warm up, once without a flood, and then the measurement.
    for (seconds, flooded) in [(2, true), (3, false), (10, true)] {
        let polled = polls(replica).await;
        let before = [commands(replica, "redis").await, commands(replica, "postgres").await];
        let mut wire = Calls::connect(replica.grpc).await;
        resident = process.server.resident();
        let stop = Arc::new(AtomicBool::new(false));
        let uses = use_meanwhile(replica, &hot, &stop);
        let mut each = calls.chunks(AT_ONCE).cycle();
        let mut pace = interval(Duration::from_secs(1) * AT_ONCE as u32 / A_SECOND as u32);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            pace.tick().await;
            if flooded && wire.outstanding() < A_SECOND / 10 {
                let some: Vec<_> = each.next().unwrap().iter().collect();
                wire.send(&some).await;
            }
        }
        let took = began.elapsed();
        stop.store(true, Relaxed);
        let uses = uses.await.unwrap();
        eventually("the last answers", async || wire.outstanding() == 0).await;
        let (answered, refusal) = wire.answered();
        let refusal = refusal.as_ref().map(outcome);
        assert_eq!(refusal, flooded.then(|| (401, "invalid_token".to_owned())));
        let a_second = answered as f64 / took.as_secs_f64();
        p99.push(uses[uses.len() * 99 / 100]);
        println!(
            "{a_second:.0} forged a second, {} in use: p99 {:?}",
            uses.len(),
            p99[p99.len() - 1]
        );
        let redis = commands(replica, "redis").await - before[0];
        let postgres = commands(replica, "postgres").await - before[1];
        assert_eq!(redis, 0, "commands to Redis");
        let polls = polls(replica).await - polled;
        assert!(postgres <= polls + 1, "{postgres} queries and {polls} polls");
    }
    let grown = process.server.resident().saturating_sub(resident) / 1024;
    println!("p99 with and without: {:.1}", p99[2].as_secs_f64() / p99[1].as_secs_f64());
    println!("{} KiB in memory, {grown} KiB more than before", resident / 1024);
    assert!(grown < 10 * 1024, "{grown} KiB");
    suite.stack.stop(&process.server);
}

/// An attacker replays deleted tokens: they are looked up in batches, and rarely each.
pub(crate) async fn unknown_tokens_are_asked_for_in_batches(suite: Arc<Suite>) {
    const TOKENS: usize = 2000;
    let world = suite.world().await;
    let replica = Arc::new(world.serve(&[PATIENT[0], PATIENT[1], SLOW[0], SLOW[1]]).await);
    let hot = reader(&world).await;
    assert_eq!(answer(&replica, &hot, MODELS).await, 200);
    let unknown: Vec<_> = (0..TOKENS).map(|_| unknown(&world)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let uses = use_meanwhile(&replica, &hot, &stop);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let polled = polls(&replica).await;
        let before = commands(&replica, "postgres").await;
        let answers = join_all(unknown.iter().map(|token| answer(&replica, token, MODELS))).await;
        assert!(answers.iter().all(|answer| *answer == 401), "another answer than 401");
        let queries = commands(&replica, "postgres").await - before;
        asked.push(queries.saturating_sub(polls(&replica).await - polled));
    }
    stop.store(true, Relaxed);
    println!("{TOKENS} unknown, {} in use: {asked:?} queries", uses.await.unwrap().len());
    assert!(asked[0] < TOKENS as u64 / 4, "{asked:?}");
    // Not once, or one more than the polls if one was in progress.
    assert!(asked[1] <= 1 && asked[2] <= 1, "{asked:?}: they are remembered");
}

/// All clients at once through Envoy, with nothing in memory or Redis.
pub(crate) async fn a_herd_is_served(suite: Arc<Suite>) {
    const TOKENS: usize = 2000;
    const CONNECTIONS: i64 = 8;
    let world = suite.world().await;
    let (tokens, sql): (Vec<_>, Vec<_>) =
        (0..TOKENS).map(|_| world.issue("ann", "1 hour", &[READ])).unzip();
    world.sql(&sql.concat()).await;
    let connections = format!("postgres.max_connections={CONNECTIONS}");
    // As shipped, except for time limits: a debug build that shares two processors with its clients
    // needs seconds where a release needs a fraction of one.
    let settings = [&connections, SLOW[0], SLOW[1], "redis.timeout=1s"];
    let process = process::serve(&world, &settings).await;
    let envoy = process.replica.envoy(&suite);
    let ended = AtomicBool::new(false);
    let busiest = async {
        let mut busiest = 0;
        while !ended.load(Relaxed) {
            let open = "SELECT count(*) FROM pg_stat_activity
                        WHERE usename = 'server' AND datname = current_database()";
            let open: i64 = sqlx::query_scalar(open).fetch_one(&world.postgres).await.unwrap();
            busiest = busiest.max(open);
        }
        busiest
    };
    let began = Instant::now();
    let herd = async {
        let (mut left, mut tries): (Vec<_>, Vec<usize>) = (tokens.iter().collect(), Vec::new());
        let mut refusals = BTreeMap::new();
        while !left.is_empty() {
            // As often as the OpenAI clients retry.
            assert!(tries.len() < 3, "{} are left after {tries:?}", left.len());
            tries.push(left.len());
            let replies = join_all(left.iter().map(async |token| {
                let bearer = token.bearer();
                http::send(envoy.port, "GET", MODELS, &[("authorization", &bearer)], "").await
            }))
            .await;
            let mut replies = replies.into_iter();
            left.retain(|_| {
                let reply = replies.next().unwrap();
                assert!([200, 503].contains(&reply.status), "{}", reply.status);
                if reply.status == 503 {
                    // Envoy's own refusal has no body.
                    *refusals.entry(reply.code()).or_insert(0) += 1;
                }
                reply.status == 503
            });
        }
        ended.store(true, Relaxed);
        (tries, refusals)
    };
    let ((tries, refusals), busiest) = tokio::join!(herd, busiest);
    let took = began.elapsed();
    let queries = commands(&process.replica, "postgres").await;
    println!(
        "{TOKENS} first uses took {took:?}, {queries} queries; asked {tries:?}, 503 {refusals:?}"
    );
    // Two are the feed's, and one writes after the answers.
    assert!(busiest <= CONNECTIONS + 3, "{busiest} connections");
    let mut asked = BTreeMap::new();
    for line in world.statements() {
        let Some((_, ids)) = line.split_once("p.id = ANY ('{") else { continue };
        for id in ids.split_once('}').unwrap().0.split(',') {
            *asked.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(asked.len(), TOKENS);
    let most = asked.values().max().copied();
    assert!(most <= Some(tries.len()), "{most:?} times for one token, not once a try");
    assert!(queries < TOKENS as u64 / 4, "{queries} queries");
    suite.stack.stop(&process.server);
}

/// A thousand valid tokens of one owner, none of them in memory: lookups of other owners take at
/// most twice their normal time, whether or not their tokens are known here. Postgres is far away,
/// so its queries take time and no processor.
pub(crate) async fn one_owners_flood_leaves_others_their_share(suite: Arc<Suite>) {
    const TOKENS: usize = 1000;
    const OTHERS: usize = 5;
    const FAR: Duration = Duration::from_millis(500);
    let world = suite.world().await;
    let issue = |owner, count| -> (Vec<_>, Vec<_>) {
        (0..count).map(|_| world.issue(owner, "1 hour", &[READ])).unzip()
    };
    let (flooding, sql) = issue("ann", TOKENS);
    let (others, more) = issue("bob", OTHERS);
    let (newcomers, last) = issue("bob", OTHERS);
    world.sql(&[sql, more, last].concat().concat()).await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let url = suite.postgres_url("server", &world.database);
    let url = url.replace(&suite.postgres.port.to_string(), &proxy.port.to_string());
    let postgres = format!("postgres.url={url}");
    let settings = [&postgres, "redis.url=", "memory.principals=1KiB"];
    let settings = [&settings[..], &["postgres.max_connections=2"], &SLOW].concat();
    // Two owners may share a lane, which each replica draws at random: one time in 32.
    for again in [true, true, false] {
        let replica = Arc::new(world.serve(&settings).await);
        let ask = async |tokens: &[Token]| {
            let mut took = Vec::new();
            for token in tokens {
                let asked = Instant::now();
                assert_ne!(answer(&replica, token, MODELS).await, 503);
                took.push(asked.elapsed());
            }
            took.sort_unstable();
            took[took.len() / 2]
        };
        // From now on their owners are known.
        ask(&others).await;
        join_all(flooding.iter().map(|token| answer(&replica, token, MODELS))).await;
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut flood = JoinSet::new();
        for token in flooding.clone() {
            let replica = Arc::clone(&replica);
            let stop = Arc::clone(&stop);
            let answered = Arc::clone(&answered);
            flood.spawn(async move {
                while !stop.load(Relaxed) {
                    answer(&replica, &token, MODELS).await;
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        eventually("the flood to begin", async || answered.load(Relaxed) > 0).await;
        proxy.set(Mode::Delay(FAR));
        let before = answered.load(Relaxed);
        let known = ask(&others).await;
        let new = ask(&newcomers).await;
        let served = answered.load(Relaxed) - before;
        stop.store(true, Relaxed);
        flood.join_all().await;
        let alone = ask(&others).await;
        println!(
            "alone {alone:?}; beside {served} of a flood {known:?}, and not known before {new:?}"
        );
        assert!(alone >= FAR && served > TOKENS / 2, "no flood, or none in the way");
        if known <= 2 * alone && new <= 2 * alone {
            return;
        }
        assert!(again, "{known:?} and {new:?}, not {alone:?}");
        proxy.set(Mode::Pass);
    }
}

/// Each is used once, one after another, so that neither memory nor batches spare Postgres.
pub(crate) async fn paced_unknown_tokens_cost_a_bounded_rate(suite: Arc<Suite>) {
    const RATE: u64 = 5;
    const NEGATIVES: u64 = 20;
    const BURST: usize = 20;
    const MOST_AT_ONCE: usize = 10 * BURST;
    let world = suite.world().await;
    let bounds = [
        &format!("postgres.max_query_rate={RATE}"),
        &format!("memory.negatives={NEGATIVES}"),
        "deadline=100ms",
        "redis.url=",
    ];
    let replica = Arc::new(world.serve(&[&PATIENT[..], &bounds[..]].concat()).await);
    let hot = reader(&world).await;
    let cold = reader(&world).await;
    let served = async |token| answer(&replica, token, MODELS).await == 200;
    eventually("the hot token", async || served(&hot).await).await;
    let stop = Arc::new(AtomicBool::new(false));
    let uses = use_meanwhile(&replica, &hot, &stop);

    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let began = Instant::now();
    let mut asked = JoinSet::new();
    let polled = polls(&replica).await;
    let before = commands(&replica, "postgres").await;
    let mut told = BTreeMap::from([(401, 0), (503, 0)]);
    // Longer if nearly all answers come too late.
    while began.elapsed() < Duration::from_secs(4)
        || told[&401] <= NEGATIVES && began.elapsed() < Duration::from_secs(20)
    {
        pace.tick().await;
        while let Some(answer) = asked.try_join_next() {
            *told.get_mut(&answer.unwrap()).expect("401 or 503") += 1;
        }
        // Does not increase the load without limit on a machine that does not keep up.
        for _ in 0..BURST.min(MOST_AT_ONCE - asked.len()) {
            let replica = Arc::clone(&replica);
            let token = unknown(&world);
            asked.spawn(async move { answer(&replica, &token, MODELS).await });
        }
    }
    for answer in asked.join_all().await {
        *told.get_mut(&answer).expect("401 or 503") += 1;
    }
    let unauthorized = told[&401];
    let unavailable = told[&503];
    let queries = commands(&replica, "postgres").await - before;
    let polls = polls(&replica).await - polled;
    let took = began.elapsed();
    stop.store(true, Relaxed);
    let hot = uses.await.unwrap();
    let shed = lookups(&replica, "principal", "postgres", "shed").await;
    println!(
        "{took:?}: {unauthorized} unknown were told 401, {unavailable} 503 ({shed} shed), in \
         {queries} queries of which {polls} polls; {} in use: p99 {:?}",
        hot.len(),
        hot[hot.len() * 99 / 100]
    );
    // One poll may have been in progress at the end.
    let most = RATE as f64 * took.as_secs_f64() + 1.0;
    assert!((queries - polls.min(queries)) as f64 <= most + 1.0, "{queries} queries");
    assert!(unauthorized > NEGATIVES && 0 < shed && shed <= unavailable, "{shed} shed");
    let held = "patgate_memory_entries{kind=\"principal\",holds=\"negative\"}";
    let held = replica.metric(held).await;
    assert!((1..=NEGATIVES).contains(&held), "{held} negatives");
    eventually("a cold token", async || served(&cold).await).await;
}
