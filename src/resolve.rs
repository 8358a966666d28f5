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
//! kept. Whether an entry may be used, wherever it comes from, is for the rule in `feed.rs` to say;
//! whoever waited for somebody else's look-up applies it to the result again.

mod batch;
mod breaker;
mod flight;
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
    fmt::Display,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, de::DeserializeOwned};

use self::{
    batch::Unanswered,
    flight::Flights,
    lanes::{Lane, Lanes},
    postgres::Lookup,
    redis::Redis,
};
pub(crate) use self::{load::Load, memory::Memory, renewal::Renewal};
use crate::{
    backend::{Backend, BackendName},
    clock::{Clock, Moment, Tick},
    credential::{Credential, Sealed},
    domain::{Domain, DomainRef},
    feed::{Checked, Feed, Stamp, Subject},
    grounds::{Grounds, Tier},
    keyring::KeyRing,
    last_use::Noted,
    principal::{Principal, UserId},
    telemetry::Metrics,
    token::TokenId,
};

/// What is looked up: principals by token id, domains by reference, backends that tables name.
pub(crate) trait Kind: 'static {
    type Key: Clone + Display + Eq + Hash + Send + Sync + 'static;
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// In metrics and Redis keys.
    const NAME: &'static str;

    /// Bytes a value occupies in memory.
    fn size(value: &Self::Value) -> usize;

    /// What a finding under `key` rests on: a change to any of it may have made it wrong.
    fn rests_on(key: &Self::Key, value: Option<&Self::Value>, visit: &mut dyn FnMut(Subject));

    /// Whether values have owners, whose look-ups wait in one lane.
    const OWNED: bool = false;

    /// Whose a value is.
    fn owner(_value: &Self::Value) -> Option<UserId> {
        None
    }

    /// Makes a value ready for use, once, wherever it came from.
    fn prepare(_value: &Self::Value, _shared: &Shared) {}

    /// Called for each finding that there is no such thing.
    fn missing(_key: &Self::Key) {}
}

pub(crate) enum Principals {}
pub(crate) enum Domains {}
pub(crate) enum Backends {}

impl Kind for Principals {
    type Key = TokenId;
    type Value = Principal;
    const NAME: &'static str = "principal";
    const OWNED: bool = true;

    fn owner(value: &Principal) -> Option<UserId> {
        Some(value.owner)
    }

    fn size(value: &Principal) -> usize {
        value.size()
    }

    fn rests_on(key: &TokenId, value: Option<&Principal>, visit: &mut dyn FnMut(Subject)) {
        visit(Subject::Token(*key));
        let Some(principal) = value else { return };
        visit(Subject::User(principal.owner));
        for domain in principal.domains() {
            visit(Subject::Domain(domain));
            visit(Subject::Membership(principal.owner, domain));
        }
    }
}

impl Kind for Domains {
    type Key = DomainRef;
    type Value = Domain;
    const NAME: &'static str = "domain";

    fn size(value: &Domain) -> usize {
        value.size()
    }

    fn rests_on(key: &DomainRef, value: Option<&Domain>, visit: &mut dyn FnMut(Subject)) {
        match key {
            DomainRef::Id(id) => visit(Subject::Domain(*id)),
            DomainRef::Slug(slug) => visit(Subject::Slug(slug.clone())),
        }
        if let Some(domain) = value {
            visit(Subject::Domain(domain.id));
            domain.backends().for_each(|backend| visit(Subject::Backend(backend.into())));
        }
    }

    fn prepare(domain: &Domain, shared: &Shared) {
        domain.open_credentials(|backend, sealed| shared.open(backend, sealed));
    }
}

/// Each is an entry of its own, so what is known of one does not depend on which tables were in use
/// when it was read, nor by which replica.
impl Kind for Backends {
    type Key = BackendName;
    type Value = Backend;
    const NAME: &'static str = "backend";

