//! Redis goes down, stalls, is full, loses data, or returns old data. No client notices.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
    stack::Server,
};
use serde_json::json;

use crate::support::{
    Replica, Suite, World,
    entries::{all_held, arrives},
    fleet::{MODELS, answer, status},
    front::Front,
    load::{AllowedStatuses, LASTING_LONG, TokenKind, WELL},
    redis_at,
    replica::lookups,
    settings::{PATIENT, redis_through},
    tokens::{reader, revoke},
};

/// As shipped: the maximum wait for Redis per lookup.
const BOX: Duration = Duration::from_millis(20);
const BOXED: &str = "redis.timeout=20ms";
/// The number of failures in a row that open the circuit.
const THRESHOLD: u64 = 5;

/// The number of lookups in Redis with that result, per replica.
async fn by_each(front: &Front, result: &str) -> Vec<u64> {
    let replicas = front.fleet.0.iter();
    join_all(replicas.map(|replica| lookups(replica, "principal", "redis", result))).await
}

/// Returns whether each number has grown.
fn more(now: &[u64], before: &[u64]) -> bool {
    now.iter().zip(before).all(|(now, before)| now > before)
}

pub(crate) async fn redis_fails_on_the_wire(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let redis = redis_through(&world, &proxy);
    // Longer than as shipped: on a busy machine, a good Redis must be recognized as good again.
    let settings = [&redis, "redis.timeout=100ms", PATIENT[0], PATIENT[1]];
    let front = Front::of(&world, &settings).await;
    let load = front.lasting(LASTING_LONG, &world).await;
    let stored = redis_at(&world.redis_url).await;
    for mode in [
        Mode::Refuse,
        Mode::BlackHole,
        Mode::Delay(Duration::from_millis(500)),
        Mode::Throttle(20),
        Mode::CutReplies(1),
        // Greetings pass, and an entry is cut in the middle.
        Mode::CutReplies(64),
    ] {
        if mode == Mode::CutReplies(64) {
            // The replicas' writes may have taken longer than their timeout for Redis.
            let written = async || {
                let direct = world.serve(&PATIENT).await;
                load.known_to(&direct).await;
                arrives(&stored, &load.hot[0]).await
            };
            load.bear(eventually("an entry that can be cut", written)).await;
        }
        let cold = load.count(TokenKind::Cold, 200);
        let open = by_each(&front, "open").await;
        let hits = front.lookups("redis", "hit").await;
        proxy.set(mode);
        let late = world.serve(&settings).await;
        load.known_to(&late).await;
        load.bear(load.more(WELL, 30)).await;
        if mode == Mode::CutReplies(64) {
            let failed = lookups(&late, "principal", "redis", "unavailable").await;
            assert!(failed > 0, "nothing was cut");
            assert_eq!(lookups(&late, "principal", "redis", "hit").await, 0, "half a reply");
        } else {
            let opened = async || more(&by_each(&front, "open").await, &open);
            load.bear(eventually("lookups that pass Redis by", opened)).await;
        }
        proxy.set(Mode::Pass);
        let before = by_each(&front, "miss").await;
        let again = format!("Redis to be used again after {mode:?}");
        let used = async || more(&by_each(&front, "miss").await, &before);
        load.bear(eventually(&again, used)).await;
        println!(
            "{mode:?}: {} cold tokens served, {} hits in Redis",
            load.count(TokenKind::Cold, 200) - cold,
            front.lookups("redis", "hit").await - hits
        );
    }
    load.end("Redis fails on the wire").await;
}

/// A lookup that finds Redis dead waits for one timeout; after five such lookups none waits.
pub(crate) async fn a_dead_redis_costs_a_look_up_one_box(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let redis = redis_through(&world, &proxy);
    let front = Front::of(&world, &[&redis, BOXED, PATIENT[0], PATIENT[1]]).await;
    let load = front.load(&world).await;
    // As shipped, and so large that one timeout differs clearly from two on a busy machine.
    for bound in [BOX, 20 * BOX] {
        let bounded = format!("redis.timeout={}ms", bound.as_millis());
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..3 {
            proxy.set(Mode::Pass);
            let without = world.serve(&["redis.url="]).await;
            let with = world.serve(&[&redis, &bounded]).await;
            let round = load.bear(look_ups(&world, &proxy, [&without, &with])).await;
            for (all, more) in took.iter_mut().zip(round) {
                all.extend(more);
            }
        }
        let [without, open, dead] = took.map(|mut took| {
            took.sort_unstable();
            took[took.len() / 2]
        });
        println!(
            "{bound:?}: a cold lookup takes {without:?} without Redis, {dead:?} with a dead one, \
             {open:?} past it"
        );
        if bound > BOX {
            assert!(dead >= bound && dead < without + 2 * bound, "{dead:?} and {without:?}");
            assert!(open < without + bound, "{open:?} and {without:?}");
        }
    }
    proxy.set(Mode::Pass);
    load.end("Redis black-holed").await;
}

