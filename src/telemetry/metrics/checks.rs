//! Checks: what was decided, how long it took, and the bodies that patgate asked for.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge},
};

use super::{Metrics, Registrar};
use crate::{
    clock::Tick,
    refusal::Refusal,
    rollout::Mode,
    telemetry::{
        closed::{Closed, Results},
        exposition::Exemplars,
        histogram::{Durations, Exemplar},
        results::RecordResult,
    },
    trace_context::TraceId,
};

/// Labels of one answered check: the verdict with its code, and whether it was enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    outcome: &'static str,
    code: &'static str,
    enforced: bool,
}

impl DecisionLabels {
    /// An allow is always enforced.
    const ALLOWED: Self = Self { outcome: "allow", code: "ok", enforced: true };

    fn all() -> impl Iterator<Item = Self> {
        let verdicts = Refusal::CODES.map(|code| ("deny", code)).into_iter();
        let verdicts = verdicts.chain([("answered", "ok")]);
        let either = verdicts.flat_map(|(outcome, code)| {
            [true, false].map(|enforced| Self { outcome, code, enforced })
        });
        either.chain([Self::ALLOWED])
    }
}

/// Label of the mode, which says whether denials are enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabels {
    mode: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Checks {
    decisions: Closed<DecisionLabels, Counter>,
    /// The member of `decisions` that counts allows, kept here because most checks use it.
    allowed: Counter,
    duration: Durations,
    panics: Counter,
    without_secret: Counter,
    records: Results<RecordResult>,
    not_reopened: Gauge,
    mode: Closed<ModeLabels, Gauge>,
    bodies_asked: Counter,
    bodies_awaited: Gauge,
    awaited_bytes: Gauge,
    bodies_unasked: Counter,
}

impl Checks {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let decisions = Closed::<DecisionLabels, Counter>::new(DecisionLabels::all());
        to.registered(
            "decisions",
            "Answered checks by outcome and code, and by whether the verdict was enforced",
            decisions.family(),
        );
        let records = Results::new();
        to.registered(
            "decision_log_records",
            "Records of the decision log by result",
            records.family(),
        );
        let modes = Mode::ALL.iter().map(|mode| ModeLabels { mode: mode.as_str() });
        let mode = Closed::<ModeLabels, Gauge>::new(modes);
        to.registered(
            "mode",
            "1 for the mode of this replica, which says whether denials are enforced",
            mode.family(),
        );
        Self {
            allowed: decisions.handle(&DecisionLabels::ALLOWED),
            decisions,
            duration: to.seconds(
                "check_duration",
                "Time from the decoded request to the answer",
                Durations::default(),
            ),
            panics: to.count("panics", "Checks that panicked and were denied"),
            without_secret: to.count(
                "calls_without_secret",
                "gRPC calls without the secret that they need, which were refused unread; not decisions",
            ),
            records,
            not_reopened: to.count(
                "decision_log_not_reopened",
                "1 while the file of the decision log could not be opened again, and an earlier one is \
                 in use",
            ),
            mode,
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
}

impl Metrics {
    pub(crate) fn decided(
        &self,
        outcome: &'static str,
        code: &'static str,
        enforced: bool,
        took: Duration,
    ) {
        let checks = &self.checks;
        match outcome {
            "allow" => checks.allowed.inc(),
            _ => checks.decisions.of(&DecisionLabels { outcome, code, enforced }).inc(),
        };
        checks.duration.observe(took);
    }

    /// Notes an answered check whose trace the gateway records, as an exemplar of its duration.
    pub(crate) fn traced_decision(&self, trace: TraceId, took: Duration, at: Tick) {
        self.checks.duration.exemplify(Exemplar { trace, took, at });
    }

    /// Returns the exemplars of the durations of checks, for the page.
    pub(crate) fn exemplars(&self) -> Exemplars {
        Exemplars::new("patgate_check_duration_seconds", self.checks.duration.clone())
    }

    pub(crate) fn panicked(&self) {
        self.checks.panics.inc();
    }

    pub(crate) fn called_without_secret(&self) {
        self.checks.without_secret.inc();
    }

    pub(crate) fn logged_decisions(&self, result: RecordResult, count: u64) {
        self.checks.records.of(result).inc_by(count);
    }

    /// Notes whether the file of the decision log could be opened again.
    pub(crate) fn reopened_decision_log(&self, succeeded: bool) {
        self.checks.not_reopened.set(i64::from(!succeeded));
    }

    /// Sets the gauge of this replica's mode.
    pub(crate) fn in_mode(&self, mode: Mode) {
        self.checks.mode.of(&ModeLabels { mode: mode.as_str() }).set(1);
    }

    pub(crate) fn asked_for_a_body(&self) {
        self.checks.bodies_asked.inc();
    }

    pub(crate) fn unasked_body(&self) {
        self.checks.bodies_unasked.inc();
    }

    pub(crate) fn bodies_awaited(&self, bodies: usize, bytes: u64) {
        self.checks.bodies_awaited.set(i64::try_from(bodies).unwrap_or(i64::MAX));
        self.checks.awaited_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
