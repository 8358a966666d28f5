//! Listeners, health, and drain.

mod http;
pub(crate) mod ring_watch;

use std::{
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    clock, config,
    edge::grpc::{GrpcEdge, GrpcServer},
    process::tasks::Tasks,
    server::ring_watch::Objection,
    telemetry,
    throttle::Throttle,
    wire::codec::frame::SERVICE,
};

/// Pause after a connection could not be accepted, for example because of too many open files.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Minimum time between two log messages about the limit of connections.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The bound sockets. They are bound before anything else starts, so that a taken port is found at
/// once.
#[derive(Debug)]
pub(crate) struct Listeners {
    grpc: Option<TcpListener>,
    /// The file stays when patgate ends: it may belong to a successor by then, which replaces the
    /// file anyway.
    uds: Option<UnixListener>,
    http: Option<TcpListener>,
}

/// File descriptors that the HTTP listener may use.
pub(crate) const HTTP_DESCRIPTORS: usize = http::MAX_CONNECTIONS + 1;

impl Listeners {
    pub(crate) async fn bind(config: &config::ListenSettings) -> Result<Self, BindError> {
        let tcp = async |address: Option<SocketAddr>, key| match address {
            None => Ok(None),
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Some).map_err(|error| BindError::new(key, address.to_string(), error))
            }
        };
        let uds = match &config.uds {
            None => None,
            Some(path) => Some(bind_unix(path, config.uds_mode).map_err(|error| {
                BindError::new("listen.uds", path.display().to_string(), error)
            })?),
        };
        Ok(Self {
            grpc: tcp(config.grpc, "listen.grpc").await?,
            uds,
            http: tcp(config.http, "listen.http").await?,
        })
    }

    /// Returns the TCP address that serves gRPC.
    pub(crate) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref()?.local_addr().ok()
    }

    /// Returns the address that serves health and metrics.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }
}

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there, possibly another patgate.
    #[error("{key}: another process listens on {at}; stop it, or give {key} another value")]
    InUse {
        /// The setting that holds the address.
        key: &'static str,
        /// The address, as the setting has it.
        at: String,
    },
    /// Any other error.
    #[error("{key}: cannot listen on {at}: {error}")]
    Io {
        /// The setting that holds the address.
        key: &'static str,
        /// The address, as the setting has it.
        at: String,
        /// The operating system's reason.
        error: io::Error,
    },
}

impl BindError {
    fn new(key: &'static str, at: String, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { key, at },
            _ => Self::Io { key, at, error },
        }
    }
}

/// Replaces the socket file of a process that has ended; refuses to replace anything else.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Whether this replica should get traffic: from startup until the signal to stop, unless its key
/// ring has not signed the live tokens.
#[derive(Clone)]
struct Readiness {
    serving: Arc<AtomicBool>,
    objection: Objection,
}

impl Readiness {
    fn new(objection: Objection) -> Self {
        Self { serving: Arc::default(), objection }
    }

    fn set(&self, serving: bool) {
        self.serving.store(serving, Relaxed);
    }

    /// Why the replica is not ready.
    fn get(&self) -> Result<(), &'static str> {
        if !self.serving.load(Relaxed) {
            return Err("draining");
        }
        self.objection.get().map_or(Ok(()), Err)
    }

    fn status(&self) -> ServingStatus {
        self.get().map_or(ServingStatus::NotServing, |()| ServingStatus::Serving)
    }
}

/// The parts that `serve` needs.
pub(crate) struct Serving {
    pub(crate) edge: GrpcEdge,
    pub(crate) registry: Registry,
    pub(crate) lifetimes: Lifetimes,
    /// The reason why the replica is not ready, while there is one.
    pub(crate) objection: Objection,
}

/// How many connections to hold, and when to close them and end the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) max_connection_age: Duration,
    /// Per gRPC listener.
    pub(crate) max_connections: usize,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_grace: Duration,
}

