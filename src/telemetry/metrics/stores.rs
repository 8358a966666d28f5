//! Lookups in memory, Redis and Postgres, and the round trips to the two stores.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge},
};

use super::{Metrics, Registrar};
use crate::{
    provenance::Tier,
    telemetry::{
        closed::Closed,
        results::{
            EntryContent,
            LookupResult::{
                self, Hit, Miss, Negative, Open, Refused, Retired, Shed, Stale, Unavailable,
            },
            MetricResult, ReloadResult, Store,
        },
    },
};

/// The kinds of lookups, as `LookupKind::NAME` has them.
const KINDS: [&str; 3] = ["principal", "domain", "backend"];

/// The tiers, with the results that a lookup in each may have.
const TIERS: [(Tier, &[LookupResult]); 3] = [
    (Tier::Memory, &[Hit, Negative]),
    (Tier::Redis, &[Hit, Negative, Miss, Stale, Retired, Refused, Open, Unavailable]),
    (Tier::Postgres, &[Hit, Negative, Shed, Unavailable]),
];

/// The settings that hold an address of Postgres.
const ADDRESSES: [&str; 2] = ["postgres.url", "feed.url"];

/// Labels of one lookup in one tier, with its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    kind: &'static str,
    tier: &'static str,
    result: &'static str,
}

impl TierLabels {
    fn of(kind: &'static str, tier: Tier, result: LookupResult) -> Self {
        Self { kind, tier: tier.as_str(), result: result.as_str() }
    }

    fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter().flat_map(|kind| {
            TIERS.into_iter().flat_map(move |(tier, results)| {
                results.iter().map(move |result| Self::of(kind, tier, *result))
            })
        })
    }
}

/// Labels of the entries in memory: their kind, and whether they are values or negatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EntryLabels {
    kind: &'static str,
    holds: &'static str,
}

/// Label of a round trip: the store that it went to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    store: &'static str,
}

impl StoreLabels {
    fn of(store: Store) -> Self {
        Self { store: store.as_str() }
    }
}

/// Labels of files for a store: the store, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    store: &'static str,
    result: &'static str,
}

impl ReloadLabels {
    fn of(store: Store, result: ReloadResult) -> Self {
        Self { store: store.as_str(), result: result.as_str() }
    }

    fn all() -> impl Iterator<Item = Self> {
        let results = |store| ReloadResult::ALL.iter().map(move |result| Self::of(store, *result));
        Store::ALL.iter().copied().flat_map(results)
    }
}

/// Label of an address: the setting that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettingLabels {
    setting: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Stores {
    lookups: Closed<TierLabels, Counter>,
    entries: Closed<EntryLabels, Gauge>,
    commands: Closed<StoreLabels, Counter>,
    failures: Closed<StoreLabels, Counter>,
    other_installation: Closed<SettingLabels, Counter>,
    reloads: Closed<ReloadLabels, Counter>,
    /// An alert on a counter would end while the files are still refused.
    refused: Closed<StoreLabels, Gauge>,
    primary_changes: Closed<SettingLabels, Counter>,
    dropped_writes: Counter,
    unopened_credentials: Counter,
}

