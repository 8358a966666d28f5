//! Builds and runs `patgate admin`, the process of self-service.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use axum::{http::HeaderMap, routing::get};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, api_reload::ApiReloader, log_filter::LogFilterReader, postgres_watch::PostgresWatch,
    ring_reload::RingReloader, self_service_login::LoginFollower, self_service_probes::Probes,
};
use crate::{
    admin::{
        CachedCopies,
        web::{GatewayRules, Passwords, SelfService},
    },
    config::{Config, KeyRingFileError},
    keyring::LiveRing,
    postgres::FollowedPool,
    process::tasks::{Task, Tasks},
    rollout::Mode,
    server::{BindError, http},
    telemetry::{self, Metrics, OwnCertificate, SelfServiceMetrics},
    web::{self, Provider, Site},
};

/// The longest time that open requests get when the process ends.
const DRAIN: Duration = Duration::from_secs(20);

const BOUNDS: http::Bounds =
    http::Bounds { connections: 512, age: Duration::from_secs(60), grace: DRAIN };

/// `patgate admin`, listening, not yet serving.
pub struct SelfServiceApp {
    listener: TcpListener,
    metrics: Option<(TcpListener, axum::Router)>,
    router: axum::Router,
    probes: Probes,
    ring: RingReloader,
    apis: ApiReloader,
    postgres: PostgresWatch,
    login: LoginFollower,
    drain_delay: Duration,
    tasks: Tasks,
}

impl SelfServiceApp {
    /// Reads the key ring, checks the database and the login, and binds the socket.
    ///
    /// # Errors
    ///
    /// Returns the first error that prevents the start.
    pub async fn build(config: &Config) -> Result<Self, Error> {
        let settings = config.web.clone().ok_or(Error::NoSelfService)?;
        let ring = LiveRing::new(config.key_ring()?);
        let listener = bind("web.listen", settings.listen).await?;
        let metrics_listener = match settings.metrics {
            Some(address) => Some(bind("web.metrics.listen", address).await?),
            None => None,
        };
        let connections = FollowedPool::connect(&config.postgres).await?;
        let copies = |installation| CachedCopies {
            installation,
            redis: config.redis.clone(),
            max_staleness: config.max_staleness,
        };
        // The checks of tokens may run on the same processors.
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let passwords =
            Passwords::new(NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN));
        let prefixes = config.token_prefixes.clone();
        let pool = connections.pool().clone();
        let metrics = Metrics::new(&mut Registry::default());
        let apis = ApiReloader::load(config.apis.clone(), metrics.clone())?;
        let tables = Arc::clone(&apis.apis);
        let reserved = config.routes.rules.reserved.clone();
        let rules = GatewayRules::new(move || tables.load_full(), config.model_reading, reserved);
        let limit = config.postgres.query_timeout;
        let service =
            SelfService::connect(pool, copies, ring.clone(), prefixes, passwords, rules, limit)
                .await?;
        let mut registry = Registry::default();
        let measured = SelfServiceMetrics::new(&mut registry);
        let service = service.measured(&measured);
        let postgres = PostgresWatch::of_one(
            &config.postgres.address,
            OwnCertificate::Postgres,
            config.max_staleness,
            &metrics,
        );
        let login = LoginFollower { service: service.clone(), connections };
        let probes = Probes::new(service.clone());
        let provider = match settings.oidc.clone() {
            Some(oidc) => Some(
                Provider::new(oidc, &settings.url, ring.clone()).map_err(Error::OidcProvider)?,
            ),
            None => None,
        };
        let path = config.keyring_file.clone().ok_or(KeyRingFileError::Unset)?;
        let ring = RingReloader {
            ring,
            path,
            asked: Arc::default(),
            mode: Mode::Enforce,
            // No token is verified with this ring, so there is nothing to compare it with.
            opened: Arc::default(),
            metrics,
            waiting: None,
        };
        probes.show_in(&mut registry);
        let page = metrics_page(registry, &measured).merge(probes.routes());
        let site = Site::new(service, settings, provider, measured);
        let router = web::router(site).merge(probes.routes());
        Ok(Self {
            listener,
            metrics: metrics_listener.map(|listener| (listener, page)),
            router,
            probes,
            ring,
            apis,
            postgres,
            login,
            drain_delay: config.drain.delay,
            tasks: Tasks::default(),
        })
    }

    /// Returns the address that it listens on, with port 0 resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Returns the address where it shows its metrics, if it does, with port 0 resolved.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.0.local_addr().ok()
    }

    /// Serves until `shutdown`, or until a task ends that should not. Then it reports not ready, goes on so
    /// that callers notice, and finishes the requests in progress.
    ///
    /// # Errors
    ///
    /// Returns an error if a task ended that should not have.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            listener,
            metrics,
            router,
            probes,
            ring,
            apis,
            postgres,
            login,
            drain_delay,
            tasks,
        } = self;
        let closing = CancellationToken::new();
        tasks.spawn(Task::RingReloader, ring.run(closing.clone()));
        tasks.spawn(Task::ApiReloader, apis.run(closing.clone()));
        tasks.spawn(Task::PostgresWatch, postgres.run(closing.clone()));
        tasks.spawn(Task::PostgresWatch, login.run(closing.clone()));
        if let Some((listener, page)) = metrics {
            let served = http::serve_health(listener, None, page);
            // Requests here are short; nothing is lost when the task ends with the process.
            let served = closing.clone().run_until_cancelled_owned(served);
            tasks.spawn(Task::HttpListener, served);
        }
        let served = http::serve(listener, None, router, BOUNDS, closing.clone());
        let served = tasks.spawn(Task::HttpListener, served);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tasks.ended() => {}
        }
        tasks.stop();
        probes.drain();
        tracing::info!(delay = ?drain_delay, "draining");
        sleep(drain_delay).await;
        closing.cancel();
        let _ = timeout(DRAIN, served).await;
        Ok(tasks.outcome()?)
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| BindError::new(key, address.to_string(), error))
}

fn metrics_page(registry: Registry, metrics: &SelfServiceMetrics) -> axum::Router {
    let shown = Arc::new((registry, metrics.exemplars()));
    let page = async move |headers: HeaderMap| {
        let (registry, exemplars) = &*shown;
        telemetry::metrics_page(registry, exemplars, &headers)
    };
    axum::Router::new().route("/metrics", get(page))
}

/// Runs `patgate admin` until SIGTERM or SIGINT.
///
/// # Errors
///
/// Returns the error that prevents the start, or names a task that ended while it served.
pub async fn serve_self_service(config: Config) -> Result<(), Error> {
    telemetry::init(&config.log).map_err(Error::Logs)?;
    let listen = |kind| signal(kind).map_err(Error::Signal);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    // It reads its files every second, so there is nothing to do. By default, SIGHUP ends a process.
    let _hangup = listen(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let app = SelfServiceApp::build(&config).await?;
    app.tasks.spawn_owned(Task::TerminationReceiver, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    if let Some(log_filter) = LogFilterReader::start(&config.log) {
        app.tasks.spawn(Task::LogFilterReader, log_filter.run(shutdown.clone()));
    }
    let metrics = app.metrics_address().map(tracing::field::display);
    tracing::info!(web = app.address().map(tracing::field::display), metrics, "listening");
    app.run(shutdown).await
}
