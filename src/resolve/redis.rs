//! The Redis tier: a shared cache that may vanish, stall or lie without doing harm.
//!
//! A lookup waits for Redis at most for `redis.timeout` (20 ms by default). After several failures
//! in a row, patgate only sends it one attempt per second. A connection whose command failed or
//! timed out is closed and never used again, so a late reply cannot reach another caller. Entries
//! are sealed (`seal.rs`), and their lifetime counts from when they are written.

mod request;

use std::{sync::Arc, time::Duration};

use deadpool::managed::{BuildError, Object, Pool, PoolError};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};

use self::request::{Failure, QueuedWrite, RedisRequest, Replies};
use super::{
    Found, Load, LookupKind, Unavailable,
    batch::{Batcher, Unanswered},
    breaker::Breaker,
    lanes::Lane,
};
use crate::{
    clock::{self, Moment, Tick},
    config,
    freshness::Stamp,
    keyring::{KeyId, LiveRing},
    process::tasks::{Task, Tasks},
    redis_client::{
        access::RedisAccess,
        connections::RedisConnections,
        connector::ConnectionLimits,
        fault::RedisFault,
        fault_log::FaultLog,
        probe::{RedisUse, probe},
    },
    seal::{SealFault, SealPurpose, Sealer, Unsealed},
    telemetry::{LookupResult, LookupTrace, Metrics, Store, StoreQuestion},
    throttle::Throttle,
};

/// Time limit for a new connection, its TLS and authentication. Lookups do not wait that long for
/// it.
const LIMITS: ConnectionLimits =
    ConnectionLimits { within: Some(Duration::from_secs(1)), silence: Duration::from_secs(1) };
/// How many entries may wait to be written; patgate drops and counts the rest.
const MAX_WRITES: usize = 4096;
const MAX_WRITE_BATCH: usize = 256;
/// How often patgate logs that entries were not sealed by this key ring, and that keys which have left it
/// sealed some.
const SEALS_EVERY: Duration = Duration::from_secs(10 * 60);

/// A result as Redis holds it. `None` means that the value does not exist.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredEntry<V, S = Stamp> {
    pub(super) verified: Moment,
    pub(super) stamp: S,
    pub(super) value: Option<V>,
}

/// The tier. Its tasks end when it is dropped.
pub(crate) struct RedisTier {
    reads: Batcher<String, Result<Option<Vec<u8>>, Unavailable>>,
    writes: mpsc::Sender<QueuedWrite>,
    link: Arc<Link>,
    sealer: Sealer,
    /// Keys that were dropped before then may have left entries.
    started: Tick,
    refused: Throttle,
    retired: Throttle,
    metrics: Metrics,
}

