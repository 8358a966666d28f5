//! Whether this replica's key ring is the one that the installation's tokens were signed with.
//!
//! A replica with another key ring refuses every token with 401, which clients take for final, so it
//! is not ready while tokens are live and its ring has signed none of them. The first token of the
//! ring ends that, for good: from then on, tokens of other keys are only reported.

use std::time::Duration;

use futures_util::future;
use sqlx::{Row, postgres::PgRow};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Tick,
    keyring::{KeyId, KeyRing},
    postgres::{AskError, Postgres},
    turnstile::Turnstile,
};

/// While the replica is not ready.
const SOON: Duration = Duration::from_secs(1);
/// While no token is live.
const LATER: Duration = Duration::from_secs(10);
/// Once the ring has signed a live token.
const SELDOM: Duration = Duration::from_secs(60);
/// How often tokens of other keys are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10 * 60);

/// The keys that have signed live tokens, those of canaries aside. It steps from key to key in their
/// index, however many tokens there are.
pub(crate) const LIVE_KEYS: &str = "
    WITH RECURSIVE keys (id) AS (
        (SELECT min(key_id) FROM patgate.pats)
        UNION ALL
        (SELECT (SELECT min(p.key_id) FROM patgate.pats p WHERE p.key_id > keys.id)
         FROM keys WHERE keys.id IS NOT NULL))
    SELECT id FROM keys WHERE EXISTS (
        SELECT FROM patgate.pats p
        WHERE p.key_id = keys.id AND p.revoked_at IS NULL AND p.expires_at > now()
            AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000')
    LIMIT 100";

/// What the keys of live tokens say about a key ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// No token is live.
    Unproven,
    /// It has signed a live token, and these other keys have signed some, too.
    Fits { others: Vec<String> },
    /// It has signed none of them; these keys have.
    Alien { signed_by: Vec<String> },
}

impl Fitness {
    /// Judges the rows of [`LIVE_KEYS`].
    pub(crate) fn of(ring: &KeyRing, rows: &[PgRow]) -> Result<Self, sqlx::Error> {
        let live: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get("id")).collect();
        let ids = ring.ids().map(KeyId::as_str).collect::<Vec<_>>();
        Ok(Self::among(&ids, live?))
    }

    fn among(ring: &[&str], mut live: Vec<String>) -> Self {
        let all = live.len();
        live.retain(|id| !ring.contains(&id.as_str()));
        match (all, live.len()) {
            (0, _) => Self::Unproven,
            (all, others) if others < all => Self::Fits { others: live },
            _ => Self::Alien { signed_by: live },
        }
    }

    /// Why a replica with this ring must not serve.
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
    proven: bool,
    reports: Turnstile,
    objection: watch::Sender<Option<&'static str>>,
}

/// Why a replica is not ready, which may change; `None` while it is.
#[derive(Clone)]
pub(crate) struct Objection(watch::Receiver<Option<&'static str>>);

impl Objection {
    pub(crate) fn get(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// Waits until it is another one.
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
    pub(crate) fn new(ring: KeyRing, postgres: Postgres) -> Self {
        let (objection, _) = watch::channel(None);
        Self { ring, postgres, proven: false, reports: Turnstile::default(), objection }
    }

    pub(crate) fn objection(&self) -> Objection {
        Objection(self.objection.subscribe())
    }

    /// Goes on until `stop`.
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

    /// Looks once. What cannot be known changes nothing.
    pub(crate) async fn look(&mut self) {
        match self.fitness().await {
            Ok(fitness) => self.take(&fitness),
            Err(error) => tracing::debug!(%error, "looking for the keys of live tokens"),
        }
    }

    async fn fitness(&self) -> Result<Fitness, AskError> {
        let rows = self.postgres.fetch(LIVE_KEYS.to_owned()).await?;
        Ok(Fitness::of(&self.ring, &rows)?)
    }

    fn take(&mut self, fitness: &Fitness) {
        let objection = fitness.objection().filter(|_| !self.proven);
        let before = self.objection.send_replace(objection);
        let own: Vec<_> = self.ring.ids().map(KeyId::as_str).collect();
        match fitness {
            Fitness::Alien { signed_by } if objection.is_some() => {
                if self.reports.passes(Tick::now(), REPORT_EVERY) {
                    tracing::error!(
                        ?signed_by,
                        ?own,
                        "not ready: {}",
                        objection.unwrap_or_default()
                    );
                }
                return;
            }
            Fitness::Fits { others } | Fitness::Alien { signed_by: others } => {
                self.proven = true;
                if !others.is_empty() && self.reports.passes(Tick::now(), REPORT_EVERY) {
                    tracing::warn!(
                        ?others,
                        ?own,
                        "live tokens were signed by keys that this replica's key ring lacks, and are \
                         refused here; do all replicas, and those who create tokens, have the same \
                         key ring?",
                    );
                }
            }
            Fitness::Unproven => {}
        }
        if before.is_some() {
            tracing::info!("ready: the key ring has signed a live token, or no other is live");
            self.reports = Turnstile::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_fits_if_it_has_signed_one_of_the_live_tokens_or_there_is_none() {
        let among = |live: &[&str]| {
            let live = live.iter().map(|id| (*id).to_owned()).collect();
            Fitness::among(&["k2", "k1"], live)
        };
        assert_eq!(among(&[]), Fitness::Unproven);
        assert_eq!(among(&["k1"]), Fitness::Fits { others: vec![] });
        assert_eq!(among(&["k0", "k1"]), Fitness::Fits { others: vec!["k0".to_owned()] });
        assert_eq!(among(&["k0"]), Fitness::Alien { signed_by: vec!["k0".to_owned()] });
        assert!(among(&["k0"]).objection().is_some() && among(&["k0", "k2"]).objection().is_none());
    }
}
