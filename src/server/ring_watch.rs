//! Checks that this replica's key ring is the one that signed the installation's tokens.
//!
//! A replica with another key ring refuses every token with 401, which clients treat as final. So a
//! replica that starts while tokens are live is not ready until its ring has signed one of them.
//! Once ready, it stays ready: tokens of other keys are only reported.

use std::time::Duration;

use futures_util::future;
use sqlx::{Row, postgres::PgRow};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    keyring::{KeyId, KeyRing},
    postgres::{AskError, Postgres, identity_column},
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

/// Returns the query for the keys that have signed live tokens, except those of canaries and of
/// disabled owners: keys of this ring, and others. The query steps from key to key in their index,
/// however many tokens there are.
pub(crate) fn live_keys(ring: &KeyRing) -> String {
    // A subquery, not a join, because a join could read all tokens.
    const LIVE: &str = "(
        SELECT true FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
        WHERE p.key_id = k.id AND p.revoked_at IS NULL AND p.expires_at > now() AND u.enabled
            AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'
        LIMIT 1)";
    let own: Vec<_> = ring.ids().map(|id| format!("'{}'", id.as_str())).collect();
    let own = own.join(", ");
    format!(
        concat!(
            "WITH RECURSIVE keys (id) AS (
                (SELECT min(key_id) FROM patgate.pats)
                UNION ALL
                (SELECT (SELECT min(p.key_id) FROM patgate.pats p WHERE p.key_id > keys.id)
                 FROM keys WHERE keys.id IS NOT NULL))
            SELECT ",
            identity_column!(),
            ", ARRAY(SELECT k.id FROM unnest(ARRAY[{own}]) AS k (id) WHERE {live}) AS own,
             ARRAY(SELECT k.id FROM keys k WHERE k.id NOT IN ({own}) AND {live} LIMIT 100) AS others"
        ),
        own = own,
        live = LIVE
    )
}

/// What the keys of live tokens say about a key ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// No token is live.
    Unproven,
    /// The ring has signed a live token; these other keys have also signed some.
    Fits { others: Vec<String> },
    /// The ring has signed no live token; these keys have.
    Alien { signed_by: Vec<String> },
}

impl Fitness {
    /// Reads the result of [`live_keys`].
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let own: Vec<String> = row.try_get("own")?;
        let others: Vec<String> = row.try_get("others")?;
        Ok(match (own.is_empty(), others.is_empty()) {
            (true, true) => Self::Unproven,
            (true, false) => Self::Alien { signed_by: others },
            (false, _) => Self::Fits { others },
        })
    }

    /// Returns why a replica with this ring must not serve.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        matches!(self, Self::Alien { .. }).then_some(
            "the key ring has signed none of the live tokens, so all of them would be refused; give \
             this replica the key ring of the installation, or create the first token with this one",
        )
    }
}

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
            self.look().await;
        }
    }

    /// Queries once. A failed query changes nothing.
    pub(crate) async fn look(&mut self) {
        match self.fitness().await {
            Ok(fitness) => self.take(&fitness),
            Err(error) if self.failures.passes(clock::now(), REPORT_EVERY) => {
                tracing::warn!(%error, "the key ring cannot be compared with the live tokens");
            }
            Err(_) => {}
        }
    }

    async fn fitness(&self) -> Result<Fitness, AskError> {
        Ok(Fitness::of(&self.postgres.fetch_here(live_keys(&self.ring)).await?)?)
    }

    fn take(&mut self, fitness: &Fitness) {
        let objection = fitness.objection().filter(|_| self.may_object);
        self.may_object = objection.is_some();
        let before = self.objection.send_replace(objection);
        if before.is_some() && objection.is_none() {
            tracing::info!("ready: the key ring has signed a live token, or no other is live");
            self.reports = Throttle::default();
        }
        let own: Vec<_> = self.ring.ids().map(KeyId::as_str).collect();
        let reports = || self.reports.passes(clock::now(), REPORT_EVERY);
        match fitness {
            Fitness::Alien { signed_by } if reports() => {
                let ready = if objection.is_some() { "not ready" } else { "ready all the same" };
                let why = fitness.objection().unwrap_or_default();
                tracing::error!(?signed_by, ?own, "{ready}: {why}");
            }
            Fitness::Fits { others } if !others.is_empty() && reports() => tracing::warn!(
                ?others,
                ?own,
                "live tokens were signed by keys that this replica's key ring lacks, and are \
                 refused here; do all replicas, and those who create tokens, have the same key ring?",
            ),
            _ => {}
        }
        self.proven |= matches!(fitness, Fitness::Fits { .. });
    }
}
