//! Accepts connections, no more at a time than the process can hold.

use std::{io, sync::Arc, time::Duration};

use prometheus_client::{encoding::EncodeLabelSet, metrics::gauge::Gauge};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::tls::Tls;
use crate::{clock, edge::grpc::GrpcServer, throttle::Throttle};

/// Pause after a connection could not be accepted, for example because of too many open files.
pub(super) const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Minimum time between two log messages about the limit of connections.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The kind of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Unix,
}

impl Transport {
    /// The name in metrics and logs.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "uds",
        }
    }
}

/// Label of a listening socket: its transport.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ListenerLabels {
    listener: &'static str,
}

impl ListenerLabels {
    pub(super) fn of(transport: Transport) -> Self {
        Self { listener: transport.as_str() }
    }
}

/// Accepts the connections of one listener.
pub(super) struct Acceptor {
    pub(super) transport: Transport,
    /// `None` if connections are plain.
    pub(super) tls: Option<Tls>,
    pub(super) grpc: GrpcServer,
    pub(super) max_connection_age: Duration,
    pub(super) places: Arc<Semaphore>,
    pub(super) limit_warnings: Throttle,
    pub(super) open: Gauge,
    pub(super) connections: TaskTracker,
    pub(super) closing: CancellationToken,
}

impl Acceptor {
    pub(super) async fn accept_tcp(self, listener: TcpListener) {
        loop {
            let place = self.place().await;
            let accepted = listener.accept().await.and_then(|(stream, _)| {
                // Without this, an answer waits for the acknowledgement of the previous one.
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            self.admit(accepted, place).await;
        }
    }

    pub(super) async fn accept_unix(self, listener: UnixListener) {
        loop {
            let place = self.place().await;
            self.admit(listener.accept().await.map(|(stream, _)| stream), place).await;
        }
    }

    /// Returns a place for one more connection. While there is none, new connections wait in the
    /// listener's own queue: each open connection has a file descriptor, and other parts need some.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                if self.limit_warnings.passes(clock::now(), WARN_EVERY) {
                    let listener = self.transport.as_str();
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
                let grpc = self.grpc.clone();
                let tls = self.tls.clone();
                // Connections that began together, as after a restart, do not end together.
                let age = self.max_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
                let closing = self.closing.clone();
                let counted = OpenConnection::new(self.open.clone());
                self.connections.spawn(async move {
                    let _held = (place, counted);
                    match tls {
                        None => grpc.serve(stream, age, closing).await,
                        Some(tls) => {
                            tls.serve(stream, closing, |stream, end| grpc.serve(stream, age, end))
                                .await;
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Counts one connection while it is open.
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
