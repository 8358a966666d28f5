//! Resolves a key through memory, Redis and Postgres, within the bound on staleness.
//!
//! ```text
//! principal(id) ─▶ memory ─hit, fresh──────────────────────────────▶ answer
//!                    │miss            (old enough: refresh behind the answer)
//!                    ▼
//!                  one flight per key ─▶ redis ─▶ postgres ─▶ memory, redis
//! ```
//!
//! "Not found" is a value, `Ok(None)`; "cannot know" is an error, [`Unavailable`], and is never
//! kept. Whether an entry may be used, wherever it comes from, is decided by the rules in
//! `freshness.rs` and `keyring/live.rs`; a caller that joined the lookup of another one applies them
//! to the result again.

mod batch;
mod breaker;
mod flight;
mod kinds;
mod lanes;
mod load;
mod memory;
pub(crate) mod postgres;
mod queue;
pub(crate) mod redis;
mod renewal;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use self::{
    batch::Unanswered,
    flight::Flights,
    kinds::Defect,
    lanes::{Lane, Lanes},
    postgres::PostgresTier,
    redis::RedisTier,
};
pub(crate) use self::{
    kinds::{Backends, Domains, LookupKind, Principals},
    load::Load,
    memory::MemoryTier,
    renewal::Renewal,
};
use crate::{
    backend::ReservedNames,
    clock::{self, Clock, Moment, Tick},
    freshness::{AgeBounds, CheckedVersion, KnownChanges, Stamp},
    keyring::{KeyBasis, KeySerial, LiveRing},
    provenance::{Provenance, Tier},
    seal::Unsealed,
    telemetry::{CheckSpan, EntryContent, LookupResult, LookupTrace, Metrics},
    throttle::Throttle,
};

/// No store could determine in time whether the value exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no store could answer in time")]
pub struct Unavailable;

/// The result of a lookup, with its time and origin.
#[derive(Debug)]
pub(crate) struct Found<V> {
    /// `None` if it does not exist.
    pub(crate) value: Option<Arc<V>>,
    /// The result was true at a moment not before this tick.
    pub(crate) as_of: Tick,
    /// That moment in Postgres's clock, which other replicas can read.
    pub(crate) verified: Moment,
    /// The snapshot of the statement that read it.
    pub(crate) stamp: Arc<Stamp>,
    /// The key that sealed the entry, if Redis held it.
    pub(crate) seal: Option<KeySerial>,
    /// What the credentials rest on that were opened when the entry was kept.
    pub(crate) opened: OnceLock<Box<[KeyBasis]>>,
    /// Up to which version of the record of changes it was compared.
    pub(crate) checked: CheckedVersion,
    /// Lets `last_use` note one use of the entry in a while. It is here so that a check needs no
    /// second lookup for it.
    pub(crate) use_notes: Throttle,
    /// When a use last renewed the entry behind the answer.
    pub(crate) renewal: Renewal,
}

/// A result, and the tier that it came from.
type FoundInTier<V> = (Arc<Found<V>>, Tier);

/// The result for a key, as its caller may use it.
pub(crate) struct Resolved<V> {
    pub(crate) found: Arc<Found<V>>,
    tier: Tier,
    /// When the result was known: if memory held it, the time of the question.
    pub(crate) at: Tick,
    /// The result is true as of this tick or later.
    as_of: Tick,
}

impl<V> Resolved<V> {
    pub(crate) fn provenance(&self) -> Provenance {
        Provenance { tier: self.tier, age: self.at.since(self.as_of) }
    }
}

/// How long an entry lives in Redis: less than changes are kept on record.
const REDIS_TTL: Duration = Duration::from_secs(5 * 60);
/// How often a lookup is repeated if a change overtakes its result. If that is not enough, the
/// record and the database have different histories.
const ATTEMPTS: usize = 3;

/// The three tiers, for each kind.
pub(crate) struct Resolver {
    pub(crate) principals: Arc<Tiers<Principals>>,
    pub(crate) domains: Arc<Tiers<Domains>>,
    pub(crate) backends: Arc<Tiers<Backends>>,
}

