//! One replica reads the feed and relays it; the others follow.

pub(crate) mod leases;
pub(crate) mod outages;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use redis::{
    from_redis_value,
    streams::{StreamRangeReply, StreamReadReply},
};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Replica, Suite, Token,
    fleet::{Fleet, HEALED, MODELS, answer, polls},
    redis_at,
    relay::{fleet, frames, leaders, obeys, relayed, silences, stream, the_leader},
    settings::{PATIENT, PROMPT},
    tokens::{reader, revoke, revoke_and_wait},
};

/// Repeats a round until no replica was disturbed: if nothing is heard for too long, for example
/// because the machine stands still for a second, a replica polls Postgres itself, and another may
/// lead.
async fn undisturbed<T>(fleet: &Fleet, round: impl AsyncFn() -> T) -> T {
    let disturbances = async || {
        let silences = join_all(fleet.0.iter().map(|replica| silences(replica))).await;
        (leaders(fleet).await, silences)
    };
    for _ in 0..5 {
        let before = disturbances().await;
        let outcome = round().await;
        if disturbances().await == before {
            return outcome;
        }
        println!("another replica leads, or one heard nothing: once more");
    }
    panic!("no round without a change of who leads or silence")
}

/// Changes arrive, and only the leader polls Postgres.
pub(crate) async fn followers_obey_without_polling(suite: Arc<Suite>) {
    let world = suite.world().await;
    let fleet = fleet(&world, 3, &[]).await;
    let counted = async || join_all(fleet.0.iter().map(|replica| Counts::of(replica))).await;
    let since = undisturbed(&fleet, async || {
        let before = counted().await;
        for _ in 0..20 {
            obeys(&fleet, &world, "revoked under a relay").await;
        }
        let after = counted().await;
        after.iter().zip(&before).map(|(after, before)| after.since(before)).collect::<Vec<_>>()
    })
    .await;
    let leader = the_leader(&fleet).await;
    for (index, of) in since.iter().enumerate() {
        assert_eq!((of.polls > 0, of.gaps), (index == leader, 0), "{index}: {of:?}");
    }
    // It starts with the retained frames, and continues with new ones.
    let late = self::relayed(&world);
    let late = Fleet::of(&world, 1, &late.each_ref().map(String::as_str)).await;
    eventually("frames", async || frames(&late.0[0], "applied").await > 2).await;
    obeys(&late, &world, "revoked for one that came late").await;
    assert_eq!(frames(&late.0[0], "gap").await, 0);
}

