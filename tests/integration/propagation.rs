//! How fast the loss of a permission takes effect, and how a delay shows.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Replica, Suite, Token, World, connect, execute,
    fleet::{Fleet, HEALED, MODELS, answer},
    settings::{PATIENT, PROMPT, feed_through},
    tokens::{reader, revoke},
    withdrawals::{PROMISED, WITHDRAWALS, keep, subject},
};

/// Pauses between two requests about one change: a change that is found by polling takes its time.
const PAUSES: [u64; 6] = [0, 5, 10, 20, 40, 80];

/// How promptly this machine runs a task: it repeatedly sleeps briefly and makes a trivial query to
/// Postgres, and notes the times.
struct Heartbeat {
    beats: Arc<Mutex<Vec<Instant>>>,
    _task: AbortOnDropHandle<()>,
}

impl Heartbeat {
    const BEAT: Duration = Duration::from_millis(10);
    /// The number of such turns that a change needs until it takes effect: the notification, the
    /// poll, the request and the lookup.
    const TURNS: u32 = 4;

    async fn of(world: &World<'_>) -> Self {
        let beats = Arc::new(Mutex::new(vec![Instant::now()]));
        // Not from the pool of the measured tasks.
        let postgres = connect(&world.url("postgres", world.port)).await;
        let noted = Arc::clone(&beats);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Self::BEAT).await;
                execute(&postgres, "SELECT 1").await;
                noted.lock().unwrap().push(Instant::now());
            }
        });
        Self { beats, _task: AbortOnDropHandle::new(task) }
    }

    /// The maximum share of a duration that is the machine's fault: almost nothing if the machine
    /// is otherwise idle; all of it if the machine stood still.
    fn excuse(&self, from: Instant, took: Duration) -> Duration {
        let beats = self.beats.lock().unwrap();
        let first = beats.partition_point(|beat| *beat <= from).saturating_sub(1);
        let last = beats.partition_point(|beat| *beat < from + took);
        let within = &beats[first..beats.len().min(last + 1)];
        let worst = within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Self::TURNS * worst.saturating_sub(Self::BEAT)
    }
}

/// Returns how often knowledge was renewed that was older than a second.
async fn late_renewals(replica: &Replica) -> u64 {
    // Of one page: between two of them, it may be renewed.
    let page = replica.page().await;
    let count =
        |line: &str| page.value(&format!("patgate_feed_renewed_at_age_seconds_{line}")) as u64;
    count("count") - count("bucket{le=\"1.0\"}")
}

/// Asks until the answer is `after`; until then it is `before`. Returns how long that took.
///
/// If an answer shows the old state later than promised, it came from knowledge that was older than
/// the promise, and the replica must have reported that.
async fn obeyed(
    replica: &Replica,
    (what, token, path): (&str, &Token, &str),
    (before, after): (u16, u16),
) -> Duration {
    let committed = Instant::now();
    let mut late = None;
    let mut told = None;
    let mut pauses = PAUSES.iter().chain(std::iter::repeat(&PAUSES[5]));
    loop {
        // Well before it matters, so that the relevant reports come after it.
        if told.is_none() && committed.elapsed() > PROMISED / 2 {
            told = Some(late_renewals(replica).await);
        }
        let asked = committed.elapsed();
        let answer = answer(replica, token, path).await;
        if answer == after {
            break;
        }
        assert_eq!(answer, before, "{what}");
        assert!(asked < HEALED, "{what}: still {before}");
        late = (asked > PROMISED).then_some(asked).or(late);
        tokio::time::sleep(Duration::from_millis(*pauses.next().unwrap())).await;
    }
    let took = committed.elapsed();
    if let Some(late) = late {
        let told = late_renewals(replica).await > told.unwrap();
        assert!(told, "{what}: {before} {late:?} after the commit, and no word of it");
    }
    took
}

