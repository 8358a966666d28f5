//! Listeners, health, drain.

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
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    config,
    grpc::{Grpc, GrpcEdge, frame::SERVICE},
    tasks::Tasks,
    telemetry,
};

/// After a connection could not be accepted, as when there are too many open files.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Sockets, bound before anything else is started, so that a taken port is found out at once.
#[derive(Debug)]
pub(crate) struct Listeners {
    grpc: Option<TcpListener>,
    /// Its file stays when we end: it may be a successor's by then, who replaces it anyway.
    uds: Option<UnixListener>,
    http: Option<TcpListener>,
}

impl Listeners {
    pub(crate) async fn bind(config: &config::Listen) -> Result<Self, BindError> {
        let tcp = async |address: Option<SocketAddr>, key| match address {
            None => Ok(None),
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                bound.map(Some).map_err(|source| BindError { key, at: address.to_string(), source })
            }
        };
        let uds =
            match &config.uds {
                None => None,
                Some(path) => Some(bind_unix(path, config.uds_mode).map_err(|source| {
                    BindError { key: "listen.uds", at: path.display().to_string(), source }
                })?),
            };
        Ok(Self {
            grpc: tcp(config.grpc, "listen.grpc").await?,
            uds,
            http: tcp(config.http, "listen.http").await?,
        })
    }

    /// Where gRPC is served over TCP.
    pub(crate) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref()?.local_addr().ok()
    }

    /// Where health and metrics are served.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }
}

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {at}: {source}")]
pub struct BindError {
    key: &'static str,
    at: String,
    source: io::Error,
}

/// A socket file of a process that is gone is replaced; anything else in its place is not.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
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

/// Whether traffic should come here: from start-up to the signal to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// When to let go of connections and of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) max_connection_age: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_grace: Duration,
}

/// Serves until `shutdown`, or until a task has ended that should not have, then drains: not ready, keep serving for a while so that everybody
/// notices, GOAWAY, finish what is under way, give up after the grace period.
pub(crate) async fn run(
    listeners: Listeners,
    edge: GrpcEdge,
    registry: Registry,
    lifetimes: Lifetimes,
    tasks: &Tasks,
    shutdown: CancellationToken,
) {
    let (readiness, closing) = (Readiness::default(), CancellationToken::new());
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let gate = Gate {
        grpc: Grpc::new(edge, Routes::new(health).prepare()),
        max_connection_age: lifetimes.max_connection_age,
        connections: TaskTracker::new(),
        closing: closing.clone(),
    };
    if let Some(listener) = listeners.grpc {
        let gate = gate.clone();
        tasks.spawn(
            "gRPC listener",
            closing.clone().run_until_cancelled_owned(async move {
                loop {
                    let accepted = listener.accept().await.and_then(|(stream, _)| {
                        // Without it an answer waits for the acknowledgement of the one before.
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    });
                    gate.admit(accepted).await;
                }
            }),
        );
    }
    if let Some(listener) = listeners.uds {
        let gate = gate.clone();
        tasks.spawn(
            "gRPC listener",
            closing.clone().run_until_cancelled_owned(async move {
                loop {
                    gate.admit(listener.accept().await.map(|(stream, _)| stream)).await;
                }
            }),
        );
    }
    if let Some(listener) = listeners.http {
        let served = axum::serve(listener, operations(readiness.clone(), registry));
        let served = served.with_graceful_shutdown(closing.clone().cancelled_owned());
        // Requests here are short; nothing is lost when it ends with the process.
        tasks.spawn("HTTP listener", served.into_future());
    }
    readiness.set(true);
    tracing::info!("ready");

    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tasks.ended() => {}
    }
    tasks.stop();
    readiness.set(false);
    report(&reporter, ServingStatus::NotServing).await;
    tracing::info!(delay = ?lifetimes.drain_delay, "draining");
    sleep(lifetimes.drain_delay).await;
    closing.cancel();
    gate.connections.close();
    if timeout(lifetimes.drain_grace, gate.connections.wait()).await.is_err() {
        tracing::warn!("some checks had not ended within drain.grace");
    }
}

/// Where connections come in.
#[derive(Clone)]
struct Gate {
    grpc: Grpc,
    max_connection_age: Duration,
    connections: TaskTracker,
    closing: CancellationToken,
}

impl Gate {
    async fn admit<S>(&self, accepted: io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match accepted {
            Ok(stream) => {
                let (age, closing) = (self.max_connection_age, self.closing.clone());
                self.connections.spawn(self.grpc.clone().serve(stream, age, closing));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

/// What a kubelet and Prometheus ask for.
fn operations(readiness: Readiness, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match readiness.get() {
                true => (StatusCode::OK, "ok\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            }),
        )
        .route("/metrics", get(async move || telemetry::metrics_page(&registry)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::check::tests::hot;

    /// As on a signal, with a reason: readiness goes first, then the listeners.
    #[tokio::test]
    async fn when_a_task_is_gone_it_drains_and_ends() {
        let mut registry = Registry::default();
        let (checker, ..) = hot(&mut registry);
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = http.local_addr().unwrap();
        let listeners = Listeners { grpc: None, uds: None, http: Some(http) };
        let second = Duration::from_secs(1);
        let lifetimes =
            Lifetimes { max_connection_age: second, drain_delay: second, drain_grace: second };
        let (tasks, dies) = (Tasks::default(), CancellationToken::new());
        let dying = dies.clone();
        tasks.spawn("feed", async move {
            dying.cancelled().await;
            panic!("on purpose");
        });
        let edge = GrpcEdge(Arc::new(checker));
        let never = CancellationToken::new();
        let running = tokio::spawn({
            let tasks = tasks.clone();
            async move { run(listeners, edge, registry, lifetimes, &tasks, never).await }
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
