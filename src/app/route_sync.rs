//! Builds and runs `patgate sync`.

use std::path::PathBuf;

use patgate_routes::Target;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{Error, log_filter::LogFilterReader};
use crate::{
    config::Config,
    process::tasks::{Task, Tasks},
    routes::{BackendReader, Cluster, Folder, Keeper, Sink, Status},
    server::{BindError, http},
    telemetry::{self, RouteMetrics},
};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct RouteSync {
    /// The gateway.
    pub target: Target,
    /// The folder to write into; `None` for a Kubernetes cluster.
    pub folder: Option<PathBuf>,
    /// Whether the last backend may be removed too.
    pub allow_empty: bool,
    /// Whether one round is enough.
    pub once: bool,
    /// Whether the file or the objects of another installation are taken over.
    pub adopt: bool,
}

/// Runs `patgate sync` until SIGTERM or SIGINT, or for one round.
///
/// # Errors
///
/// Returns the error that prevents the start or the only round, or names a task that ended while it ran.
pub async fn sync_routes(config: Config, asked: RouteSync) -> Result<(), Error> {
    telemetry::init(&config.log).map_err(Error::Logs)?;
    let listen = |kind| signal(kind).map_err(Error::Signal);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    // It reads its files every second, so there is nothing to do. By default, SIGHUP ends a process.
    let _hangup = listen(SignalKind::hangup())?;
    let mut registry = Registry::default();
    let status = Status::new(RouteMetrics::new(&mut registry));
    let sink = match asked.folder {
        Some(folder) => {
            Sink::Folder(Folder::new(&folder, asked.target, asked.allow_empty, asked.adopt))
        }
        None => {
            let postgres = config.postgres.clone();
            let mut cluster = Cluster::connect(asked.target, asked.allow_empty, postgres).await?;
            cluster.adopt = asked.adopt;
            Sink::Cluster(Box::new(cluster))
        }
    };
    let mut keeper = Keeper {
        reader: BackendReader::new(config.postgres.clone()),
        rules: config.routes.rules.clone(),
        sink,
        status: status.clone(),
        led: false,
    };
    if asked.once {
        let outcome = keeper.round().await;
        let led = keeper.led;
        keeper.close().await;
        outcome?;
        return if led { Ok(()) } else { Err(Error::NotLeading) };
    }
    let tasks = Tasks::default();
    let shutdown = CancellationToken::new();
    if let Some(address) = config.routes.listen {
        let listener = TcpListener::bind(address).await;
        let listener = listener
            .map_err(|error| BindError::new("routes.listen", address.to_string(), error))?;
        let http = listener.local_addr().ok().map(tracing::field::display);
        tracing::info!(http, "listening");
        let readiness = status.readiness();
        telemetry::show_readiness(&mut registry, move || readiness.get().is_ok());
        let since = status.clone();
        telemetry::show_success(&mut registry, move || since.since_success());
        let page = http::routes(status.readiness(), registry, status.metrics().exemplars());
        let served = http::serve_health(listener, None, page);
        tasks.spawn(Task::HttpListener, shutdown.clone().run_until_cancelled_owned(served));
    }
    if let Some(log_filter) = LogFilterReader::start(&config.log) {
        tasks.spawn(Task::LogFilterReader, log_filter.run(shutdown.clone()));
    }
    let kept = tasks.spawn(Task::RouteKeeper, keeper.run(shutdown.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tasks.ended() => {}
    }
    tasks.stop();
    status.readiness().drain();
    shutdown.cancel();
    // A round has time limits of its own.
    let _ = kept.await;
    Ok(tasks.outcome()?)
}
