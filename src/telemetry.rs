//! Logs, and every metric by name.
//!
//! Label values come from closed sets: never a token, a user, a path or a model.

mod histogram;
mod logs;
pub(crate) mod outlet;

use std::{fmt, time::Duration};

use axum::{http::header::CONTENT_TYPE, response::IntoResponse};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Metric, Registry, Unit},
};

use self::histogram::Durations;
pub use self::logs::init;
pub(crate) use self::logs::{flush, last_words};
use crate::rollout::Mode;

/// Upper bounds in seconds, from 1 ms to a minute.
const PROPAGATION_BUCKETS: [f64; 15] =
    [1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds in seconds. There is a poll at least every 0.4 s; the promise is one second.
const AGE_BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Labels of one answered check: the verdict with its code, and whether it was enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    outcome: &'static str,
    code: &'static str,
    enforced: bool,
}

/// Labels of one lookup in one tier, with its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TierLabels {
    kind: &'static str,
    tier: &'static str,
    result: &'static str,
}

/// Labels of the entries in memory: their kind, and whether they are values or negatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EntryLabels {
    kind: &'static str,
    holds: &'static str,
}

/// Label of a round trip: the store that it went to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    store: &'static str,
}

/// Label of the mode, which says whether denials are enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModeLabels {
    mode: &'static str,
}

/// Label of an address: the setting that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SettingLabels {
    setting: &'static str,
}

/// Label of a result, such as `written` or `dropped`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    result: &'static str,
}

/// All metrics of the process. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: Family<DecisionLabels, Counter>,
    /// The member of `decisions` that counts enforced allows, kept here because most checks use it.
    allowed: Counter,
    check_duration: Durations,
    panics: Counter,
    lookups: Family<TierLabels, Counter>,
    entries: Family<EntryLabels, Gauge>,
    commands: Family<StoreLabels, Counter>,
    failures: Family<StoreLabels, Counter>,
    other_installation: Family<SettingLabels, Counter>,
    dropped_writes: Counter,
    unopened_credentials: Counter,
    polls: Family<ResultLabels, Counter>,
    changes: Counter,
    restarts: Counter,
    triggers_off: Gauge,
    triggers_switched: Counter,
    frames: Family<ResultLabels, Counter>,
    leads: Gauge,
    silences: Counter,
    last_uses: Family<ResultLabels, Counter>,
    canary_rounds: Family<ResultLabels, Counter>,
    propagation: Histogram,
    renewed_at_age: Histogram,
    api_reloads: Family<ResultLabels, Counter>,
    logged: Family<ResultLabels, Counter>,
    mode: Family<ModeLabels, Gauge>,
    bodies_asked: Counter,
    bodies_awaited: Gauge,
    awaited_bytes: Gauge,
    bodies_unasked: Counter,
}

/// Creates metrics and registers each under its name.
struct Registrar<'r>(&'r mut Registry);

impl Registrar<'_> {
    /// Registers a counter, a gauge or a family of them.
    fn count<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

