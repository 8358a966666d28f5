//! Where a setting leads: its servers, which are read again while patgate runs, and the one among
//! them that is the primary.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use futures_util::future::BoxFuture;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::{sync::watch, task::spawn_blocking};

use super::{
    ConnectError, Servers,
    connect::{Connection, message_of_url},
    credentials::{AFTER_REFUSAL, Login},
    login::Rights,
    primary::{Known, Search, Timelines},
};
use crate::clock::{self, Tick};

/// Reads the servers again, or says what is wrong. It may block.
pub type ReadServers = Arc<dyn Fn() -> Result<Servers, String> + Send + Sync>;

/// Where a setting leads. Clones share what is known of it.
#[derive(Clone)]
pub struct Address(Arc<Shared>);

struct Shared {
    key: &'static str,
    /// `None` if nothing of it is in a file.
    read: Option<ReadServers>,
    login: Mutex<Login>,
    /// Held while the files are read after a refused login.
    reading: tokio::sync::Mutex<Option<Tick>>,
    known: Mutex<Known>,
    search: Mutex<Option<Search>>,
    timelines: Timelines,
    /// Whether no login is used that may do more than serve.
    serves_only: AtomicBool,
    /// Increases when connections have to be replaced.
    generation: watch::Sender<u64>,
    counters: OnceLock<AddressCounters>,
    /// Whether it is counted among the refusals.
    counted: AtomicBool,
}

/// How many addresses have a login that cannot be used as it is in its files. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<(i64, Gauge)>>);

impl Refusals {
    /// Shows in `gauge` whether there are any.
    pub(crate) fn shown_in(gauge: Gauge) -> Self {
        Self(Arc::new(Mutex::new((0, gauge))))
    }

    fn add(&self, more: i64) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.0 += more;
        refusals.1.set(i64::from(refusals.0 > 0));
    }
}

/// What is counted about one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressCounters {
    pub(crate) refusals: Refusals,
    /// Changes of what was read that were taken up.
    pub(crate) loaded: Counter,
    /// Files with an error, and logins that Postgres has refused.
    pub(crate) refused: Counter,
    /// How often another server was found to be the primary.
    pub(crate) moves: Counter,
}

impl Address {
    /// The address that `key` sets. Addresses with the same `timelines` learn from each other which
    /// server was left behind.
    pub fn new(
        key: &'static str,
        servers: Servers,
        read: Option<ReadServers>,
        timelines: &Timelines,
    ) -> Self {
        Self(Arc::new(Shared {
            key,
            read,
            login: Mutex::new(Login::new(servers)),
            reading: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            search: Mutex::default(),
            timelines: timelines.clone(),
            serves_only: AtomicBool::new(false),
            generation: watch::Sender::new(0),
            counters: OnceLock::new(),
            counted: AtomicBool::new(false),
        }))
    }

    /// An address of one server that is never read again.
    ///
    /// # Errors
    ///
    /// If sqlx cannot parse the URL.
    pub fn of_one(key: &'static str, url: &SecretString) -> Result<Self, ConnectError> {
        let options: PgConnectOptions =
            url.expose_secret().parse().map_err(|error| message_of_url(key, &error))?;
        let servers = Servers::new(vec![options], url.clone(), None);
        Ok(Self::new(key, servers, None, &Timelines::default()))
    }