impl RedisTier {
    /// Connects at the first question, so that a Redis that is down does not prevent a start.
    pub(crate) fn spawn(
        config: &config::RedisSettings,
        access: &Arc<RedisAccess>,
        sealer: Sealer,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, BuildError> {
        let link = Arc::new(Link::new(config, access, metrics.clone())?);
        let at_once = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
        // The caller's own timeout limits the wait. A lookup that exceeds it goes to Postgres.
        let load = Arc::new(Load::new(at_once, Duration::MAX));
        let reader = Arc::clone(&link);
        let reads = Batcher::spawn(tasks, load, move |keys: Vec<String>| {
            let link = Arc::clone(&reader);
            async move { link.run(&RedisRequest::Read(keys), &link.read_faults).await }
        });
        let (writes, waiting) = mpsc::channel(MAX_WRITES);
        let writing = write_behind(Arc::clone(&link), sealer.ring().clone(), waiting);
        tasks.spawn_owned(Task::RedisWriter, writing);
        let [refused, retired] = Default::default();
        let started = clock::now();
        Ok(Arc::new(Self { reads, writes, link, sealer, started, refused, retired, metrics }))
    }

    /// Tries whether this replica can log in to Redis and read, so that the log reports a problem
    /// before the first lookup. No caller waits for it.
    pub(crate) fn probe_in_background(&self, access: &Arc<RedisAccess>, tasks: &Tasks) {
        let access = Arc::clone(access);
        let prefix = self.sealer.prefix().to_owned();
        let link = Arc::clone(&self.link);
        tasks.spawn_owned(Task::RedisProbe, async move {
            if let Err(fault) = probe(&access, &prefix, &[RedisUse::Read]).await {
                link.read_faults.fault(fault, clock::now());
            }
        });
    }

    /// Returns the entry under `key`, or why there is none.
    pub(super) async fn get<K: LookupKind>(
        &self,
        key: &K::Key,
        lane: Lane,
        trace: &LookupTrace,
    ) -> Result<Unsealed<StoredEntry<K::Value>>, LookupResult> {
        if !self.link.breaker.admits(clock::now()) {
            return Err(LookupResult::Open);
        }
        let redis_key = redis_key::<K>(self.sealer.prefix(), key);
        let question = StoreQuestion { store: Store::Redis, kind: K::NAME, table: K::TABLE };
        let asked = clock::now();
        let answer = timeout(self.link.timeout, self.reads.get(redis_key.clone(), lane)).await;
        let sealed = match answer {
            Ok(Ok((Ok(reply), trip))) => {
                trace.answered(question, trip);
                reply.ok_or(LookupResult::Miss)?
            }
            // Redis was not asked, which says nothing about its health.
            Ok(Err(Unanswered::Shed)) => return Err(LookupResult::Unavailable),
            Ok(Ok((Err(Unavailable), _)) | Err(Unanswered::Failed)) | Err(_) => {
                let error = if answer.is_err() { "timeout" } else { "unavailable" };
                trace.unanswered(question, asked, error);
                self.link.failed();
                return Err(LookupResult::Unavailable);
            }
        };
        self.sealer.open(SealPurpose::Entries, &redis_key, &sealed).map_err(|reason| {
            let now = clock::now();
            match reason.reported(self.started, now) {
                SealFault::Retired(key) => {
                    self.note_a_retired_key(&key, now);
                    LookupResult::Retired
                }
                SealFault::Refused(key) => {
                    self.warn_of_a_foreign_seal(key.as_ref(), now);
                    LookupResult::Refused
                }
            }
        })
    }

    fn note_a_retired_key(&self, key: &KeyId, now: Tick) {
        if self.retired.passes(now, SEALS_EVERY) {
            tracing::info!(
                key = key.as_str(),
                "entries in Redis are left that name a key which is not in the key ring; they are not \
                 used, and expire within minutes",
            );
        }
    }

    /// Logs, at intervals, that an entry was not sealed by this key ring. `key` is the one that it names,
    /// if the ring has no such key.
    fn warn_of_a_foreign_seal(&self, key: Option<&KeyId>, now: Tick) {
        if self.refused.passes(now, SEALS_EVERY) {
            tracing::warn!(
                key = key.map(KeyId::as_str),
                prefix = self.sealer.prefix(),
                "an entry in Redis is not sealed by this key ring and is not used: replicas have \
                 different key rings, or are of different releases, or another program writes to \
                 Redis",
            );
        }
    }

    /// Queues an entry to be written, or drops it. No caller waits for it.
    pub(super) fn put<K: LookupKind>(&self, key: &K::Key, found: &Found<K::Value>, ttl: Duration) {
        let redis_key = redis_key::<K>(self.sealer.prefix(), key);
        let value = found.value.as_deref();
        let entry = StoredEntry { verified: found.verified, stamp: &*found.stamp, value };
        let sealed = self.sealer.seal(SealPurpose::Entries, &redis_key, &entry).ok();
        let write = sealed.map(|sealed| QueuedWrite { key: redis_key, sealed, ttl });
        if write.is_none_or(|write| self.writes.try_send(write).is_err()) {
            self.metrics.dropped_write();
        }
    }
}

/// The Redis key for `key`; `prefix` is that of the installation.
pub(crate) fn redis_key<K: LookupKind>(prefix: &str, key: &K::Key) -> String {
    format!("{prefix}{}:{key}", K::NAME)
}

async fn write_behind(link: Arc<Link>, ring: LiveRing, mut waiting: mpsc::Receiver<QueuedWrite>) {
    let mut writes = Vec::new();
    while waiting.recv_many(&mut writes, MAX_WRITE_BATCH).await > 0 {
        // No replica with the current ring would use the others.
        let taken = writes.len();
        writes.retain(|write: &QueuedWrite| ring.holds(write.sealed.key));
        (writes.len()..taken).for_each(|_| link.metrics.dropped_write());
        if writes.is_empty() {
            continue;
        }
        let request = RedisRequest::Write(std::mem::take(&mut writes));
        let admitted = link.breaker.admits(clock::now());
        let replies = match admitted {
            true => link.run(&request, &link.write_faults).await,
            false => Err(Unavailable),
        };
        if admitted && replies.is_err() {
            link.failed();
        }
        let written = replies.into_iter().flatten().filter(Result::is_ok).count();
        (written..request.len()).for_each(|_| link.metrics.dropped_write());
    }
}

/// The connections to Redis, and an estimate of its health.
struct Link {
    pool: Pool<RedisConnections>,
    access: Arc<RedisAccess>,
    timeout: Duration,
    breaker: Breaker,
    read_faults: FaultLog,
    write_faults: FaultLog,
    metrics: Metrics,
}

impl Link {
    fn new(
        config: &config::RedisSettings,
        access: &Arc<RedisAccess>,
        metrics: Metrics,
    ) -> Result<Self, BuildError> {
        let connections = RedisConnections::new(Arc::clone(access), LIMITS);
        let pool =
            Pool::builder(connections).max_size(config.max_connections.max(1) + 1).build()?;
        Ok(Self {
            pool,
            access: Arc::clone(access),
            timeout: config.timeout,
            breaker: Breaker::default(),
            read_faults: FaultLog::new("lookups go to Postgres until it can"),
            write_faults: FaultLog::new("the results of lookups are not shared until it can"),
            metrics,
        })
    }