    fn size(value: &Backend) -> usize {
        size_of::<Backend>() + value.heap_size()
    }

    fn rests_on(key: &BackendName, _: Option<&Backend>, visit: &mut dyn FnMut(Subject)) {
        visit(Subject::Backend(key.as_str().into()));
    }

    fn prepare(backend: &Backend, shared: &Shared) {
        backend.open_credential(|name, sealed| shared.open(name, sealed));
    }

    fn missing(key: &BackendName) {
        tracing::error!(
            backend = key.as_str(),
            "the API tables name a backend that does not exist; requests for it are answered with \
             503 until `patgate backend create` makes it, or the tables name another one"
        );
    }
}

impl Shared {
    /// Opens a backend's credential, and reports one that cannot be opened.
    fn open(&self, backend: &str, sealed: &Sealed) -> Option<Credential> {
        let opened = sealed.open(&self.ring, backend);
        if opened.is_none() {
            self.metrics.unopened_credential();
            tracing::error!(
                backend,
                key_id = &*sealed.key_id,
                "a backend's credential cannot be opened; requests for it are answered with 503"
            );
        }
        opened
    }
}

/// It could not be known in time whether there is such a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no store could answer in time")]
pub struct Unavailable;

/// What a look-up found, when, and where.
#[derive(Debug)]
pub(crate) struct Found<V> {
    /// Nothing: there is no such thing.
    pub(crate) value: Option<Arc<V>>,
    /// This was true at a moment not before this tick.
    pub(crate) as_of: Tick,
    /// The same in Postgres's clock, which other replicas can read.
    pub(crate) verified: Moment,
    /// What the statement that read it saw.
    pub(crate) stamp: Arc<Stamp>,
    /// How far it was compared with the record of changes.
    pub(crate) checked: Checked,
    /// When a use of it was last noted.
    pub(crate) noted: Noted,
    /// When a use of it last renewed it behind the answer.
    pub(crate) renewal: Renewal,
}

/// What was found, and by whom.
type Answered<V> = (Arc<Found<V>>, Tier);

/// What is known of a key.
pub(crate) struct Known<V> {
    pub(crate) found: Arc<Found<V>>,
    tier: Tier,
    /// When that was known: when it was asked for, if memory could tell.
    pub(crate) at: Tick,
    /// As of when that is true, at least.
    as_of: Tick,
}

impl<V> Known<V> {
    pub(crate) fn grounds(&self) -> Grounds {
        Grounds { tier: self.tier, age: self.at.since(self.as_of) }
    }
}

/// How old knowledge may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    pub(crate) max_staleness: Duration,
    /// The same for "there is no such thing".
    pub(crate) negative_ttl: Duration,
}

/// How long an entry lives in Redis: less than changes are kept on record.
const REDIS_TTL: Duration = Duration::from_secs(5 * 60);
/// A result that a change has overtaken is asked for again this often. More would mean that the
/// record and the database are not of one history.
const ATTEMPTS: usize = 3;

/// The three tiers, for each kind.
pub(crate) struct Resolver {
    pub(crate) principals: Arc<Tiers<Principals>>,
    pub(crate) domains: Arc<Tiers<Domains>>,
    pub(crate) backends: Arc<Tiers<Backends>>,
}

/// The three tiers for one kind.
pub(crate) struct Tiers<K: Kind> {
    memory: Memory<K>,
    /// Counts what memory finds to be there; nearly every check does.
    hits: Counter,
    flights: Flights<K::Key, Answered<K::Value>>,
    lanes: Lanes,
    /// That of the latest finding. While nothing commits in Postgres, all findings share it.
    stamp: Mutex<Option<Arc<Stamp>>>,
    postgres: Lookup<K>,
    shared: Shared,
}

/// What the tiers of all kinds have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) redis: Option<Arc<Redis>>,
    /// Opens the credentials of backends.
    pub(crate) ring: KeyRing,
    pub(crate) clock: Arc<Clock>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) freshness: Freshness,
    pub(crate) metrics: Metrics,
}