impl Metrics {
    /// Creates the metrics and registers them in `registry`, with names that begin with `patgate_`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("patgate");
        let mut to = Registrar(registry);
        let decisions: Family<DecisionLabels, Counter> = to.count(
            "decisions",
            "Answered checks by outcome and code, and by whether the verdict was enforced",
        );
        let allowed = DecisionLabels { outcome: "allow", code: "ok", enforced: true };
        let allowed = decisions.get_or_create(&allowed).clone();
        // The process has one log, and so one counter of its lines.
        to.0.register("log_lines", "Log lines by result", logs::counts());
        Self {
            allowed,
            decisions,
            check_duration: to.seconds(
                "check_duration",
                "Time from the decoded request to the answer",
                Durations::default(),
            ),
            panics: to.count("panics", "Checks that panicked and were denied"),
            lookups: to.count("lookups", "Lookups by kind, tier and result"),
            entries: to.count(
                "memory_entries",
                "Entries in memory after the last lookup that added one",
            ),
            commands: to.count(
                "store_commands",
                "Round trips to a store; each is a Redis command or a Postgres query",
            ),
            failures: to.count("store_failures", "Round trips to a store that failed or timed out"),
            other_installation: to.count(
                "other_installation_answers",
                "Postgres answers that were not used because another installation gave them, by the \
                 setting that led there",
            ),
            dropped_writes: to.count(
                "redis_dropped_writes",
                "Entries not written to Redis because the queue was full or Redis failed",
            ),
            unopened_credentials: to.count(
                "unopened_credentials",
                "Backend credentials that could not be opened when the backend or domain was read",
            ),
            polls: to.count("feed_polls", "Polls of the change feed"),
            changes: to.count("feed_changes", "Changes read from the feed"),
            restarts: to.count(
                "feed_restarts",
                "Restarts of the record of changes: at startup, after a gap, after too many changes at \
                 once, after triggers had been off, on a new server",
            ),
            triggers_off: to.count(
                "feed_triggers_off",
                "1 while triggers that record changes are off or missing; polls are not used then",
            ),
            triggers_switched: to.count(
                "feed_triggers_switched",
                "Times that a poll found that triggers had been off or created again since the last poll",
            ),
            frames: to.count("relay_frames", "Frames of the relay by result"),
            leads: to.count("relay_leader", "1 while this replica relays the feed to the others"),
            silences: to.count(
                "relay_silences",
                "Times the relay went silent and this replica polled Postgres itself",
            ),
            renewed_at_age: to.seconds(
                "feed_renewed_at_age",
                "Age of the knowledge of changes each time that a poll renewed it",
                Histogram::new(AGE_BUCKETS),
            ),
            last_uses: to.count("last_used_writes", "Recorded uses of tokens by result"),
            canary_rounds: to.count(
                "revocation_canary_rounds",
                "Changes of the canary by result: seen, not seen in time, or not made",
            ),
            propagation: to.seconds(
                "revocation_propagation",
                "Time from before a change of the canary was sent until the replica obeyed it",
                Histogram::new(PROPAGATION_BUCKETS),
            ),
            api_reloads: to
                .count("api_reloads", "Changes of API tables by result: loaded or refused"),
            logged: to.count(
                "decision_log_records",
                "Records of the decision log by result",
            ),
            mode: to.count(
                "mode",
                "1 for the mode of this replica, which says whether denials are enforced",
            ),
            bodies_asked: to.count(
                "bodies_asked",
                "First checks of two in which patgate asked Envoy for the body; not a decision",
            ),
            bodies_awaited: to.count(
                "bodies_awaited",
                "Bodies that patgate has asked for, and that have neither arrived nor timed out",
            ),
            awaited_bytes: to.count(
                "bodies_awaited_bytes",
                "Total length of these bodies; a body without a length counts as 32 MiB",
            ),
            bodies_unasked: to.count(
                "bodies_unasked",
                "Second checks of two whose first check this replica did not answer, or no longer counts",
            ),
        }
    }

    /// Sets the gauge of this replica's mode.
    pub(crate) fn in_mode(&self, mode: Mode) {
        self.mode.get_or_create(&ModeLabels { mode: mode.as_str() }).set(1);
    }

    pub(crate) fn asked_for_a_body(&self) {
        self.bodies_asked.inc();
    }

    pub(crate) fn unasked_body(&self) {
        self.bodies_unasked.inc();
    }

    pub(crate) fn bodies_awaited(&self, bodies: usize, bytes: u64) {
        self.bodies_awaited.set(i64::try_from(bodies).unwrap_or(i64::MAX));
        self.awaited_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn logged_decisions(&self, result: &'static str, count: u64) {
        self.logged.get_or_create(&ResultLabels { result }).inc_by(count);
    }

    pub(crate) fn decided(
        &self,
        outcome: &'static str,
        code: &'static str,
        enforced: bool,
        took: Duration,
    ) {
        match outcome {
            "allow" => self.allowed.inc(),
            _ => self.decisions.get_or_create(&DecisionLabels { outcome, code, enforced }).inc(),
        };
        self.check_duration.observe(took);
    }

    pub(crate) fn reloaded_apis(&self, result: &'static str) {
        self.api_reloads.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// Returns the counter of one result of a tier, for callers that count often.
    pub(crate) fn lookups(
        &self,
        kind: &'static str,
        tier: &'static str,
        result: &'static str,
    ) -> Counter {
        self.lookups.get_or_create(&TierLabels { kind, tier, result }).clone()
    }

    pub(crate) fn looked_up(&self, kind: &'static str, tier: &'static str, result: &'static str) {
        self.lookups.get_or_create(&TierLabels { kind, tier, result }).inc();
    }

    pub(crate) fn held(&self, kind: &'static str, holds: &'static str, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.entries.get_or_create(&EntryLabels { kind, holds }).set(count);
    }

    pub(crate) fn command(&self, store: &'static str) {
        self.commands.get_or_create(&StoreLabels { store }).inc();
    }

    pub(crate) fn failure(&self, store: &'static str) {
        self.failures.get_or_create(&StoreLabels { store }).inc();
    }

    /// The counter of round trips to a store.
    pub(crate) fn commands(&self, store: &'static str) -> Counter {
        self.commands.get_or_create(&StoreLabels { store }).clone()
    }

    /// The counter of round trips to a store that failed or timed out.
    pub(crate) fn failures(&self, store: &'static str) -> Counter {
        self.failures.get_or_create(&StoreLabels { store }).clone()
    }

    /// The counter of answers by another installation, to which a setting led.
    pub(crate) fn other_installation_answers(&self, setting: &'static str) -> Counter {
        self.other_installation.get_or_create(&SettingLabels { setting }).clone()
    }

    pub(crate) fn dropped_write(&self) {
        self.dropped_writes.inc();
    }

    pub(crate) fn unopened_credential(&self) {
        self.unopened_credentials.inc();
    }

    pub(crate) fn polled(&self, succeeded: bool) {
        let result = if succeeded { "ok" } else { "failed" };
        self.polls.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn renewed_at(&self, age: Duration) {
        self.renewed_at_age.observe(age.as_secs_f64());
    }

    pub(crate) fn changes_read(&self, count: usize) {
        self.changes.inc_by(count as u64);
    }

    pub(crate) fn frames(&self, result: &'static str, count: usize) {
        self.frames.get_or_create(&ResultLabels { result }).inc_by(count as u64);
    }

    /// Reports this replica as the leader of the relay until the result is dropped.
    pub(crate) fn leading(&self) -> Leading {
        self.leads.set(1);
        Leading(self.leads.clone())
    }

    pub(crate) fn fell_silent(&self) {
        self.silences.inc();
    }

    pub(crate) fn last_uses(&self, result: &'static str, count: u64) {
        self.last_uses.get_or_create(&ResultLabels { result }).inc_by(count);
    }

    pub(crate) fn canary_round(&self, result: &'static str) {
        self.canary_rounds.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn propagated(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }

    pub(crate) fn recording(&self, is_on: bool) {
        self.triggers_off.set(i64::from(!is_on));
    }

    pub(crate) fn triggers_switched(&self) {
        self.triggers_switched.inc();
    }

    pub(crate) fn feed_restarted(&self) {
        self.restarts.inc();
    }
}

/// Resets the gauge `relay_leader` when it is dropped.
pub(crate) struct Leading(Gauge);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// Registers the age of the knowledge of changes, computed at each scrape: a gauge that each poll set
/// would keep its value when the polls stop. `age` returns `None` while nothing is known.
pub(crate) fn show_watermark(
    registry: &mut Registry,
    age: impl Fn() -> Option<Duration> + Send + Sync + 'static,
) {
    let age = WatermarkAge(age);
    registry.sub_registry_with_prefix("patgate").register_collector(Box::new(age));
}

struct WatermarkAge<F>(F);

impl<F> fmt::Debug for WatermarkAge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatermarkAge")
    }
}

impl<F: Fn() -> Option<Duration> + Send + Sync + 'static> Collector for WatermarkAge<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let age = (self.0)();
        let gauge = ConstGauge::new(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        let encoder = encoder.encode_descriptor(
            "feed_watermark_age",
            "Age of the knowledge of changes at this scrape; infinite while there is none",
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

/// Returns the registry as an HTTP response in the OpenMetrics text format.
pub(crate) fn metrics_page(registry: &Registry) -> impl IntoResponse + use<> {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut page, registry);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
}
