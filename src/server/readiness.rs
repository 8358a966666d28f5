//! Whether this replica should get traffic, and if not, what is missing.

use std::{borrow::Cow, fmt, future::pending, sync::Arc};

use serde::Serialize;
use tokio::sync::watch;
use tonic_health::ServingStatus;

/// Something without which a replica is not ready, for a reader who may be anyone: `/readyz` needs no
/// login. So it names the setting, and not the host, the login or the tenant that the setting is
/// about; the log does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// The setting that it is about; `None` if it is about the process.
    setting: Option<&'static str>,
    reason: Cow<'static, str>,
}

impl Missing {
    pub(crate) fn new(setting: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { setting: Some(setting), reason: reason.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, reason } = self;
        match setting {
            Some(setting) => write!(f, "{setting}: {reason}"),
            None => write!(f, "{reason}"),
        }
    }
}

/// Whether this replica should get traffic: from the end of the start until the signal to stop.
/// Clones are about the same replica.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<ReadinessState>>);

#[derive(Debug)]
struct ReadinessState {
    /// The start has ended once. It does not begin again.
    started: bool,
    draining: bool,
    /// What the latest attempt to start lacked. Empty before the first one has ended.
    missing: Vec<Missing>,
}

impl Readiness {
    /// A replica whose start has not ended.
    pub(crate) fn starting() -> Self {
        let state = ReadinessState { started: false, draining: false, missing: Vec::new() };
        Self(Arc::new(watch::Sender::new(state)))
    }

    /// Notes what an attempt to start lacked. Returns whether that is news.
    pub(crate) fn lacks(&self, missing: Vec<Missing>) -> bool {
        self.0.send_if_modified(|state| {
            let is_news = state.missing != missing;
            state.missing = missing;
            is_news
        })
    }

    /// Notes that the start has ended.
    pub(crate) fn started(&self) {
        self.0.send_modify(|state| {
            state.started = true;
            state.missing.clear();
        });
    }

    /// Notes that the replica stops.
    pub(crate) fn drain(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// Returns whether the start has ended at some time.
    pub(super) fn has_started(&self) -> bool {
        self.0.borrow().started
    }

    /// Returns everything that is missing.
    pub(crate) fn get(&self) -> Result<(), Vec<Missing>> {
        let state = self.0.borrow();
        let process = |reason| Missing { setting: None, reason: Cow::Borrowed(reason) };
        let mut missing = state.missing.clone();
        if !state.started && missing.is_empty() {
            missing.push(process("starting"));
        }
        if state.draining {
            missing.push(process("draining"));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    pub(super) fn status(&self) -> ServingStatus {
        self.get().map_or(ServingStatus::NotServing, |()| ServingStatus::Serving)
    }

    /// Returns what says when the answers may have changed.
    pub(super) fn changes(&self) -> ReadinessChanges {
        ReadinessChanges(self.0.subscribe())
    }
}

/// Says when a replica may have become ready, or unready.
pub(super) struct ReadinessChanges(watch::Receiver<ReadinessState>);

impl ReadinessChanges {
    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The replica is gone.
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_until_the_start_has_ended() {
        let readiness = Readiness::starting();
        let said = || readiness.get().map_err(|all| all.iter().map(Missing::to_string).collect());
        let lines = |lines: &[&str]| Err(lines.iter().map(|&line| line.to_owned()).collect());
        assert_eq!(said(), lines(&["starting"]) as Result<(), Vec<String>>);
        let both = || vec![Missing::new("postgres.url", "a"), Missing::new("feed.url", "b")];
        assert!(readiness.lacks(both()) && !readiness.lacks(both()));
        assert_eq!(said(), lines(&["postgres.url: a", "feed.url: b"]));
        assert!(!readiness.has_started());
        readiness.started();
        assert_eq!(said(), Ok(()));
        readiness.drain();
        assert_eq!(said(), lines(&["draining"]));
        assert!(readiness.has_started(), "the start does not begin again");
    }
}
