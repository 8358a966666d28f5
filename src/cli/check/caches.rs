//! Shows what Redis holds about a request, and so from which tier a replica would answer that has
//! just started.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use serde::{Serialize, Serializer};

use crate::{
    backend::BackendName,
    clock::{self, Clock, Tick},
    config::{self, Config},
    domain::DomainRef,
    feed::{FeedReader, Lease},
    freshness::{AgeBounds, KnownChanges},
    keyring::KeyRing,
    postgres::Postgres,
    process::tasks::Tasks,
    redis_client::{
        access::RedisAccess,
        probe::{RedisUse, probe},
    },
    resolve::{
        Found, Load, LookupKind, MemoryTier, TierContext, Tiers, postgres::lookups,
        redis::RedisTier,
    },
    seal::Sealer,
    telemetry::{LookupResult, LookupTrace, MetricResult as _, Metrics},
    token::TokenId,
};

/// Time limit for a new connection and the answer. No client waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The entry that Redis holds under one key.
#[derive(Debug, Serialize)]
pub(super) struct RedisEntry {
    /// The result of the lookup, in the words of its metric.
    #[serde(serialize_with = "as_word")]
    entry: LookupResult,
    /// The age of a usable entry: how long ago Postgres was asked.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "to_the_millisecond")]
    age_seconds: Option<f64>,
    /// Why Redis cannot be used, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// The entries that Redis holds for one request.
#[derive(Debug, Serialize)]
pub(super) struct RedisEntries {
    token: RedisEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<RedisEntry>,
    /// The backend that the rule or its table names.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<RedisEntry>,
}

impl fmt::Display for RedisEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.entry {
            LookupResult::Hit => "usable",
            LookupResult::Negative => "usable; it says that this does not exist",
            LookupResult::Miss => "no entry",
            LookupResult::Stale => "too old, or outdated by a change",
            LookupResult::Retired => "sealed by a key that this key ring lacks",
            LookupResult::Refused => "not sealed by this key ring",
            LookupResult::Open | LookupResult::Shed | LookupResult::Unavailable => {
                "Redis cannot be used"
            }
        };
        f.write_str(words)?;
        if let Some(fault) = &self.fault {
            write!(f, ": {fault}")?;
        }
        self.age_seconds.map_or(Ok(()), |age| write!(f, ", as of {age:.1} s ago"))
    }
}

impl RedisEntries {
    pub(super) fn lines(&self) -> Vec<String> {
        let entries = [
            ("token", Some(&self.token)),
            ("domain", self.domain.as_ref()),
            ("backend", self.backend.as_ref()),
        ];
        let line = |(what, entry): (&str, Option<&RedisEntry>)| {
            entry.map(|entry| format!("redis, {what}: {entry}"))
        };
        entries.into_iter().filter_map(line).collect()
    }
}

/// What a lookup in Redis needs.
pub(super) struct LookupContext<'a> {
    pub(super) redis: &'a config::RedisSettings,
    pub(super) ring: &'a KeyRing,
    pub(super) postgres: &'a Postgres,
    pub(super) clock: &'a Arc<Clock>,
    pub(super) changes: &'a Arc<KnownChanges>,
}

/// Judges the entries like a replica that has just read the feed of changes. Counts nothing and writes
/// nothing.
pub(super) async fn inspect(
    config: &Config,
    context: LookupContext<'_>,
    token: TokenId,
    domain: Option<&DomainRef>,
    backend: Option<&BackendName>,
) -> anyhow::Result<RedisEntries> {
    let LookupContext { redis: settings, ring, postgres, .. } = context;
    let prefix = context.changes.installation().redis_prefix();
    let access = match RedisAccess::open(settings) {
        Ok(access) => match probe(&access, &prefix, &[RedisUse::Read]).await {
            Ok(()) => Ok(access),
            Err(fault) => Err(fault.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    let access = match access {
        Ok(access) => access,
        Err(fault) => {
            let unused = || RedisEntry {
                entry: LookupResult::Unavailable,
                age_seconds: None,
                fault: Some(fault.clone()),
            };
            return Ok(RedisEntries {
                token: unused(),
                domain: domain.map(|_| unused()),
                backend: backend.map(|_| unused()),
            });
        }
    };
    let ring = ring.clone();
    let clock = Arc::clone(context.clock);
    let changes = Arc::clone(context.changes);
    let metrics = Metrics::new(&mut Registry::default());
    let max_staleness = config.max_staleness;
    let tasks = Tasks::default();
    let reader = FeedReader {
        changes: Arc::clone(&changes),
        clock: Arc::clone(&clock),
        settings: config.postgres.clone(),
        listens: false,
        postgres: postgres.clone(),
        lease: Lease::new(max_staleness),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        max_staleness,
        distrusted: Arc::default(),
    };
    reader.catch_up().await;
    let settings = config::RedisSettings { timeout: PATIENCE, ..settings.clone() };
    let sealer = Sealer::new(ring.clone(), changes.installation());
    let redis = RedisTier::spawn(&settings, &access, sealer, metrics.clone(), &tasks)?;
    let bounds = AgeBounds { max_staleness, negative_ttl: config.negative_ttl };
    let tiers = TierContext {
        redis: None,
        ring: ring.into(),
        reserved: config.routes.rules.reserved.clone(),
        clock,
        changes,
        bounds,
        metrics,
    };
    let load = Arc::new(Load::new(1, config.deadline));
    let (principals, domains, backends) = lookups(postgres, &load, &tasks);
    let principals = Tiers::new(MemoryTier::new(0, 0), principals, tiers.clone());
    let domains = Tiers::new(MemoryTier::new(0, 0), domains, tiers.clone());
    let backends = Tiers::new(MemoryTier::new(0, 0), backends, tiers);
    let domain = match domain {
        Some(reference) => Some(entry(&domains, &redis, reference).await),
        None => None,
    };
    let backend = match backend {
        Some(name) => Some(entry(&backends, &redis, name).await),
        None => None,
    };
    Ok(RedisEntries { token: entry(&principals, &redis, &token).await, domain, backend })
}

async fn entry<K: LookupKind>(tiers: &Tiers<K>, redis: &RedisTier, key: &K::Key) -> RedisEntry {
    let any_age = Tick::from_micros(i64::MIN);
    let found = tiers.held_by_redis(redis, key, any_age, &LookupTrace::default()).await;
    let age = |found: &Found<K::Value>| clock::now().since(found.as_of).as_secs_f64();
    RedisEntry {
        entry: found.as_ref().map_or_else(|reason| *reason, Found::result),
        age_seconds: found.as_ref().ok().map(age),
        fault: None,
    }
}

fn as_word<S: Serializer>(result: &LookupResult, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(result.as_str())
}

fn to_the_millisecond<S: Serializer>(age: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    age.map(|age| (age * 1e3).round() / 1e3).serialize(to)
}
