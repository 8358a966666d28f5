//! What the operator's commands share: settings, the service, and how results are shown.

use std::cell::OnceCell;

use anyhow::Context as _;
use sqlx::PgPool;

use super::{
    Global,
    output::{Output, complain},
    warnings::show_warnings,
};
use crate::{
    admin::{self, Actor, Admin, CachedCopies, Outcome},
    config::{Config, ConfigErrors, ConfigPurpose, ConfigSources},
    postgres,
};

pub(super) struct Session {
    pub(super) sources: ConfigSources,
    pub(super) out: Output,
    actor: Actor,
    pool: OnceCell<PgPool>,
}

impl Session {
    pub(super) fn new(global: Global) -> anyhow::Result<Self> {
        Ok(Self {
            sources: ConfigSources::of_process(global.config, global.set),
            out: Output(global.output),
            actor: match global.actor {
                Some(actor) => actor,
                None => format!("cli:{}", operating_system_user()).parse()?,
            },
            pool: OnceCell::new(),
        })
    }

    pub(super) fn config(&self, purpose: ConfigPurpose) -> Result<Config, ConfigErrors> {
        Config::load(&self.sources, purpose)
    }

    /// The service, without the key ring.
    pub(super) async fn admin(&self) -> anyhow::Result<Admin> {
        self.connect(&self.config(ConfigPurpose::Admin)?).await
    }

    /// Adds the key ring that the configuration names.
    pub(super) fn with_keys(&self, admin: Admin) -> anyhow::Result<Admin> {
        let config = self.config(ConfigPurpose::Admin)?;
        Ok(admin.with_keys(config.key_ring()?, config.token_prefixes))
    }

    /// Connects to the database that a configuration names.
    pub(super) async fn connect(&self, config: &Config) -> anyhow::Result<Admin> {
        let pool = postgres::connect(&config.postgres).await?;
        let pool = self.pool.get_or_init(|| pool);
        let cached_copies = CachedCopies {
            installation: postgres::check(pool).await?,
            redis: config.redis.clone(),
            max_staleness: config.max_staleness,
        };
        Ok(Admin::new(pool.clone(), self.actor.clone(), cached_copies))
    }

    /// Shows the warnings about a change, and returns its result.
    pub(super) fn accept<T>(&self, outcome: Outcome<T>) -> T {
        show_warnings(&outcome.warnings);
        outcome.value
    }

    /// Shows the warnings about a change of something that `show` can print, and what was done. Both go
    /// to standard error: the result is the state that the change led to, which `state` reads.
    pub(super) async fn changed<T, S>(
        &self,
        outcome: Outcome<T>,
        done: &str,
        state: impl Future<Output = Result<S, admin::Error>>,
    ) -> anyhow::Result<S> {
        self.accept(outcome);
        complain(done);
        state.await.context("the change is made, but the resulting state cannot be read")
    }

    /// Shows the warnings about a change, and then `done` as its result.
    pub(super) fn report<T>(&self, outcome: Outcome<T>, done: &str) -> anyhow::Result<()> {
        self.accept(outcome);
        self.out.message(done)
    }

    /// Closes the connections to Postgres. A connection that is only dropped costs a pooler its
    /// connection to the server.
    pub(super) async fn close(&self) {
        if let Some(pool) = self.pool.get() {
            pool.close().await;
        }
    }
}

/// The name of the user that this process runs as; if it has none, the user's number.
fn operating_system_user() -> String {
    // The name may come from a directory that others maintain, and be no valid name of an actor.
    let name = uzers::get_effective_username().and_then(|name| name.into_string().ok());
    let name = name.filter(|name| name.parse::<Actor>().is_ok());
    name.unwrap_or_else(|| uzers::get_effective_uid().to_string())
}
