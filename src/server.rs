//! Listeners, health, and drain.

mod acceptor;
pub(crate) mod http;
mod listeners;
mod readiness;
pub(crate) mod ring_fit;
pub(crate) mod ring_watch;
pub(crate) mod tls;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};

use self::{
    acceptor::{Acceptor, ListenerLabels, Transport},
    tls::ServerTls,
};
pub(crate) use self::{
    http::DESCRIPTORS as HTTP_DESCRIPTORS,
    listeners::{BindError, Listeners},
    readiness::{Missing, Readiness},
};
use crate::{
    edge::grpc::{GrpcEdge, GrpcServer, secret::CallSecrets},
    process::tasks::{Task, Tasks},
    telemetry::{self, Exemplars},
    throttle::Throttle,
    wire::codec::frame::SERVICE,
};

/// The parts that `serve` needs.
pub(crate) struct Serving {
    pub(crate) edge: GrpcEdge,
    pub(crate) tls: ServerTls,
    pub(crate) secrets: Arc<CallSecrets>,
    pub(crate) registry: Registry,
    pub(crate) exemplars: Exemplars,
    pub(crate) lifetimes: Lifetimes,
    /// Whether the start has ended, and what it lacks until then.
    pub(crate) readiness: Readiness,
}

/// How many connections to hold, and when to close them and end the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) max_connection_age: Duration,
    /// The most connections of each gRPC listener.
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
    let Serving { edge, tls, secrets, mut registry, exemplars, lifetimes, readiness } = serving;
    let closing = CancellationToken::new();
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, readiness.status()).await;
    let connections = TaskTracker::new();
    let open = Family::<ListenerLabels, Gauge>::default();
    registry.sub_registry_with_prefix("patgate").register(
        "grpc_connections",
        "Open connections per gRPC listener",
        open.clone(),
    );
    let shown = readiness.clone();
    telemetry::show_readiness(&mut registry, move || shown.get().is_ok());
    let grpc = GrpcServer::new(edge, health, secrets);
    let acceptor = |transport, tls| Acceptor {
        transport,
        tls,
        grpc: grpc.clone(),
        max_connection_age: lifetimes.max_connection_age,
        places: Arc::new(Semaphore::new(lifetimes.max_connections)),
        limit_warnings: Throttle::default(),
        open: open.get_or_create(&ListenerLabels::of(transport)).clone(),
        connections: connections.clone(),
        closing: closing.clone(),
    };
    if let Some(listener) = listeners.grpc {
        let accepting = acceptor(Transport::Tcp, tls.grpc).accept_tcp(listener);
        tasks.spawn(Task::GrpcListener, closing.clone().run_until_cancelled_owned(accepting));
    }
    if let Some(listener) = listeners.uds {
        let accepting = acceptor(Transport::Unix, None).accept_unix(listener);
        tasks.spawn(Task::GrpcListener, closing.clone().run_until_cancelled_owned(accepting));
    }
    if let Some(listener) = listeners.http {
        let routes = http::routes(readiness.clone(), registry, exemplars);
        let served = http::serve_health(listener, tls.http, routes);
        // Requests here are short; nothing is lost when the task ends with the process.
        tasks.spawn(Task::HttpListener, closing.clone().run_until_cancelled_owned(served));
    }
    let watched = async {
        let mut changes = readiness.changes();
        loop {
            report(&reporter, readiness.status()).await;
            changes.next().await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tasks.ended() => {}
        () = watched => {}
    }
    tasks.stop();
    readiness.drain();
    report(&reporter, ServingStatus::NotServing).await;
    tracing::info!(delay = ?lifetimes.drain_delay, "draining");
    sleep(lifetimes.drain_delay).await;
    closing.cancel();
    connections.close();
    if timeout(lifetimes.drain_grace, connections.wait()).await.is_err() {
        tracing::warn!("some checks did not end within drain.grace");
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::check::tests::hot;

    /// Behaves as on a signal, with a reason: readiness goes first, then the listeners.
    #[tokio::test]
    async fn when_a_task_is_gone_it_drains_and_ends() {
        let mut registry = Registry::default();
        let (checker, ..) = hot(&mut registry);
        let exemplars = checker.metrics.exemplars();
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
        tasks.spawn(Task::FeedReader, async move {
            dying.cancelled().await;
            panic!("on purpose");
        });
        let edge = GrpcEdge::new(Arc::new(checker));
        let readiness = Readiness::starting();
        readiness.started();
        let serving = Serving {
            edge,
            tls: ServerTls::default(),
            secrets: CallSecrets::new(Vec::new()),
            registry,
            exemplars,
            lifetimes,
            readiness,
        };
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
        assert!(reason.starts_with("the reader of the feed panicked"), "{reason}");
    }
}
