//! A pool that leads to where its address leads, also after a password, a server or a login has changed.
//!
//! sqlx makes the connections of a pool itself, with the options that it was given last. So these are
//! replaced once a connection to where the address leads now has been made, and not before: until
//! then, what worked stays in use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::time::timeout;

use super::{
    Address, ConnectError, PostgresSettings, Servers,
    connect::{self, Connection, connect_one},
};
use crate::clock::{self, Tick};

/// Time limit for a new connection, whichever server it leads to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool, and whether it leads to where its address leads.
#[derive(Debug)]
pub(crate) struct FollowedPool {
    pool: PgPool,
    address: Address,
    /// What was known of the address before the latest connection was made.
    seen: Known,
    /// Older connections lead elsewhere.
    replaced: Arc<AtomicI64>,
}

#[derive(Debug, PartialEq)]
struct Known {
    servers: Servers,
    generation: u64,
    is_refused: bool,
}

impl Known {
    fn of(address: &Address) -> Self {
        Self {
            servers: address.current(),
            generation: address.generation(),
            is_refused: address.is_refused_by_postgres(),
        }
    }
}

/// A connection to where the address leads now.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: Connection,
    seen: Known,
}

impl FollowedPool {
    /// Connects once, then returns a pool that connects to the same place when it is used.
    ///
    /// # Errors
    ///
    /// If Postgres cannot be reached with these settings.
    pub(crate) async fn connect(settings: &PostgresSettings) -> Result<Self, ConnectError> {
        let address = settings.address.clone();
        let seen = Known::of(&address);
        let connection = connect_one(settings).await?;
        let options = connection.options().clone();
        // It has served its purpose.
        let _ = connection.close().await;
        let replaced = Arc::new(AtomicI64::new(0));
        let since = Arc::clone(&replaced);
        let pool = connect::options_of_pools(settings)
            // Its caller repeats no request, so a dead connection must be found before it is used.
            .test_before_acquire(true)
            .before_acquire(move |_, connection| {
                let begun = clock::now().before(connection.age);
                let leads_here = begun >= Tick::from_micros(since.load(Relaxed));
                Box::pin(async move { Ok(leads_here) })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, address, seen, replaced })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Connects, if the address may lead elsewhere than the pool or with another login. Returns `None` if
    /// it does not, or if Postgres cannot be reached: then the next call tries again.
    pub(crate) async fn change(&self) -> Option<Arrival> {
        let seen = Known::of(&self.address);
        if seen == self.seen {
            return None;
        }
        let connection = timeout(PATIENCE, self.address.connect()).await.ok()?.ok()?;
        Some(Arrival { connection, seen })
    }

    /// Makes the pool lead there.
    pub(crate) async fn follow(&mut self, to: Arrival) {
        let Arrival { connection, seen } = to;
        self.pool.set_connect_options(connection.options().clone());
        if seen.generation != self.seen.generation || !seen.servers.lead_alike(&self.seen.servers) {
            self.replaced.store(clock::now().as_micros(), Relaxed);
        }
        self.seen = seen;
        let _ = connection.close().await;
    }

    /// Leaves the pool where it leads, until something else is known of the address.
    pub(crate) async fn stay(&mut self, here: Arrival) {
        self.seen = here.seen;
        let _ = here.connection.close().await;
    }
}
