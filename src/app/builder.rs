//! Builds the larger parts of patgate from the configuration.

use std::sync::{Arc, OnceLock};

use super::{
    Error,
    canary::Canary,
    ring_reload::OpenedStores,
    stores::{FeedWarning, VerifiedStores},
};
use crate::{
    clock::Clock,
    config::{self, Config},
    feed::{FeedReader, Lease, Relay},
    freshness::{AgeBounds, KnownChanges},
    keyring::LiveRing,
    postgres::{self, AddressCounters, BackgroundWriter, Postgres, PostgresSettings, Refusals},
    process::tasks::Tasks,
    redis_client::access::RedisAccess,
    resolve::{
        Load, MemoryTier, Resolver, TierContext, Tiers, postgres::lookups, redis::RedisTier,
    },
    seal::Sealer,
    telemetry::{Metrics, ReloadResult, Store},
};

/// Memory for backends that API tables name: enough for hundreds of them, with long credentials.
const BACKENDS_MEMORY: u64 = 2 << 20;

/// The values from which the larger parts are built, and which they share. Everything that reads a
/// store is built here, from stores that have passed their checks.
pub(super) struct Builder {
    stores: VerifiedStores,
    pub(super) config: Arc<Config>,
    pub(super) ring: LiveRing,
    pub(super) clock: Arc<Clock>,
    pub(super) changes: Arc<KnownChanges>,
    pub(super) redis: Option<Arc<RedisAccess>>,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
}

/// What does not depend on the stores.
#[derive(Clone)]
pub(super) struct SharedParts {
    pub(super) ring: LiveRing,
    /// The way to Redis. What there is to read, only the stores say.
    pub(super) redis: Option<Arc<RedisAccess>>,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
    /// What a change of the key ring concerns, once the gate is open.
    pub(super) opened: Arc<OnceLock<OpenedStores>>,
    pub(super) feed_warning: Arc<FeedWarning>,
}

impl Builder {
    pub(super) fn of(stores: VerifiedStores, config: &Arc<Config>, parts: SharedParts) -> Self {
        let SharedParts { ring, redis, metrics, tasks, opened: _, feed_warning } = parts;
        feed_warning.warn(&stores);
        let changes = Arc::new(KnownChanges::of(stores.installation()));
        let config = Arc::clone(config);
        let clock = Arc::default();
        Self { stores, config, ring, clock, changes, redis, metrics, tasks }
    }

    /// Returns the reader of the feed, which has one connection for polling; the listener and the
    /// lock of the leader each have another one.
    pub(super) fn reader(&self) -> FeedReader {
        let settings = self.config.feed();
        FeedReader {
            changes: Arc::clone(&self.changes),
            clock: Arc::clone(&self.clock),
            postgres: self.postgres(&settings),
            settings,
            listens: self.stores.listens(),
            lease: Lease::new(self.config.max_staleness),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            max_staleness: self.config.max_staleness,
            distrusted: Arc::default(),
        }
    }

    pub(super) fn relay(&self) -> Option<Relay> {
        let redis = self.redis.as_ref().filter(|_| self.config.relay);
        redis.map(|redis| Relay::new(redis, self.sealer()))
    }

    pub(super) fn resolver(&self, postgres: &Postgres) -> Result<Resolver, Error> {
        let config = &*self.config;
        let redis = match self.redis.as_ref().zip(config.redis.as_ref()) {
            Some((access, settings)) => {
                let metrics = self.metrics.clone();
                let tier = RedisTier::spawn(settings, access, self.sealer(), metrics, &self.tasks)
                    .map_err(|error| Error::RedisPool(error.to_string()))?;
                tier.probe_in_background(access, &self.tasks);
                Some(tier)
            }
            None => None,
        };
        let context = TierContext {
            redis,
            ring: self.ring.clone(),
            reserved: config.routes.rules.reserved.clone(),
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

    pub(super) fn canary(&self, resolver: &Resolver) -> Option<Canary> {
        let config = &*self.config;
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

    pub(super) fn postgres(&self, settings: &PostgresSettings) -> Postgres {
        let clock = Arc::clone(&self.clock);
        let changes = Arc::clone(&self.changes);
        Postgres::new(settings, clock, changes, self.counters(settings))
    }

    fn counters(&self, settings: &PostgresSettings) -> postgres::Counters {
        postgres::Counters {
            queries: self.metrics.commands(Store::Postgres),
            failures: self.metrics.failures(Store::Postgres),
            other_installation: self.metrics.other_installation_answers(settings.key),
        }
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(self.ring.clone(), self.changes.installation())
    }

    pub(super) fn writer(&self) -> BackgroundWriter {
        let settings = self.config.postgres.clone();
        let counters = self.counters(&settings);
        BackgroundWriter::new(settings, self.changes.installation(), counters)
    }
}

/// Counts what happens at the addresses of Postgres, from the first connection on.
pub(super) fn count_addresses(config: &Config, metrics: &Metrics) {
    let refusals = Refusals::shown_in(metrics.credentials_refused(Store::Postgres));
    let reloads = |result| metrics.credential_reloads(Store::Postgres, result);
    for (setting, address) in
        [("postgres.url", Some(&config.postgres.address)), ("feed.url", config.feed.as_ref())]
    {
        if let Some(address) = address {
            address.count_into(AddressCounters {
                refusals: refusals.clone(),
                loaded: reloads(ReloadResult::Loaded),
                refused: reloads(ReloadResult::Refused),
                moves: metrics.primary_changes(setting),
            });
        }
    }
}
