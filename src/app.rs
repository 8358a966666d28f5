//! Builds the parts of patgate, connects them, and runs them until shutdown.

mod api_reload;
mod builder;
mod canary;
mod connections;
mod error;
mod signals;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{OptionFuture, join4};
use prometheus_client::registry::Registry;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::connection_shortage;
use self::{
    api_reload::ApiReloader, builder::Builder, canary::Canary, connections::max_connections,
};
pub use self::{error::Error, signals::serve};
use crate::{
    answer::AnswerSettings,
    check::{
        AwaitedBodies, Checker, DenialRates, LongBodies,
        decision_log::{DecisionLog, DecisionLogHandle, DecisionLogWriter},
        last_use::{LastUseWriter, LastUses},
    },
    clock,
    config::Config,
    edge::grpc::{GrpcEdge, secret::CallSecrets},
    feed::{FeedReader, Relay},
    freshness::KnownChanges,
    postgres,
    process::tasks::Tasks,
    redis_client::{access::RedisAccess, reloader::RedisReloader},
    rollout::Mode,
    server::{
        self, Lifetimes, Listeners,
        ring_watch::RingWatch,
        tls::{Reloader, ServerTls},
    },
    telemetry::{self, Metrics},
    token::Tokens,
};

/// Time limit for the writers, after the last answer.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Everything that `patgate serve` runs, connected and listening, not yet serving.
pub struct App {
    listeners: Listeners,
    tls: ServerTls,
    certificates: Vec<Reloader>,
    redis_files: Option<RedisReloader>,
    secrets: CallSecrets,
    edge: GrpcEdge,
    reader: FeedReader,
    relay: Option<Relay>,
    last_use_writer: LastUseWriter,
    canary: Option<Canary>,
    reloader: ApiReloader,
    ring_watch: RingWatch,
    log: Option<(DecisionLogWriter, DecisionLogHandle)>,
    registry: Registry,
    lifetimes: Lifetimes,
    tasks: Tasks,
}

impl App {
    /// Reads the key ring, binds the sockets, connects to Postgres and checks its schema. Redis is
    /// optional, also at startup.
    ///
    /// # Errors
    ///
    /// Returns the first error that prevents patgate from starting.
    pub async fn build(config: &Config) -> Result<Self, Error> {
        let ring = config.key_ring()?;
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

        let tasks = Tasks::default();
        let pool = postgres::connect(&config.postgres).await?;
        let installation = postgres::check(&pool).await?;
        pool.close().await;
        if let Ok(Some(shortage)) = connection_shortage(config).await {
            tracing::warn!("{shortage}");
        }
        let changes = Arc::new(KnownChanges::of(installation));
        let shown = Arc::clone(&changes);
        telemetry::show_watermark(&mut registry, move || shown.watermark_age(clock::now()));
        let clock = Arc::default();
        telemetry::show_bounds(&mut registry, config.deadline, config.max_staleness);
        if config.relay {
            metrics.show_relay(&mut registry);
        }
        let builder =
            Builder { config, ring, clock, changes, redis, metrics, tasks: tasks.clone() };
        let reader = builder.reader().await?;
        let relay = builder.relay();
        let postgres = builder.postgres(&config.postgres);
        let resolver = builder.resolver(&postgres)?;
        let mut ring_watch = RingWatch::new(builder.ring.clone(), postgres, config.mode);
        ring_watch.check_once().await;
        let canary = builder.canary(&resolver);
        let (last_uses, last_use_writer) = LastUses::new(builder.writer(), builder.metrics.clone());
        builder.metrics.in_mode(config.mode);
        warn_of_mode(config.mode);
        let checker = Checker {
            apis: Arc::clone(&reloader.apis),
            tokens: Tokens::new(config.token_prefixes.clone(), builder.ring),
            resolver,
            clock: builder.clock,
            last_uses,
            model_reading: config.model_reading,
            mode: config.mode,
            denials: DenialRates::new(config.token_denials),
            long_bodies: LongBodies::for_this_machine(),
            awaited: AwaitedBodies::new(config.bodies, builder.metrics.clone()),
            log,
            answers: AnswerSettings::new(&config.headers_prefix, &config.guard_word),
            deadline: config.deadline,
            metrics: builder.metrics,
        };
        Ok(Self {
            listeners,
            tls,
            certificates,
            redis_files,
            secrets: CallSecrets::new(config.grpc_secrets.clone()),
            edge: GrpcEdge::new(Arc::new(checker)),
            reader,
            relay,
            last_use_writer,
            canary,
            reloader,
            ring_watch,
            log: log_writer.zip(log_handle),
            registry,
            lifetimes: Lifetimes {
                max_connections: max_connections(config),
                max_connection_age: config.max_connection_age,
                drain_delay: config.drain.delay,
                drain_grace: config.drain.grace,
            },
            tasks,
        })
    }

    /// Returns the TCP address that serves gRPC, with port 0 resolved.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.listeners.grpc_address()
    }

    /// Returns the address that serves health and metrics, with port 0 resolved.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listeners.http_address()
    }

    /// Returns a handle that makes patgate read the API tables again when it is notified.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reloader.asked)
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
        let reader = match self.relay {
            None => tasks.spawn("reader of the feed", self.reader.run(stop.clone())),
            Some(relay) => {
                tasks.spawn("reader of the feed", self.reader.run_relayed(relay, stop.clone()))
            }
        };
        tasks.spawn("reader of API tables", self.reloader.run(stop.clone()));
        for certificates in self.certificates {
            tasks.spawn("reader of certificates", certificates.run(stop.clone()));
        }
        if let Some(files) = self.redis_files {
            tasks.spawn("reader of the files for Redis", files.run(stop.clone()));
        }
        let objection = self.ring_watch.objection();
        tasks.spawn("watch of the key ring", self.ring_watch.run(stop.clone()));
        let last_uses = tasks.spawn("writer of last uses", self.last_use_writer.run(stop.clone()));
        let canary = self.canary.map(|canary| tasks.spawn("canary", canary.run(stop)));
        let log = match self.log {
            Some((writer, handle)) => {
                let ended = writer.spawn().map_err(Error::Logs)?;
                Some((tasks.spawn("writer of the decision log", ended), handle))
            }
            None => None,
        };
        let canary = OptionFuture::from(canary);
        let serving = server::Serving {
            edge: self.edge,
            tls: self.tls,
            secrets: self.secrets,
            registry: self.registry,
            lifetimes: self.lifetimes,
            objection,
        };
        server::run(self.listeners, serving, &tasks, shutdown).await;
        drop(stop_tasks);
        let logged = OptionFuture::from(log.map(|(ended, handle)| {
            handle.stop();
            ended
        }));
        let _ = timeout(LAST_WRITES, join4(reader, last_uses, canary, logged)).await;
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
