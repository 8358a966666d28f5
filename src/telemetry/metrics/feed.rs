//! The change feed, and how soon this replica obeys a revocation.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{Metrics, Registrar};
use crate::telemetry::{
    closed::Results,
    results::{CanaryRound, PollResult},
};

/// Upper bounds in seconds, from 1 ms to a minute.
const PROPAGATION_BUCKETS: [f64; 15] =
    [1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds in seconds. There is a poll at least every 0.4 s; the promise is one second.
const AGE_BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0];

#[derive(Clone, Debug)]
pub(super) struct Feed {
    polls: Results<PollResult>,
    changes: Counter,
    restarts: Counter,
    triggers_off: Gauge,
    triggers_switched: Counter,
    pooled: Gauge,
    renewed_at_age: Histogram,
    canary_rounds: Results<CanaryRound>,
    propagation: Histogram,
}

impl Feed {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let polls = Results::new();
        to.registered("feed_polls", "Polls of the change feed by result", polls.family());
        let canary_rounds = Results::new();
        to.registered(
            "revocation_canary_rounds",
            "Changes of the canary by result: seen, not seen in time, or not made",
            canary_rounds.family(),
        );
        Self {
            polls,
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
            pooled: to.count(
                "feed_pooled",
                "1 while feed.url leads through a connection pooler in transaction mode, where \
                 notifications do not arrive and no session holds a lock",
            ),
            renewed_at_age: to.seconds(
                "feed_renewed_at_age",
                "Age of the knowledge of changes each time that a poll renewed it",
                Histogram::new(AGE_BUCKETS),
            ),
            canary_rounds,
            propagation: to.seconds(
                "revocation_propagation",
                "Time from before a change of the canary was sent until the replica obeyed it",
                Histogram::new(PROPAGATION_BUCKETS),
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn polled(&self, succeeded: bool) {
        let result = if succeeded { PollResult::Succeeded } else { PollResult::Failed };
        self.feed.polls.of(result).inc();
    }

    pub(crate) fn renewed_at(&self, age: Duration) {
        self.feed.renewed_at_age.observe(age.as_secs_f64());
    }

    pub(crate) fn changes_read(&self, count: usize) {
        self.feed.changes.inc_by(count as u64);
    }

    pub(crate) fn feed_restarted(&self) {
        self.feed.restarts.inc();
    }

    pub(crate) fn recording(&self, is_on: bool) {
        self.feed.triggers_off.set(i64::from(!is_on));
    }

    pub(crate) fn feed_pooled(&self, is_pooled: bool) {
        self.feed.pooled.set(i64::from(is_pooled));
    }

    pub(crate) fn triggers_switched(&self) {
        self.feed.triggers_switched.inc();
    }

    pub(crate) fn canary_round(&self, round: CanaryRound) {
        self.feed.canary_rounds.of(round).inc();
    }

    pub(crate) fn propagated(&self, took: Duration) {
        self.feed.propagation.observe(took.as_secs_f64());
    }
}