/// Asks rarely, because this is not measured, and others are.
async fn restored(replica: &Replica, (what, token, path): (&str, &Token, &str), before: u16) {
    let given = Instant::now();
    loop {
        match answer(replica, token, path).await {
            200 => return,
            answer => assert_eq!(answer, before, "{what}, and given back"),
        }
        assert!(given.elapsed() < HEALED, "{what}, and given back: still {before}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// By bare SQL, during other changes. Two replicas listen; the third one only polls.
pub(crate) async fn whatever_is_taken_away_is_refused_within_a_second(suite: Arc<Suite>) {
    const SUBJECTS: usize = 3;
    const ROUNDS: usize = 48;
    let world = suite.world().await;
    let direct = format!("feed.url={}", suite.postgres_url("server", &world.database));
    let listening = Fleet::of(&world, 2, &[PATIENT[0], PATIENT[1], &direct]).await;
    let polling = Fleet::of(&world, 1, &PATIENT).await;
    let fleet = Fleet([listening.0, polling.0].concat());
    let mut subjects = Vec::new();
    for way in WITHDRAWALS {
        for _ in 0..SUBJECTS {
            subjects.push((way, subject(&world).await));
        }
    }
    keep(&world).await;
    let pulse = Heartbeat::of(&world).await;
    let lanes = subjects.iter().map(async |((what, refused, statements), subject)| {
        let [take, give] = statements(subject);
        let about = (*what, &subject.token, subject.path.as_str());
        fleet.all_answer(&subject.token, &subject.path, 200).await;
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            world.sql(&take).await;
            let committed = Instant::now();
            let by = fleet.0.iter().map(|replica| obeyed(replica, about, (200, *refused)));
            took.push((committed, join_all(by).await));
            let again = fleet.answers(&subject.token, &subject.path).await;
            assert_eq!(again, [*refused; 3], "{what}: and back");
            world.sql(&give).await;
            for replica in &fleet.0 {
                restored(replica, about, *refused).await;
            }
        }
        took
    });
    let took = join_all(lanes).await.concat();
    println!("{} changes took until the refusal by", took.len());
    assert!(took.len() >= 1000);
    for (at, how) in ["listening", "listening", "polling"].iter().enumerate() {
        let of_it = took.iter().map(|(committed, took)| {
            (took[at], took[at].saturating_sub(pulse.excuse(*committed, took[at])))
        });
        let (mut wall, mut ours): (Vec<_>, Vec<_>) = of_it.unzip();
        wall.sort_unstable();
        ours.sort_unstable();
        let [p50, p99] = [50, 99].map(|part| wall[wall.len() * part / 100]);
        let ours = ours[ours.len() * 99 / 100];
        let late = late_renewals(&fleet.0[at]).await;
        println!(
            "  a {how} replica: p50 {p50:?}, p99 {p99:?}, {ours:?} without the machine's part, max \
             {:?}; {late} times older than 1 s",
            wall[wall.len() - 1]
        );
        assert!(ours <= PROMISED, "{how}: {ours:?}");
    }
}

/// The metrics page shows it while the feed is lost, and afterwards that it was.
pub(crate) async fn how_old_knowledge_is_can_be_seen(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let feed = feed_through(&world, &proxy);
    let fleet = Fleet::of(&world, 1, &[&feed, PATIENT[0], PATIENT[1], PROMPT[0]]).await;
    let replica = &fleet.0[0];
    let token = reader(&world).await;
    fleet.all_answer(&token, MODELS, 200).await;
    let age = async || replica.gauge("patgate_feed_watermark_age_seconds").await;
    eventually("fresh knowledge", async || age().await < 1.0).await;
    proxy.set(Mode::BlackHole);
    revoke(&world, &token).await;
    let heal = async {
        // By then, a poll whose answer was still in transit has been counted.
        eventually("knowledge to grow older than promised", async || age().await > 1.5).await;
        let before = late_renewals(replica).await;
        eventually("knowledge to grow old", async || age().await > 2.0).await;
        assert_eq!(late_renewals(replica).await, before, "it was not renewed");
        proxy.set(Mode::Pass);
        before
    };
    let about = ("revoked", &token, MODELS);
    let (took, before) = tokio::join!(obeyed(replica, about, (200, 401)), heal);
    assert!(took > PROMISED, "{took:?}");
    assert!(late_renewals(replica).await > before);
    eventually("fresh knowledge again", async || age().await < 1.0).await;
}
