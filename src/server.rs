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
    net::{TcpListener, UnixListener},
    task::{JoinError, JoinSet},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Router as Services, TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    check::GrpcEdge, config, proto::service::authorization_server::AuthorizationServer, telemetry,
};

/// Far above what Envoy accepts of a client's headers: beyond it the answer would be a gRPC error,
/// which `failure_mode_allow` turns into an ALLOW.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Streams on one connection. Envoy opens one a check and holds few connections.
const MAX_CONCURRENT_STREAMS: u32 = 10_000;
/// h2 takes clients that give up for an attack and closes the connection that they share with
/// innocent ones (measured with 2,000 of them): its limits are raised, not lifted.
const MAX_RESET_STREAMS: usize = 20_000;

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

/// A server that ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// By an error of the listener.
    #[error("serving gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// By a panic.
    #[error("serving gRPC: {0}")]
    Panic(#[from] JoinError),
}

/// Serves until `shutdown`, then drains: not ready, keep serving for a while so that everybody
/// notices, GOAWAY, finish what is under way, give up after the grace period.
pub(crate) async fn run(
    listeners: Listeners,
    edge: GrpcEdge,
    registry: Registry,
    lifetimes: Lifetimes,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (readiness, closing) = (Readiness::default(), CancellationToken::new());
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let services = |lifetimes: Lifetimes| -> Services {
        let authorization =
            AuthorizationServer::new(edge.clone()).max_decoding_message_size(MAX_REQUEST);
        Server::builder()
            .max_connection_age(lifetimes.max_connection_age)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
            .http2_max_local_error_reset_streams(Some(MAX_RESET_STREAMS))
            .add_service(authorization)
            .add_service(health.clone())
    };
    let mut servers = JoinSet::new();
    if let Some(listener) = listeners.grpc {
        // Without it an answer waits for the acknowledgement of the one before, up to 40 ms.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let closed = closing.clone().cancelled_owned();
        servers.spawn(services(lifetimes).serve_with_incoming_shutdown(incoming, closed));
    }
    if let Some(listener) = listeners.uds {
        let closed = closing.clone().cancelled_owned();
        servers.spawn(
            services(lifetimes)
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), closed),
        );
    }
    if let Some(listener) = listeners.http {
        let served = axum::serve(listener, operations(readiness.clone(), registry));
        let served = served.with_graceful_shutdown(closing.clone().cancelled_owned());
        // Requests here are short; nothing is lost when it ends with the process.
        tokio::spawn(served.into_future());
    }
    readiness.set(true);
    tracing::info!("ready");

    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = servers.join_next() => Some(ended),
    };
    readiness.set(false);
    if let Some(ended) = failed {
        return ended.map_or(Ok(()), outcome);
    }
    report(&reporter, ServingStatus::NotServing).await;
    tracing::info!(delay = ?lifetimes.drain_delay, "draining");
    tokio::time::sleep(lifetimes.drain_delay).await;
    closing.cancel();
    let finished = async {
        while let Some(ended) = servers.join_next().await {
            outcome(ended)?;
        }
        Ok(())
    };
    let ended = tokio::time::timeout(lifetimes.drain_grace, finished).await;
    ended.unwrap_or_else(|_| {
        tracing::warn!("some checks had not ended within drain.grace");
        Ok(())
    })
}

/// A server that panicked is taken down with the process.
fn outcome(
    ended: Result<Result<(), tonic::transport::Error>, JoinError>,
) -> Result<(), ServeError> {
    Ok(ended??)
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", "envoy.service.auth.v3.Authorization"] {
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
