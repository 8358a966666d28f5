//! Whether this replica should get traffic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tonic_health::ServingStatus;

use super::ring_watch::Objection;

/// Whether this replica should get traffic: from startup until the signal to stop, unless its key
/// ring has not signed the live tokens.
#[derive(Clone)]
pub(super) struct Readiness {
    serving: Arc<AtomicBool>,
    objection: Objection,
}

impl Readiness {
    pub(super) fn new(objection: Objection) -> Self {
        Self { serving: Arc::default(), objection }
    }

    pub(super) fn set(&self, serving: bool) {
        self.serving.store(serving, Relaxed);
    }

    /// Why the replica is not ready.
    pub(super) fn get(&self) -> Result<(), &'static str> {
        if !self.serving.load(Relaxed) {
            return Err("draining");
        }
        self.objection.get().map_or(Ok(()), Err)
    }

    pub(super) fn status(&self) -> ServingStatus {
        self.get().map_or(ServingStatus::NotServing, |()| ServingStatus::Serving)
    }
}