/// The three tiers for one kind.
pub(crate) struct Tiers<K: LookupKind> {
    memory: MemoryTier<K>,
    /// Counts the values found in memory; nearly every check finds one.
    hits: Counter,
    flights: Flights<K::Key, FoundInTier<K::Value>>,
    lanes: Lanes,
    /// The stamp of the latest result. While nothing commits in Postgres, all results share it.
    stamp: Mutex<Option<Arc<Stamp>>>,
    postgres: PostgresTier<K>,
    context: TierContext,
}

/// What the tiers of all kinds have in common.
#[derive(Clone)]
pub(crate) struct TierContext {
    pub(crate) redis: Option<Arc<RedisTier>>,
    /// Opens the credentials of backends, and says which keys are in force.
    pub(crate) ring: LiveRing,
    /// The names that no backend may have.
    pub(crate) reserved: ReservedNames,
    pub(crate) clock: Arc<Clock>,
    pub(crate) changes: Arc<KnownChanges>,
    pub(crate) bounds: AgeBounds,
    pub(crate) metrics: Metrics,
}

impl<K: LookupKind> Tiers<K> {
    pub(crate) fn new(
        memory: MemoryTier<K>,
        postgres: PostgresTier<K>,
        context: TierContext,
    ) -> Arc<Self> {
        Arc::new(Self {
            memory,
            hits: context.metrics.lookups(K::NAME, Tier::Memory, LookupResult::Hit),
            flights: Flights::default(),
            lanes: Lanes::new(K::OWNED),
            stamp: Mutex::default(),
            postgres,
            context,
        })
    }