    /// Returns the name of the setting, for messages.
    pub(super) fn key(&self) -> &'static str {
        self.0.key
    }

    /// Whether it has several servers, one of which has to be found.
    pub(crate) fn has_several(&self) -> bool {
        self.current().options().len() > 1
    }

    /// Uses no login from now on that may do more than serve. The one in use is checked by the start;
    /// others, which are read later, before their first use.
    pub(crate) fn serve_only(&self) {
        self.0.serves_only.store(true, Relaxed);
    }

    /// What reads the servers again; `None` if nothing of this address is in a file.
    pub(crate) fn reads(&self) -> Option<ReadServers> {
        self.0.read.clone()
    }

    /// The servers that are in use.
    pub(crate) fn current(&self) -> Servers {
        self.login().current().clone()
    }

    /// Counts into these from now on.
    pub(crate) fn count_into(&self, counters: AddressCounters) {
        let _ = self.0.counters.set(counters);
        self.show(&self.login());
    }

    /// Uses these servers for new connections, and keeps those in use as well until a login with
    /// them has succeeded. Returns whether they lead elsewhere, or as another user: then the
    /// connections in use are replaced once a login has succeeded.
    pub(crate) fn take_up(&self, servers: Servers) -> bool {
        let mut login = self.login();
        if login.take_up(servers) {
            self.count(|counters| &counters.loaded);
            tracing::info!(
                setting = self.0.key,
                "where this leads was read again, and has changed"
            );
        }
        self.show(&login);
        let current = login.current();
        login.replaces_another(current)
    }

    /// Whether Postgres has refused the login that is current.
    pub(crate) fn is_refused_by_postgres(&self) -> bool {
        self.login().is_refused_by_postgres()
    }

    /// Connects, and closes the connection.
    ///
    /// # Errors
    ///
    /// As for any connection.
    pub(crate) async fn try_login(&self) -> Result<(), ConnectError> {
        let connection = self.connect().await?;
        // It has served its purpose.
        let _ = connection.close().await;
        Ok(())
    }

    /// Notes that the files have an error.
    pub(crate) fn refuse_files(&self) {
        let mut login = self.login();
        login.refuse_files();
        self.count(|counters| &counters.refused);
        self.show(&login);
    }

    /// Connects to the primary. Boxed, because every way to connect is part of it.
    ///
    /// # Errors
    ///
    /// If no primary can be reached, or none lets the login in.
    pub(super) fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>> {
        Box::pin(async {
            let servers = self.current();
            let refusal = match self.log_in(&servers).await {
                Err(error) if error.login_refused => error,
                outcome => return outcome,
            };
            if let Some(newer) = self.read_after_refusal(&servers).await {
                match self.log_in(&newer).await {
                    Err(error) if error.login_refused => {}
                    outcome => return outcome,
                }
            }
            let previous = self.login().previous(clock::now()).cloned();
            let Some(previous) = previous else { return Err(refusal) };
            // Its error would say less than the refusal of what is in the file now.
            self.connect_to(&previous).await.map_err(|error| {
                if error.login_refused {
                    self.login().refused_previous(&previous, clock::now());
                }
                refusal
            })
        })
    }

    /// Connects with one login, unless Postgres has just refused it.
    async fn log_in(&self, servers: &Servers) -> Result<Connection, ConnectError> {
        if let Some(error) = self.login().refused_lately(servers, clock::now()) {
            return Err(error);
        }
        let mut outcome = match self.connect_to(servers).await {
            Ok(connection) => self.permit(servers, connection).await,
            Err(error) => Err(error),
        };
        match &mut outcome {
            Ok(connection) => self.accepted(servers, connection),
            Err(error) if error.login_refused => self.refused(servers, error),
            Err(_) => {}
        }
        outcome
    }

    /// Refuses a login that replaces another one and may do more than serve.
    async fn permit(
        &self,
        servers: &Servers,
        mut connection: Connection,
    ) -> Result<Connection, ConnectError> {
        let replaces = self.login().replaces_another(servers);
        if !replaces || !self.0.serves_only.load(Relaxed) {
            return Ok(connection);
        }
        let rights = Rights::of(&mut *connection).await;
        let rights = rights.map_err(|error| connection.unreachable(&error))?;
        match rights.excess {
            None => Ok(connection),
            Some(excess) => Err(connection
                .refuses(format!("the login {} may administer patgate: {excess}", rights.login))),
        }
    }

    fn accepted(&self, servers: &Servers, connection: &mut Connection) {
        let mut login = self.login();
        if let Some(previous) = login.accepted(servers) {
            tracing::info!(setting = self.0.key, "logged in with what was read again");
            if !previous.lead_alike(servers) {
                self.replace_connections();
                // Not this one, which is the first of the new ones.
                connection.generation += 1;
            }
        }
        self.show(&login);
    }

    fn refused(&self, servers: &Servers, error: &ConnectError) {
        let mut login = self.login();
        if login.refused(servers, clock::now(), error.clone()) {
            self.count(|counters| &counters.refused);
            tracing::error!(
                %error,
                "the login is refused; open connections, and the login before if it was \
                 replaced, stay in use"
            );
        }
        self.show(&login);
    }

    /// Reads the files after Postgres has refused what they held. Returns what they hold now, or
    /// what another caller has read meanwhile; `None` if that is the same, or cannot be used.
    async fn read_after_refusal(&self, refused: &Servers) -> Option<Servers> {
        let read = self.0.read.clone()?;
        let mut last = self.0.reading.lock().await;
        let current = self.current();
        if current != *refused {
            return Some(current);
        }
        let now = clock::now();
        if last.is_some_and(|at| now.since(at) < AFTER_REFUSAL) {
            return None;
        }
        *last = Some(now);
        // An error is reported by the task that reads the files regularly, if it lasts.
        let servers = spawn_blocking(move || read()).await.ok()?.ok()?;
        if servers == current {
            return None;
        }
        self.take_up(servers.clone());
        Some(servers)
    }

    /// Shows the state of the login, whose lock the caller holds.
    fn show(&self, login: &Login) {
        let Some(counters) = self.0.counters.get() else { return };
        let refused = login.is_refused();
        if self.0.counted.swap(refused, Relaxed) != refused {
            counters.refusals.add(if refused { 1 } else { -1 });
        }
    }

    fn count(&self, counter: impl FnOnce(&AddressCounters) -> &Counter) {
        if let Some(counters) = self.0.counters.get() {
            counter(counters).inc();
        }
    }

    pub(super) fn count_move(&self) {
        self.count(|counters| &counters.moves);
    }

    /// Makes holders of connections replace them, each at its next use.
    pub(crate) fn replace_connections(&self) {
        self.0.generation.send_modify(|generation| *generation += 1);
    }

    pub(super) fn generation(&self) -> u64 {
        *self.0.generation.borrow()
    }

    /// Follows the generation, for a holder that waits and does not use its connection.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    pub(super) fn timelines(&self) -> &Timelines {
        &self.0.timelines
    }

    // No code that can panic runs under these locks.
    fn login(&self) -> MutexGuard<'_, Login> {
        self.0.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running_search(&self) -> MutexGuard<'_, Option<Search>> {
        self.0.search.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("key", &self.0.key).finish_non_exhaustive()
    }
}