impl<K: Kind> Tiers<K> {
    pub(crate) fn new(memory: Memory<K>, postgres: Lookup<K>, shared: Shared) -> Arc<Self> {
        let hits = shared.metrics.lookups(K::NAME, "memory", "hit");
        let (flights, stamp) = (Flights::default(), Mutex::default());
        let lanes = Lanes::new(K::OWNED);
        Arc::new(Self { memory, hits, flights, lanes, stamp, postgres, shared })
    }

    /// What is under `key`, asked for at `now`. Answered from memory, the future is ready at its
    /// first poll.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: &K::Key,
        now: Tick,
    ) -> Result<Known<K::Value>, Unavailable> {
        if let Some(found) = self.memory.get(key)
            && let Some(known) = self.usable(key, &found, now)
        {
            match found.value {
                Some(_) => drop(self.hits.inc()),
                None => self.count("memory", "negative"),
            }
            let max_staleness = self.shared.freshness.max_staleness;
            if found.value.is_some() && found.renewal.due(found.as_of, known, now, max_staleness) {
                // Nobody waits for it; when it fails, the next use after a while tries again.
                drop(self.look_up(key, now.before(max_staleness / 4)));
            }
            return Ok(Known { found, tier: Tier::Memory, at: now, as_of: known });
        }
        for _ in 0..ATTEMPTS {
            let oldest = Tick::now().before(self.shared.freshness.max_staleness);
            let (found, tier) = self.look_up(key, oldest)?.await?;
            // What was true after we were asked is an answer, however short the bounds.
            let answered = Tick::now();
            let bound = |known: &Tick| *known >= now || self.within_bound(&found, *known, answered);
            if let Some(as_of) = self.holds_as_of(key, &found).filter(bound) {
                return Ok(Known { found, tier, at: answered, as_of });
            }
        }
        Err(Unavailable)
    }

    /// The tick as of which a finding is true, as far as is known here.
    fn holds_as_of(&self, key: &K::Key, found: &Found<K::Value>) -> Option<Tick> {
        let value = found.value.as_deref();
        let rests_on = |visit: &mut dyn FnMut(Subject)| K::rests_on(key, value, visit);
        let known =
            self.shared.feed.holds_as_of(&found.stamp, &found.checked, found.as_of, rests_on)?;
        // The feed does not prolong a negative: nobody misses it if it is asked for again.
        Some(if value.is_some() { known } else { found.as_of })
    }

    fn within_bound(&self, found: &Found<K::Value>, known: Tick, now: Tick) -> bool {
        let Freshness { max_staleness, negative_ttl } = self.shared.freshness;
        now.since(known) <= if found.value.is_some() { max_staleness } else { negative_ttl }
    }

    /// That tick, if the finding is fresh enough to be used.
    #[inline(never)] // A stage of which `make bench-check` counts the instructions.
    fn usable(&self, key: &K::Key, found: &Found<K::Value>, now: Tick) -> Option<Tick> {
        self.holds_as_of(key, found).filter(|known| self.within_bound(found, *known, now))
    }

    fn count(&self, tier: &'static str, result: &'static str) {
        self.shared.metrics.looked_up(K::NAME, tier, result);
    }

    /// Joins the look-up of `key` that is under way, or starts one. It takes nothing from Redis
    /// that is older than `oldest`.
    fn look_up(
        self: &Arc<Self>,
        key: &K::Key,
        oldest: Tick,
    ) -> Result<flight::Waiter<Answered<K::Value>>, Unavailable> {
        let (tiers, lane) = (Arc::clone(self), self.lanes.of(key));
        let fill = |key| async move { tiers.fill(key, lane, oldest).await };
        let joined = self.flights.join(key, lane, fill);
        joined.inspect_err(|Unavailable| self.count("postgres", Unanswered::Shed.result()))
    }

    async fn fill(
        &self,
        key: K::Key,
        lane: Lane,
        oldest: Tick,
    ) -> Result<Answered<K::Value>, Unavailable> {
        let Shared { redis, freshness, .. } = &self.shared;
        // Another look-up may have ended after memory was asked and before this one began.
        if let Some(found) = self.memory.get(&key)
            && self.usable(&key, &found, Tick::now()).is_some_and(|known| known >= oldest)
        {
            self.count("memory", found.result());
            return Ok((found, Tier::Memory));
        }
        if let Some(found) = self.ask_redis(&key, oldest).await {
            let found = self.shared_stamp(found);
            self.keep(key, &found);
            return Ok((found, Tier::Redis));
        }
        let found = self.postgres.get(key.clone(), lane).await.map_err(|unanswered| {
            self.count("postgres", unanswered.result());
            Unavailable
        })?;
        self.count("postgres", found.result());
        let found = self.shared_stamp(found);
        self.keep(key.clone(), &found);
        if let Some(redis) = redis {
            let ttl = if found.value.is_some() { REDIS_TTL } else { freshness.negative_ttl };
            redis.put::<K>(&key, &found, ttl);
        }
        Ok((found, Tier::Postgres))
    }

    /// With the stamp of the finding before, if it is the same.
    fn shared_stamp(&self, mut found: Found<K::Value>) -> Arc<Found<K::Value>> {
        // No code that can panic runs under this lock.
        let mut latest = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(stamp) if **stamp == *found.stamp => found.stamp = Arc::clone(stamp),
            _ => *latest = Some(Arc::clone(&found.stamp)),
        }
        Arc::new(found)
    }

    fn keep(&self, key: K::Key, found: &Arc<Found<K::Value>>) {
        let metrics = &self.shared.metrics;
        match &found.value {
            Some(value) => {
                K::prepare(value, &self.shared);
                if let Some(owner) = K::owner(value) {
                    self.lanes.learn(&key, &owner);
                }
            }
            None => K::missing(&key),
        }
        self.memory.insert(key, Arc::clone(found));
        let (values, negatives) = self.memory.counts();
        metrics.held(K::NAME, "value", values);
        metrics.held(K::NAME, "negative", negatives);
    }

    /// Whatever is wrong with Redis or with what it holds, Postgres is asked next.
    async fn ask_redis(&self, key: &K::Key, oldest: Tick) -> Option<Found<K::Value>> {
        let redis = self.shared.redis.as_ref()?;
        let usable = self.held_by_redis(redis, key, oldest).await;
        let result = usable.as_ref().map_or_else(|miss| *miss, Found::result);
        self.count("redis", result);
        if result == "refused" {
            redis.complain_of_seals();
        }
        usable.ok()
    }

    /// What Redis holds under `key`, if that can be used and is no older than `oldest`; or a word
    /// for why not, as in metrics.
    pub(crate) async fn held_by_redis(
        &self,
        redis: &Redis,
        key: &K::Key,
        oldest: Tick,
    ) -> Result<Found<K::Value>, &'static str> {
        let entry = redis.get::<K>(key, self.lanes.of(key)).await?;
        let now = Tick::now();
        let as_of = self.shared.clock.tick_of(entry.verified, now).ok_or("stale")?;
        let found = Found {
            value: entry.value.map(Arc::new),
            as_of,
            verified: entry.verified,
            stamp: Arc::new(entry.stamp),
            checked: Checked::default(),
            noted: Noted::default(),
            renewal: Renewal::default(),
        };
        let known = self.usable(key, &found, now).filter(|known| *known >= oldest);
        known.map(|_| found).ok_or("stale")
    }
}

impl<V> Found<V> {
    /// For metrics.
    pub(crate) fn result(&self) -> &'static str {
        if self.value.is_some() { "hit" } else { "negative" }
    }
}
