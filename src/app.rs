//! Builds the parts of patgate, connects them, and runs them until shutdown.

mod api_reload;
mod builder;
mod canary;
mod connections;
mod error;
mod file_watch;
mod log_filter;
mod postgres_watch;
mod ring_reload;
mod route_sync;
mod self_service;
mod self_service_login;
mod self_service_probes;
mod settings_reload;
mod signals;
mod start;
mod stores;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::{OptionFuture, join3};
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::connection_shortage;
use self::{
    api_reload::ApiReloader, builder::SharedParts, connections::max_connections,
    log_filter::LogFilterReader, postgres_watch::PostgresWatch, ring_reload::RingReloader,
    settings_reload::SettingsReloader, start::Start,
};
pub use self::{
    error::Error,
    route_sync::{RouteSync, sync_routes},
    self_service::{SelfServiceApp, serve_self_service},
    signals::serve,
};
use crate::{
    answer::AnswerSettings,
    check::{
        AwaitedBodies, Checker, DenialRates, LongBodies, StoreGate,
        decision_log::{DecisionLog, DecisionLogHandle, DecisionLogWriter},
    },
    clock,
    config::{Config, KeyRingFileError, ReadSettings},
    edge::grpc::{GrpcEdge, secret::CallSecrets},
    freshness::KnownChanges,
    keyring::LiveRing,
    process::tasks::{Task, Tasks},
    redis_client::{access::RedisAccess, reloader::RedisReloader},
    rollout::Mode,
    server::{
        self, Lifetimes, Listeners,
        tls::{Reloader, ServerTls},
    },
    telemetry::{self, Exemplars, Metrics, Traces},
    token::Tokens,
};

/// Time limit for the writers, after the last answer.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Everything that `patgate serve` runs, listening, not yet serving.
pub struct App {
    listeners: Listeners,
    tls: ServerTls,
    certificates: Vec<Reloader>,
    redis_files: Option<RedisReloader>,
    secrets: Arc<CallSecrets>,
    edge: GrpcEdge,
    postgres: Vec<PostgresWatch>,
    start: Start,
    reloader: ApiReloader,
    ring_reloader: RingReloader,
    settings_reloader: SettingsReloader,
    log: Option<(DecisionLogWriter, DecisionLogHandle)>,
    registry: Registry,
    exemplars: Exemplars,
    traces: Traces,
    log_filter: Option<LogFilterReader>,
    lifetimes: Lifetimes,
    tasks: Tasks,
}

impl App {
    /// Reads the key ring, binds the sockets, and tries the stores once. If they are not in order,
    /// [`App::run`] tries again, unless the setting `start.require` names them.
    ///
    /// # Errors
    ///
    /// Returns the first error that prevents patgate from starting.
    pub async fn build(config: &Config) -> Result<Self, Error> {
        Self::build_with(config, Tasks::default()).await
    }

    /// The same, with tasks that may already be running.
    async fn build_with(config: &Config, tasks: Tasks) -> Result<Self, Error> {
        let ring = LiveRing::new(config.key_ring()?);
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let reloader = ApiReloader::load(config.apis.clone(), metrics.clone())?;
        let listeners = Listeners::bind(&config.listen).await?;
        let (tls, certificates) = ServerTls::load(&config.listen, &metrics)?;
        let redis = config.redis.as_ref().map(RedisAccess::open).transpose()?;
        let redis_files =
            redis.as_ref().and_then(|redis| RedisReloader::new(redis, metrics.clone()));
        let (log, log_writer) = DecisionLog::open(&config.decision_log, &metrics)?;
        let log_handle = log.handle();
        let traces = Traces::start(config.traces.as_ref(), &metrics)?;
        let exemplars = metrics.exemplars();
        let log_filter = LogFilterReader::start(&config.log);

        let changes = Arc::<OnceLock<Arc<KnownChanges>>>::default();
        let shown = Arc::clone(&changes);
        telemetry::show_watermark(&mut registry, move || shown.get()?.watermark_age(clock::now()));
        telemetry::show_bounds(&mut registry, config.deadline, config.max_staleness);
        if config.relay {
            metrics.show_relay(&mut registry);
        }
        metrics.in_mode(config.mode);
        warn_of_mode(config.mode);
        builder::count_addresses(config, &metrics);
        let stores = StoreGate::default();
        let checker = Checker {
            apis: Arc::clone(&reloader.apis),
            tokens: Tokens::new(config.token_prefixes.clone(), ring.clone()),
            stores: stores.clone(),
            model_reading: config.model_reading,
            reserved: config.routes.rules.reserved.clone(),
            mode: config.mode,
            denials: DenialRates::new(config.token_denials),
            long_bodies: LongBodies::for_this_machine(),
            awaited: AwaitedBodies::new(config.bodies, metrics.clone()),
            log,
            answers: AnswerSettings::new(&config.headers_prefix, config.guard_word.expose_secret()),
            deadline: config.deadline,
            metrics: metrics.clone(),
            traces: traces.clone(),
        };
        let secrets = CallSecrets::new(config.grpc_secrets.clone());
        let settings_reloader = SettingsReloader {
            sources: config.sources.clone(),
            asked: Arc::default(),
            secrets: Arc::clone(&secrets),
            metrics: metrics.clone(),
            at_startup: ReadSettings { config: config.clone() },
        };
        let opened = Arc::default();
        let ring_reloader = RingReloader {
            ring: ring.clone(),
            path: config.keyring_file.clone().ok_or(KeyRingFileError::Unset)?,
            asked: Arc::default(),
            mode: config.mode,
            opened: Arc::clone(&opened),
            metrics: metrics.clone(),
            waiting: None,
        };
        let postgres = PostgresWatch::of(config, &metrics);
        let feed_warning = Arc::default();
        let parts =
            SharedParts { ring, redis, metrics, tasks: tasks.clone(), opened, feed_warning };
        let mut start = Start::new(Arc::new(config.clone()), parts, stores, changes);
        start.first_attempt().await?;
        Ok(Self {
            listeners,
            tls,
            certificates,
            redis_files,
            secrets,
            edge: GrpcEdge::new(Arc::new(checker)),
            postgres,
            start,
            reloader,
            ring_reloader,
            settings_reloader,
            log: log_writer.zip(log_handle),
            registry,
            exemplars,
            traces,
            log_filter,
            lifetimes: Lifetimes {
                max_connections: max_connections(config),
                max_connection_age: config.max_connection_age,
                drain_delay: config.drain.delay,
                drain_grace: config.drain.grace,
            },
            tasks,
        })
    }