    /// Returns the result for `key`, for a question of the time `now`. If memory holds it, the
    /// future is ready at its first poll. `check` is the span of the check that asks, if it has one.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: &K::Key,
        now: Tick,
        check: Option<&CheckSpan>,
    ) -> Result<Resolved<K::Value>, Unavailable> {
        if let Some(found) = self.memory.get(key)
            && let Some(known) = self.usable(key, &found, now)
        {
            match found.value {
                Some(_) => drop(self.hits.inc()),
                None => self.count(Tier::Memory, LookupResult::Negative),
            }
            let max_staleness = self.context.bounds.max_staleness;
            if found.value.is_some() && found.renewal.due(found.as_of, known, now, max_staleness) {
                // No caller waits for it; if it fails, the next use after a while tries again.
                drop(self.look_up(key, now.before(max_staleness / 4), None));
            }
            return Ok(Resolved { found, tier: Tier::Memory, at: now, as_of: known });
        }
        for _ in 0..ATTEMPTS {
            let oldest = clock::now().before(self.context.bounds.max_staleness);
            let (found, tier) = self.look_up(key, oldest, check)?.await?;
            // A result that was true after the caller asked is always usable, however short the
            // limits are.
            let answered = clock::now();
            let bound = |known: &Tick| *known >= now || self.within_bound(&found, *known, answered);
            if let Some(as_of) = self.holds_as_of(key, &found).filter(bound) {
                return Ok(Resolved { found, tier, at: answered, as_of });
            }
        }
        Err(Unavailable)
    }

    /// Returns whether the keys are in force on which a result rests.
    pub(crate) fn is_in_force(&self, found: &Found<K::Value>) -> bool {
        let ring = &self.context.ring;
        let opened = found.opened.get().map_or(&[][..], |opened| opened);
        found.seal.is_none_or(|seal| ring.holds(seal))
            && opened.iter().all(|basis| ring.permits(*basis))
    }

    /// Returns the tick as of which a result is true, as far as this replica knows.
    fn holds_as_of(&self, key: &K::Key, found: &Found<K::Value>) -> Option<Tick> {
        if !self.is_in_force(found) {
            return None;
        }
        let value = found.value.as_deref();
        let (changes, stamp, checked) = (&self.context.changes, &found.stamp, &found.checked);
        let known = changes.holds_as_of(stamp, checked, found.as_of, |visit| {
            K::visit_dependencies(key, value, visit);
        })?;
        // The feed does not extend the life of a negative: looking it up again costs little.
        Some(if value.is_some() { known } else { found.as_of })
    }

    fn within_bound(&self, found: &Found<K::Value>, known: Tick, now: Tick) -> bool {
        self.context.bounds.permit(found.value.is_some(), known, now)
    }

    /// Returns that tick if the result is fresh enough to be used.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    fn usable(&self, key: &K::Key, found: &Found<K::Value>, now: Tick) -> Option<Tick> {
        self.holds_as_of(key, found).filter(|known| self.within_bound(found, *known, now))
    }

    fn count(&self, tier: Tier, result: LookupResult) {
        self.context.metrics.looked_up(K::NAME, tier, result);
    }

    /// Joins the lookup of `key` that is in progress, or starts one. It takes nothing from Redis
    /// that is older than `oldest`.
    fn look_up(
        self: &Arc<Self>,
        key: &K::Key,
        oldest: Tick,
        check: Option<&CheckSpan>,
    ) -> Result<flight::Waiter<FoundInTier<K::Value>>, Unavailable> {
        let tiers = Arc::clone(self);
        let lane = self.lanes.of(key);
        let fill = |key, trace| async move { tiers.fill(key, lane, oldest, &trace).await };
        let joined = self.flights.join(key, lane, check, fill);
        joined.inspect_err(|Unavailable| self.count(Tier::Postgres, Unanswered::Shed.result()))
    }

    async fn fill(
        &self,
        key: K::Key,
        lane: Lane,
        oldest: Tick,
        trace: &LookupTrace,
    ) -> Result<FoundInTier<K::Value>, Unavailable> {
        let TierContext { redis, bounds, .. } = &self.context;
        // Another lookup may have ended after memory was checked and before this one began.
        if let Some(found) = self.memory.get(&key)
            && self.usable(&key, &found, clock::now()).is_some_and(|known| known >= oldest)
        {
            self.count(Tier::Memory, found.result());
            return Ok((found, Tier::Memory));
        }
        if let Some(found) = self.ask_redis(&key, oldest, trace).await {
            let found = self.shared_stamp(found);
            self.keep(key, &found, trace);
            return Ok((found, Tier::Redis));
        }
        let found = self.postgres.get(key.clone(), lane, trace).await.map_err(|unanswered| {
            self.count(Tier::Postgres, unanswered.result());
            Unavailable
        })?;
        self.count(Tier::Postgres, found.result());
        let found = self.shared_stamp(found);
        self.keep(key.clone(), &found, trace);
        if let Some(redis) = redis {
            let ttl = if found.value.is_some() { REDIS_TTL } else { bounds.negative_ttl };
            redis.put::<K>(&key, &found, ttl);
        }
        Ok((found, Tier::Postgres))
    }

    /// Lets the result share the stamp of the latest one, if they are equal.
    fn shared_stamp(&self, mut found: Found<K::Value>) -> Arc<Found<K::Value>> {
        // No code that can panic runs under this lock.
        let mut latest = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(stamp) if **stamp == *found.stamp => found.stamp = Arc::clone(stamp),
            _ => *latest = Some(Arc::clone(&found.stamp)),
        }
        Arc::new(found)
    }

    fn keep(&self, key: K::Key, found: &Arc<Found<K::Value>>, trace: &LookupTrace) {
        let metrics = &self.context.metrics;
        let value = found.value.as_deref();
        for defect in K::prepare(&key, value, &self.context.ring, &self.context.reserved) {
            report(&defect, metrics, trace);
        }
        found.opened.get_or_init(|| value.map(K::bases).unwrap_or_default().into());
        if let Some(owner) = value.and_then(K::owner) {
            self.lanes.learn(&key, &owner);
        }
        self.memory.insert(key, Arc::clone(found), |held| self.is_in_force(held));
        let (values, negatives) = self.memory.counts();
        metrics.held(K::NAME, EntryContent::Value, values);
        metrics.held(K::NAME, EntryContent::Negative, negatives);
    }

    /// Asks Redis. If it fails, or its entry cannot be used, Postgres is asked next.
    async fn ask_redis(
        &self,
        key: &K::Key,
        oldest: Tick,
        trace: &LookupTrace,
    ) -> Option<Found<K::Value>> {
        let redis = self.context.redis.as_ref()?;
        let usable = self.held_by_redis(redis, key, oldest, trace).await;
        let result = usable.as_ref().map_or_else(|reason| *reason, Found::result);
        self.count(Tier::Redis, result);
        usable.ok()
    }

    /// Returns what Redis holds under `key`, if that can be used and is no older than `oldest`; if
    /// not, the reason.
    pub(crate) async fn held_by_redis(
        &self,
        redis: &RedisTier,
        key: &K::Key,
        oldest: Tick,
        trace: &LookupTrace,
    ) -> Result<Found<K::Value>, LookupResult> {
        let Unsealed { payload: entry, key: seal } =
            redis.get::<K>(key, self.lanes.of(key), trace).await?;
        let now = clock::now();
        let as_of = self.context.clock.tick_of(entry.verified, now).ok_or(LookupResult::Stale)?;
        let found = Found {
            value: entry.value.map(Arc::new),
            as_of,
            verified: entry.verified,
            stamp: Arc::new(entry.stamp),
            seal: Some(seal),
            opened: OnceLock::new(),
            checked: CheckedVersion::default(),
            use_notes: Throttle::default(),
            renewal: Renewal::default(),
        };
        let known = self.usable(key, &found, now).filter(|known| *known >= oldest);
        known.map(|_| found).ok_or(LookupResult::Stale)
    }
}

