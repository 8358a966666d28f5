//! What the keeper of the routes says of itself: its log, its metrics, and whether it is ready.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use patgate_routes::{Kind, Plan, Refused};

use crate::{
    clock::{self, Tick},
    server::{Missing, Readiness},
    telemetry::{RouteMetrics, RoutePart},
    throttle::Throttle,
};

/// Interval between two reports of the same failure, or of the same refused backends.
const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);

/// Clones are about the same process.
#[derive(Clone)]
pub(crate) struct Status(Arc<State>);

struct State {
    readiness: Readiness,
    pub(super) metrics: RouteMetrics,
    /// When all was last as it should be; negative before that.
    succeeded: AtomicI64,
    told: Mutex<Told>,
    failures: Throttle,
    refusals: Throttle,
}

/// What was logged last, so that it is logged again only if it changes, or at intervals.
#[derive(Default)]
struct Told {
    refused: Vec<Refused>,
    foreign: Vec<Foreign>,
    failure: Option<String>,
}

/// An object of others that has the name of one of ours, or one of another installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) owner: Owner,
}

/// To whom an object belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// To this instance and this installation.
    Us,
    /// To this instance, and to another installation or none.
    AnotherInstallation,
    /// To another program, or to another instance.
    Somebody,
}

impl Status {
    pub(crate) fn new(metrics: RouteMetrics) -> Self {
        Self(Arc::new(State {
            readiness: Readiness::starting(),
            metrics,
            succeeded: AtomicI64::new(-1),
            told: Mutex::default(),
            failures: Throttle::default(),
            refusals: Throttle::default(),
        }))
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.0.readiness.clone()
    }

    pub(crate) fn metrics(&self) -> &RouteMetrics {
        &self.0.metrics
    }

    /// Returns how long ago all was as it should be; `None` if it never was.
    pub(crate) fn since_success(&self) -> Option<Duration> {
        let succeeded = self.0.succeeded.load(Relaxed);
        (succeeded >= 0).then(|| clock::now().since(Tick::from_micros(succeeded)))
    }

    /// Notes what the database said, and logs the backends that get no route.
    pub(super) fn planned(&self, plan: &Plan) {
        self.0.metrics.planned(plan.backends().len(), plan.refused().len());
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.refused != plan.refused();
        let is_due = self.0.refusals.passes(clock::now(), REPORT_EVERY);
        if is_news || (is_due && !plan.refused().is_empty()) {
            for Refused { name, reason } in plan.refused() {
                tracing::warn!(
                    backend = name.escape_debug().to_string(),
                    %reason,
                    "this backend gets no route, and requests for it are answered 503",
                );
            }
            told.refused = plan.refused().to_vec();
        }
    }

    /// Notes which objects of others are in the way, and logs them.
    pub(super) fn foreign(&self, foreign: Vec<Foreign>) {
        self.0.metrics.foreign(foreign.len());
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.foreign != foreign {
            for Foreign { kind, name, owner } in &foreign {
                let (_, _, kind, _) = kind.api();
                if *owner == Owner::AnotherInstallation {
                    tracing::warn!(
                        kind,
                        name,
                        "this object belongs to another installation of patgate, so it is left alone; set \
                         routes.instance for one of the two, or, if the other one is gone, take its objects \
                         over with --once --adopt",
                    );
                    continue;
                }
                tracing::warn!(
                    kind,
                    name,
                    "an object of this name belongs to somebody else, so it is left alone, and its backend \
                     gets no route; rename it, or set routes.instance",
                );
            }
            told.foreign = foreign;
        }
    }

    /// Notes that all is as it should be, as far as this process is concerned.
    pub(super) fn succeeded(&self) {
        self.0.succeeded.store(clock::now().as_micros(), Relaxed);
        self.0.readiness.started();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.failure.take().is_some() {
            tracing::info!("in step again");
        }
    }

    /// Notes a failure. `missing` says it to readers who may be anyone.
    pub(super) fn failed(&self, part: RoutePart, missing: Missing, error: &dyn std::fmt::Display) {
        self.0.metrics.failed(part);
        self.0.readiness.lacks(vec![missing]);
        let error = error.to_string();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = self.0.failures.passes(clock::now(), REPORT_EVERY);
        if told.failure.as_ref() != Some(&error) || is_due {
            tracing::warn!(error, "the routes stay as they are; patgate tries again by itself");
            told.failure = Some(error);
        }
    }
}
