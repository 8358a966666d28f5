//! Resolves a key through memory, Redis and Postgres, within the bound on staleness.
//!
//! ```text
//! principal(id) ─▶ memory ─hit, fresh──────────────────────────────▶ answer
//!                    │miss            (old enough: refresh behind the answer)
//!                    ▼
//!                  one flight a key ─▶ redis ─▶ postgres ─▶ memory, redis
//! ```
//!
//! "Not found" is a value, `Ok(None)`; "cannot know" is an error, [`Unavailable`], and is never
//! kept. An entry may be used while its age, measured from before the statement that read it was
//! sent, is at most `max_staleness`; whoever waited for somebody else's look-up applies the rule
//! to its result again.

mod batch;
mod breaker;
mod flight;
mod memory;
pub(crate) mod postgres;
pub(crate) mod redis;
mod seal;

use std::{fmt::Display, hash::Hash, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::memory::Memory;
use self::{flight::Flights, postgres::Lookup, redis::Redis};
use crate::{
    clock::{Clock, Moment, Tick},
    domain::{Domain, DomainRef},
    principal::Principal,
    telemetry::Metrics,
    token::TokenId,
};

/// What is looked up: principals by token id, domains by reference.
pub(crate) trait Kind: 'static {
    type Key: Clone + Display + Eq + Hash + Send + Sync + 'static;
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// In metrics and Redis keys.
    const NAME: &'static str;

    /// Bytes a value occupies in memory.
    fn size(value: &Self::Value) -> usize;
}

pub(crate) enum Principals {}
pub(crate) enum Domains {}

impl Kind for Principals {
    type Key = TokenId;
    type Value = Principal;
    const NAME: &'static str = "principal";

    fn size(value: &Principal) -> usize {
        value.size()
    }
}

impl Kind for Domains {
    type Key = DomainRef;
    type Value = Domain;
    const NAME: &'static str = "domain";

    fn size(value: &Domain) -> usize {
        value.size()
    }
}

/// It could not be known in time whether there is such a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no store could answer in time")]
pub struct Unavailable;

/// What a look-up found, and when.
#[derive(Debug)]
pub(crate) struct Found<V> {
    /// Nothing: there is no such thing.
    pub(crate) value: Option<Arc<V>>,
    /// This was true at a moment not before this tick.
    pub(crate) as_of: Tick,
    /// The same in Postgres's clock, which other replicas can read.
    pub(crate) verified: Moment,
}

impl<V> Clone for Found<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), as_of: self.as_of, verified: self.verified }
    }
}

/// How old knowledge may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    pub(crate) max_staleness: Duration,
    /// The same for "there is no such thing", which nobody misses if it is asked again.
    pub(crate) negative_ttl: Duration,
}

impl Freshness {
    /// The longest that a finding may be used.
    fn bound<V>(&self, found: &Found<V>) -> Duration {
        if found.value.is_some() { self.max_staleness } else { self.negative_ttl }
    }

    fn allows<V>(&self, found: &Found<V>, now: Tick) -> bool {
        now.since(found.as_of) <= self.bound(found)
    }
}

/// The three tiers, for both kinds.
pub(crate) struct Resolver {
    pub(crate) principals: Arc<Tiers<Principals>>,
    pub(crate) domains: Arc<Tiers<Domains>>,
}

/// The three tiers for one kind.
pub(crate) struct Tiers<K: Kind> {
    memory: Memory<K>,
    flights: Flights<K::Key, Found<K::Value>>,
    redis: Option<Arc<Redis>>,
    postgres: Lookup<K>,
    clock: Arc<Clock>,
    freshness: Freshness,
    metrics: Metrics,
}

impl<K: Kind> Tiers<K> {
    pub(crate) fn new(
        memory: Memory<K>,
        redis: Option<Arc<Redis>>,
        postgres: Lookup<K>,
        clock: Arc<Clock>,
        freshness: Freshness,
        metrics: Metrics,
    ) -> Arc<Self> {
        let flights = Flights::default();
        Arc::new(Self { memory, flights, redis, postgres, clock, freshness, metrics })
    }

    /// What is under `key`. Answered from memory, the future is ready at its first poll.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: &K::Key,
    ) -> Result<Option<Arc<K::Value>>, Unavailable> {
        let now = Tick::now();
        if let Some(hit) = self.memory.get(key).filter(|hit| self.freshness.allows(&hit.found, now))
        {
            self.metrics.looked_up(K::NAME, "memory", hit.found.result());
            if hit.wants_refresh(now) {
                // Nobody waits for it; when it fails, the next use after a while tries again.
                drop(self.look_up(key, now.before(self.freshness.max_staleness / 4)));
            }
            return Ok(hit.found.value);
        }
        loop {
            let oldest = Tick::now().before(self.freshness.max_staleness);
            let found = self.look_up(key, oldest)?.await?;
            if self.freshness.allows(&found, Tick::now()) {
                return Ok(found.value);
            }
        }
    }

    /// Joins the look-up of `key` that is under way, or starts one. It takes nothing from Redis
    /// that is older than `oldest`.
    fn look_up(
        self: &Arc<Self>,
        key: &K::Key,
        oldest: Tick,
    ) -> Result<flight::Waiter<Found<K::Value>>, Unavailable> {
        let tiers = Arc::clone(self);
        self.flights.join(key, |key| async move { tiers.fill(key, oldest).await })
    }

    async fn fill(&self, key: K::Key, oldest: Tick) -> Result<Found<K::Value>, Unavailable> {
        if let Some(found) = self.ask_redis(&key, oldest).await {
            self.memory.insert(key, found.clone(), &self.freshness);
            return Ok(found);
        }
        let found = self.postgres.get(key.clone()).await.inspect_err(|Unavailable| {
            self.metrics.looked_up(K::NAME, "postgres", "unavailable");
        })?;
        self.metrics.looked_up(K::NAME, "postgres", found.result());
        self.memory.insert(key.clone(), found.clone(), &self.freshness);
        if let Some(redis) = &self.redis {
            redis.put::<K>(&key, &found, self.freshness.bound(&found));
        }
        Ok(found)
    }

    /// Whatever is wrong with Redis or with what it holds, Postgres is asked next.
    async fn ask_redis(&self, key: &K::Key, oldest: Tick) -> Option<Found<K::Value>> {
        let redis = self.redis.as_ref()?;
        let outcome = redis.get::<K>(key).await;
        let usable = outcome.and_then(|(verified, value)| {
            let now = Tick::now();
            let as_of = self.clock.tick_of(verified, now).ok_or("stale")?;
            let found = Found { value: value.map(Arc::new), as_of, verified };
            let fresh = as_of >= oldest && self.freshness.allows(&found, now);
            if fresh { Ok(found) } else { Err("stale") }
        });
        let result = usable.as_ref().map_or_else(|miss| *miss, Found::result);
        self.metrics.looked_up(K::NAME, "redis", result);
        usable.ok()
    }
}

impl<V> Found<V> {
    /// For metrics.
    fn result(&self) -> &'static str {
        if self.value.is_some() { "hit" } else { "negative" }
    }
}
