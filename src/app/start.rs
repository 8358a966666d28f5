//! The start: what rests on the stores is built once they have passed their checks, and run.
//!
//! Until then, the gate of the checks is closed, `/readyz` says what is missing, and the start tries
//! again. So a replica may start before Postgres, and gets ready by itself. The checks are the same
//! whenever they are made: a store that leads to another installation, has an old schema, or has a
//! login that may administer, keeps the gate closed until that is fixed.

use std::{
    mem,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    builder::{Builder, SharedParts},
    canary::Canary,
    connection_shortage,
    ring_reload::OpenedStores,
    stores::VerifiedStores,
};
use crate::{
    check::{
        StoreGate, Stores,
        last_use::{LastUseWriter, LastUses},
    },
    clock,
    config::{Config, StartRequires},
    feed::{FeedReader, Relay},
    freshness::KnownChanges,
    postgres::Postgres,
    process::tasks::{Task, Tasks},
    redis_client::probe::{RedisUse, probe},
    server::{Missing, Readiness, ring_watch::RingWatch},
    throttle::Throttle,
};

/// How long the first attempt may delay everything else. In general it ends within milliseconds, and
/// the first check finds an open gate.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);
/// The time limit of every other attempt. A connection that freezes in the middle must not keep the
/// start from trying another one.
const ATTEMPT: Duration = Duration::from_secs(20);
/// The pause after a failed attempt, which grows from one to the other.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// Interval between two reports of the same reasons.
const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);

/// Opens the gate, and then runs what reads the stores.
pub(super) struct Start {
    config: Arc<Config>,
    parts: SharedParts,
    gate: StoreGate,
    readiness: Readiness,
    /// The record of changes, for the metrics, once there is one.
    changes: Arc<OnceLock<Arc<KnownChanges>>>,
    progress: Progress,
    reports: Throttle,
}

/// How far the start has come.
enum Progress {
    /// The stores are not verified.
    Unverified,
    /// The stores are verified. The key ring has signed none of the live tokens.
    AlienRing(Box<Verified>),
    /// The gate is open.
    Open(Box<Services>),
}

/// What the key ring is compared with, and what the rest is built from.
struct Verified {
    builder: Builder,
    postgres: Postgres,
    ring_watch: RingWatch,
}

/// What runs in the background once the gate is open.
struct Services {
    reader: FeedReader,
    relay: Option<Relay>,
    ring_watch: RingWatch,
    last_use_writer: LastUseWriter,
    canary: Option<Canary>,
}

/// Why an attempt did not open the gate.
enum Obstacle {
    /// The stores, or what was built from them. At least one error.
    Stores(Vec<Error>),
    /// The key ring was not compared with the live tokens, or has signed none of them. It has been
    /// logged.
    KeyRing(&'static str),
}

const KEY_RING: &str = "keyring_file";
const NOT_COMPARED: &str = "Postgres did not say which keys have signed the live tokens";

impl Start {
    pub(super) fn new(
        config: Arc<Config>,
        parts: SharedParts,
        gate: StoreGate,
        changes: Arc<OnceLock<Arc<KnownChanges>>>,
    ) -> Self {
        let readiness = Readiness::starting();
        Self {
            config,
            parts,
            gate,
            readiness,
            changes,
            progress: Progress::Unverified,
            reports: Throttle::default(),
        }
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Makes the first attempt, before anything is served.
    ///
    /// # Errors
    ///
    /// If the setting `start.require` names a store that cannot be used.
    pub(super) async fn first_attempt(&mut self) -> Result<(), Error> {
        if self.config.start_requires == StartRequires::Nothing {
            // Cut short, it begins again in the background.
            let attempt = timeout(FIRST_ATTEMPT, self.attempt()).await;
            if let Ok(Err(obstacle)) = attempt {
                self.report(&obstacle);
            }
            return Ok(());
        }
        match self.limited_attempt().await {
            Ok(()) => Ok(()),
            Err(Obstacle::Stores(errors)) => {
                let mut errors = errors.into_iter();
                let first = errors.next();
                errors
                    .for_each(|error| tracing::error!(%error, "this store cannot be used either"));
                first.map_or(Ok(()), Err)
            }
            Err(obstacle) => {
                self.report(&obstacle);
                Ok(())
            }
        }
    }

    /// Opens the gate, and runs what reads the stores until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.open()).await.is_none() {
            return;
        }
        if let Progress::Open(services) = self.progress {
            join_all(services.spawn(&self.parts.tasks, &stop)).await;
        }
    }

    async fn open(&mut self) {
        let [mut pause, longest] = PAUSES;
        while !matches!(self.progress, Progress::Open(_)) {
            if let Err(obstacle) = self.limited_attempt().await {
                self.report(&obstacle);
                sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause = longest.min(2 * pause);
            }
        }
    }

