//! The decision log: the decision about each request, as JSON lines.
//!
//! A check moves a record into a bounded queue; a separate thread writes the queued records in
//! batches. Decisions that are not logged cost almost nothing: for an allow that is not in the
//! sample, the log draws one number from a generator of this thread. Of the denials of a verified
//! token with the same code, domain, and operation or path, one per second is logged, and the others
//! are a number in a summary. Denials that any client can cause are rate-limited, and the rest is counted
//! by code. So the log grows at a bounded rate whatever clients do, and its reader can see what is
//! missing.
//!
//! No check waits for the log. When the queue is full, records are dropped and counted.

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
    admission::{Omissions, Sample},
    repeats::{Admission, Repeats},
};
pub(crate) use self::{
    line::{DecisionLine, LogEntry, LogLines, RepeatedSummary},
    record::{MAX_MODEL, Record, RequestedAccess, UnnamedRequest},
    sink::LogOpenError,
    writer::{DecisionLogHandle, DecisionLogWriter},
};
use crate::{
    clock::Tick,
    config,
    decision::Decision,
    pace::Pace,
    telemetry::{Metrics, RecordResult},
};

/// Accepts the records of checks. If decisions are not logged, it holds no queue and accepts none.
pub(crate) struct DecisionLog(Option<RecordQueue>);

struct RecordQueue {
    sample: Sample,
    pace: Pace,
    records: SyncSender<WriterMessage>,
    shared: Arc<LogState>,
    metrics: Metrics,
}

enum WriterMessage {
    Record(Box<Record>),
    /// Wakes the writer, which then reads the flags.
    Wake,
}

/// The state that both ends share.
struct LogState {
    omissions: Omissions,
    repeats: Repeats,
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl DecisionLog {
    /// Returns the log and its writer, which the caller must run; no writer if decisions are not
    /// logged.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened.
    pub(crate) fn open(
        settings: &config::DecisionLogSettings,
        metrics: &Metrics,
    ) -> Result<(Self, Option<DecisionLogWriter>), LogOpenError> {
        let Some(sink) = sink::Sink::open(&settings.to)? else { return Ok((Self(None), None)) };
        let (records, waiting) = sync_channel(settings.queue);
        let shared = Arc::new(LogState {
            omissions: Omissions::default(),
            repeats: Repeats::new(settings.repeats_per_second),
            reopen: AtomicBool::default(),
            stop: AtomicBool::default(),
        });
        let writer = DecisionLogWriter {
            waiting,
            sink,
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
        };
        let queue = RecordQueue {
            sample: Sample::new(settings.sample_allows),
            pace: Pace::new(settings.denials_per_second, settings.denials_per_second),
            records,
            shared,
            metrics: metrics.clone(),
        };
        Ok((Self(Some(queue)), Some(writer)))
    }

    /// Returns a handle that controls the writer, if there is one.
    pub(crate) fn handle(&self) -> Option<DecisionLogHandle> {
        let RecordQueue { records, shared, .. } = self.0.as_ref()?;
        Some(DecisionLogHandle { shared: Arc::clone(shared), waker: records.clone() })
    }

    /// Returns whether a decision that was answered at `at` must be recorded. Call it once per
    /// decision: it counts the decisions that are not recorded.
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

    /// Queues a record, or counts it as a repetition of a logged one. Does not wait.
    pub(crate) fn write(&self, record: Record) {
        let Some(queue) = &self.0 else { return };
        match queue.shared.repeats.admit(&record) {
            Admission::Logged => {}
            Admission::Repetition => {
                return queue.metrics.logged_decisions(RecordResult::Repeated, 1);
            }
            Admission::Unknown if queue.pace.admits(record.at) => {}
            Admission::Unknown => return queue.left_out(record.decision.code()),
        }
        if queue.records.try_send(WriterMessage::Record(Box::new(record))).is_err() {
            queue.shared.omissions.dropped();
            queue.metrics.logged_decisions(RecordResult::Dropped, 1);
        }
    }
}

impl RecordQueue {
    fn left_out(&self, code: &str) {
        self.shared.omissions.left_out(code);
        self.metrics.logged_decisions(RecordResult::LeftOut, 1);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn allow() -> Decision {
        Decision::Allow(patgate_core::testing::permit())
    }

    #[test]
    fn what_is_not_sampled_costs_no_allocation() {
        let settings = config::DecisionLogSettings {
            to: config::LogTo::Stdout,
            sample_allows: 0.01,
            denials_per_second: 1,
            repeats_per_second: 1,
            queue: 1,
        };
        let metrics = Metrics::new(&mut Registry::default());
        let (log, _writer) = DecisionLog::open(&settings, &metrics).unwrap();
        let decision = allow();
        let now = crate::clock::now();
        let mut admitted = 0;
        let cost = allocation_counter::measure(|| {
            admitted = (0..10_000).filter(|_| log.admits(&decision, now)).count();
        });
        assert_eq!(cost.count_total, 0);
        assert!((1..1000).contains(&admitted), "{admitted}");
    }
}
