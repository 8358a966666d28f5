//! Checks that this replica's key ring is the one that signed the installation's tokens.
//!
//! A replica with another key ring would refuse every token with 401, which clients treat as final. So
//! the start of a replica does not end while tokens are live and its ring has signed none of them.
//! Once started, the replica stays ready: tokens of other keys are only reported.

use std::{mem, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ring_fit::RingFit;
use crate::{
    clock,
    keyring::{KeyId, KeyRing, LiveRing},
    postgres::Postgres,
    rollout::Mode,
    throttle::Throttle,
};

/// How often the ring is compared with the one that was in force before.
const SOON: Duration = Duration::from_secs(1);
/// Interval while no token is live.
const LATER: Duration = Duration::from_secs(10);
/// Interval once the ring has signed a live token.
const SELDOM: Duration = Duration::from_secs(60);
/// Interval between two reports of tokens of other keys.
const REPORT_EVERY: Duration = Duration::from_secs(10 * 60);

/// Watches one replica's key ring.
pub(crate) struct RingWatch {
    ring: LiveRing,
    /// The ring that was compared last.
    compared: KeyRing,
    postgres: Postgres,
    /// True until the ring was found to fit once.
    may_object: bool,
    proven: bool,
    reports: Throttle,
    failures: Throttle,
    objection: Option<&'static str>,
}

impl RingWatch {
    /// Creates the watch. In shadow mode no refusal is enforced, so the watch has no objection
    /// there.
    pub(crate) fn new(ring: LiveRing, postgres: Postgres, mode: Mode) -> Self {
        let compared = KeyRing::clone(&ring.load());
        Self {
            ring,
            compared,
            postgres,
            may_object: mode != Mode::Shadow,
            proven: false,
            reports: Throttle::default(),
            failures: Throttle::default(),
            objection: None,
        }
    }

    /// Returns why a replica with this ring must not answer, as of the last comparison.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        self.objection
    }

    /// Runs until `stop`. The replica has started, so this only reports.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = if self.proven { SELDOM } else { LATER };
            if stop.run_until_cancelled(self.pause(pause)).await.is_none() {
                return;
            }
            self.check_once().await;
        }
    }

    /// Whether the ring in force is the one that was compared last.
    pub(crate) fn is_current(&self) -> bool {
        **self.ring.load() == self.compared
    }

    /// Waits for `pause`, or until the ring is replaced.
    async fn pause(&self, pause: Duration) {
        let until = clock::now().after(pause);
        while clock::now() < until && self.is_current() {
            sleep(SOON.min(until.since(clock::now()))).await;
        }
    }

    /// Queries once. Returns whether there was an answer; if not, nothing changes.
    pub(crate) async fn check_once(&mut self) -> bool {
        let ring = KeyRing::clone(&self.ring.load());
        if ring != self.compared {
            // What there is to report of this ring has not been reported.
            self.reports = Throttle::default();
            self.proven = false;
            self.compared = ring;
        }
        let fit = RingFit::read(&self.postgres, &self.compared).await;
        match &fit {
            Ok(fit) => self.take(fit),
            Err(error) if self.failures.passes(clock::now(), REPORT_EVERY) => {
                tracing::warn!(%error, "the key ring cannot be compared with the live tokens");
            }
            Err(_) => {}
        }
        fit.is_ok()
    }

    fn take(&mut self, fit: &RingFit) {
        let objection = fit.objection().filter(|_| self.may_object);
        self.may_object = objection.is_some();
        let before = mem::replace(&mut self.objection, objection);
        if before.is_some() && objection.is_none() {
            tracing::info!("the key ring has signed a live token, or no other is live");
            self.reports = Throttle::default();
        }
        let own: Vec<_> = self.compared.ids().map(KeyId::as_str).collect();
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
