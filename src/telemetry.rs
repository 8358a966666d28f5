//! Logs, and every metric by name.
//!
//! Label values come from closed sets: never a token, a user, a path or a model.

mod histogram;
mod logs;

use std::{fmt, sync::Arc, time::Duration};

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
use crate::{clock::Tick, feed::Feed, mode::Mode};

/// Seconds; from 1 ms to a minute.
const PROPAGATION_BUCKETS: [f64; 15] =
    [1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Seconds. There is a poll every 0.4 s at least; what is promised is one second.
const AGE_BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0];

/// What became of a check: the verdict with its code, and whether it was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    outcome: &'static str,
    code: &'static str,
    enforced: bool,
}

/// What a tier said to a look-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TierLabels {
    kind: &'static str,
    tier: &'static str,
    result: &'static str,
}

/// What is held in memory: values, or negatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EntryLabels {
    kind: &'static str,
    holds: &'static str,
}

/// Where a round trip went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    store: &'static str,
}

/// Whether denials are carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModeLabels {
    mode: &'static str,
}

/// The setting that an address stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SettingLabels {
    setting: &'static str,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    result: &'static str,
}

/// All metrics of the process. Clones count into the same place.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: Family<DecisionLabels, Counter>,
    /// The one of decisions that nearly every check counts.
    allowed: Counter,
    check_duration: Durations,
    panics: Counter,
    lookups: Family<TierLabels, Counter>,
    entries: Family<EntryLabels, Gauge>,
    commands: Family<StoreLabels, Counter>,
    failures: Family<StoreLabels, Counter>,
    elsewhere: Family<SettingLabels, Counter>,
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

/// Makes metrics, each under its name.
struct Registrar<'r>(&'r mut Registry);

impl Registrar<'_> {
    /// Of things, or of what there is of them now.
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
    /// Makes the metrics and registers them under `patgate_`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("patgate");
        let mut to = Registrar(registry);
        let decisions: Family<DecisionLabels, Counter> =
            to.count("decisions", "Checks by outcome and code, and by whether it was carried out");
        let allowed = DecisionLabels { outcome: "allow", code: "ok", enforced: true };
        let allowed = decisions.get_or_create(&allowed).clone();
        // One for the process, as its log is.
        to.0.register("log_lines", "Lines of the log, by what became of them", logs::counts());
        Self {
            allowed,
            decisions,
            check_duration: to.seconds(
                "check_duration",
                "From the decoded request to the answer",
                Durations::default(),
            ),
            panics: to.count("panics", "Checks that panicked and were denied"),
            lookups: to.count("lookups", "Look-ups by kind, tier and result"),
            entries: to.count(
                "memory_entries",
                "Entries in memory after the latest look-up that brought one",
            ),
            commands: to.count(
                "store_commands",
                "Round trips to a store: each a Redis command or a Postgres query",
            ),
            failures: to.count("store_failures", "Round trips to a store that failed or timed out"),
            elsewhere: to.count(
                "other_installation_answers",
                "Answers of Postgres that were not used because another installation gave them, by \
                 the setting that led there",
            ),
            dropped_writes: to.count(
                "redis_dropped_writes",
                "Entries not written to Redis because the queue was full or Redis failed",
            ),
            unopened_credentials: to.count(
                "unopened_credentials",
                "Credentials of backends that could not be opened when domain or backend was read",
            ),
            polls: to.count("feed_polls", "Polls of the change feed"),
            changes: to.count("feed_changes", "Changes read from the feed"),
            restarts: to.count(
                "feed_restarts",
                "Times that the record of changes began anew: at start, after a gap or too many \
                 changes at once, on a new server",
            ),
            triggers_off: to.count(
                "feed_triggers_off",
                "1 while triggers that record changes are off or missing: polls are not used",
            ),
            triggers_switched: to.count(
                "feed_triggers_switched",
                "Times that triggers were found to have been off, or made anew, since the last poll",
            ),
            frames: to.count("relay_frames", "Relayed polls by result"),
            leads: to.count("relay_leader", "1 while this replica relays the feed to the others"),
            silences: to.count(
                "relay_silences",
                "Times the relay went silent and this replica polled Postgres itself",
            ),
            renewed_at_age: to.seconds(
                "feed_renewed_at_age",
                "How old the knowledge of changes had become each time that it was renewed",
                Histogram::new(AGE_BUCKETS),
            ),
            last_uses: to.count("last_used_writes", "Noted uses of tokens, by what became of them"),
            canary_rounds: to.count(
                "revocation_canary_rounds",
                "Changes of the canary, by whether they were made and seen",
            ),
            propagation: to.seconds(
                "revocation_propagation",
                "From before a change of the canary was sent until it was obeyed",
                Histogram::new(PROPAGATION_BUCKETS),
            ),
            api_reloads: to
                .count("api_reloads", "Changed tables of APIs, by whether they were taken up"),
            logged: to.count(
                "decision_log_records",
                "Records for the decision log, by what became of them",
            ),
            mode: to.count(
                "mode",
                "1 for the mode that this replica is in: whether denials are carried out",
            ),
            bodies_asked: to.count(
                "bodies_asked",
                "First steps that ended with asking Envoy for the body: no decision yet",
            ),
            bodies_awaited: to.count(
                "bodies_awaited",
                "Bodies that were asked for and have neither come nor been forgotten",
            ),
            awaited_bytes: to.count(
                "bodies_awaited_bytes",
                "How long those are together; one that does not say its length counts as 32 MiB",
            ),
            bodies_unasked: to.count(
                "bodies_unasked",
                "Second steps whose first step this replica has not answered, or has forgotten",
            ),
        }
    }

    /// Shows the mode.
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

    /// The counter of what a tier says, for who counts often.
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

    pub(crate) fn led_elsewhere(&self, setting: &'static str) {
        self.elsewhere.get_or_create(&SettingLabels { setting }).inc();
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

    /// While the result lives.
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

/// Resets the gauge that says so.
pub(crate) struct Leading(Gauge);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// Shows how old the knowledge of changes is when the page is asked for: a gauge that each poll set
/// would say nothing once there are no polls.
pub(crate) fn show_watermark(registry: &mut Registry, feed: &Arc<Feed>) {
    let age = WatermarkAge(Arc::clone(feed));
    registry.sub_registry_with_prefix("patgate").register_collector(Box::new(age));
}

#[derive(Debug)]
struct WatermarkAge(Arc<Feed>);

impl Collector for WatermarkAge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let age = self.0.watermark_age(Tick::now());
        let gauge = ConstGauge::new(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        let encoder = encoder.encode_descriptor(
            "feed_watermark_age",
            "How old the knowledge of changes is; infinite while there is none",
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

/// The registry in the OpenMetrics text format, as a page.
pub(crate) fn metrics_page(registry: &Registry) -> impl IntoResponse + use<> {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut page, registry);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
}
