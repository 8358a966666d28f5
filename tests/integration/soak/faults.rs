//! Faults, and how each is repaired.

use std::time::Duration;

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};

use super::{dice::Dice, site::SoakServers};
use crate::support::{clock::put, redis_at};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    Redis(Mode),
    RedisFlushed,
    RedisKilled,
    /// Lookups fail; the feed works.
    LookUps(Mode),
    Postgres(Mode),
    PostgresStopped,
    PostgresKilled,
    PostgresTerminates,
    PostgresStandby,
    Clock(&'static str),
    Feed(Mode),
    FeedForgotten,
    Frozen(usize),
    Killed(usize),
    Replaced(usize),
}

/// If there are two faults at a time, each is in another part. Replicas come last, because they
/// start when the stores run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FaultyPart {
    Redis,
    Postgres,
    Feed,
    Replica,
}

const SLOW: Mode = Mode::Delay(Duration::from_millis(500));

/// Replica 0 is never replaced, because its memory is measured.
const FAULTS: [Fault; 30] = [
    Fault::Redis(Mode::Refuse),
    Fault::Redis(Mode::BlackHole),
    Fault::Redis(SLOW),
    Fault::Redis(Mode::Throttle(20)),
    Fault::Redis(Mode::CutReplies(64)),
    Fault::RedisFlushed,
    Fault::RedisKilled,
    Fault::LookUps(Mode::Refuse),
    Fault::LookUps(Mode::BlackHole),
    Fault::Postgres(Mode::Refuse),
    Fault::Postgres(Mode::BlackHole),
    Fault::Postgres(SLOW),
    Fault::Postgres(Mode::CutReplies(550)),
    Fault::PostgresStopped,
    Fault::PostgresKilled,
    Fault::PostgresTerminates,
    Fault::PostgresStandby,
    Fault::Clock("1 hour"),
    Fault::Clock("-1 hour"),
    Fault::Feed(Mode::Refuse),
    Fault::Feed(Mode::BlackHole),
    Fault::Feed(SLOW),
    Fault::FeedForgotten,
    Fault::Frozen(0),
    Fault::Frozen(1),
    Fault::Frozen(2),
    Fault::Killed(1),
    Fault::Killed(2),
    Fault::Replaced(1),
    Fault::Replaced(2),
];

impl Fault {
    /// Draws one fault, or sometimes two.
    pub(super) fn draw(dice: &mut Dice) -> Vec<Self> {
        let mut drawn = vec![dice.one_of(&FAULTS)];
        if dice.once_in(3) {
            let other = dice.one_of(&FAULTS);
            if other.part() != drawn[0].part() {
                drawn.push(other);
            }
        }
        drawn.sort_by_key(|fault| fault.part());
        drawn
    }

    fn part(self) -> FaultyPart {
        match self {
            Self::Redis(_) | Self::RedisFlushed | Self::RedisKilled => FaultyPart::Redis,
            Self::Feed(_) | Self::FeedForgotten => FaultyPart::Feed,
            Self::Frozen(_) | Self::Killed(_) | Self::Replaced(_) => FaultyPart::Replica,
            _ => FaultyPart::Postgres,
        }
    }

    /// Returns whether the fault excuses a 503 for a good token.
    pub(super) fn excuses(self) -> bool {
        match self {
            Self::Clock(_) => false,
            Self::Killed(_) => true,
            _ => self.part() == FaultyPart::Postgres,
        }
    }

    pub(super) async fn begin(self, site: &SoakServers<'_>) {
        let stack = &site.world.suite.stack;
        match self {
            Self::Redis(mode) => site.redis_proxy.set(mode),
            Self::RedisFlushed => flush(&site.valkey.url).await,
            Self::RedisKilled => stack.signal(&site.valkey, "KILL"),
            Self::LookUps(mode) => site.postgres_proxy.set(mode),
            Self::Postgres(mode) => {
                site.postgres_proxy.set(mode);
                site.feed_proxy.set(mode);
            }
            Self::PostgresStopped => stack.stop(&site.primary),
            Self::PostgresKilled => stack.signal(&site.primary, "KILL"),
            Self::PostgresTerminates => {
                let ours = "FROM pg_stat_activity WHERE usename = 'server'";
                site.world.sql(&format!("SELECT pg_terminate_backend(pid) {ours}")).await;
            }
            Self::PostgresStandby => lead(site, site.standby.port),
            Self::Clock(ahead) => put(&site.world, ahead).await,
            Self::Feed(mode) => site.feed_proxy.set(mode),
            Self::FeedForgotten => site.feed_proxy.forget(),
            Self::Frozen(which) => stack.signal(&site.gate.processes[which], "STOP"),
            Self::Killed(which) => stack.signal(&site.gate.processes[which], "KILL"),
            Self::Replaced(which) => stack.signal(&site.gate.processes[which], "TERM"),
        }
    }

    pub(super) async fn end(self, site: &mut SoakServers<'_>) {
        let stack = &site.world.suite.stack;
        match self {
            Self::Redis(_) => site.redis_proxy.set(Mode::Pass),
            Self::RedisKilled => site.valkey = stack.restart(&site.valkey),
            Self::Postgres(_) | Self::LookUps(_) => {
                site.postgres_proxy.set(Mode::Pass);
                site.feed_proxy.set(Mode::Pass);
            }
            Self::PostgresStopped | Self::PostgresKilled => {
                site.primary = stack.restart(&site.primary);
            }
            Self::PostgresStandby => lead(site, site.primary.port),
            Self::Clock(_) => put(&site.world, "0").await,
            Self::Feed(_) => site.feed_proxy.set(Mode::Pass),
            Self::Frozen(which) => stack.signal(&site.gate.processes[which], "CONT"),
            Self::Killed(which) => {
                site.gate.processes[which] = stack.restart(&site.gate.processes[which]);
            }
            Self::Replaced(which) => {
                let process = &mut site.gate.processes[which];
                eventually("patgate to end", async || !stack.is_running(process)).await;
                *process = stack.restart(process);
            }
            Self::RedisFlushed | Self::PostgresTerminates | Self::FeedForgotten => {}
        }
    }
}

async fn flush(url: &str) {
    redis::cmd("FLUSHALL").exec_async(&mut redis_at(url).await).await.unwrap();
}

fn lead(site: &SoakServers<'_>, port: u16) {
    let proxies: [&Proxy; 2] = [&site.postgres_proxy, &site.feed_proxy];
    for proxy in proxies {
        proxy.retarget(port);
        proxy.cut();
    }
}
