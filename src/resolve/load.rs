//! Limits the queries to a store: how many run at once, and how many per second. Also decides which
//! lookups are not worth queueing, because the answer would come too late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::batch::MAX_BATCH;
use crate::{
    clock::{self, Tick},
    pace::Pace,
};

/// The limits on the queries to one store.
pub(crate) struct Load {
    permits: Arc<Semaphore>,
    at_once: u32,
    pace: Option<Pace>,
    /// How long a caller waits for an answer.
    deadline: Duration,
    /// The recent duration of a query, in microseconds.
    took: AtomicI64,
}

/// Permission to make a query now.
pub(super) struct QueryPermit {
    _permit: OwnedSemaphorePermit,
    began: Tick,
}

impl Load {
    /// Permits up to `at_once` queries at a time.
    pub(crate) fn new(at_once: u32, deadline: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once as usize)),
            at_once,
            pace: None,
            deadline,
            took: AtomicI64::new(0),
        }
    }

    /// Adds a limit of `rate` queries per second, with a burst of a tenth of a second's worth.
    pub(crate) fn paced(self, rate: u32) -> Self {
        Self { pace: Some(Pace::new(rate, rate / 10)), ..self }
    }

    /// The number of queries that may run at a time.
    pub(super) fn at_once(&self) -> usize {
        self.at_once as usize
    }

    /// Waits until a query is permitted. Meanwhile, `due` holds the time of that.
    pub(super) async fn turn(&self, due: &AtomicI64) -> Option<QueryPermit> {
        // The permit comes first: slots that pass during the wait for it are not saved up.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        if let Some(pace) = &self.pace {
            let now = clock::now();
            let slot = pace.take(now);
            due.store(slot.as_micros(), Relaxed);
            if slot > now {
                sleep(slot.since(now)).await;
            }
            due.store(UNKNOWN, Relaxed);
        }
        Some(QueryPermit { _permit: permit, began: clock::now() })
    }

    /// Notes how long a query took. Returns when it began and ended.
    pub(super) fn ended(&self, turn: QueryPermit) -> (Tick, Tick) {
        let (began, ended) = (turn.began, clock::now());
        let took = i64::try_from(ended.since(began).as_micros()).unwrap_or(i64::MAX);
        // Forgets quickly, so that a store is not considered slow for long after an outage.
        self.took.store(self.took.load(Relaxed).midpoint(took), Relaxed);
        (began, ended)
    }

    /// Whether a lookup behind `queued` others can be expected to begin before the deadline.
    pub(super) fn in_time(&self, queued: usize, due: &AtomicI64, now: Tick) -> bool {
        // One batch has left the queue and is being gathered.
        let batches = u32::try_from((queued + 1) / MAX_BATCH).unwrap_or(u32::MAX);
        let paced = self.pace.as_ref().map_or(Duration::ZERO, |pace| {
            let next = match due.load(Relaxed) {
                UNKNOWN => pace.peek(now),
                due => Tick::from_micros(due),
            };
            next.after(pace.interval().saturating_mul(batches)).since(now)
        });
        // The duration of queries is a guess, so there is always room for a whole batch: answers
        // that come too late for their callers still fill the caches, and a slow store is not asked
        // for one key at a time.
        let busy = if batches > 0 && self.permits.available_permits() == 0 {
            let took = u64::try_from(self.took.load(Relaxed)).unwrap_or(0);
            Duration::from_micros(took).saturating_mul(batches) / self.at_once
        } else {
            Duration::ZERO
        };
        paced.max(busy) < self.deadline
    }
}

/// The value of `due` while no batch waits for its slot.
pub(super) const UNKNOWN: i64 = i64::MIN;

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: i64) -> Tick {
        Tick::from_micros(millis * 1000)
    }

    #[tokio::test]
    async fn what_would_come_too_late_is_not_queued() {
        let now = millis(1_000_000);
        let nobody = AtomicI64::new(UNKNOWN);
        let load = Load::new(1, Duration::from_millis(100)).paced(20);
        assert!(load.in_time(0, &nobody, now));
        // A batch goes every 50 ms, two at once after a pause.
        assert!(load.in_time(3 * MAX_BATCH - 2, &nobody, now));
        assert!(!load.in_time(3 * MAX_BATCH - 1, &nobody, now));
        for (millis_to_go, room) in [(40, true), (60, true), (100, false)] {
            let due = AtomicI64::new(millis(1_000_000 + millis_to_go).as_micros());
            assert_eq!(load.in_time(0, &due, now), room, "{millis_to_go} ms to go");
        }
    }

    #[tokio::test]
    async fn a_slow_store_has_room_for_a_batch() {
        let nobody = AtomicI64::new(UNKNOWN);
        let load = Load::new(2, Duration::from_millis(100));
        load.took.store(1_000_000, Relaxed);
        let free = load.in_time(5000, &nobody, clock::now());
        let turns = [load.turn(&nobody).await.unwrap(), load.turn(&nobody).await.unwrap()];
        let room = |queued| load.in_time(queued, &nobody, clock::now());
        assert!(free && room(MAX_BATCH - 2) && !room(MAX_BATCH - 1));
        for turn in turns {
            load.ended(turn);
        }
        assert!(room(5000), "it is asked again");
        assert!(load.took.load(Relaxed) < 1_000_000, "it is faster than it was");
    }
}
