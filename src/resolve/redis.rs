//! The Redis tier: a shared cache that may vanish, stall or lie without doing harm.
//!
//! A lookup waits for Redis at most for `redis.timeout` (20 ms by default). After several failures
//! in a row, patgate only sends it one attempt per second. A connection whose command failed or
//! timed out is closed and never used again, so a late reply cannot reach another caller. Entries
//! are sealed (`seal.rs`), and their lifetime counts from when they are written.

use std::{future::Future, sync::Arc, time::Duration};

use deadpool::managed::{Object, Pool, PoolError};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Found, Load, LookupKind, Unavailable,
    batch::{Batcher, Unanswered},
    breaker::Breaker,
    lanes::Lane,
};
use crate::{
    clock::{self, Moment},
    config,
    freshness::Stamp,
    process::tasks::Tasks,
    redis_client::{
        connections::RedisConnections,
        fault::RedisFault,
        fault_log::FaultLog,
        probe::{RedisUse, probe},
    },
    seal::{SealPurpose, Sealer},
    telemetry::{LookupResult, Metrics, Store},
    throttle::Throttle,
};

/// Time limit for a new connection, its TLS and authentication. Lookups do not wait that long for
/// it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many entries may wait to be written; patgate drops and counts the rest.
const MAX_WRITES: usize = 4096;
const MAX_WRITE_BATCH: usize = 256;
/// How often patgate logs that entries were not sealed by this key ring.
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
    reads: Batcher<String, Option<Vec<u8>>>,
    writes: mpsc::Sender<QueuedWrite>,
    link: Arc<Link>,
    sealer: Sealer,
    seals: Throttle,
    metrics: Metrics,
}

struct QueuedWrite {
    key: String,
    sealed: Vec<u8>,
    ttl: Duration,
}

