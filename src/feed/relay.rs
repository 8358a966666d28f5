//! Carries the feed from one replica to the others: a Redis stream of frames, each one poll.
//!
//! Redis may lose, delay, repeat or reorder frames, and so may anything that can write there. None
//! of it does harm. A frame is sealed for one installation, whose stream has a name of its own. It
//! names the snapshot from which it continues, so a missing frame is noticed, and a repeated one
//! changes nothing. How fresh it is, each follower learns from statements of its own
//! (`freshness/record.rs`). So it does not matter which replica leads, or whether two do for a
//! while. The epoch only lets followers ignore a leader that was replaced.
//!
//! Leases go the other way: each follower leaves its own in a hash, and the leader writes them to
//! Postgres.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, streams::StreamReadReply};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::lease::LeaseRow;
use crate::{
    clock::{self, Tick},
    freshness::{Change, Lineage, Poll, Stamp, Triggers},
    keyring::{KeySerial, LiveRing},
    redis_client::{
        access::RedisAccess,
        connection::RedisConnection,
        connections::RedisConnections,
        connector::ConnectionLimits,
        fault::{self, RedisFault},
        fault_log::FaultLog,
    },
    seal::{NotOpened, SealFault, SealPurpose, Sealer, Unsealed},
    snapshot::{Snapshot, Xid},
};

/// How long a new connection may take; and a command, beyond the time that it is meant to block.
const PATIENCE: Duration = Duration::from_secs(1);
/// A follower waits for frames for seconds.
const LIMITS: ConnectionLimits =
    ConnectionLimits { within: Some(PATIENCE), silence: Duration::from_secs(5) };
/// Frames that are kept for followers that are late; what is older, they read in Postgres.
const KEPT: usize = 256;
/// If a poll brought more changes, its frame says that everything may have changed, and each entry
/// is read again when it is used.
const MOST_IN_A_FRAME: usize = 5_000;
/// If this process stood still, a reply may have arrived although its time is up. It is read.
const ONE_LOOK: Duration = Duration::from_millis(300);
/// An entry of the stream is a map, of which this is the only field.
const FIELD: &str = "f";
/// The position before the first entry of any stream.
const BEGINNING: &str = "0-0";
/// The position after the last entry, whichever that is.
const END: &str = "$";

/// One poll, as the leader publishes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RelayFrame {
    epoch: u64,
    stamp: Stamp,
    triggers: Triggers,
    horizon: Snapshot,
    after: Option<Snapshot>,
    changes: Vec<(Xid, Change)>,
}

impl RelayFrame {
    fn new(epoch: u64, poll: &Poll) -> Self {
        let Poll { sent: _, stamp, triggers, horizon, after, changes } = poll.clone();
        if changes.len() > MOST_IN_A_FRAME {
            let horizon = stamp.snapshot.clone();
            return Self { epoch, stamp, triggers, horizon, after: None, changes: Vec::new() };
        }
        Self { epoch, stamp, triggers, horizon, after, changes }
    }

    fn poll(self, now: Tick) -> Poll {
        let Self { epoch: _, stamp, triggers, horizon, after, changes } = self;
        Poll { sent: now, stamp, triggers, horizon, after, changes }
    }
}