#[cfg(test)]
impl<K: LookupKind> Tiers<K> {
    /// Lets a lookup of `key` be in progress, with this result once `lands` is notified.
    pub(crate) fn let_fly(
        &self,
        key: &K::Key,
        found: Found<K::Value>,
        lands: Arc<tokio::sync::Notify>,
    ) {
        let flight = |_, _| async move {
            lands.notified().await;
            Ok((Arc::new(found), Tier::Redis))
        };
        drop(self.flights.join(key, self.lanes.of(key), None, flight));
    }

    /// Puts a result into memory, as a lookup does that has ended.
    pub(crate) fn remember(&self, key: K::Key, found: Found<K::Value>) {
        self.memory.insert(key, Arc::new(found), |_| true);
    }

    /// Lets a poll be sent now that continues from nothing and brings these changes, none of which the
    /// stamp includes.
    pub(crate) fn poll(&self, now: Tick, earlier: &Stamp, changes: Vec<crate::freshness::Change>) {
        use crate::{
            freshness::{Poll, Triggers},
            snapshot::Xid,
        };
        let poll = Poll {
            sent: now,
            stamp: Stamp { snapshot: "13:13:".parse().unwrap(), ..earlier.clone() },
            triggers: Triggers { state: 1, switched: Xid(0) },
            horizon: "1:1:".parse().unwrap(),
            after: None,
            changes: changes.into_iter().map(|change| (Xid(12), change)).collect(),
        };
        assert!(self.context.changes.apply(poll).joined);
    }

    /// Returns what memory holds under `key`.
    pub(crate) fn remembered(&self, key: &K::Key) -> Option<Arc<Found<K::Value>>> {
        self.memory.get(key)
    }
}

fn report(defect: &Defect, metrics: &Metrics, trace: &LookupTrace) {
    let trace_id = trace.id().map(tracing::field::display);
    match defect {
        Defect::UnopenedCredential { backend, key_id } => {
            metrics.unopened_credential();
            tracing::error!(
                trace_id,
                backend = &**backend,
                key_id = &**key_id,
                "a backend's credential cannot be opened; requests for it are answered with 503"
            );
        }
        Defect::UnknownBackend { backend } => tracing::error!(
            trace_id,
            backend = &**backend,
            "the API tables name a backend that does not exist; requests for it are answered with \
             503 until `patgate backend create` makes it, or the tables name another one"
        ),
        Defect::ReservedName { backend } => tracing::error!(
            trace_id,
            backend = &**backend,
            "this backend has the name of one of the gateway's own clusters (routes.reserved); requests \
             for it are answered with 503 until it has another name"
        ),
    }
}

impl<V> Found<V> {
    pub(crate) fn result(&self) -> LookupResult {
        if self.value.is_some() { LookupResult::Hit } else { LookupResult::Negative }
    }
}
