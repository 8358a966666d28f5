//! What is asked of Redis together, and how it is sent: to one server in one round trip, to a cluster
//! key by key.
//!
//! In a cluster, a command may name only keys of one slot, and the ids in the keys spread them over
//! all slots. So each key is a command of its own, over connections that are shared: the nodes answer
//! side by side, and a node that fails costs its own keys only.

use std::{future::Future, time::Duration};

use futures_util::future::join_all;
use redis::{
    Cmd, FromRedisValue, Pipeline, RedisError, aio::MultiplexedConnection,
    cluster_async::ClusterConnection,
};
use tokio::time::timeout;

use crate::{
    redis_client::{
        connection::{RedisConnection, RedisNodes},
        fault::{self, RedisFault},
    },
    seal::SealedBytes,
};

/// The replies in the order of the keys. A write has no value.
pub(super) type Replies = Vec<Result<Option<Vec<u8>>, Failure>>;

/// Keys that are read together, or entries that are written together.
pub(super) enum RedisRequest {
    /// The values of these keys.
    Read(Vec<String>),
    Write(Vec<QueuedWrite>),
}

/// An entry to write.
pub(super) struct QueuedWrite {
    pub(super) key: String,
    pub(super) sealed: SealedBytes,
    pub(super) ttl: Duration,
}

/// Why a command has no answer.
pub(super) enum Failure {
    /// The connection could not be made, or the server reported an error.
    Fault(RedisFault),
    /// The connection failed during a command. Once means little: the server was restarted, or is
    /// busy.
    Amid(RedisFault),
    /// No connection was free.
    Busy,
}

/// The outcome of a request.
pub(super) struct Sent {
    /// An error if there is no reply to any key.
    pub(super) replies: Result<Replies, Failure>,
    /// Whether the connection must not be used again.
    pub(super) must_close: bool,
    /// Whether a server said that it is not the one to ask.
    pub(super) leads_elsewhere: bool,
}

/// Why one command failed.
enum CommandError {
    Redis(RedisError),
    Silence(Duration),
}

impl RedisRequest {
    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Read(keys) => keys.len(),
            Self::Write(writes) => writes.len(),
        }
    }

    /// The number of round trips that it takes over this connection.
    pub(super) fn commands(&self, connection: &RedisConnection) -> usize {
        match connection.nodes {
            RedisNodes::One(_) => 1,
            RedisNodes::Cluster(_) => self.len(),
        }
    }

    /// Waits for each answer at most for `limit`.
    pub(super) async fn send(&self, connection: &mut RedisConnection, limit: Duration) -> Sent {
        match &mut connection.nodes {
            RedisNodes::One(node) => Sent::to_one(within(limit, self.at_once(node)).await),
            RedisNodes::Cluster(nodes) => Sent::to_cluster(self.key_by_key(nodes, limit).await),
        }
    }

    async fn at_once(
        &self,
        node: &mut MultiplexedConnection,
    ) -> Result<Vec<Option<Vec<u8>>>, RedisError> {
        match self {
            Self::Read(keys) => redis::cmd("MGET").arg(keys).query_async(node).await,
            Self::Write(writes) => {
                let mut pipeline = Pipeline::with_capacity(writes.len());
                for write in writes {
                    pipeline.add_command(write.command()).ignore();
                }
                pipeline.exec_async(node).await?;
                Ok(vec![None; writes.len()])
            }
        }
    }

    async fn key_by_key(
        &self,
        nodes: &ClusterConnection,
        limit: Duration,
    ) -> Vec<Result<Option<Vec<u8>>, CommandError>> {
        match self {
            // The same command as to one server, so that the same permissions are enough.
            Self::Read(keys) => {
                let replies = keys.iter().map(|key| {
                    let mut command = redis::cmd("MGET");
                    command.arg(key);
                    query::<Vec<Option<Vec<u8>>>>(command, nodes, limit)
                });
                let replies = join_all(replies).await.into_iter();
                replies
                    .map(|reply| reply.map(|values| values.into_iter().next().flatten()))
                    .collect()
            }
            Self::Write(writes) => {
                let replies = writes.iter().map(|write| query::<()>(write.command(), nodes, limit));
                let replies = join_all(replies).await.into_iter();
                replies.map(|reply| reply.map(|()| None)).collect()
            }
        }
    }
}

impl QueuedWrite {
    fn command(&self) -> Cmd {
        let milliseconds = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        Cmd::pset_ex(&self.key, &self.sealed.bytes, milliseconds)
    }
}

async fn query<T: FromRedisValue>(
    command: Cmd,
    nodes: &ClusterConnection,
    limit: Duration,
) -> Result<T, CommandError> {
    let mut nodes = nodes.clone();
    within(limit, command.query_async(&mut nodes)).await
}

async fn within<T>(
    limit: Duration,
    answered: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, CommandError> {
    match timeout(limit, answered).await {
        Ok(answer) => answer.map_err(CommandError::Redis),
        Err(_) => Err(CommandError::Silence(limit)),
    }
}

impl Sent {
    /// A connection whose command failed or was late is closed: nothing that still arrives on it can
    /// be taken for the answer to another command.
    fn to_one(reply: Result<Vec<Option<Vec<u8>>>, CommandError>) -> Self {
        let must_close = reply.is_err();
        let leads_elsewhere = reply.as_ref().is_err_and(CommandError::leads_elsewhere);
        let replies = match reply {
            Ok(values) => Ok(values.into_iter().map(Ok).collect()),
            Err(error) => Err(error.into()),
        };
        Self { replies, must_close, leads_elsewhere }
    }

    /// After an error, the crate mends the connection to the node that failed, and the others can be
    /// used meanwhile. It does not notice a node that is silent. A late answer reaches no other
    /// command here, either: the crate counts them, and an entry opens only under its own key.
    fn to_cluster(replies: Vec<Result<Option<Vec<u8>>, CommandError>>) -> Self {
        let must_close = replies.iter().any(|reply| matches!(reply, Err(CommandError::Silence(_))));
        let replies = replies.into_iter().map(|reply| reply.map_err(Failure::from)).collect();
        Self { replies: Ok(replies), must_close, leads_elsewhere: false }
    }
}

impl CommandError {
    fn leads_elsewhere(&self) -> bool {
        matches!(self, Self::Redis(error) if fault::leads_elsewhere(error))
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Redis(error) if error.is_io_error() => {
                Self::Amid(RedisFault::from(&error))
            }
            CommandError::Redis(error) => Self::Fault(RedisFault::from(&error)),
            CommandError::Silence(after) => Self::Amid(RedisFault::silence(after)),
        }
    }
}
