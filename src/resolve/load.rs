//! How much a store is asked: so many queries at once, so many a second. And what is not worth
//! queueing for, because the answer would come too late.

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
use crate::clock::Tick;

/// The bounds of one store, whatever it is asked for.
pub(crate) struct Load {
    permits: Arc<Semaphore>,
    at_once: u32,
    pace: Option<Pace>,
    /// How long anybody waits for an answer.
    deadline: Duration,
    /// Microseconds that a query took lately.
    took: AtomicI64,
}

/// A query that may be made now.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    began: Tick,
}

impl Load {
    /// Up to `at_once` queries at a time.
    pub(crate) fn new(at_once: u32, deadline: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once as usize)),
            at_once,
            pace: None,
            deadline,
            took: AtomicI64::new(0),
        }
    }

    /// And up to `rate` a second, with those of a tenth of a second in a burst.
    pub(crate) fn paced(self, rate: u32) -> Self {
        Self { pace: Some(Pace::new(rate)), ..self }
    }

    /// Queries that may run at a time.
    pub(super) fn at_once(&self) -> usize {
        self.at_once as usize
    }

    /// Waits until a query may be made. The queue behind is told when that will be.
    pub(super) async fn turn(&self, due: &AtomicI64) -> Option<Turn> {
        // The permit first: slots that pass while it is waited for are not saved up.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        if let Some(pace) = &self.pace {
            let now = Tick::now();
            let slot = pace.take(now);
            due.store(slot.as_micros(), Relaxed);
            if slot > now {
                sleep(slot.since(now)).await;
            }
            due.store(UNKNOWN, Relaxed);
        }
        Some(Turn { _permit: permit, began: Tick::now() })
    }

    /// Takes note of how long a query took.
    pub(super) fn ended(&self, turn: Turn) {
        let took = i64::try_from(Tick::now().since(turn.began).as_micros()).unwrap_or(i64::MAX);
        // Quick to forget, so that an outage is not held against a store that is back.
        self.took.store(self.took.load(Relaxed).midpoint(took), Relaxed);
    }

    /// Whether a look-up behind `queued` others can be expected to begin before the deadline.
    pub(super) fn in_time(&self, queued: usize, due: &AtomicI64, now: Tick) -> bool {
        // One has left the queue and gathers the next batch.
        let batches = u32::try_from((queued + 1) / MAX_BATCH).unwrap_or(u32::MAX);
        let paced = self.pace.as_ref().map_or(Duration::ZERO, |pace| {
            let next = match due.load(Relaxed) {
                UNKNOWN => pace.peek(now),
                due => Tick::from_micros(due),
            };
            next.after(pace.interval.saturating_mul(batches)).since(now)
        });
        // How long queries take is a guess, so there is always room for a whole batch: what comes
        // too late for its callers still fills the caches, and a store that is slow is not asked
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

/// A token bucket, kept as the time of its next slot. What was not used lately may be made up for
/// by a burst, so who asks seldom never waits.
struct Pace {
    interval: Duration,
    /// How far back unused slots count.
    saved: Duration,
    next: AtomicI64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        let burst = (rate / 10).max(1);
        Self { interval, saved: interval * (burst - 1), next: AtomicI64::new(i64::MIN) }
    }

    /// The next slot; one that has passed is to be used at once.
    fn peek(&self, now: Tick) -> Tick {
        Tick::from_micros(self.next.load(Relaxed)).max(now.before(self.saved))
    }

    /// Takes that slot.
    fn take(&self, now: Tick) -> Tick {
        loop {
            let known = self.next.load(Relaxed);
            let slot = Tick::from_micros(known).max(now.before(self.saved));
            let next = slot.after(self.interval).as_micros();
            if self.next.compare_exchange_weak(known, next, Relaxed, Relaxed).is_ok() {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: i64) -> Tick {
        Tick::from_micros(millis * 1000)
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let pace = Pace::new(100);
        let start = millis(1_000_000);
        let slots: Vec<_> = (0..30).map(|_| pace.take(start)).collect();
        assert!(slots[..10].iter().all(|slot| *slot <= start), "the burst");
        assert_eq!(slots[10..], (1..=20).map(|n| millis(1_000_000 + 10 * n)).collect::<Vec<_>>());
        // However long nobody asked, no more than a burst is saved up.
        let later = millis(9_000_000);
        let at_once = (0..30).filter(|_| pace.take(later) <= later).count();
        assert_eq!(at_once, 10);
    }

    #[test]
    fn who_asks_seldom_never_waits() {
        for rate in [1, 9, 500] {
            let pace = Pace::new(rate);
            for n in 0..100 {
                let now = millis(1_000_000 + 1000 * n);
                assert!(pace.take(now) <= now, "{rate} a second");
            }
        }
    }

    #[test]
    fn no_window_has_more_than_its_share() {
        let pace = Pace::new(50);
        // Asked for as fast as it goes, with a pause in the middle.
        let (mut now, mut slots) = (millis(1_000_000), Vec::new());
        for n in 0..400 {
            if n == 200 {
                now = now.after(Duration::from_secs(7));
            }
            now = now.max(pace.take(now));
            slots.push(now);
        }
        for (at, from) in slots.iter().enumerate() {
            let within = |slot: &&Tick| slot.since(*from) < Duration::from_secs(1);
            assert!(slots[at..].iter().filter(within).count() <= 50 + 5, "from {from:?} on");
        }
    }

    #[tokio::test]
    async fn what_would_come_too_late_is_not_queued() {
        let (now, nobody) = (millis(1_000_000), AtomicI64::new(UNKNOWN));
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
        let free = load.in_time(5000, &nobody, Tick::now());
        let turns = [load.turn(&nobody).await.unwrap(), load.turn(&nobody).await.unwrap()];
        let room = |queued| load.in_time(queued, &nobody, Tick::now());
        assert!(free && room(MAX_BATCH - 2) && !room(MAX_BATCH - 1));
        for turn in turns {
            load.ended(turn);
        }
        assert!(room(5000), "it is asked again");
        assert!(load.took.load(Relaxed) < 1_000_000, "it is faster than it was");
    }
}