/// Cold lookups when Redis has just died: their times, and how many waited for it or skipped it.
async fn look_ups(
    world: &World<'_>,
    proxy: &Proxy,
    [without, with]: [&Replica; 2],
) -> [Vec<Duration>; 3] {
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    // So that the domain is cached, and a check needs only the principal.
    let warm = reader(world).await;
    assert_eq!((status(without, &warm).await, status(with, &warm).await), (200, 200));
    let mut cold = Vec::new();
    for _ in 0..4 * THRESHOLD {
        cold.push(reader(world).await);
    }
    let (one_by_one, at_once) = cold.split_at(THRESHOLD as usize);
    let timed = async |replica, token| {
        let asked = Instant::now();
        assert_eq!(status(replica, token).await, 200);
        asked.elapsed()
    };
    proxy.set(Mode::BlackHole);
    for token in one_by_one {
        let (_, vain) = refusals(with).await;
        let waited = timed(with, token).await;
        let (_, now) = refusals(with).await;
        took[if now > vain { 2 } else { 1 }].push(waited);
        took[0].push(timed(without, token).await);
    }
    let (open, vain) = refusals(with).await;
    let began = Instant::now();
    took[1].extend(join_all(at_once.iter().map(|token| timed(with, token))).await);
    // One per second is the probe.
    let probes = began.elapsed().as_secs() + 1;
    let (now_open, now_vain) = refusals(with).await;
    assert!(now_vain - vain <= probes, "{} lookups waited for Redis", now_vain - vain);
    assert_eq!(now_open - open + now_vain - vain, at_once.len() as u64);
    took
}

/// The number of lookups that skipped Redis, and of those that waited for it without success.
async fn refusals(replica: &Replica) -> (u64, u64) {
    let count = async |result| lookups(replica, "principal", "redis", result).await;
    (count("open").await, count("unavailable").await)
}

fn own_valkey(suite: &Suite, args: &[&str]) -> (Server, String) {
    let valkey = suite.stack.start("valkey", json!({ "args": args }));
    let url = format!("redis.url={}", valkey.url);
    (valkey, url)
}

async fn command(valkey: &Server, command: &[&str]) {
    let mut request = redis::cmd(command[0]);
    request.arg(&command[1..]).exec_async(&mut redis_at(&valkey.url).await).await.unwrap();
}

pub(crate) async fn redis_is_full_then_flushed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let full = ["--maxmemory-policy", "noeviction"];
    let (valkey, redis) = own_valkey(&suite, &full);
    let front = Front::of(&world, &[&redis, BOXED, PATIENT[0], PATIENT[1]]).await;
    let load = front.load(&world).await;

    command(&valkey, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let dropped = async || {
        let mut sum = 0;
        for replica in &front.fleet.0 {
            sum += replica.metric("patgate_redis_dropped_writes_total").await;
        }
        sum
    };
    let before = dropped().await;
    load.bear(eventually("writes to fail", async || dropped().await > before + 20)).await;
    load.bear(load.more(WELL, 50)).await;
    let hits = front.lookups("redis", "hit").await;
    let late = world.serve(&[&redis]).await;
    load.known_to(&late).await;
    println!("full: {} writes dropped, {hits} hits", dropped().await - before);

    command(&valkey, &["CONFIG", "SET", "maxmemory", "0"]).await;
    for _ in 0..20 {
        command(&valkey, &["FLUSHALL"]).await;
        load.bear(load.more(WELL, 2)).await;
    }
    let late = world.serve(&[&redis]).await;
    load.known_to(&late).await;
    load.end("Redis full, then flushed").await;
}

/// The dump is from before the revocation: in it, the token is valid.
pub(crate) async fn redis_is_restored_from_an_old_dump(suite: Arc<Suite>) {
    let world = suite.world().await;
    let (valkey, redis) = own_valkey(&suite, &[]);
    let settings = [&redis, PATIENT[0], PATIENT[1]];
    let front = Front::of(&world, &settings).await;
    let load = front.load(&world).await;
    let turning = &load.turning;
    let entries: Vec<_> = load.hot.iter().chain([turning]).collect();
    load.bear(all_held(&redis_at(&valkey.url).await, &entries)).await;
    command(&valkey, &["SAVE"]).await;

    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke(&world, turning).await;
    load.bear(front.fleet.turn("revoked", (turning, MODELS), 200, 401)).await;
    let turned = AllowedStatuses { turning: &[401], ..WELL };
    load.allow(turned);
    suite.stack.signal(&valkey, "KILL");
    load.bear(load.more(turned, 10)).await;
    suite.stack.restart(&valkey);
    let late = world.serve(&settings).await;
    assert_eq!(load.bear(answer(&late, turning, MODELS)).await, 401);
    assert_eq!(lookups(&late, "principal", "redis", "stale").await, 1, "it was not in the dump");
    load.known_to(&late).await;
    assert!(lookups(&late, "principal", "redis", "hit").await > 0, "and the others are");
    load.bear(load.more(turned, 50)).await;
    load.end("Redis restored from an old dump").await;
}
