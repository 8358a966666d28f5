//! Makes connections with the logins and certificates of one moment.

use std::{io, time::Duration};

use deadpool::managed::Manager as _;
use deadpool_redis::Manager;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError,
    cluster::{ClusterClient, ClusterConfig},
};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::{connection::RedisNodes, file_contents::FileContents, sentinels::Sentinels};
use crate::config::{RedisSettings, RedisTopology};

/// How often the crate repeats a command to a cluster that was sent to the wrong node, or at a bad
/// moment. The caller's time limit ends it earlier.
const REDIRECTS: u32 = 4;
/// The shortest and the longest pause before that, in milliseconds.
const REDIRECT_PAUSES: (u64, u64) = (1, 50);
/// How long a connection to one node of a cluster may take. Connecting to a cluster waits twice for
/// nodes, those of `redis.url` and then all of them, and each time for one that is silent. So does
/// reading the slots again, for which all commands over a connection wait.
const NODE_PATIENCE: Duration = Duration::from_millis(500);

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// For making the connection, with its TLS and authentication; if `None`, the caller limits it.
    /// Finding a master or the nodes of a cluster may take some time in addition.
    pub(crate) within: Option<Duration>,
    /// The longest time for which the node of a cluster may be silent, before the crate gives up a
    /// command. In other topologies, the caller alone limits it.
    pub(crate) silence: Duration,
}

/// Makes connections, in the way that the topology needs.
pub(super) enum Connector {
    Single(Box<Manager>),
    Sentinel(Box<Sentinels>),
    Cluster(Box<ClusterClient>),
}

impl Connector {
    /// # Errors
    ///
    /// If the crate cannot use these settings.
    pub(super) fn new(settings: &RedisSettings, files: &FileContents) -> Result<Self, RedisError> {
        let servers = settings.urls.iter().map(|url| server(url.expose_secret(), files));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        match &settings.topology {
            RedisTopology::Single => {
                let server = servers.into_iter().next().ok_or_else(no_server)?;
                // Otherwise the crate's own timeouts would apply, some of which are shorter than
                // patgate's.
                Manager::new_with_config(server, untimed()).map(Box::new).map(Self::Single)
            }
            RedisTopology::Sentinel(sentinel) => {
                Sentinels::new(sentinel, servers, files).map(Box::new).map(Self::Sentinel)
            }
            RedisTopology::Cluster => cluster(servers, files).map(Box::new).map(Self::Cluster),
        }
    }

    /// # Errors
    ///
    /// If no server can be reached, or one refuses the user, the password or the database.
    pub(super) async fn connect(&self, limits: ConnectionLimits) -> Result<RedisNodes, RedisError> {
        match self {
            Self::Single(manager) => within(limits, manager.create()).await.map(RedisNodes::One),
            Self::Sentinel(sentinels) => {
                // It has a time limit of its own: a Sentinel that is down must not take the time
                // of the next one.
                let master = sentinels.master().await?;
                let config = untimed();
                let connected = master.get_multiplexed_async_connection_with_config(&config);
                within(limits, connected).await.map(RedisNodes::One)
            }
            Self::Cluster(client) => {
                let config = ClusterConfig::new().set_response_timeout(limits.silence);
                let connected = client.get_async_connection_with_config(config);
                // Otherwise a node that is silent would make the cluster unreachable.
                let limits = ConnectionLimits {
                    within: limits.within.map(|limit| limit + 2 * NODE_PATIENCE),
                    ..limits
                };
                within(limits, connected).await.map(RedisNodes::Cluster)
            }
        }
    }
}

fn untimed() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

async fn within<T>(
    limits: ConnectionLimits,
    connected: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    match limits.within {
        None => connected.await,
        Some(limit) => timeout(limit, connected).await.unwrap_or_else(|_| {
            let late = format!("no connection within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
        }),
    }
}

/// One address, with the login and the certificates.
fn server(url: &str, files: &FileContents) -> Result<ConnectionInfo, RedisError> {
    let mut server = url.into_connection_info()?;
    if let Some(password) = &files.password {
        let login = server.redis_settings().clone().set_password(password.as_str());
        server = server.set_redis_settings(login);
    }
    match (server.addr(), files.certificates()) {
        (ConnectionAddr::TcpTls { .. }, Some(certificates)) => {
            let client = Client::build_with_tls(server, certificates)?;
            Ok(client.get_connection_info().clone())
        }
        _ => Ok(server),
    }
}

fn cluster(
    servers: Vec<ConnectionInfo>,
    files: &FileContents,
) -> Result<ClusterClient, RedisError> {
    let (shortest, longest) = REDIRECT_PAUSES;
    let mut builder = ClusterClient::builder(servers)
        .retries(REDIRECTS)
        .min_retry_wait(shortest)
        .max_retry_wait(longest)
        .retry_wait_formula(shortest, 2)
        .connection_timeout(NODE_PATIENCE)
        // Of its own, a caller's time limit.
        .overall_response_timeout(None);
    if let Some(certificates) = files.certificates() {
        builder = builder.certs(certificates);
    }
    builder.build()
}

fn no_server() -> RedisError {
    (redis::ErrorKind::InvalidClientConfig, "redis.url names no server").into()
}