    async fn limited_attempt(&mut self) -> Result<(), Obstacle> {
        let attempt = timeout(ATTEMPT, self.attempt()).await;
        attempt.unwrap_or_else(|_| Err(Error::Silent(ATTEMPT).into()))
    }

    /// Makes every check that has not passed yet, and opens the gate if all have.
    async fn attempt(&mut self) -> Result<(), Obstacle> {
        let mut verified = match mem::replace(&mut self.progress, Progress::Unverified) {
            Progress::Unverified => self.verify().await?,
            Progress::AlienRing(verified) => *verified,
            open @ Progress::Open(_) => {
                self.progress = open;
                return Ok(());
            }
        };
        if !verified.ring_watch.check_once().await {
            // The store may be another one when it answers again.
            return Err(Obstacle::KeyRing(NOT_COMPARED));
        }
        if let Some(why) = verified.ring_watch.objection() {
            self.progress = Progress::AlienRing(Box::new(verified));
            return Err(Obstacle::KeyRing(why));
        }
        let services = self.build(verified).await?;
        self.progress = Progress::Open(Box::new(services));
        self.readiness.started();
        tracing::info!("ready");
        Ok(())
    }

    async fn verify(&self) -> Result<Verified, Obstacle> {
        let config = &self.config;
        let stores =
            VerifiedStores::check(config, &self.parts.metrics).await.map_err(Obstacle::Stores)?;
        if let Some(redis) =
            self.parts.redis.as_ref().filter(|_| config.start_requires == StartRequires::All)
        {
            let prefix = stores.installation().redis_prefix();
            let probed = probe(redis, &prefix, &[RedisUse::Read, RedisUse::Write]).await;
            probed.map_err(|fault| Error::NoRedis(fault.to_string()))?;
        }
        let builder = Builder::of(stores, config, self.parts.clone());
        let postgres = builder.postgres(&config.postgres);
        let ring_watch = RingWatch::new(builder.ring.clone(), postgres.clone(), config.mode);
        Ok(Verified { builder, postgres, ring_watch })
    }

    /// Builds what reads the stores, and opens the gate. The feed is polled once before that, so that
    /// the first check can already judge what other replicas have left in Redis.
    async fn build(&self, verified: Verified) -> Result<Services, Obstacle> {
        let Verified { builder, postgres, ring_watch } = verified;
        if let Ok(Some(shortage)) = connection_shortage(&self.config).await {
            tracing::warn!("{shortage}");
        }
        let reader = builder.reader();
        reader.begin().await;
        let relay = builder.relay();
        let resolver = builder.resolver(&postgres)?;
        let canary = builder.canary(&resolver);
        let (last_uses, last_use_writer) = LastUses::new(builder.writer(), builder.metrics.clone());
        // Another ring may have come into force meanwhile. From here on, its reloader compares it.
        if !ring_watch.is_current() {
            return Err(Obstacle::KeyRing(NOT_COMPARED));
        }
        let _ = self.changes.set(Arc::clone(&builder.changes));
        let _ = self.parts.opened.set(OpenedStores {
            postgres,
            changes: Arc::clone(&builder.changes),
            distrusted: Arc::clone(&reader.distrusted),
        });
        self.gate.open(Stores { resolver, clock: Arc::clone(&builder.clock), last_uses });
        Ok(Services { reader, relay, ring_watch, last_use_writer, canary })
    }

    /// Shows what is missing on `/readyz`, and logs it when it changes, and at intervals.
    fn report(&mut self, obstacle: &Obstacle) {
        let missing = match obstacle {
            Obstacle::Stores(errors) => errors.iter().map(Error::missing).collect(),
            Obstacle::KeyRing(why) => vec![Missing::new(KEY_RING, *why)],
        };
        let is_news = self.readiness.lacks(missing);
        let is_due = self.reports.passes(clock::now(), REPORT_EVERY);
        if let Obstacle::Stores(errors) = obstacle
            && (is_news || is_due)
        {
            for error in errors {
                tracing::warn!(
                    %error,
                    "not ready: checks are answered with 503 until this is fixed; patgate tries again \
                     by itself",
                );
            }
        }
    }
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self::Stores(vec![error])
    }
}

impl Services {
    fn spawn(self, tasks: &Tasks, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let Self { reader, relay, ring_watch, last_use_writer, canary } = self;
        let reading = match relay {
            None => tasks.spawn(Task::FeedReader, reader.run(stop.clone())),
            Some(relay) => tasks.spawn(Task::FeedReader, reader.run_relayed(relay, stop.clone())),
        };
        let watching = tasks.spawn(Task::RingWatch, ring_watch.run(stop.clone()));
        let writing = tasks.spawn(Task::LastUseWriter, last_use_writer.run(stop.clone()));
        let canary = canary.map(|canary| tasks.spawn(Task::Canary, canary.run(stop.clone())));
        [reading, watching, writing].into_iter().chain(canary).collect()
    }
}
