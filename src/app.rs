//! Builds the parts of patgate, connects them, and runs them until shutdown.

mod api_reload;
mod canary;
mod connections;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{OptionFuture, join4};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::connection_shortage;
use self::connections::max_connections;
use crate::{
    api::TableErrors,
    app::{api_reload::ApiReloader, canary::Canary},
    check::{
        AwaitedBodies, Checker, DenialRates, LongBodies,
        decision_log::{DecisionLog, DecisionLogHandle, DecisionLogWriter, LogOpenError},
        last_use::{LastUseWriter, LastUses},
    },
    clock::{self, Clock},
    config::{self, Config, KeyRingFileError},
    edge::grpc::GrpcEdge,
    feed::{FeedReader, Lease, POOLED_FEED, POOLED_RELAY, Relay},
    freshness::{AgeBounds, KnownChanges},
    installation::Installation,
    keyring::KeyRing,
    postgres::{self, BackgroundWriter, ConnectError, Postgres, PostgresSettings, SchemaError},
    process::tasks::{TaskEnded, Tasks},
    resolve::{
        Load, MemoryTier, Resolver, TierContext, Tiers, postgres::lookups, redis::RedisTier,
    },
    rollout::Mode,
    seal::Sealer,
    server::{self, BindError, Lifetimes, Listeners, ring_watch::RingWatch},
    telemetry::{self, Metrics},
    token::Tokens,
    wire::response::AnswerSettings,
};

/// Time limit for the writers, after the last answer.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Memory for backends that API tables name: enough for hundreds of them, with long credentials.
const BACKENDS_MEMORY: u64 = 2 << 20;

