//! Checks that this replica's key ring is the one that signed the installation's tokens.
//!
//! A replica with another key ring refuses every token with 401, which clients treat as final. So a
//! replica that starts while tokens are live is not ready until its ring has signed one of them.
//! Once ready, it stays ready: tokens of other keys are only reported.

use std::time::Duration;

use futures_util::future;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::ring_fit::RingFit;
use crate::{
    clock,
    keyring::{KeyId, KeyRing},
    postgres::Postgres,
    rollout::Mode,
    throttle::Throttle,
};

/// Interval while the replica is not ready.
const SOON: Duration = Duration::from_secs(1);
/// Interval while no token is live.
const LATER: Duration = Duration::from_secs(10);
/// Interval once the ring has signed a live token.
const SELDOM: Duration = Duration::from_secs(60);
/// Interval between two reports of tokens of other keys.
const REPORT_EVERY: Duration = Duration::from_secs(10 * 60);

/// Watches one replica's key ring.
pub(crate) struct RingWatch {
    ring: KeyRing,
    postgres: Postgres,
    /// True until the replica has been ready once.
    may_object: bool,
    proven: bool,
    reports: Throttle,
    failures: Throttle,
    objection: watch::Sender<Option<&'static str>>,
}

/// The current reason why a replica is not ready; `None` if it is ready.
#[derive(Clone)]
pub(crate) struct Objection(watch::Receiver<Option<&'static str>>);

impl Objection {
    pub(crate) fn get(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// Waits until the reason changes.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(watch::channel(None).1)
    }
}

impl RingWatch {
    /// Creates the watch. In shadow mode no refusal is enforced, so the watch has no objection
    /// there.
    pub(crate) fn new(ring: KeyRing, postgres: Postgres, mode: Mode) -> Self {
        let (objection, _) = watch::channel(None);
        Self {
            ring,
            postgres,
            may_object: mode != Mode::Shadow,
            proven: false,
            reports: Throttle::default(),
            failures: Throttle::default(),
            objection,
        }
    }

    pub(crate) fn objection(&self) -> Objection {
        Objection(self.objection.subscribe())
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let objects = self.objection.borrow().is_some();
            let pause = match (self.proven, objects) {
                (true, _) => SELDOM,
                (false, true) => SOON,
                (false, false) => LATER,
            };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            self.check_once().await;
        }
    }

    /// Queries once. A failed query changes nothing.
    pub(crate) async fn check_once(&mut self) {
        match RingFit::read(&self.postgres, &self.ring).await {
            Ok(fit) => self.take(&fit),
            Err(error) if self.failures.passes(clock::now(), REPORT_EVERY) => {
                tracing::warn!(%error, "the key ring cannot be compared with the live tokens");
            }
            Err(_) => {}
        }
    }

    fn take(&mut self, fit: &RingFit) {
        let objection = fit.objection().filter(|_| self.may_object);
        self.may_object = objection.is_some();
        let before = self.objection.send_replace(objection);
        if before.is_some() && objection.is_none() {
            tracing::info!("ready: the key ring has signed a live token, or no other is live");
            self.reports = Throttle::default();
        }
        let own: Vec<_> = self.ring.ids().map(KeyId::as_str).collect();
        let reports = || self.reports.passes(clock::now(), REPORT_EVERY);
        match fit {
            RingFit::Alien { signed_by } if reports() => {
                let ready = if objection.is_some() { "not ready" } else { "ready nevertheless" };
                let why = fit.objection().unwrap_or_default();
                tracing::error!(?signed_by, ?own, "{ready}: {why}");
            }
            RingFit::Fits { others } if !others.is_empty() && reports() => tracing::warn!(
                ?others,
                ?own,
                "live tokens were signed by keys that this replica's key ring lacks, and are \
                 refused here; give all replicas, and the operators who create tokens, the same \
                 key ring",
            ),
            _ => {}
        }
        self.proven |= matches!(fit, RingFit::Fits { .. });
    }
}
