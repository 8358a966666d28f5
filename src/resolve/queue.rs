//! The lookups that wait for a store, in lanes, so that no lane delays the others.
//!
//! Most lanes have few lookups waiting; those go together, in one of the next two batches. A lane
//! with many is served alone, in turn with others like it. Such batches never take more than half
//! of the queries that may run at once, so that the lanes with few find a free one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    batch::MAX_BATCH,
    lanes::{LANES, Lane},
};

/// How many lookups may wait, however fast the store is. A lane with few may exceed it.
const MAX_QUEUE: usize = 8192;
/// This many lookups of one lane always find room.
const RESERVED: usize = MAX_QUEUE / LANES;
/// A lane with fewer waiting lookups goes together with others.
const FEW: usize = 16;

/// Tickets that wait for a store, by lane.
pub(super) struct LaneQueue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Notified when there is more to take, and when the queue is closed.
    changed: Notify,
    /// How many batches of lanes with many lookups may run at once.
    most: usize,
}

struct Waiting<T> {
    lanes: [VecDeque<T>; LANES],
    /// The number of tickets in all lanes.
    count: usize,
    /// The lane after the one that was last served alone.
    next: usize,
    /// The lane with few lookups that is served first.
    few_from: usize,
    /// Whether the lanes with few lookups are next, if there are any.
    few_next: bool,
    /// The number of batches that are being served alone.
    alone: usize,
    closed: bool,
}

/// The tickets that go to the store together.
pub(super) struct Batch<T> {
    pub(super) tickets: Vec<T>,
    /// Set if the batch is of one lane alone; held until the store has answered.
    pub(super) alone: Option<AloneGuard<T>>,
}

/// The place of a batch that is served alone.
pub(super) struct AloneGuard<T>(Arc<LaneQueue<T>>);

impl<T> Drop for AloneGuard<T> {
    fn drop(&mut self) {
        self.0.lock().alone -= 1;
        self.0.changed.notify_one();
    }
}

impl<T> LaneQueue<T> {
    /// Makes the queue of a store that answers `at_once` queries at a time.
    pub(super) fn new(at_once: usize) -> Self {
        let waiting = Waiting {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            count: 0,
            next: 0,
            few_from: 0,
            few_next: true,
            alone: 0,
            closed: false,
        };
        let most = (at_once / 2).max(1);
        Self { waiting: Mutex::new(waiting), changed: Notify::new(), most }
    }