/// Everything that `patgate serve` runs, connected and listening, not yet serving.
pub struct App {
    listeners: Listeners,
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

/// Why patgate did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key ring cannot be read.
    #[error(transparent)]
    KeyRing(#[from] KeyRingFileError),
    /// The API tables have errors.
    #[error("apis: {0}")]
    Tables(#[from] TableErrors),
    /// The decision log cannot be opened.
    #[error(transparent)]
    DecisionLog(#[from] LogOpenError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be reached.
    #[error(transparent)]
    Postgres(#[from] ConnectError),
    /// The schema of the database is not one that this release works with.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The feed belongs to another database than the lookups, so it says nothing about them.
    #[error(
        "feed.url leads to another installation of patgate than postgres.url: {feed} there, \
         {postgres} here (system/database/installation). Changes made here would never be read: \
         let both name the same database"
    )]
    FeedElsewhere {
        /// The installation that `feed.url` leads to.
        feed: Installation,
        /// The installation that `postgres.url` leads to.
        postgres: Installation,
    },
    /// The relay needs a lock that a session holds, and `feed.url` leads through a pooler in
    /// transaction mode.
    #[error("{POOLED_RELAY}")]
    PooledRelay,
    /// Postgres cannot be used at `feed.url`.
    #[error("feed.url: {0}")]
    NoFeed(SchemaError),
    /// `redis.url` is not the address of a Redis.
    #[error("redis.url: {0}")]
    Redis(String),
    /// The operating system delivers no signals.
    #[error("signals: {0}")]
    Signal(io::Error),
    /// The operating system has no thread, or no file descriptor, to write logs.
    #[error("logs: {0}")]
    Logs(io::Error),
    /// A task that must not end has ended.
    #[error(transparent)]
    Task(#[from] TaskEnded),
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
        let parts = Builder { config, ring, clock, changes, metrics, tasks: tasks.clone() };
        let reader = parts.reader().await?;
        let relay = parts.relay()?;
        let postgres = parts.postgres(&config.postgres);
        let resolver = parts.resolver(&postgres)?;
        let mut ring_watch = RingWatch::new(parts.ring.clone(), postgres, config.mode);
        ring_watch.look().await;
        let canary = parts.canary(&resolver);
        let (last_uses, last_use_writer) = LastUses::new(parts.writer(), parts.metrics.clone());
        parts.metrics.in_mode(config.mode);
        tell_the_mode(config.mode);
        let checker = Checker {
            apis: Arc::clone(&reloader.apis),
            tokens: Tokens::new(config.token_prefixes.clone(), parts.ring),
            resolver,
            clock: parts.clock,
            last_uses,
            model_reading: config.model_reading,
            mode: config.mode,
            denials: DenialRates::new(config.token_denials),
            long_bodies: LongBodies::for_this_machine(),
            awaited: AwaitedBodies::new(config.bodies, parts.metrics.clone()),
            log,
            answers: AnswerSettings::new(&config.headers_prefix, &config.guard_word),
            deadline: config.deadline,
            metrics: parts.metrics,
        };
        Ok(Self {
            listeners,
            edge: GrpcEdge(Arc::new(checker)),
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
        // Not only until the signal, but until the last check is answered.
        let stop_tasks = stop.clone().drop_guard();
        let tasks = self.tasks;
        let reader = match self.relay {
            None => tasks.spawn("reader of the feed", self.reader.run(stop.clone())),
            Some(relay) => {
                tasks.spawn("reader of the feed", self.reader.run_relayed(relay, stop.clone()))
            }
        };
        tasks.spawn("reader of API tables", self.reloader.run(stop.clone()));
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

/// The values from which the larger parts are built, and which they share.
struct Builder<'c> {
    config: &'c Config,
    ring: KeyRing,
    clock: Arc<Clock>,
    changes: Arc<KnownChanges>,
    metrics: Metrics,
    tasks: Tasks,
}

impl Builder<'_> {
    /// Returns the feed after a first poll, so that the first check can already judge what other
    /// replicas have left in Redis.
    async fn reader(&self) -> Result<FeedReader, Error> {
        // One connection for polling; the listener and the lock of the leader each have another
        // one.
        let settings = self.config.feed();
        let pool = postgres::connect(&settings).await?;
        if self.config.feed_url.is_some() {
            let feed = postgres::identify(&pool).await.map_err(Error::NoFeed)?;
            let postgres = self.changes.installation();
            if feed != postgres {
                return Err(Error::FeedElsewhere { feed, postgres });
            }
        }
        pool.close().await;
        // Listens only if the connection is known to reach Postgres without a transaction pooler.
        let listens = match self.config.feed_url {
            None => false,
            Some(_) => match postgres::is_pooled(&settings).await {
                Ok(true) if self.config.relay => return Err(Error::PooledRelay),
                Ok(true) => {
                    tracing::warn!("{POOLED_FEED}");
                    false
                }
                Ok(false) => true,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "cannot determine whether feed.url leads through a connection pooler; \
                         until the next start, this replica notices changes by polling. The test \
                         needs two connections",
                    );
                    false
                }
            },
        };
        let reader = FeedReader {
            changes: Arc::clone(&self.changes),
            clock: Arc::clone(&self.clock),
            postgres: self.postgres(&settings),
            settings,
            listens,
            lease: Lease::new(self.config.max_staleness),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            max_staleness: self.config.max_staleness,
        };
        reader.begin().await;
        Ok(reader)
    }

    fn relay(&self) -> Result<Option<Relay>, Error> {
        let redis = self.config.redis.as_ref().filter(|_| self.config.relay);
        redis.map(|redis| Relay::new(redis, self.sealer())).transpose().map_err(unusable)
    }

    fn resolver(&self, postgres: &Postgres) -> Result<Resolver, Error> {
        let config = self.config;
        let redis = config.redis.as_ref();
        let redis = redis
            .map(|redis| RedisTier::spawn(redis, self.sealer(), self.metrics.clone(), &self.tasks));
        let redis = redis.transpose().map_err(unusable)?;
        if let (Some(redis), Some(settings)) = (&redis, &config.redis) {
            redis.greet(settings, &self.tasks);
        }
        let context = TierContext {
            redis,
            ring: self.ring.clone(),
            clock: Arc::clone(&self.clock),
            changes: Arc::clone(&self.changes),
            bounds: AgeBounds {
                max_staleness: config.max_staleness,
                negative_ttl: config.negative_ttl,
            },
            metrics: self.metrics.clone(),
        };
        let load = Load::new(config.postgres.max_connections, config.deadline)
            .paced(config.max_query_rate);
        let (principals, domains, backends) = lookups(postgres, &Arc::new(load), &self.tasks);
        let config::MemoryLimits { principals: principals_size, domains: domains_size, negatives } =
            config.memory;
        let principals_memory = MemoryTier::new(principals_size, negatives);
        let domains_memory = MemoryTier::new(domains_size, negatives);
        let backends_memory = MemoryTier::new(BACKENDS_MEMORY, negatives);
        Ok(Resolver {
            principals: Tiers::new(principals_memory, principals, context.clone()),
            domains: Tiers::new(domains_memory, domains, context.clone()),
            backends: Tiers::new(backends_memory, backends, context),
        })
    }

    fn canary(&self, resolver: &Resolver) -> Option<Canary> {
        let config = self.config;
        config.canary_every.map(|every| {
            Canary::new(
                every,
                config.max_staleness + config.deadline,
                self.changes.installation(),
                Arc::clone(&resolver.principals),
                self.writer(),
                self.metrics.clone(),
            )
        })
    }

    fn postgres(&self, settings: &PostgresSettings) -> Postgres {
        let clock = Arc::clone(&self.clock);
        let changes = Arc::clone(&self.changes);
        Postgres::new(settings, clock, changes, self.counters(settings))
    }

    fn counters(&self, settings: &PostgresSettings) -> postgres::Counters {
        postgres::Counters {
            queries: self.metrics.commands("postgres"),
            failures: self.metrics.failures("postgres"),
            other_installation: self.metrics.other_installation_answers(settings.key),
        }
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(self.ring.clone(), self.changes.installation())
    }

    fn writer(&self) -> BackgroundWriter {
        let settings = self.config.postgres.clone();
        let counters = self.counters(&settings);
        BackgroundWriter::new(settings, self.changes.installation(), counters)
    }
}

fn unusable(error: redis::RedisError) -> Error {
    Error::Redis(error.to_string())
}

/// Warns if denials are not enforced, so that the operator does not find this out by accident.
fn tell_the_mode(mode: Mode) {
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

/// Runs `patgate serve` until SIGTERM or SIGINT. On SIGHUP, it reads the API tables again and opens
/// the file of the decision log again.
///
/// # Errors
///
/// Returns the error that prevents the start, or names a task that ended while it served.
pub async fn serve(config: Config) -> Result<(), Error> {
    telemetry::init(&config.log).map_err(Error::Logs)?;
    let shutdown = CancellationToken::new();
    let listen = |kind| signal(kind).map_err(Error::Signal);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    // From now on, SIGHUP no longer ends the process.
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    let app = App::build(&config).await?;
    let reload = app.reload();
    let reopen_log = app.reopen_log();
    app.tasks.spawn("receiver of SIGHUP", async move {
        while hangup.recv().await.is_some() {
            reload.notify_one();
            reopen_log();
        }
    });
    tracing::info!(
        grpc = app.grpc_address().map(tracing::field::display),
        uds = config.listen.uds.as_deref().map(|path| tracing::field::display(path.display())),
        http = app.http_address().map(tracing::field::display),
        "listening",
    );
    app.run(shutdown).await
}
