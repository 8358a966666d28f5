//! Writes the queued records in a separate thread, because standard output may be a pipe that
//! nothing reads.

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Release},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    LogState, WriterMessage,
    line::{OmittedSummary, rfc3339},
    sink::{SETTING, Sink},
};
use crate::{
    clock::{self, WallClock},
    telemetry::{Metrics, RecordResult},
};

/// The most lines in one write.
const MAX_BATCH: usize = 512;
/// How often the log summarizes what was not recorded line by line, if there is anything.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);

/// The end of the queue that writes.
pub(crate) struct DecisionLogWriter {
    pub(super) waiting: Receiver<WriterMessage>,
    pub(super) sink: Sink,
    pub(super) shared: Arc<LogState>,
    pub(super) metrics: Metrics,
}

/// Controls a writer from another thread.
#[derive(Clone)]
pub(crate) struct DecisionLogHandle {
    pub(super) shared: Arc<LogState>,
    pub(super) waker: SyncSender<WriterMessage>,
}

impl DecisionLogHandle {
    /// Opens the file again, after another program has renamed it.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Release);
        self.wake();
    }

    /// Stops the writer once all queued records are written.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Release);
        self.wake();
    }

    fn wake(&self) {
        // If the queue is full, the writer is awake.
        let _ = self.waker.try_send(WriterMessage::Wake);
    }
}

impl DecisionLogWriter {
    /// Starts the thread. The receiver gets a message when the thread has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no thread left.
    pub(crate) fn spawn(self) -> io::Result<oneshot::Receiver<()>> {
        let (ending, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("decision-log".to_owned());
        thread.spawn(move || {
            self.run();
            let _ = ending.send(());
        })?;
        Ok(ended)
    }

    fn run(mut self) {
        let mut batch = LineBatch::default();
        let mut well = true;
        let mut summary_due = clock::now().after(SUMMARY_EVERY);
        loop {
            let stopping = self.shared.stop.load(Acquire);
            let stopping = !self.gather(&mut batch, stopping) || stopping;
            let clock = batch.clock.get_or_insert_with(WallClock::read);
            let ends = stopping && batch.lines == 0;
            if ends || clock.tick >= summary_due {
                summary_due = clock.tick.after(SUMMARY_EVERY);
                let (left_out, dropped) = self.shared.omissions.take();
                if dropped > 0 || !left_out.is_empty() {
                    let left_out = left_out.into_iter().map(|(code, n)| (code.to_owned(), n));
                    let time = rfc3339(clock.now);
                    let summary = OmittedSummary { time, left_out: left_out.collect(), dropped };
                    append(&mut batch.text, &summary);
                }
                let time = rfc3339(clock.now);
                for repeated in self.shared.repeats.take(clock.tick, &time) {
                    append(&mut batch.text, &repeated);
                }
            }
            if self.shared.reopen.swap(false, AcqRel) {
                self.metrics.reopened_decision_log(self.sink.reopen());
            }
            if !batch.text.is_empty() {
                let written = self.sink.write(&batch.text);
                well = self.count_and_report(&written, batch.lines, well);
            }
            if ends {
                return;
            }
            batch.clear();
        }
    }

    /// Waits for a record, unless it is time to stop, and takes the other records that are queued.
    /// Returns false if there will be no more.
    fn gather(&self, batch: &mut LineBatch, stopping: bool) -> bool {
        let patience = if stopping { Duration::ZERO } else { SUMMARY_EVERY };
        match self.waiting.recv_timeout(patience) {
            Ok(message) => batch.push(message),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while batch.lines < MAX_BATCH
            && let Ok(message) = self.waiting.try_recv()
        {
            batch.push(message);
        }
        true
    }

    /// Returns whether the lines were written. Logs only a change of that, not each failure.
    fn count_and_report(&self, written: &io::Result<()>, lines: usize, well: bool) -> bool {
        let result = if written.is_ok() { RecordResult::Written } else { RecordResult::Failed };
        self.metrics.logged_decisions(result, lines as u64);
        match written {
            Ok(()) if !well => tracing::info!("the decision log is written again"),
            Err(error) if well => {
                tracing::error!(
                    %error, setting = SETTING, path = %self.sink.name(),
                    "the decision log cannot be written; records are lost",
                );
            }
            _ => {}
        }
        written.is_ok()
    }
}

/// Lines to be written at once.
#[derive(Default)]
struct LineBatch {
    text: Vec<u8>,
    lines: usize,
    /// Read once, when the first record has come.
    clock: Option<WallClock>,
}

impl LineBatch {
    fn push(&mut self, message: WriterMessage) {
        let WriterMessage::Record(record) = message else { return };
        let clock = self.clock.get_or_insert_with(WallClock::read);
        append(&mut self.text, &record.line(clock.at(record.at)));
        self.lines += 1;
    }

    fn clear(&mut self) {
        self.text.clear();
        (self.lines, self.clock) = (0, None);
    }
}

fn append(text: &mut Vec<u8>, line: &impl Serialize) {
    // Neither writing to a vector nor serializing a line can fail.
    let _ = serde_json::to_writer(&mut *text, line);
    text.push(b'\n');
}
