//! Takes up a changed key ring while patgate serves.
//!
//! A key that leaves the ring takes along all that rests on it (`keyring/live.rs`). So the operator who
//! removes a stolen key is obeyed at once, also if that key has signed most of the live tokens, and
//! also while Postgres is away: whoever can edit the ring of this replica means this ring.
//!
//! A file that shares no key with the ring in force may be the ring of another installation, which
//! would refuse every token. It is compared with the live tokens first, as at startup: it is taken up
//! once it has signed one of them, or if no token is live. Its keys must have names of their own then,
//! since the tokens say only the name of the key that signed them. In shadow mode nothing is enforced, so
//! nothing is compared.
//!
//! If the file cannot be used, the ring in force stays. A metric says so, and so does the log, once.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::file_watch::{self, WatchedFiles};
use crate::{
    clock,
    config::reread_keyring,
    freshness::KnownChanges,
    keyring::{KeyId, KeyRing, LiveRing},
    postgres::Postgres,
    rollout::Mode,
    server::ring_fit::RingFit,
    telemetry::{Metrics, ReloadResult},
};

/// The replicas that run have the ring in memory. To take up a new one refuses every token, so the log
/// does not mention it.
const TO_DO: &str = "bring back the ring of this installation: a copy from another replica, an \
                     operator or a backup. Make no new key, and restart no replica until then";

/// A ring, or why the file is none.
type ReadRing = Result<KeyRing, String>;

/// What a change of the ring concerns.
pub(super) struct OpenedStores {
    /// Knows which keys have signed the live tokens.
    pub(super) postgres: Postgres,
    pub(super) changes: Arc<KnownChanges>,
    /// Is notified if relayed changes rest on a key that has left the ring.
    pub(super) distrusted: Arc<Notify>,
}

/// Keeps the ring in force equal to the file.
pub(crate) struct RingReloader {
    pub(crate) ring: LiveRing,
    pub(crate) path: PathBuf,
    /// Makes the reloader read at once.
    pub(crate) asked: Arc<Notify>,
    pub(crate) mode: Mode,
    /// Set when the replica begins to answer. The start itself compares the ring with the live tokens.
    pub(super) opened: Arc<OnceLock<OpenedStores>>,
    pub(crate) metrics: Metrics,
    /// A ring that has signed no live token yet.
    pub(crate) waiting: Option<KeyRing>,
}

impl RingReloader {
    /// Reads the file until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let in_use = Ok(KeyRing::clone(&self.ring.load()));
        let asked = Arc::clone(&self.asked);
        file_watch::watch(self, in_use, asked, stop).await;
    }

    /// Returns why a ring must not be taken up yet.
    async fn objection(&self, ring: &KeyRing) -> Result<(), String> {
        let Some(stores) = self.opened.get() else { return Ok(()) };
        if self.mode == Mode::Shadow || self.ring.shares_a_key_with(ring) {
            return Ok(());
        }
        // The tokens say only the name of the key that signed them.
        if let Some(id) = self.ring.namesake_in(ring) {
            return Err(format!(
                "it has no key of the ring in force, and its key `{id}` has the name of one and another \
                 secret, so it is the ring of another installation. A ring that is meant to replace the \
                 one in force needs keys with other names; if the ring in force is the wrong one, \
                 restart this replica"
            ));
        }
        match RingFit::read(&stores.postgres, ring).await {
            Ok(fit) if fit.objection().is_some() => Err(
                "it has no key of the ring in force and has signed none of the live tokens, so it would \
                 refuse all of them"
                    .to_owned(),
            ),
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "it has no key of the ring in force, and cannot be compared with the live tokens: \
                 {error}"
            )),
        }
    }

    fn put_in_force(&self, ring: KeyRing) {
        // In this order: only a key that has left is distrusted, and the other way round, a frame that
        // arrives in between would be believed for good. So for the microseconds between the two, what
        // another key sealed may still be judged by how far the record reaches by frames of the one that
        // left.
        let change = self.ring.replace(ring, clock::now());
        if let Some(stores) = self.opened.get()
            && stores.changes.distrust_keys_outside(&self.ring)
        {
            stores.distrusted.notify_one();
        }
        self.metrics.reloaded_ring(ReloadResult::Loaded);
        let added = names(&change.added);
        let removed = names(&change.removed);
        tracing::info!(ring = ?names_of(&self.ring), ?added, ?removed, "key ring reloaded");
    }

    fn refuse(&self, why: &str) {
        self.metrics.reloaded_ring(ReloadResult::Refused);
        tracing::error!(
            why,
            to_do = TO_DO,
            ring = ?names_of(&self.ring),
            "key ring not reloaded; the previous one stays in force, and keys that were to be removed \
             with it",
        );
    }
}

fn names(ids: &[KeyId]) -> Vec<&str> {
    ids.iter().map(KeyId::as_str).collect()
}

/// Returns the names of the keys in force, the current one first.
fn names_of(ring: &LiveRing) -> Vec<String> {
    ring.load().ids().map(|id| id.as_str().to_owned()).collect()
}

impl WatchedFiles for RingReloader {
    type Content = ReadRing;

    fn reader(&self) -> impl FnOnce() -> ReadRing + Send + 'static {
        let path = self.path.clone();
        move || reread_keyring(&path).map_err(|error| error.while_serving())
    }

    fn unreadable(&self, why: &str) -> ReadRing {
        Err(format!("key ring {}: {why}", self.path.display()))
    }

    async fn take_up(&mut self, read: ReadRing) {
        self.waiting = None;
        match read {
            Err(why) => self.refuse(&why),
            Ok(ring) => match self.objection(&ring).await {
                Ok(()) => self.put_in_force(ring),
                Err(why) => {
                    self.refuse(&why);
                    self.waiting = Some(ring);
                }
            },
        }
    }

    /// The operator may create the first token with the ring that waits, meanwhile.
    async fn unchanged(&mut self) {
        self.ring.forget_retired(clock::now());
        if let Some(ring) = &self.waiting
            && self.objection(ring).await.is_ok()
            && let Some(ring) = self.waiting.take()
        {
            self.put_in_force(ring);
        }
    }
}