/// The leader goes away, in order or not; another replica relays, with a higher epoch.
pub(crate) async fn another_takes_over(suite: Arc<Suite>) {
    let world = suite.world().await;
    let mut fleet = fleet(&world, 3, &[]).await;
    for _ in 0..2 {
        let leader = the_leader(&fleet).await;
        fleet.0.remove(leader);
        obeys(&fleet, &world, "revoked while no replica relays").await;
        the_leader(&fleet).await;
        obeys(&fleet, &world, "revoked under the next leader").await;
    }
    // The leader loses its lock without noticing.
    let settings = relayed(&world);
    let more = Fleet::of(&world, 2, &settings.each_ref().map(String::as_str)).await;
    let fleet = Fleet([fleet.0, more.0].concat());
    world
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND database =
                 (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
    obeys(&fleet, &world, "revoked while the lock is lost").await;
    the_leader(&fleet).await;
    obeys(&fleet, &world, "revoked under the new leader").await;
}

/// The lock is a key that any login of the database may hold. Then no replica relays, and each
/// polls Postgres itself.
pub(crate) async fn a_strangers_hold_on_the_relays_lock_delays_no_revocation(suite: Arc<Suite>) {
    const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('patgate relay ' || id, 0))
        FROM patgate.installation";
    let world = suite.world().await;
    let mut holder = PgConnection::connect(&world.url("postgres", world.port)).await.unwrap();
    holder.execute(LOCK).await.unwrap();
    let relayed = relayed(&world);
    let settings = [&relayed.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let fleet = Fleet::of(&world, 3, &settings).await;
    for replica in &fleet.0 {
        eventually("silence", async || silences(replica).await > 0).await;
    }
    for _ in 0..5 {
        obeys(&fleet, &world, "revoked while no replica can relay").await;
        assert!(leaders(&fleet).await.is_empty());
    }
    holder.close().await.unwrap();
    the_leader(&fleet).await;
    obeys(&fleet, &world, "revoked when one relays").await;
}

/// Redis goes down, loses data, or holds other clients' data under the key.
pub(crate) async fn a_relay_may_fail_in_any_way(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let through = world.redis_url.replace(&suite.valkey.port.to_string(), &proxy.port.to_string());
    // Each lookup gets only a small part of the time that recovery may take.
    let settings = [&format!("redis.url={through}"), PROMPT[0], "redis.timeout=100ms"];
    let fleet = fleet(&world, 3, &settings).await;
    let mut redis = redis_at(&world.redis_url).await;
    let relays = async || {
        let heard = async || {
            let heard = fleet.0.iter().map(|replica| frames(replica, "applied"));
            join_all(heard).await.iter().sum::<u64>()
        };
        let before = heard().await;
        eventually("the relay to be back", async || heard().await > before + 4).await;
    };
    for mode in [Mode::Refuse, Mode::BlackHole] {
        proxy.set(mode);
        for _ in 0..3 {
            obeys(&fleet, &world, "revoked without Redis").await;
        }
        proxy.set(Mode::Pass);
        relays().await;
        obeys(&fleet, &world, "revoked when Redis is back").await;
    }
    let stream = stream(&world);
    let all: StreamRangeReply =
        redis::cmd("XRANGE").arg(&[&stream, "-", "+"]).query_async(&mut redis).await.unwrap();
    let replayed: Vec<_> = all.ids.iter().map(|entry| entry.map["f"].clone()).collect();
    assert!(replayed.len() > 4);
    let add = |fields: &[(&str, &[u8])]| {
        let mut add = redis::cmd("XADD");
        add.arg(&stream).arg("*");
        fields.iter().for_each(|(name, value)| {
            add.arg(*name).arg(*value);
        });
        add
    };
    for meddling in 0..5 {
        match meddling {
            0 => redis::cmd("FLUSHDB").query_async(&mut redis).await.unwrap(),
            1 => {
                // They are old, but genuine.
                for frame in &replayed {
                    let frame: Vec<u8> = from_redis_value(frame.clone()).unwrap();
                    let () = add(&[("f", &frame)]).query_async(&mut redis).await.unwrap();
                }
            }
            2 => {
                for fields in [&[("f", &b"forged"[..])][..], &[("g", b"")]] {
                    let () = add(fields).query_async(&mut redis).await.unwrap();
                }
            }
            3 => {
                let last = "18446744073709551615-18446744073709551615";
                let mut add = redis::cmd("XADD");
                add.arg(&stream).arg(last).arg("f").arg("");
                let () = add.query_async(&mut redis).await.unwrap();
            }
            _ => {
                let set = redis::cmd("SET").arg(&stream).arg("something else").to_owned();
                let () = set.query_async(&mut redis).await.unwrap();
            }
        }
        obeys(&fleet, &world, "revoked in spite of it").await;
        relays().await;
        obeys(&fleet, &world, "revoked after it").await;
    }
    let refused = join_all(fleet.0.iter().map(|replica| frames(replica, "refused"))).await;
    assert!(refused.iter().sum::<u64>() >= 4, "{refused:?}");
}

/// Frames are lost, duplicated and reordered by a component between a leader in one Redis database
/// and a follower in another.
pub(crate) async fn a_missing_frame_is_noticed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let elsewhere = suite.world().await;
    let settings = relayed(&world);
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).chain(PATIENT).collect();
    let led = Fleet::of(&world, 1, &settings).await;
    eventually("a leader", async || leaders(&led).await == [0]).await;
    let other = format!("redis.url={}", elsewhere.redis_url);
    settings.push(&other);
    let follows = Fleet::of(&world, 1, &settings).await;
    let follower = &follows.0[0];
    let fleet = Fleet([&led.0[..], &follows.0].concat());
    let between = FrameForwarder::new(stream(&world), &world.redis_url, &elsewhere.redis_url).await;
    eventually("frames", async || frames(follower, "applied").await > 1).await;
    let token = reader(&world).await;
    fleet.all_answer(&token, MODELS, 200).await;

    between.set(FrameHandling::Repeat);
    let since = undisturbed(&follows, async || {
        let before = Counts::of(follower).await;
        for _ in 0..5 {
            obeys(&fleet, &world, "revoked in a frame that comes again").await;
        }
        Counts::of(follower).await.since(&before)
    })
    .await;
    assert_eq!((since.gaps, since.polls), (0, 0));
    for handling in [FrameHandling::Drop, FrameHandling::Swap] {
        let gaps = frames(follower, "gap").await;
        for _ in 0..5 {
            let token = reader(&world).await;
            fleet.all_answer(&token, MODELS, 200).await;
            between.set(handling);
            revoke(&world, &token).await;
            led.turn("revoked", (&token, MODELS), 200, 401).await;
            let passed = between.passed();
            eventually("a frame", async || between.passed() > passed).await;
            between.set(FrameHandling::Pass);
            follows.turn("in a frame that was lost", (&token, MODELS), 200, 401).await;
        }
        assert!(frames(follower, "gap").await > gaps, "{handling:?}");
    }
    fleet.all_answer(&token, MODELS, 200).await;
}

