//! The decision log: what was decided about which request, as JSON lines.
//!
//! A check moves a record into a bounded queue; a thread of its own writes what is queued, in
//! batches. What nobody will read costs next to nothing: an allow that is not in the sample is one
//! draw from a generator of this thread. Of the denials of a proven token that have code, operation
//! and domain in common, one a second is logged, and the others are a number in a summary. A denial
//! that anybody can cause is paced, and what is left out is counted by its code. So the log grows
//! by a bounded rate whatever clients do, and who reads it can tell what it does not know.
//!
//! Nothing here waits for the log. When the queue is full, records are dropped and counted.

mod admission;
mod line;
mod record;
mod repeats;
mod sink;
mod writer;

use std::sync::{
    Arc,
    atomic::AtomicBool,
    mpsc::{SyncSender, sync_channel},
};

use self::{
    admission::{Omissions, Pace, Sample},
    repeats::{Admission, Repeats},
};
pub(crate) use self::{
    line::{Entry, Line, Lines, Repeated},
    record::{MAX_MODEL, Named, Record},
    sink::OpenError,
    writer::{Handle, Writer},
};
use crate::{clock::Tick, config, decision::Decision, telemetry::Metrics};

/// Where checks leave their records. One that goes nowhere takes none.
pub(crate) struct DecisionLog(Option<Queue>);

struct Queue {
    sample: Sample,
    pace: Pace,
    records: SyncSender<Message>,
    shared: Arc<Shared>,
    metrics: Metrics,
}

enum Message {
    Record(Box<Record>),
    /// To look at the flags.
    Wake,
}

/// What both ends know.
struct Shared {
    omissions: Omissions,
    repeats: Repeats,
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl DecisionLog {
    /// Its other end is to be run; there is none where the log goes nowhere.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened.
    pub(crate) fn open(
        settings: &config::DecisionLog,
        metrics: &Metrics,
    ) -> Result<(Self, Option<Writer>), OpenError> {
        let Some(sink) = sink::Sink::open(&settings.to)? else { return Ok((Self(None), None)) };
        let (records, waiting) = sync_channel(settings.queue);
        let shared = Arc::new(Shared {
            omissions: Omissions::default(),
            repeats: Repeats::new(settings.repeats_per_second),
            reopen: AtomicBool::default(),
            stop: AtomicBool::default(),
        });
        let writer =
            Writer { waiting, sink, shared: Arc::clone(&shared), metrics: metrics.clone() };
        let queue = Queue {
            sample: Sample::new(settings.sample_allows),
            pace: Pace::new(settings.denials_per_second),
            records,
            shared,
            metrics: metrics.clone(),
        };
        Ok((Self(Some(queue)), Some(writer)))
    }

    /// Tells the other end what to do, if there is one.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let Queue { records, shared, .. } = self.0.as_ref()?;
        Some(Handle { shared: Arc::clone(shared), waker: records.clone() })
    }

    /// Whether a decision that was answered then is to be recorded. Asked once for each: what is
    /// not, is counted here.
    pub(crate) fn admits(&self, decision: &Decision, at: Tick) -> bool {
        let Some(queue) = &self.0 else { return false };
        match decision.denial() {
            None => queue.sample.draws(),
            Some(denial) if denial.subject.is_some() || queue.pace.admits(at) => true,
            Some(denial) => {
                queue.left_out(denial.refusal.code());
                false
            }
        }
    }

    /// Leaves a record to be written, or counts it as one more of what the log has already. Waits
    /// for nothing.
    pub(crate) fn write(&self, record: Record) {
        let Some(queue) = &self.0 else { return };
        match queue.shared.repeats.admit(&record) {
            Admission::Logged => {}
            Admission::Repetition => return queue.metrics.logged_decisions("repeated", 1),
            Admission::Unknown if queue.pace.admits(record.at) => {}
            Admission::Unknown => return queue.left_out(record.decision.code()),
        }
        if queue.records.try_send(Message::Record(Box::new(record))).is_err() {
            queue.shared.omissions.dropped();
            queue.metrics.logged_decisions("dropped", 1);
        }
    }
}

impl Queue {
    fn left_out(&self, code: &str) {
        self.shared.omissions.left_out(code);
        self.metrics.logged_decisions("left_out", 1);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use uuid::Uuid;

    use super::*;
    use crate::{
        decision::Permit,
        domain::{Domain, DomainId, Models},
        operation::Operation,
        principal::UserId,
        token::TokenId,
    };

    fn allow() -> Decision {
        let (id, slug) = (DomainId(Uuid::from_u128(1)), "acme".parse().unwrap());
        let domain = Domain::new(id, slug, true, "model-acme".into(), Models::All);
        Decision::Allow(Permit {
            token: TokenId(Uuid::from_u128(2)),
            owner: UserId(Uuid::from_u128(3)),
            domain: Arc::new(domain),
            operation: Operation::LlmRead,
            model: None,
            upstream: "model-acme".into(),
            credential: None,
        })
    }

    #[test]
    fn what_is_not_sampled_costs_no_allocation() {
        let settings = config::DecisionLog {
            to: config::LogTo::Stdout,
            sample_allows: 0.01,
            denials_per_second: 1,
            repeats_per_second: 1,
            queue: 1,
        };
        let metrics = Metrics::new(&mut Registry::default());
        let (log, _writer) = DecisionLog::open(&settings, &metrics).unwrap();
        let (decision, now) = (allow(), Tick::now());
        let mut admitted = 0;
        let cost = allocation_counter::measure(|| {
            admitted = (0..10_000).filter(|_| log.admits(&decision, now)).count();
        });
        assert_eq!(cost.count_total, 0);
        assert!((1..1000).contains(&admitted), "{admitted}");
    }
}
