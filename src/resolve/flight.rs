//! Single flight: concurrent lookups of one key share one.
//!
//! The lookup runs in its own task, so that it survives a caller that goes away.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::oneshot;

use super::{
    Unavailable,
    lanes::{LANES, Lane},
};
use crate::telemetry::{CheckSpan, LookupTrace};

/// How many lookups may be in progress. More would be an overload: the next caller gets 503.
const MAX_FLIGHTS: usize = 8192;
/// This many lookups of one lane may always be in progress, regardless of the others.
const RESERVED: usize = MAX_FLIGHTS / LANES;

/// A future that waits for a lookup, together with other callers.
pub(super) type Waiter<T> = Shared<BoxFuture<'static, Result<T, Unavailable>>>;

type SharedLookups<K, T> = Arc<Mutex<LookupsUnderWay<K, T>>>;

/// The lookups in progress, by key.
pub(super) struct Flights<K, T>(SharedLookups<K, T>);

struct LookupsUnderWay<K, T> {
    flights: HashMap<K, Flight<T>>,
    /// The number of lookups in progress per lane.
    lanes: [usize; LANES],
}

/// A lookup in progress.
struct Flight<T> {
    waiter: Waiter<T>,
    trace: LookupTrace,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        let under_way = LookupsUnderWay { flights: HashMap::default(), lanes: [0; LANES] };
        Self(Arc::new(Mutex::new(under_way)))
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the lookup of `key`, or starts one if none is in progress. `check` is the span of the
    /// check that waits for it, if one does that has a span.
    pub(super) fn join<F>(
        &self,
        key: &K,
        lane: Lane,
        check: Option<&CheckSpan>,
        start: impl FnOnce(K, LookupTrace) -> F,
    ) -> Result<Waiter<T>, Unavailable>
    where
        F: Future<Output = Result<T, Unavailable>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (waiter, trace) = {
            let mut board = lock(&self.0);
            if let Some(flight) = board.flights.get(key) {
                let Flight { waiter, trace } = flight;
                let (waiter, trace) = (waiter.clone(), trace.clone());
                drop(board);
                trace.join(check);
                return Ok(waiter);
            }
            let full = board.flights.len() >= MAX_FLIGHTS;
            let of_lane = board.lanes.get_mut(lane.0).ok_or(Unavailable)?;
            if full && *of_lane >= RESERVED {
                return Err(Unavailable);
            }
            *of_lane += 1;
            // A missing answer means that the lookup panicked, or that the process is ending.
            let waiter = answered.map(|answer| answer.unwrap_or(Err(Unavailable)));
            let waiter = waiter.boxed().shared();
            let trace = LookupTrace::default();
            let flight = Flight { waiter: waiter.clone(), trace: trace.clone() };
            board.flights.insert(key.clone(), flight);
            (waiter, trace)
        };
        trace.join(check);
        // Spawned outside of the lock: a runtime that is ending drops the task right here.
        let landing = FlightGuard { board: Arc::clone(&self.0), key: key.clone(), lane };
        let look_up = start(key.clone(), trace);
        tokio::spawn(async move {
            let found = look_up.await;
            // The flight is removed before the callers get the result, so that a later caller
            // starts a new lookup. It is also removed if the lookup panics.
            drop(landing);
            let _ = answer.send(found);
        });
        Ok(waiter)
    }
}

/// Removes a flight when it ends.
struct FlightGuard<K: Eq + Hash, T> {
    board: SharedLookups<K, T>,
    key: K,
    lane: Lane,
}

impl<K: Eq + Hash, T> Drop for FlightGuard<K, T> {
    fn drop(&mut self) {
        let mut board = lock(&self.board);
        board.flights.remove(&self.key);
        if let Some(of_lane) = board.lanes.get_mut(self.lane.0) {
            *of_lane -= 1;
        }
    }
}

/// No code that can panic runs under this lock, so a poisoned lock is still consistent.
fn lock<K, T>(board: &SharedLookups<K, T>) -> MutexGuard<'_, LookupsUnderWay<K, T>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn callers_share_one_look_up_that_survives_them() {
        let flights: Flights<u8, usize> = Flights::default();
        let started = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let join = || {
            let started = Arc::clone(&started);
            let gate = Arc::clone(&gate);
            flights.join(&1, Lane(0), None, |_, _| async move {
                gate.notified().await;
                Ok(started.fetch_add(1, SeqCst) + 1)
            })
        };
        drop(join().unwrap());
        let waiters: Vec<_> = (0..100).map(|_| join().unwrap()).collect();
        gate.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.await, Ok(1));
        }
        gate.notify_one();
        assert_eq!(join().unwrap().await, Ok(2), "a later caller starts afresh");
    }

    #[tokio::test]
    async fn a_panic_is_unavailable_and_leaves_no_trace() {
        let flights: Flights<u8, ()> = Flights::default();
        let waiter = flights.join(&1, Lane(0), None, |_, _| async { panic!("on purpose") });
        let waiter = waiter.unwrap();
        assert_eq!(waiter.await, Err(Unavailable));
        let later = flights.join(&1, Lane(0), None, |_, _| async { Ok(()) });
        assert_eq!(later.unwrap().await, Ok(()));
    }
}