impl Stores {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let lookups = Closed::new(TierLabels::all());
        to.registered("lookups", "Lookups by kind, tier and result", lookups.family());
        let holdings = |kind| {
            EntryContent::ALL
                .iter()
                .map(move |content| EntryLabels { kind, holds: content.as_str() })
        };
        let entries = Closed::new(KINDS.into_iter().flat_map(holdings));
        to.registered(
            "memory_entries",
            "Entries in memory after the last lookup that added one",
            entries.family(),
        );
        let commands = Closed::new(Store::ALL.iter().copied().map(StoreLabels::of));
        to.registered(
            "store_commands",
            "Round trips to a store; each is a Redis command or a Postgres query",
            commands.family(),
        );
        let failures = Closed::new(Store::ALL.iter().copied().map(StoreLabels::of));
        to.registered(
            "store_failures",
            "Round trips to a store that failed or timed out",
            failures.family(),
        );
        let other_installation = Closed::new(ADDRESSES.map(|setting| SettingLabels { setting }));
        to.registered(
            "other_installation_answers",
            "Postgres answers that were not used because another installation gave them, by the \
             setting that led there",
            other_installation.family(),
        );
        let reloads = Closed::new(ReloadLabels::all());
        to.registered(
            "store_credential_reloads",
            "Changes of the files with passwords and certificates for a store, by result: loaded \
             or refused",
            reloads.family(),
        );
        let refused = Closed::new(Store::ALL.iter().copied().map(StoreLabels::of));
        to.registered(
            "store_credentials_refused",
            "1 while the files with passwords and certificates for a store have an error, or the \
             store refuses the password in them, and earlier ones are in use",
            refused.family(),
        );
        let primary_changes = Closed::new(ADDRESSES.map(|setting| SettingLabels { setting }));
        to.registered(
            "postgres_primary_changes",
            "Times that another of the servers of this setting was found to be the primary",
            primary_changes.family(),
        );
        Self {
            lookups,
            entries,
            commands,
            failures,
            other_installation,
            reloads,
            refused,
            primary_changes,
            dropped_writes: to.count(
                "redis_dropped_writes",
                "Entries not written to Redis because the queue was full or Redis failed",
            ),
            unopened_credentials: to.count(
                "unopened_credentials",
                "Backend credentials that could not be opened when the backend or domain was read",
            ),
        }
    }
}

impl Metrics {
    /// Returns the counter of one result of a tier, for callers that count often.
    pub(crate) fn lookups(&self, kind: &'static str, tier: Tier, result: LookupResult) -> Counter {
        self.stores.lookups.handle(&TierLabels::of(kind, tier, result))
    }

    pub(crate) fn looked_up(&self, kind: &'static str, tier: Tier, result: LookupResult) {
        self.stores.lookups.of(&TierLabels::of(kind, tier, result)).inc();
    }

    pub(crate) fn held(&self, kind: &'static str, content: EntryContent, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let holds = content.as_str();
        self.stores.entries.of(&EntryLabels { kind, holds }).set(count);
    }

    pub(crate) fn command(&self, store: Store) {
        self.stores.commands.of(&StoreLabels::of(store)).inc();
    }

    pub(crate) fn failure(&self, store: Store) {
        self.stores.failures.of(&StoreLabels::of(store)).inc();
    }

    /// The counter of round trips to a store.
    pub(crate) fn commands(&self, store: Store) -> Counter {
        self.stores.commands.handle(&StoreLabels::of(store))
    }

    /// The counter of round trips to a store that failed or timed out.
    pub(crate) fn failures(&self, store: Store) -> Counter {
        self.stores.failures.handle(&StoreLabels::of(store))
    }

    /// The counter of answers by another installation, to which a setting led.
    pub(crate) fn other_installation_answers(&self, setting: &'static str) -> Counter {
        self.stores.other_installation.handle(&SettingLabels { setting })
    }

    /// Counts a change of the files with passwords and certificates for a store.
    pub(crate) fn reloaded_credentials(&self, store: Store, result: ReloadResult) {
        self.stores.reloads.of(&ReloadLabels::of(store, result)).inc();
        let refused = i64::from(result == ReloadResult::Refused);
        self.stores.refused.of(&StoreLabels::of(store)).set(refused);
    }

    /// The gauge of the passwords and certificates for a store.
    pub(crate) fn credentials_refused(&self, store: Store) -> Gauge {
        self.stores.refused.handle(&StoreLabels::of(store))
    }

    /// The counter of changes of the passwords and certificates for a store.
    pub(crate) fn credential_reloads(&self, store: Store, result: ReloadResult) -> Counter {
        self.stores.reloads.handle(&ReloadLabels::of(store, result))
    }

    /// The counter of failovers among the servers of a setting.
    pub(crate) fn primary_changes(&self, setting: &'static str) -> Counter {
        self.stores.primary_changes.handle(&SettingLabels { setting })
    }

    pub(crate) fn dropped_write(&self) {
        self.stores.dropped_writes.inc();
    }

    pub(crate) fn unopened_credential(&self) {
        self.stores.unopened_credentials.inc();
    }
}