    /// Records one failed lookup or write. Call it once per operation, not per command: several
    /// operations may have shared a command, and a caller gives up on its lookup before its
    /// connection does.
    fn failed(&self) {
        if self.breaker.failed(clock::now()) {
            // If the network path was lost without an error, the other connections in the pool are
            // dead as well, and each would cost one attempt.
            self.pool.retain(|_, _| false);
        }
    }

    /// Makes one round trip; in a cluster, one for each key. Returns an error if all of them failed.
    async fn run(
        &self,
        request: &RedisRequest,
        fault_log: &FaultLog,
    ) -> Result<Vec<Result<Option<Vec<u8>>, Unavailable>>, Unavailable> {
        let replies = match self.attempt(request).await {
            Ok(replies) => replies,
            Err(failure) => {
                self.metrics.failure(Store::Redis);
                self.report(failure, fault_log);
                return Err(Unavailable);
            }
        };
        let mut answered = replies.is_empty();
        let mut judged = Vec::with_capacity(replies.len());
        for reply in replies {
            match reply {
                Ok(value) => {
                    answered = true;
                    judged.push(Ok(value));
                }
                Err(failure) => {
                    self.metrics.failure(Store::Redis);
                    self.report(failure, fault_log);
                    judged.push(Err(Unavailable));
                }
            }
        }
        if !answered {
            return Err(Unavailable);
        }
        self.breaker.succeeded();
        if judged.iter().all(Result::is_ok) {
            fault_log.recovered(clock::now());
        }
        Ok(judged)
    }

    fn report(&self, failure: Failure, fault_log: &FaultLog) {
        match failure {
            Failure::Amid(_) if !self.breaker.is_open() => {}
            Failure::Fault(fault) | Failure::Amid(fault) => fault_log.fault(fault, clock::now()),
            Failure::Busy => {}
        }
    }

    /// Closes a connection that fails, or does not answer in time.
    async fn attempt(&self, request: &RedisRequest) -> Result<Replies, Failure> {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Failure::Fault(RedisFault::from(&error)),
            _ => Failure::Busy,
        })?;
        (0..request.commands(&connection)).for_each(|_| self.metrics.command(Store::Redis));
        let sent = request.send(&mut connection, self.timeout).await;
        if sent.must_close {
            drop(Object::take(connection));
        }
        if sent.leads_elsewhere && self.access.finds_the_master() {
            // So do the other connections. The next one leads to the new master.
            self.pool.retain(|_, _| false);
        }
        sent.replies
    }
}