/// Serves until `shutdown`, or until a task ends that should not, then drains: reports not ready,
/// continues to serve so that callers notice, sends GOAWAY, finishes the checks in progress, and
/// gives up after the grace period.
pub(crate) async fn run(
    listeners: Listeners,
    serving: Serving,
    tasks: &Tasks,
    shutdown: CancellationToken,
) {
    let Serving { edge, mut registry, lifetimes, mut objection } = serving;
    let readiness = Readiness::new(objection.clone());
    let closing = CancellationToken::new();
    let (reporter, health) = tonic_health::server::health_reporter();
    readiness.set(true);
    report(&reporter, readiness.status()).await;
    let connections = TaskTracker::new();
    let open = Family::<ListenerLabels, Gauge>::default();
    registry.sub_registry_with_prefix("patgate").register(
        "grpc_connections",
        "Open connections per gRPC listener",
        open.clone(),
    );
    let grpc = GrpcServer::new(edge, health);
    let gate = |listener| Acceptor {
        listener,
        grpc: grpc.clone(),
        max_connection_age: lifetimes.max_connection_age,
        places: Arc::new(Semaphore::new(lifetimes.max_connections)),
        complaints: Throttle::default(),
        open: open.get_or_create(&ListenerLabels { listener }).clone(),
        connections: connections.clone(),
        closing: closing.clone(),
    };
    if let Some(listener) = listeners.grpc {
        let gate = gate("tcp");
        tasks.spawn(
            "gRPC listener",
            closing.clone().run_until_cancelled_owned(async move {
                loop {
                    let place = gate.place().await;
                    let accepted = listener.accept().await.and_then(|(stream, _)| {
                        // Without this, an answer waits for the acknowledgement of the previous
                        // one.
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    });
                    gate.admit(accepted, place).await;
                }
            }),
        );
    }
    if let Some(listener) = listeners.uds {
        let gate = gate("uds");
        tasks.spawn(
            "gRPC listener",
            closing.clone().run_until_cancelled_owned(async move {
                loop {
                    let place = gate.place().await;
                    gate.admit(listener.accept().await.map(|(stream, _)| stream), place).await;
                }
            }),
        );
    }
    if let Some(listener) = listeners.http {
        let served = http::serve(listener, operations(readiness.clone(), registry));
        // Requests here are short; nothing is lost when the task ends with the process.
        tasks.spawn("HTTP listener", closing.clone().run_until_cancelled_owned(served));
    }
    if readiness.get().is_ok() {
        tracing::info!("ready");
    }

    let watched = async {
        loop {
            objection.changed().await;
            report(&reporter, readiness.status()).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tasks.ended() => {}
        () = watched => {}
    }
    tasks.stop();
    readiness.set(false);
    report(&reporter, ServingStatus::NotServing).await;
    tracing::info!(delay = ?lifetimes.drain_delay, "draining");
    sleep(lifetimes.drain_delay).await;
    closing.cancel();
    connections.close();
    if timeout(lifetimes.drain_grace, connections.wait()).await.is_err() {
        tracing::warn!("some checks did not end within drain.grace");
    }
}

/// A listening socket: TCP or Unix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

/// Accepts the connections of one listener.
struct Acceptor {
    listener: &'static str,
    grpc: GrpcServer,
    max_connection_age: Duration,
    places: Arc<Semaphore>,
    complaints: Throttle,
    open: Gauge,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl Acceptor {
    /// Returns a place for one more connection. While there is none, new connections wait in the
    /// listener's own queue: each open connection has a file descriptor, and other parts need some.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                if self.complaints.passes(clock::now(), COMPLAIN_EVERY) {
                    let listener = self.listener;
                    tracing::warn!(
                        listener,
                        "the limit of gRPC connections is reached; further connections wait"
                    );
                }
                places.acquire_owned().await.ok()
            }
        }
    }

    async fn admit<S>(&self, accepted: io::Result<S>, place: Option<OwnedSemaphorePermit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match accepted {
            Ok(stream) => {
                let age = self.max_connection_age;
                let closing = self.closing.clone();
                let served = self.grpc.clone().serve(stream, age, closing);
                let counted = OpenConnection::new(self.open.clone());
                self.connections.spawn(async move {
                    let _held = (place, counted);
                    served.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Counts one connection while it exists.
struct OpenConnection(Gauge);

impl OpenConnection {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

/// The routes for kubelets and Prometheus.
fn operations(readiness: Readiness, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match readiness.get() {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }),
        )
        .route("/metrics", get(async move || telemetry::metrics_page(&registry)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::check::tests::hot;

    /// Behaves as on a signal, with a reason: readiness goes first, then the listeners.
    #[tokio::test]
    async fn when_a_task_is_gone_it_drains_and_ends() {
        let mut registry = Registry::default();
        let (checker, ..) = hot(&mut registry);
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = http.local_addr().unwrap();
        let listeners = Listeners { grpc: None, uds: None, http: Some(http) };
        let second = Duration::from_secs(1);
        let lifetimes = Lifetimes {
            max_connection_age: second,
            max_connections: 1,
            drain_delay: second,
            drain_grace: second,
        };
        let tasks = Tasks::default();
        let dies = CancellationToken::new();
        let dying = dies.clone();
        tasks.spawn("feed", async move {
            dying.cancelled().await;
            panic!("on purpose");
        });
        let edge = GrpcEdge(Arc::new(checker));
        let serving = Serving { edge, registry, lifetimes, objection: Objection::none() };
        let never = CancellationToken::new();
        let running = tokio::spawn({
            let tasks = tasks.clone();
            async move { run(listeners, serving, &tasks, never).await }
        });
        let ready = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            reply.split(' ').nth(1).unwrap().to_owned()
        };
        while ready().await != "200" {
            tokio::task::yield_now().await;
        }
        dies.cancel();
        tasks.ended().await;
        while ready().await != "503" {
            tokio::task::yield_now().await;
        }
        running.await.unwrap();
        let reason = tasks.outcome().unwrap_err().to_string();
        assert!(reason.starts_with("the feed panicked"), "{reason}");
    }
}