    /// Returns the names of the background tasks: if one of them ends too early, the process ends.
    pub fn task_names() -> impl Iterator<Item = &'static str> {
        Task::ALL.iter().map(|task| task.name())
    }

    /// Returns the TCP address that serves gRPC, with port 0 resolved.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.listeners.grpc_address()
    }

    /// Returns the address that serves health and metrics, with port 0 resolved.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listeners.http_address()
    }

    /// Returns a function that makes patgate read the API tables, the key ring and the settings again at
    /// once.
    pub fn reload(&self) -> impl Fn() + Send + use<> {
        let Self { reloader, ring_reloader, settings_reloader, .. } = self;
        let asked =
            [&reloader.asked, &ring_reloader.asked, &settings_reloader.asked].map(Arc::clone);
        move || asked.iter().for_each(|asked| asked.notify_one())
    }

    /// Returns a function that opens the file of the decision log again, after another program has
    /// renamed it.
    pub fn reopen_log(&self) -> impl Fn() + Send + use<> {
        let handle = self.log.as_ref().map(|(_, handle)| handle.clone());
        move || handle.iter().for_each(DecisionLogHandle::reopen)
    }

    /// Serves until `shutdown`, or until a task ends that should not, then drains.
    ///
    /// # Errors
    ///
    /// Returns an error if a task ended that should not have.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = CancellationToken::new();
        // The tasks run until the last check is answered, not only until the signal.
        let stop_tasks = stop.clone().drop_guard();
        let tasks = self.tasks;
        tasks.spawn(Task::ApiReloader, self.reloader.run(stop.clone()));
        if let Some(log_filter) = self.log_filter {
            tasks.spawn(Task::LogFilterReader, log_filter.run(stop.clone()));
        }
        tasks.spawn(Task::RingReloader, self.ring_reloader.run(stop.clone()));
        tasks.spawn(Task::SettingsReloader, self.settings_reloader.run(stop.clone()));
        for certificates in self.certificates {
            tasks.spawn(Task::CertificateReloader, certificates.run(stop.clone()));
        }
        if let Some(files) = self.redis_files {
            tasks.spawn(Task::RedisFileReloader, files.run(stop.clone()));
        }
        for address in self.postgres {
            tasks.spawn(Task::PostgresWatch, address.run(stop.clone()));
        }
        let readiness = self.start.readiness();
        let stores = tasks.spawn(Task::Start, self.start.run(stop));
        let log = match self.log {
            Some((writer, handle)) => {
                let ended = writer.spawn().map_err(Error::Logs)?;
                Some((tasks.spawn(Task::DecisionLogWriter, ended), handle))
            }
            None => None,
        };
        let serving = server::Serving {
            edge: self.edge,
            tls: self.tls,
            secrets: self.secrets,
            registry: self.registry,
            exemplars: self.exemplars,
            lifetimes: self.lifetimes,
            readiness,
        };
        server::run(self.listeners, serving, &tasks, shutdown).await;
        drop(stop_tasks);
        let logged = OptionFuture::from(log.map(|(ended, handle)| {
            handle.stop();
            ended
        }));
        let exported = self.traces.shut_down();
        let _ = timeout(LAST_WRITES, join3(stores, logged, exported)).await;
        Ok(tasks.outcome()?)
    }
}

/// Warns if denials are not enforced, so that the operator does not find this out by accident.
fn warn_of_mode(mode: Mode) {
    match mode {
        Mode::Enforce => {}
        Mode::PerDomain => tracing::warn!(
            "mode is per-domain: if a domain is in shadow, or enforced for a share of its \
             tokens, denials are recorded and not enforced",
        ),
        Mode::Shadow => tracing::warn!(
            "mode is shadow: NOTHING IS ENFORCED; a request that would get 401, 403 or 404, or be \
             refused for its body or for several different credentials, passes without an identity \
             and is recorded",
        ),
    }
}
