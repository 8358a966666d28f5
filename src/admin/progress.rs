//! Follows a change until every replica has applied it.

use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::sleep;

use super::{Admin, CommittedChange, Error, Replica};
use crate::clock;

/// How often Postgres is asked.
const POLLED_EVERY: Duration = Duration::from_millis(20);

/// How often an event is sent while nothing changes.
const REPEATED_EVERY: Duration = Duration::from_millis(500);

/// How far a change has come.
#[derive(Clone, Debug)]
pub enum ChangeProgress {
    /// At least one replica may still answer from before the change.
    Waiting(ReplicaStates),
    /// No replica answers from before the change any more. This is the last event.
    Done(ReplicaStates),
}

/// Which replicas have applied a change.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ReplicaStates {
    /// How long ago the change was committed.
    pub elapsed: Duration,
    /// Replicas that have applied the change.
    pub applied: Vec<Replica>,
    /// Replicas that may still answer from before the change: until they read it, or until what
    /// they know expires.
    pub missing: Vec<Replica>,
}

impl Admin {
    /// Follows a change until every replica has applied it, or until what the others know has
    /// expired.
    ///
    /// The stream sends an event at once, when a replica has applied the change, and every half
    /// second. It ends after [`ChangeProgress::Done`], or after an error. A caller that drops it stops
    /// waiting; the change stays.
    ///
    /// # Errors
    ///
    /// If the database does not answer. Which replicas have applied the change is then unknown.
    pub fn progress(
        &self,
        change: CommittedChange,
    ) -> impl Stream<Item = Result<ChangeProgress, Error>> + '_ {
        let begin = Some((change, Events::default()));
        stream::try_unfold(begin, async |state| {
            let Some((change, mut events)) = state else { return Ok(None) };
            loop {
                let elapsed = clock::now().since(change.at);
                let replicas = self.store.replicas(change.transaction.as_deref(), elapsed).await?;
                match events.next(elapsed, replicas) {
                    Some(last @ ChangeProgress::Done(_)) => return Ok(Some((last, None))),
                    Some(event) => return Ok(Some((event, Some((change, events))))),
                    None => sleep(POLLED_EVERY).await,
                }
            }
        })
    }
}

/// Decides which answers of Postgres are worth an event.
#[derive(Default)]
struct Events {
    /// When the last event was sent, and how many replicas were missing.
    last: Option<(Duration, usize)>,
}

impl Events {
    fn next(&mut self, elapsed: Duration, replicas: Vec<Replica>) -> Option<ChangeProgress> {
        let (applied, missing): (Vec<_>, Vec<_>) =
            replicas.into_iter().partition(|replica| replica.applied);
        let states = ReplicaStates { elapsed, applied, missing };
        if states.missing.is_empty() {
            return Some(ChangeProgress::Done(states));
        }
        let is_news = self.last.is_none_or(|(sent, missing)| {
            missing != states.missing.len() || elapsed >= sent + REPEATED_EVERY
        });
        is_news.then(|| {
            self.last = Some((elapsed, states.missing.len()));
            ChangeProgress::Waiting(states)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(states: &[(&str, bool)]) -> Vec<Replica> {
        let replica = |(name, applied): &(&str, bool)| Replica {
            name: (*name).to_owned(),
            applied: *applied,
            watermark: String::new(),
            expires_at: String::new(),
        };
        states.iter().map(replica).collect()
    }

    #[test]
    fn an_event_is_sent_for_news_and_now_and_then() {
        let mut events = Events::default();
        let mut next = |millis, states: &[(&str, bool)]| {
            events.next(Duration::from_millis(millis), replicas(states)).map(|event| match event {
                ChangeProgress::Waiting(states) => {
                    (false, states.applied.len(), states.missing.len())
                }
                ChangeProgress::Done(states) => (true, states.applied.len(), states.missing.len()),
            })
        };
        let neither = [("a", false), ("b", false)];
        let one = [("a", true), ("b", false)];
        assert_eq!(next(0, &neither), Some((false, 0, 2)));
        assert_eq!(next(20, &neither), None);
        assert_eq!(next(40, &one), Some((false, 1, 1)));
        assert_eq!(next(539, &one), None);
        assert_eq!(next(540, &one), Some((false, 1, 1)));
        assert_eq!(next(560, &one), None);
        // The knowledge of `b` has expired.
        assert_eq!(next(580, &[("a", true)]), Some((true, 1, 0)));
    }

    #[test]
    fn without_replicas_there_is_nothing_to_wait_for() {
        let event = Events::default().next(Duration::ZERO, Vec::new());
        assert!(matches!(event, Some(ChangeProgress::Done(states)) if states.applied.is_empty()));
    }
}