/// What happens to frames in transit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FrameHandling {
    Pass,
    Repeat,
    Drop,
    /// Each arrives after the next one.
    Swap,
}

/// Carries frames from one Redis database to another.
struct FrameForwarder {
    handling: watch::Sender<FrameHandling>,
    passed: Arc<AtomicU64>,
    _stop: AbortOnDropHandle<()>,
}

impl FrameForwarder {
    async fn new(stream: String, from: &str, to: &str) -> Self {
        let mut from = redis_at(from).await;
        let mut to = redis_at(to).await;
        let (handling, how) = watch::channel(FrameHandling::Pass);
        let passed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&passed);
        let carry = tokio::spawn(async move {
            let mut position = "0-0".to_owned();
            let mut held = None;
            loop {
                let mut read = redis::cmd("XREAD");
                read.arg(&["COUNT", "1", "BLOCK", "100", "STREAMS", &stream, &position]);
                let reply: Option<StreamReadReply> = read.query_async(&mut from).await.unwrap();
                for mut entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|k| k.ids)
                {
                    let frame: Vec<u8> = from_redis_value(entry.map.remove("f").unwrap()).unwrap();
                    let frames = match *how.borrow() {
                        FrameHandling::Pass => vec![frame],
                        FrameHandling::Repeat => vec![frame.clone(), frame],
                        FrameHandling::Drop => vec![],
                        FrameHandling::Swap => match held.take() {
                            None => {
                                held = Some(frame);
                                vec![]
                            }
                            Some(held) => vec![frame, held],
                        },
                    };
                    for frame in frames {
                        let mut add = redis::cmd("XADD");
                        add.arg(&stream).arg("*").arg("f").arg(frame);
                        let () = add.query_async(&mut to).await.unwrap();
                    }
                    count.fetch_add(1, Relaxed);
                    position = entry.id;
                }
            }
        });
        Self { handling, passed, _stop: AbortOnDropHandle::new(carry) }
    }

    fn set(&self, handling: FrameHandling) {
        self.handling.send_replace(handling);
    }

    /// The number of frames so far, including lost ones.
    fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }
}

/// The leader passes the followers' leases to commands that wait.
pub(crate) async fn leases_are_handed_on(suite: Arc<Suite>) {
    let world = suite.world().await;
    let fleet = fleet(&world, 3, &[]).await;
    eventually("three leases", async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM patgate.replicas");
        count.fetch_one(&world.postgres).await.unwrap() == 3
    })
    .await;
    for _ in 0..5 {
        let token = reader(&world).await;
        fleet.all_answer(&token, MODELS, 200).await;
        let output = revoke_and_wait(&world, &token).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("applied by 3 replicas after "), "{said}");
        assert_eq!(fleet.answers(&token, MODELS).await, [401; 3]);
    }
}

