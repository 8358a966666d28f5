//! Reads long bodies without delaying other checks.
//!
//! Checks are answered on their connection, several at a time. Reading a body of a megabyte takes a
//! millisecond, during which all the others would wait. So a thread of low priority reads it. The
//! check that waits for this is in its own task, which hands the other tasks of its worker thread to
//! another thread. The number of bodies that are read at once is bounded, and each owner of tokens
//! has one read at a time. A check waits for its turn within its deadline; the turn lasts until the
//! body has been read. Long lists of models are made in the same way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::{block_in_place, yield_now},
};

use crate::{
    body::Body, clock, principal::UserId, process::low_priority, resolve::Unavailable,
    throttle::Throttle,
};

/// Longest body, in bytes, that is read on the connection: this takes less time than waking a
/// thread.
const SHORT: usize = 32 * 1024;

/// Memory for all bodies that wait to be read, in bytes: sixteen of the longest.
const ROOM: usize = 512 * 1024 * 1024;

/// The interval between two reports that no thread can be started.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The queue in which long bodies wait to be read, and the memory that they may use.
pub(crate) struct LongBodies {
    /// Bytes that are left for bodies that arrive in pieces, and for decompressed bodies.
    room: Arc<Semaphore>,
    /// The bodies of an owner's tokens wait for each other before they wait for those of others. So
    /// an owner never has more than one body in the common queue, however many tokens send bodies.
    /// The map has the owners with a body that waits or is read.
    turns: Mutex<HashMap<UserId, Turn>>,
    at_once: Semaphore,
    reports: Throttle,
}

/// The place of one owner in that queue.
struct Turn {
    one: Arc<Semaphore>,
    /// The number of bodies that wait or are read.
    bodies: usize,
}

impl LongBodies {
    /// Reads up to `at_once` bodies at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM)),
            turns: Mutex::default(),
            at_once: Semaphore::new(at_once.max(1)),
            reports: Throttle::default(),
        }
    }

    /// Reads as many at a time as leave half of the processors to other checks.
    pub(crate) fn for_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |all| all.get() / 2))
    }

    /// No code that can panic runs under this lock.
    fn turns(&self) -> MutexGuard<'_, HashMap<UserId, Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that are left for bodies.
    pub(crate) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// Whether a body needs a turn. A compressed body always does, because its real length is
    /// unknown.
    pub(crate) fn is_long(body: &Body<'_>) -> bool {
        body.bytes.len() > SHORT || body.is_compressed()
    }

    /// Reads a body that a token of this owner sent, in its turn. Never ready at the first poll.
    pub(crate) async fn read<T>(
        &self,
        owner: UserId,
        read: impl FnOnce() -> T + Send,
    ) -> Result<T, Unavailable>
    where
        T: Send,
    {
        self.turn(owner).await?.aside(read)
    }

    /// Waits for a turn of this owner. Never ready at the first poll.
    pub(crate) async fn turn(&self, owner: UserId) -> Result<InTurn<'_>, Unavailable> {
        // The connection polls a check once, and makes a task of it if it is not ready then.
        yield_now().await;
        let own = Own::new(self, owner);
        let one = Arc::clone(&own.one).acquire_owned().await.map_err(|_| Unavailable)?;
        let among_all = self.at_once.acquire().await.map_err(|_| Unavailable)?;
        Ok(InTurn { _among_all: among_all, _one: one, own })
    }

    /// Runs `work`, which takes long, on a thread of low priority. This thread waits for it, after
    /// handing its other tasks to another one.
    pub(crate) fn aside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Unavailable> {
        let done = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => block_in_place(|| low_priority::run(work)),
            // A runtime with one thread cannot hand its tasks over.
            _ => low_priority::run(work),
        };
        done.map_err(|error| {
            if self.reports.passes(clock::now(), REPORT_EVERY) {
                tracing::warn!(%error, "cannot start a thread that reads a long body");
            }
            Unavailable
        })
    }
}

/// A turn, until it is dropped.
pub(crate) struct InTurn<'b> {
    _among_all: SemaphorePermit<'b>,
    _one: OwnedSemaphorePermit,
    own: Own<'b>,
}

impl InTurn<'_> {
    /// Runs `work`, which takes long, without delaying other checks.
    pub(crate) fn aside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Unavailable> {
        self.own.bodies.aside(work)
    }
}

/// A body in the queue of its owner.
struct Own<'b> {
    bodies: &'b LongBodies,
    owner: UserId,
    one: Arc<Semaphore>,
}

impl<'b> Own<'b> {
    fn new(bodies: &'b LongBodies, owner: UserId) -> Self {
        let mut turns = bodies.turns();
        let turn = turns
            .entry(owner)
            .or_insert_with(|| Turn { one: Arc::new(Semaphore::new(1)), bodies: 0 });
        turn.bodies += 1;
        Self { bodies, owner, one: Arc::clone(&turn.one) }
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let mut turns = self.bodies.turns();
        let Some(turn) = turns.get_mut(&self.owner) else { return };
        turn.bodies -= 1;
        if turn.bodies == 0 {
            turns.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    fn owner(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn nothing_is_read_at_the_first_poll() {
        let bodies = LongBodies::new(1);
        assert_eq!(bodies.read(owner(1), || panic!("read")).now_or_never(), None::<Result<(), _>>);
        assert_eq!(bodies.read(owner(1), || 7).await, Ok(7));
    }

    /// Whichever runtime waits for it.
    #[test]
    #[cfg(target_os = "linux")]
    fn bodies_are_read_and_lists_made_at_low_priority() {
        use rustix::process::getpriority_process;
        use tokio::runtime::Builder;

        let priority = || getpriority_process(None).unwrap();
        let own = priority();
        for mut runtime in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            runtime.build().unwrap().block_on(async {
                let bodies = LongBodies::new(1);
                assert!(bodies.read(owner(1), priority).await.unwrap() > own);
                assert!(bodies.turn(owner(1)).await.unwrap().aside(priority).unwrap() > own);
                assert!(bodies.aside(priority).unwrap() > own);
                assert_eq!(priority(), own);
            });
        }
    }

    /// Each body is read until the gate opens.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_owner_has_one_read_at_a_time_and_delays_no_other_task() {
        let bodies = Arc::new(LongBodies::new(2));
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let reading = Arc::new(AtomicUsize::new(0));
        let [one, other] = [1, 2].map(owner);
        let read = |owner| {
            let (bodies, gate, reading) =
                (Arc::clone(&bodies), Arc::clone(&gate), Arc::clone(&reading));
            tokio::spawn(async move {
                bodies
                    .read(owner, || {
                        reading.fetch_add(1, SeqCst);
                        let open = gate.0.lock().unwrap();
                        drop(gate.1.wait_while(open, |open| !*open).unwrap());
                    })
                    .await
            })
        };
        let mut reads: Vec<_> = (0..50).map(|_| read(one)).collect();
        reads.push(read(other));
        // This task runs although the only worker thread is reading, and so does the other owner's.
        while reading.load(SeqCst) < 2 {
            yield_now().await;
        }
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(reading.load(SeqCst), 2, "one of each owner");
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        for read in reads {
            assert_eq!(read.await.unwrap(), Ok(()));
        }
        assert_eq!(reading.load(SeqCst), 51);
        assert!(bodies.turns().is_empty(), "no owner is kept");
    }
}