impl RedisTier {
    /// Connects at the first question, so that a Redis that is down does not prevent a start.
    pub(crate) fn spawn(
        config: &config::RedisSettings,
        sealer: Sealer,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, RedisError> {
        let link = Arc::new(Link::new(config, metrics.clone())?);
        let at_once = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
        // The caller's own timeout limits the wait. A lookup that exceeds it goes to Postgres.
        let load = Arc::new(Load::new(at_once, Duration::MAX));
        let reader = Arc::clone(&link);
        let reads = Batcher::spawn(tasks, load, move |keys: Vec<String>| {
            let link = Arc::clone(&reader);
            async move { link.run(redis::cmd("MGET").arg(&keys), &link.read_faults).await }
        });
        let (writes, waiting) = mpsc::channel(MAX_WRITES);
        tasks.spawn_owned("writer to Redis", write_behind(Arc::clone(&link), waiting));
        let seals = Throttle::default();
        Ok(Arc::new(Self { reads, writes, link, sealer, seals, metrics }))
    }

    /// Tries whether this replica can log in to Redis and read, so that the log reports a problem
    /// before the first lookup. No caller waits for it.
    pub(crate) fn probe_in_background(&self, config: &config::RedisSettings, tasks: &Tasks) {
        let config = config.clone();
        let prefix = self.sealer.prefix().to_owned();
        let link = Arc::clone(&self.link);
        tasks.spawn_owned("first contact with Redis", async move {
            if let Err(fault) = probe(&config, &prefix, &[RedisUse::Read]).await {
                link.read_faults.fault(fault, clock::now());
            }
        });
    }

    /// Returns the entry under `key`, or why there is none.
    pub(super) async fn get<K: LookupKind>(
        &self,
        key: &K::Key,
        lane: Lane,
    ) -> Result<StoredEntry<K::Value>, LookupResult> {
        if !self.link.breaker.admits(clock::now()) {
            return Err(LookupResult::Open);
        }
        let redis_key = redis_key::<K>(self.sealer.prefix(), key);
        let sealed = match timeout(self.link.timeout, self.reads.get(redis_key.clone(), lane)).await
        {
            Ok(Ok(reply)) => reply.ok_or(LookupResult::Miss)?,
            // Redis was not asked, which says nothing about its health.
            Ok(Err(Unanswered::Shed)) => return Err(LookupResult::Unavailable),
            Ok(Err(Unanswered::Failed)) | Err(_) => {
                self.link.failed();
                return Err(LookupResult::Unavailable);
            }
        };
        self.sealer.open(SealPurpose::Entries, &redis_key, &sealed).ok_or(LookupResult::Refused)
    }

    /// Logs, at intervals, that an entry was not sealed by this key ring.
    pub(super) fn warn_of_foreign_seals(&self) {
        if self.seals.passes(clock::now(), SEALS_EVERY) {
            tracing::warn!(
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

async fn write_behind(link: Arc<Link>, mut waiting: mpsc::Receiver<QueuedWrite>) {
    let mut writes = Vec::new();
    while waiting.recv_many(&mut writes, MAX_WRITE_BATCH).await > 0 {
        let mut pipeline = Pipeline::with_capacity(writes.len());
        for QueuedWrite { key, sealed, ttl } in writes.drain(..) {
            let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            pipeline.pset_ex(key, sealed, milliseconds).ignore();
        }
        let count = pipeline.cmd_iter().count();
        let admitted = link.breaker.admits(clock::now());
        let written = admitted && link.run(&pipeline, &link.write_faults).await == Ok(());
        if admitted && !written {
            link.failed();
        }
        if !written {
            (0..count).for_each(|_| link.metrics.dropped_write());
        }
    }
}

/// A command that can be sent over a connection, with an answer of type `T`.
trait RedisRequest<T> {
    fn send(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = Result<T, RedisError>> + Send;
}

impl<T: FromRedisValue> RedisRequest<T> for Cmd {
    async fn send(&self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        self.query_async(connection).await
    }
}

impl<T: FromRedisValue> RedisRequest<T> for Pipeline {
    async fn send(&self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        self.query_async(connection).await
    }
}

/// The connections to one server, and an estimate of its health.
struct Link {
    pool: Pool<RedisConnections>,
    timeout: Duration,
    breaker: Breaker,
    read_faults: FaultLog,
    write_faults: FaultLog,
    metrics: Metrics,
}

/// Why a command has no answer.
enum Failure {
    /// The connection could not be made, or the server reported an error.
    Fault(RedisFault),
    /// The connection failed during a command. Once means little: the server was restarted, or is
    /// busy.
    Amid(RedisFault),
    /// No connection was free.
    Busy,
}

impl Link {
    fn new(config: &config::RedisSettings, metrics: Metrics) -> Result<Self, RedisError> {
        let connections = RedisConnections::new(&config.url, Some(CONNECT_TIMEOUT))?;
        let pool = Pool::builder(connections).max_size(config.max_connections.max(1) + 1).build();
        let pool = pool.map_err(|error| {
            RedisError::from((redis::ErrorKind::InvalidClientConfig, "pool", error.to_string()))
        })?;
        Ok(Self {
            pool,
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

    /// Makes one round trip. A connection that fails, or does not answer in time, is closed.
    async fn run<T>(
        &self,
        request: &impl RedisRequest<T>,
        fault_log: &FaultLog,
    ) -> Result<T, Unavailable> {
        match self.attempt(request).await {
            Ok(reply) => {
                self.breaker.succeeded();
                fault_log.recovered(clock::now());
                Ok(reply)
            }
            Err(failure) => {
                self.metrics.failure(Store::Redis);
                match failure {
                    Failure::Amid(_) if !self.breaker.is_open() => {}
                    Failure::Fault(fault) | Failure::Amid(fault) => {
                        fault_log.fault(fault, clock::now());
                    }
                    Failure::Busy => {}
                }
                Err(Unavailable)
            }
        }
    }

    async fn attempt<T>(&self, request: &impl RedisRequest<T>) -> Result<T, Failure> {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Failure::Fault(RedisFault::from(&error)),
            _ => Failure::Busy,
        })?;
        self.metrics.command(Store::Redis);
        let failure = match timeout(self.timeout, request.send(&mut connection)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) if error.is_io_error() => Failure::Amid(RedisFault::from(&error)),
            Ok(Err(error)) => Failure::Fault(RedisFault::from(&error)),
            Err(_) => Failure::Amid(RedisFault::silence(self.timeout)),
        };
        drop(Object::take(connection));
        Err(failure)
    }
}