/// With two hundred followers, each asks Postgres only to date the frames.
pub(crate) async fn a_large_fleet_spares_postgres(suite: Arc<Suite>) {
    const FOLLOWERS: usize = 200;
    const WATCHED: Duration = Duration::from_secs(10);
    let (_postgres, world) = suite.spare(json!({ "max_connections": 1000 })).await;
    // Two hundred concurrent lookups are more than a small machine answers in time.
    let settings = [
        "postgres.max_connections=1",
        "redis.max_connections=1",
        "deadline=10s",
        "postgres.query_timeout=9s",
    ];
    let mut all = fleet(&world, 2, &settings).await;
    let relayed = relayed(&world);
    let settings = [&relayed.each_ref().map(String::as_str)[..], &PATIENT, &settings[..]].concat();
    while all.0.len() <= FOLLOWERS {
        all.0.extend(Fleet::of(&world, 20.min(FOLLOWERS + 1 - all.0.len()), &settings).await.0);
    }
    let leader = the_leader(&all).await;
    let led = all.0.remove(leader);
    let token = reader(&world).await;
    all.all_answer(&token, MODELS, 200).await;
    let counted = async || join_all(all.0.iter().map(|replica| Counts::of(replica))).await;
    // Replicas that polled Postgres during the start follow again, unless the machine is too busy.
    let mut before = counted().await;
    let mut watch = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let polls = |of: &[Counts]| of.iter().map(|of| of.polls).sum::<u64>();
        let known = polls(&before);
        (before, watch) = (counted().await, Instant::now());
        if polls(&before) == known {
            break;
        }
    }
    tokio::time::sleep(WATCHED).await;
    let since: Vec<Counts> =
        counted().await.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
    let elapsed = watch.elapsed();
    let sum = |of: fn(&Counts) -> u64| since.iter().map(of).sum::<u64>();
    println!(
        "{FOLLOWERS} followers: {} statements in {elapsed:?}, at most {} by one; {} polls, {} \
         silences; leader: {}",
        sum(|of| of.asked),
        since.iter().map(|of| of.asked).max().unwrap(),
        sum(|of| of.polls),
        sum(|of| of.silences),
        polls(&led).await,
    );
    // To date the frames, every five seconds less some jitter, and once more at each end.
    let visits = elapsed.as_secs() * 2 / 5 + 2;
    for of in &since {
        assert!(of.applied > 0, "it hears nothing: {of:?}");
        // A replica that hears nothing for a while polls Postgres, as on a machine too busy for two
        // hundred.
        let alone = of.silences * (elapsed.as_secs() * 5 / 2 + 1);
        assert!(of.polls <= alone + of.gaps, "it polls: {of:?}");
        // A poll that closes a gap is not counted as a regular one.
        let more = of.silences + of.polls + 2 * of.gaps;
        assert!(of.asked <= visits + more, "more than {visits}: {of:?}");
    }
    // Rarely enough to leave the processor to the replicas, and for as long as two hundred debug
    // builds may take on a small machine.
    let refused = async |token: &Token| {
        let began = Instant::now();
        join_all(all.0.iter().map(async |replica| {
            while answer(replica, token, MODELS).await != 401 {
                assert!(began.elapsed() < HEALED + Duration::from_secs(5), "still served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
        .await;
        began.elapsed()
    };
    revoke(&world, &token).await;
    println!("refused by all after {:?}", refused(&token).await);
    all.all_answer(&token, MODELS, 401).await;
    // The leader goes away, and all others stay in step.
    let next = reader(&world).await;
    all.all_answer(&next, MODELS, 200).await;
    drop(led);
    revoke(&world, &next).await;
    refused(&next).await;
    the_leader(&all).await;
}

/// What one replica has done.
#[derive(Debug)]
struct Counts {
    /// Statements to Postgres, including polls.
    asked: u64,
    polls: u64,
    gaps: u64,
    silences: u64,
    applied: u64,
}

impl Counts {
    async fn of(replica: &Replica) -> Self {
        let page = replica.page().await;
        let count = |line: &str| page.value(line) as u64;
        Self {
            asked: count("patgate_store_commands_total{store=\"postgres\"}"),
            polls: count("patgate_feed_polls_total{result=\"ok\"}"),
            gaps: count("patgate_relay_frames_total{result=\"gap\"}"),
            silences: count("patgate_relay_silences_total"),
            applied: count("patgate_relay_frames_total{result=\"applied\"}"),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            asked: self.asked - before.asked,
            polls: self.polls - before.polls,
            gaps: self.gaps - before.gaps,
            silences: self.silences - before.silences,
            applied: self.applied - before.applied,
        }
    }
}