/// Why a command to the relay failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("Redis: {}", RedisFault::from(.0))]
    Redis(#[from] RedisError),
    #[error("Redis did not answer in time")]
    Timeout,
    #[error("a frame cannot be written: {0}")]
    Seal(#[from] postcard::Error),
}

/// A poll of the leader.
pub(super) struct RelayedPoll {
    pub(super) poll: Poll,
    /// The key that sealed its frame.
    pub(super) seal: KeySerial,
}

/// What was read: polls of the leader, and how many frames were not used.
#[derive(Default)]
pub(super) struct ReceivedFrames {
    pub(super) polls: Vec<RelayedPoll>,
    /// Frames of keys that are no longer in the ring.
    pub(super) retired: usize,
    /// Frames that were not sealed by this key ring for this installation, or cannot be read.
    pub(super) refused: usize,
    /// Frames of a leader that was replaced.
    pub(super) superseded: usize,
}

/// The highest epoch of a lineage in a frame, and the key that sealed the frame.
struct KnownEpoch {
    lineage: Lineage,
    epoch: u64,
    seal: KeySerial,
}

/// This replica's end of the stream: it reads the frames, and writes them while it leads.
pub(crate) struct Relay {
    connections: RedisConnections,
    sealer: Sealer,
    /// Keys that were dropped before then may have left frames.
    started: Tick,
    connection: Option<RedisConnection>,
    /// The last entry of the stream that was read.
    position: String,
    /// The highest epoch in a frame.
    epoch: Option<KnownEpoch>,
    stream: String,
    leases: String,
    fault_log: FaultLog,
}

impl Relay {
    pub(crate) fn new(access: &Arc<RedisAccess>, sealer: Sealer) -> Self {
        let stream = format!("{}feed", sealer.prefix());
        let leases = format!("{}leases", sealer.prefix());
        Self {
            connections: RedisConnections::new(Arc::clone(access), LIMITS),
            sealer,
            started: clock::now(),
            connection: None,
            position: BEGINNING.to_owned(),
            epoch: None,
            stream,
            leases,
            fault_log: FaultLog::new("the feed of changes is not relayed until it can"),
        }
    }

    /// Returns the ring with which frames are opened.
    pub(super) fn ring(&self) -> &LiveRing {
        self.sealer.ring()
    }

    /// Sends a poll to the followers.
    pub(super) async fn publish(&mut self, epoch: u64, poll: &Poll) -> Result<(), RelayError> {
        let frame = RelayFrame::new(epoch, poll);
        let sealed = self.sealer.seal(SealPurpose::Relay, &self.stream, &frame)?;
        let mut add = redis::cmd("XADD");
        add.arg(&self.stream)
            .arg("MAXLEN")
            .arg("~")
            .arg(KEPT)
            .arg("*")
            .arg(FIELD)
            .arg(sealed.bytes);
        match self.run::<Value>(&add, PATIENCE).await {
            // Another client put something else in its place, or used up all ids.
            Err(RelayError::Redis(error)) if matches!(error.code(), Some("WRONGTYPE" | "ERR")) => {
                let _: Value = self.run(redis::cmd("DEL").arg(&self.stream), PATIENCE).await?;
                self.run::<Value>(&add, PATIENCE).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }

    /// Waits for frames, at most for `patience`.
    pub(super) async fn receive(
        &mut self,
        patience: Duration,
    ) -> Result<ReceivedFrames, RelayError> {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(KEPT).arg("BLOCK").arg(milliseconds);
        read.arg("STREAMS").arg(&self.stream).arg(&self.position);
        let reply: Option<StreamReadReply> = self.run(&read, patience + PATIENCE).await?;
        let mut heard = ReceivedFrames::default();
        for mut entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            let frame = match entry.map.remove(FIELD) {
                Some(Value::BulkString(sealed)) => {
                    self.sealer.open::<RelayFrame>(SealPurpose::Relay, &self.stream, &sealed)
                }
                _ => Err(NotOpened::Forged),
            };
            match frame {
                Err(reason) => match reason.reported(self.started, clock::now()) {
                    SealFault::Retired(_) => heard.retired += 1,
                    SealFault::Refused(_) => heard.refused += 1,
                },
                Ok(Unsealed { payload: frame, key: seal }) => {
                    if self.is_superseded(&frame, seal) {
                        heard.superseded += 1;
                    } else {
                        heard.polls.push(RelayedPoll { poll: frame.poll(clock::now()), seal });
                    }
                }
            }
            self.position = entry.id;
        }
        Ok(heard)
    }

    fn is_superseded(&mut self, frame: &RelayFrame, seal: KeySerial) -> bool {
        let lineage = frame.stamp.lineage;
        // Frames are not believed about which server is the current one, and the thief of a key must not
        // silence the leaders that come after it has left the ring.
        let in_force = |known: &&KnownEpoch| self.sealer.ring().holds(known.seal);
        let known = self.epoch.as_ref().filter(|known| known.lineage == lineage).filter(in_force);
        if known.is_some_and(|known| frame.epoch < known.epoch) {
            return true;
        }
        if known.is_none_or(|known| frame.epoch > known.epoch) {
            self.epoch = Some(KnownEpoch { lineage, epoch: frame.epoch, seal });
        }
        false
    }

    /// Reads the stream from its beginning the next time: it may have been replaced by then.
    pub(super) fn rewind(&mut self) {
        self.position = BEGINNING.to_owned();
    }

    /// Reads only frames that are added from the next read on.
    pub(super) fn skip(&mut self) {
        self.position = END.to_owned();
    }

    /// Leaves a lease for the leader.
    pub(super) async fn write_lease(&mut self, lease: &LeaseRow) -> Result<(), RelayError> {
        let place = self.place_of(lease.id);
        let sealed = self.sealer.seal(SealPurpose::Relay, &place, lease)?;
        let mut set = redis::cmd("HSET");
        set.arg(&self.leases).arg(lease.id.to_string()).arg(sealed.bytes);
        self.run::<Value>(&set, PATIENCE).await.map(drop)
    }

    /// Returns all leases that were left, including those of replicas that are gone.
    pub(super) async fn leases(&mut self) -> Result<Vec<LeaseRow>, RelayError> {
        let mut get = redis::cmd("HGETALL");
        get.arg(&self.leases);
        let left: HashMap<String, Vec<u8>> = self.run(&get, PATIENCE).await?;
        let opened = left.iter().filter_map(|(id, sealed)| {
            let id = id.parse().ok()?;
            self.sealer.open(SealPurpose::Relay, &self.place_of(id), sealed).ok()
        });
        let opened = opened.map(|unsealed| unsealed.payload);
        Ok(opened.collect())
    }

    /// Deletes leases.
    pub(super) async fn remove(&mut self, ids: &[Uuid]) -> Result<(), RelayError> {
        let mut delete = redis::cmd("HDEL");
        delete.arg(&self.leases).arg(ids.iter().map(Uuid::to_string).collect::<Vec<_>>());
        self.run::<Value>(&delete, PATIENCE).await.map(drop)
    }

    fn place_of(&self, id: Uuid) -> String {
        format!("{}:{id}", self.leases)
    }

    /// A connection whose command failed or came late is not used again, nor one that leads to a
    /// server that is not the master any more.
    async fn run<T: redis::FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
        patience: Duration,
    ) -> Result<T, RelayError> {
        let kept = self.connection.take();
        let mut connection = match kept.filter(|kept| self.connections.are_current(kept)) {
            Some(connection) => connection,
            None => self.connections.connect().await?,
        };
        let reply = {
            let mut reply = pin!(command.query_async(&mut connection));
            match timeout(patience, &mut reply).await {
                Ok(reply) => reply,
                Err(_) => timeout(ONE_LOOK, reply).await.map_err(|_| RelayError::Timeout)?,
            }
        };
        // That Redis cannot be reached is reported by the lookups.
        if let Err(error) = &reply
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        {
            self.fault_log.fault(RedisFault::from(error), clock::now());
        }
        let is_lost = |error: &RedisError| error.is_io_error() || fault::leads_elsewhere(error);
        if !reply.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
        }
        Ok(reply?)
    }
}
