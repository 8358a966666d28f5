//! Runs the futures of streams where they are, all that were read at once together.

use std::{
    future::{Future, poll_fn},
    mem::take,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
};

use hyper::rt::Executor;

/// The futures of streams whose requests have been read and that were not polled yet.
///
/// A connection that polled each one where it read it would also write each answer by itself: a
/// system call for each, and a client that is woken by each.
#[derive(Clone, Default)]
pub(super) struct Batch(Arc<Mutex<Vec<Stream>>>);

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Batch {
    fn execute(&self, future: F) {
        self.push(Box::pin(future));
    }
}

impl Batch {
    /// Polls a connection, whose executor this is, and its streams until it ends.
    pub(super) async fn serve<C: Future>(&self, mut connection: Pin<&mut C>) -> C::Output {
        poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // What they answer wakes the connection, which writes it.
            for mut stream in self.take() {
                // Whoever is woken too early is polled again by the task.
                if stream.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    tokio::spawn(stream);
                }
            }
            polled
        })
        .await
    }

    // No code that can panic runs under this lock.
    fn push(&self, stream: Stream) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }

    fn take(&self) -> Vec<Stream> {
        take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
