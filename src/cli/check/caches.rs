//! What Redis holds about a request: which tier a replica that just started would answer from.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use serde::{Serialize, Serializer};

use crate::{
    backend::BackendName,
    clock::{Clock, Tick},
    config::{self, Config},
    domain::DomainRef,
    feed::{Feed, Lease, Reader},
    keyring::KeyRing,
    postgres::Postgres,
    redis_fault::{Use, probe},
    resolve::{
        Found, Freshness, Kind, Load, Memory, Shared, Tiers, postgres::lookups, redis::Redis,
    },
    seal::Sealer,
    tasks::Tasks,
    telemetry::Metrics,
    token::TokenId,
};

/// For a new connection and the answer. Nobody's request waits here.
const PATIENCE: Duration = Duration::from_secs(2);

/// What Redis holds under one key.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    /// A word as in the metrics of look-ups.
    entry: &'static str,
    /// How long ago Postgres was asked, of an entry that can be used.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "to_the_millisecond")]
    age_seconds: Option<f64>,
    /// Why Redis cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Each kind.
#[derive(Debug, Serialize)]
pub(super) struct Caches {
    token: Held,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Held>,
    /// That the rule or its table names.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Held>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.entry {
            "hit" => "usable",
            "negative" => "usable, says that there is none",
            "miss" => "no entry",
            "stale" => "too old, or outdated by a change",
            "refused" => "not sealed by this key ring",
            _ => "Redis cannot be used",
        };
        f.write_str(words)?;
        if let Some(fault) = &self.fault {
            write!(f, ": {fault}")?;
        }
        self.age_seconds.map_or(Ok(()), |age| write!(f, ", as of {age:.1} s ago"))
    }
}

impl Caches {
    pub(super) fn lines(&self) -> Vec<String> {
        let (domain, backend) = (self.domain.as_ref(), self.backend.as_ref());
        let held = [("token", Some(&self.token)), ("domain", domain), ("backend", backend)];
        let told = held.into_iter().filter_map(|(what, held)| Some((what, held?)));
        told.map(|(what, held)| format!("redis, {what}: {held}")).collect()
    }
}

/// What it takes to look.
pub(super) struct With<'a> {
    pub(super) redis: &'a config::Redis,
    pub(super) ring: &'a KeyRing,
    pub(super) postgres: &'a Postgres,
    pub(super) clock: &'a Arc<Clock>,
    pub(super) feed: &'a Arc<Feed>,
}

/// Judges the entries as a replica would that has read the feed of changes this moment. It counts
/// nothing and writes nothing.
pub(super) async fn look(
    config: &Config,
    with: With<'_>,
    token: TokenId,
    domain: Option<&DomainRef>,
    backend: Option<&BackendName>,
) -> anyhow::Result<Caches> {
    let With { redis: settings, ring, postgres, .. } = with;
    let prefix = with.feed.installation().redis_prefix();
    if let Err(fault) = probe(settings, &prefix, &[Use::Read]).await {
        let unused =
            || Held { entry: "unavailable", age_seconds: None, fault: Some(fault.to_string()) };
        let (domain, backend) = (domain.map(|_| unused()), backend.map(|_| unused()));
        return Ok(Caches { token: unused(), domain, backend });
    }
    let (ring, clock, feed) = (ring.clone(), Arc::clone(with.clock), Arc::clone(with.feed));
    let metrics = Metrics::new(&mut Registry::default());
    let max_staleness = config.max_staleness;
    let tasks = Tasks::default();
    let reader = Reader {
        feed: Arc::clone(&feed),
        clock: Arc::clone(&clock),
        settings: config.postgres.clone(),
        listens: false,
        postgres: postgres.clone(),
        lease: Lease::new(max_staleness),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        max_staleness,
    };
    reader.catch_up().await;
    let settings = config::Redis { timeout: PATIENCE, ..settings.clone() };
    let sealer = Sealer::new(ring.clone(), feed.installation());
    let redis = Redis::spawn(&settings, sealer, metrics.clone(), &tasks)?;
    let freshness = Freshness { max_staleness, negative_ttl: config.negative_ttl };
    let shared = Shared { redis: None, ring, clock, feed, freshness, metrics };
    let load = Arc::new(Load::new(1, config.deadline));
    let (principals, domains, backends) = lookups(postgres, &load, &tasks);
    let principals = Tiers::new(Memory::new(0, 0), principals, shared.clone());
    let domains = Tiers::new(Memory::new(0, 0), domains, shared.clone());
    let backends = Tiers::new(Memory::new(0, 0), backends, shared);
    let domain = match domain {
        Some(reference) => Some(held(&domains, &redis, reference).await),
        None => None,
    };
    let backend = match backend {
        Some(name) => Some(held(&backends, &redis, name).await),
        None => None,
    };
    Ok(Caches { token: held(&principals, &redis, &token).await, domain, backend })
}

async fn held<K: Kind>(tiers: &Tiers<K>, redis: &Redis, key: &K::Key) -> Held {
    let any_age = Tick::from_micros(i64::MIN);
    let found = tiers.held_by_redis(redis, key, any_age).await;
    let age = |found: &Found<K::Value>| Tick::now().since(found.as_of).as_secs_f64();
    Held {
        entry: found.as_ref().map_or_else(|word| *word, Found::result),
        age_seconds: found.as_ref().ok().map(age),
        fault: None,
    }
}

fn to_the_millisecond<S: Serializer>(age: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    age.map(|age| (age * 1e3).round() / 1e3).serialize(to)
}
