//! What the administrator's commands share: settings, the store, and tidying up after a change.

use std::{cell::OnceCell, os::unix::fs::MetadataExt as _, sync::Arc};

use prometheus_client::registry::Registry;
use sqlx::PgPool;

use super::{
    Global,
    forget::forget,
    output::{Output, complain},
};
use crate::{
    clock::Clock,
    config::{Config, Mistakes, Purpose, Sources},
    feed::Feed,
    installation::Installation,
    postgres::Postgres,
    schema,
    store::{Actor, Changed, Store},
    telemetry::Metrics,
    token::Tokens,
};

pub(super) struct Session {
    pub(super) sources: Sources,
    pub(super) out: Output,
    actor: Actor,
    pool: OnceCell<PgPool>,
}

/// A store, and what to do after a change.
pub(super) struct Admin {
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) installation: Installation,
}

impl Session {
    pub(super) fn new(global: Global) -> anyhow::Result<Self> {
        Ok(Self {
            sources: Sources::of_process(global.config, global.set),
            out: Output(global.output),
            actor: match global.actor {
                Some(actor) => actor,
                None => format!("cli:{}", operating_system_user()).parse()?,
            },
            pool: OnceCell::new(),
        })
    }

    pub(super) fn config(&self, purpose: Purpose) -> Result<Config, Mistakes> {
        Config::load(&self.sources, purpose)
    }

    pub(super) async fn admin(&self) -> anyhow::Result<Admin> {
        let config = self.config(Purpose::Admin)?;
        let pool = schema::connect(&config.postgres).await?;
        let pool = self.pool.get_or_init(|| pool);
        let installation = schema::check(pool).await?;
        let store = Store::new(pool.clone(), self.actor.clone());
        Ok(Admin { store, config, installation })
    }

    /// Says goodbye to Postgres. A connection that just ends costs a pooler one to the server.
    pub(super) async fn close(&self) {
        if let Some(pool) = self.pool.get() {
            pool.close().await;
        }
    }
}

impl Admin {
    pub(super) fn tokens(&self) -> anyhow::Result<Tokens> {
        Ok(Tokens::new(self.config.token_prefixes.clone(), self.config.key_ring()?))
    }

    /// Asks Postgres as the service does, its look-ups included.
    pub(super) fn postgres(&self, clock: &Arc<Clock>, feed: &Arc<Feed>) -> Postgres {
        let metrics = Metrics::new(&mut Registry::default());
        Postgres::new(&self.config.postgres, Arc::clone(clock), Arc::clone(feed), metrics)
    }

    /// Deletes what a change has outdated in Redis. Replicas hold copies in memory for
    /// `max_staleness` at most, with or without this.
    pub(super) async fn settle<T>(&self, changed: Changed<T>) -> T {
        if let Some(redis) = &self.config.redis
            && let Err(error) = forget(redis, self.installation, &changed.touched).await
        {
            complain(&format!(
                "warning: {error}; the change is committed, but cached copies may be used \
                 for up to max_staleness ({})",
                humantime::format_duration(self.config.max_staleness),
            ));
        }
        changed.value
    }
}

/// The name of the user that this process runs as, or their number where the name is not known.
fn operating_system_user() -> String {
    let Ok(uid) = std::fs::metadata("/proc/self").map(|process| process.uid()) else {
        // No Linux. The environment may be set to anything, but so may `--actor`.
        let user = std::env::var("USER").ok().filter(|user| user.parse::<Actor>().is_ok());
        return user.unwrap_or_else(|| "unknown".to_owned());
    };
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| uid.to_string(), str::to_owned)
}