    /// Adds a ticket. Returns false if there is no room.
    pub(super) fn push(&self, lane: Lane, ticket: T) -> bool {
        let mut waiting = self.lock();
        let full = waiting.count >= MAX_QUEUE;
        let Some(queue) = waiting.lanes.get_mut(lane.0) else { return false };
        if full && queue.len() >= RESERVED {
            return false;
        }
        queue.push_back(ticket);
        waiting.count += 1;
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// How many lookups are served before a new one of this lane. Batches of other lanes that are
    /// served before it count as full.
    pub(super) fn ahead(&self, lane: Lane) -> usize {
        let waiting = self.lock();
        let own = waiting.lanes.get(lane.0).map_or(0, VecDeque::len);
        let others = waiting.lanes.iter().enumerate().filter(|(at, _)| *at != lane.0);
        let mut few = 0;
        let mut many = 0;
        for (_, queue) in others {
            if queue.len() < FEW {
                few += queue.len();
            } else {
                many += 1;
            }
        }
        if own + 1 < FEW {
            own + few + if many > 0 { MAX_BATCH } else { 0 }
        } else {
            own + MAX_BATCH * many * (own / MAX_BATCH + 1)
        }
    }

    /// Waits until there is a batch to take. Returns false once the queue is closed.
    pub(super) async fn ready(&self) -> bool {
        loop {
            {
                let waiting = self.lock();
                if waiting.closed {
                    return false;
                }
                if waiting.has_few() || waiting.alone < self.most && waiting.count > 0 {
                    return true;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Takes the next batch; an empty one if nothing waits.
    pub(super) fn take(self: &Arc<Self>) -> Batch<T> {
        let mut waiting = self.lock();
        let many = if waiting.alone < self.most { waiting.with_many() } else { None };
        let (tickets, alone) = match many {
            Some(many) if !(waiting.few_next && waiting.has_few()) => {
                waiting.few_next = true;
                waiting.next = many + 1;
                waiting.alone += 1;
                (waiting.pop(many, MAX_BATCH), true)
            }
            _ => {
                waiting.few_next = false;
                let mut tickets = Vec::new();
                // Lanes that found no room in a batch come first in the next one.
                let first = waiting.few_from;
                for lane in (0..LANES).map(|lane| (first + lane) % LANES) {
                    if tickets.len() == MAX_BATCH {
                        waiting.few_from = lane;
                        break;
                    }
                    if waiting.lanes.get(lane).is_some_and(|queue| queue.len() < FEW) {
                        tickets.append(&mut waiting.pop(lane, MAX_BATCH - tickets.len()));
                    }
                }
                (tickets, false)
            }
        };
        drop(waiting);
        Batch { tickets, alone: alone.then(|| AloneGuard(Arc::clone(self))) }
    }

    /// Closes the queue, which ends [`Self::ready`].
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// No code that can panic runs under this lock, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn has_few(&self) -> bool {
        self.lanes.iter().any(|queue| (1..FEW).contains(&queue.len()))
    }

    /// The next lane to be served alone.
    fn with_many(&self) -> Option<usize> {
        let lanes = (0..LANES).map(|lane| (self.next + lane) % LANES);
        lanes.into_iter().find(|lane| self.lanes.get(*lane).is_some_and(|q| q.len() >= FEW))
    }

    fn pop(&mut self, lane: usize, most: usize) -> Vec<T> {
        let Some(queue) = self.lanes.get_mut(lane) else { return Vec::new() };
        let tickets: Vec<_> = queue.drain(..most.min(queue.len())).collect();
        self.count -= tickets.len();
        tickets
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn fill(queue: &LaneQueue<usize>, lane: usize, count: usize) {
        for _ in 0..count {
            assert!(queue.push(Lane(lane), lane));
        }
    }

    #[tokio::test]
    async fn few_look_ups_go_between_those_of_a_flood() {
        let queue = Arc::new(LaneQueue::new(4));
        fill(&queue, 1, 1000);
        fill(&queue, 2, 300);
        fill(&queue, 3, 2);
        let taken = |batch: &Batch<usize>| (batch.tickets[0], batch.tickets.len());
        let few = queue.take();
        assert_eq!((taken(&few), few.alone.is_some()), ((3, 2), false));
        let one = queue.take();
        assert_eq!((taken(&one), one.alone.is_some()), ((1, MAX_BATCH), true));
        let other = queue.take();
        assert_eq!((taken(&other), other.alone.is_some()), ((2, MAX_BATCH), true));
        // Lanes with many take two of the four places; the other two are free for other lanes.
        assert_eq!(queue.ready().now_or_never(), None);
        fill(&queue, 4, 1);
        assert_eq!(queue.ready().now_or_never(), Some(true));
        assert_eq!(taken(&queue.take()), (4, 1));
        drop(one);
        assert_eq!(queue.ready().now_or_never(), Some(true));
        assert_eq!(taken(&queue.take()), (1, MAX_BATCH));
        drop(other);
        queue.close();
        assert!(!queue.ready().await);
    }

    #[test]
    fn lanes_that_found_no_room_come_first() {
        let queue = Arc::new(LaneQueue::new(4));
        let mut last = 0;
        for _ in 0..2 {
            // All lanes hold as many as they may, and one batch has no room for all of them.
            for lane in 0..LANES {
                let waiting = queue.lock().lanes[lane].len();
                fill(&queue, lane, FEW - 1 - waiting);
            }
            let taken = queue.take().tickets;
            assert_eq!(taken.len(), MAX_BATCH);
            last = *taken.last().unwrap();
            assert!(last > 0);
        }
        assert!(last > MAX_BATCH / (FEW - 1), "{last}");
    }

    #[test]
    fn a_full_queue_has_room_for_who_has_few() {
        let queue = LaneQueue::new(1);
        let pushed = (0..2 * MAX_QUEUE).filter(|_| queue.push(Lane(1), 1)).count();
        assert_eq!(pushed, MAX_QUEUE);
        let pushed = (0..2 * RESERVED).filter(|_| queue.push(Lane(2), 2)).count();
        assert_eq!(pushed, RESERVED);
        assert_eq!(queue.ahead(Lane(3)), MAX_BATCH);
        assert!(queue.ahead(Lane(1)) >= MAX_QUEUE);
    }
}
