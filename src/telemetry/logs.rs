//! Writes log lines to standard error.
//!
//! A caller that logs puts the line into a queue and continues; a separate thread writes. Standard
//! error may be a pipe that nothing reads, or a file on a full disk. Lines are then dropped and
//! counted, and the log reports them once writing works again. Nothing else is affected.
//!
//! `tracing-appender` does almost the same. But it does not count lines that it could not write,
//! and if its queue is full at the end, it reports this on standard error, which may be the blocked
//! output.

use std::{
    io::{self, IsTerminal as _},
    panic::{self, AssertUnwindSafe},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    closed::{ResultLabels, Results},
    outlet::Outlet,
    results::LineResult,
};
use crate::config::{self, LogFormat};

/// Bytes that may wait to be written.
const MAX_QUEUED: usize = 1024 * 1024;
/// Bytes that a queued line takes in addition to its text.
const PER_LINE: usize = 64;
/// Most bytes in one write, or in one line.
const MAX_BATCH: usize = 64 * 1024;
/// Time for the last lines, at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of this process.
static LOGS: OnceLock<Logs> = OnceLock::new();
/// Replaces the filter of that log.
static REPLACE_FILTER: OnceLock<ReplaceFilter> = OnceLock::new();

type ReplaceFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;
static COUNTS: LazyLock<LineCounters> = LazyLock::new(LineCounters::default);

/// Returns the counters of log lines by result. They are global, because there is one standard
/// error.
pub(super) fn counts() -> Family<ResultLabels, Counter> {
    COUNTS.lines.family()
}

/// Logs to standard error from now on, including panics.
///
/// # Errors
///
/// Returns an error if the system has no thread or no file descriptor left.
pub fn init(config: &config::LogSettings) -> io::Result<()> {
    let logs = tracing_subscriber::fmt()
        .with_writer(start()?)
        .with_ansi(io::stderr().is_terminal())
        // tracing would report its own errors directly to standard error.
        .log_internal_errors(false);
    let filter = EnvFilter::new(&config.filter);
    // A second call, as in a test that starts two, changes nothing.
    match config.format {
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true).with_env_filter(filter);
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                replace_with(move |filter| drop(handle.reload(filter)));
            }
        }
        LogFormat::Text => {
            let logs = logs.with_env_filter(filter).with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                replace_with(move |filter| drop(handle.reload(filter)));
            }
        }
    }
    // The default hook writes to standard error itself, and waits for it.
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        tracing::error!(%panic, thread = thread.name(), "panic");
    }));
    Ok(())
}

fn replace_with(replace: impl Fn(EnvFilter) + Send + Sync + 'static) {
    let _ = REPLACE_FILTER.set(Box::new(replace));
}

/// Replaces the filter of the log.
///
/// # Errors
///
/// Returns what was expected if the text is not a filter.
pub(crate) fn replace_filter(text: &str) -> Result<(), String> {
    let filter = config::log_filter(text)?;
    if let Some(replace) = REPLACE_FILTER.get() {
        replace(EnvFilter::new(filter));
    }
    Ok(())
}

/// Logs the message that ends the process, after everything that was logged before, and waits a
/// second at most until it is written.
pub(crate) fn last_words(text: &str) {
    if let Ok(logs) = start() {
        logs.push(format!("{text}\n").as_bytes());
    }
    flush();
}

/// Waits until all queued lines are written, a second at most.
pub(crate) fn flush() {
    if let Some(logs) = LOGS.get() {
        logs.flush(LAST_LINES);
    }
}

fn start() -> io::Result<&'static Logs> {
    if let Some(logs) = LOGS.get() {
        return Ok(logs);
    }
    let report = |lost| tracing::warn!(lost, "log lines were lost while they could not be written");
    let logs = Logs::spawn(Outlet::stderr()?, &COUNTS, report)?;
    Ok(LOGS.get_or_init(|| logs))
}

/// The counters of lines, by result.
struct LineCounters {
    lines: Results<LineResult>,
    written: Counter,
    dropped: Counter,
    failed: Counter,
}

impl Default for LineCounters {
    fn default() -> Self {
        let lines = Results::new();
        let written = lines.handle(LineResult::Written);
        let dropped = lines.handle(LineResult::Dropped);
        let failed = lines.handle(LineResult::Failed);
        Self { lines, written, dropped, failed }
    }
}

impl LineCounters {
    fn lost(&self) -> u64 {
        self.dropped.get() + self.failed.get()
    }
}

enum LogMessage {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The end of the queue that accepts lines.
struct Logs {
    queue: Sender<LogMessage>,
    shared: &'static QueueState,
}

/// The state that both ends share, for the life of the process.
struct QueueState {
    /// Bytes in the queue.
    queued: AtomicUsize,
    counts: &'static LineCounters,
}

impl Logs {
    /// Starts the thread that writes to `outlet`. Once writing works again, it calls `report` with
    /// the number of lost lines; `report` may log.
    fn spawn(
        outlet: Outlet,
        counts: &'static LineCounters,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, waiting) = channel();
        let shared: &'static QueueState =
            Box::leak(Box::new(QueueState { queued: AtomicUsize::new(0), counts }));
        let mut writer = LogWriter { waiting, outlet, shared, told: counts.lost() };
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            // A bug in this thread costs lines, and nothing else.
            while panic::catch_unwind(AssertUnwindSafe(|| writer.run(&report))).is_err() {}
        })?;
        Ok(Self { queue, shared })
    }

    /// Queues a line, or drops it. Does not wait.
    fn push(&self, line: &[u8]) {
        let size = line.len() + PER_LINE;
        let fits = self.shared.queued.fetch_add(size, Relaxed) + size <= MAX_QUEUED;
        if !fits || self.queue.send(LogMessage::Line(line.to_owned())).is_err() {
            self.shared.queued.fetch_sub(size, Relaxed);
            self.shared.counts.dropped.inc();
        }
    }

    fn flush(&self, patience: Duration) {
        let (flushed, told) = sync_channel(1);
        if self.queue.send(LogMessage::Flush(flushed)).is_ok() {
            let _ = told.recv_timeout(patience);
        }
    }
}

impl<'l> MakeWriter<'l> for &'static Logs {
    type Writer = LineWriter<'l>;

    fn make_writer(&'l self) -> LineWriter<'l> {
        LineWriter(self)
    }
}

/// Accepts one line, in one piece, as the formatter writes it.
struct LineWriter<'l>(&'l Logs);

impl io::Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of the queue that writes.
struct LogWriter {
    waiting: Receiver<LogMessage>,
    outlet: Outlet,
    shared: &'static QueueState,
    /// The number of lost lines that the log has already reported.
    told: u64,
}

impl LogWriter {
    fn run(&mut self, report: &impl Fn(u64)) {
        while let Ok(first) = self.waiting.recv() {
            let mut text = Vec::new();
            let mut lines = 0;
            let mut flushes = Vec::new();
            let mut next = Ok(first);
            let drained = loop {
                match next {
                    Ok(LogMessage::Line(line)) => {
                        text.extend_from_slice(&line);
                        lines += 1;
                        self.shared.queued.fetch_sub(line.len() + PER_LINE, Relaxed);
                    }
                    Ok(LogMessage::Flush(flushed)) => flushes.push(flushed),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break true,
                }
                if text.len() >= MAX_BATCH {
                    break false;
                }
                next = self.waiting.try_recv();
            };
            let counts = self.shared.counts;
            let written = lines > 0 && self.outlet.write(&text).is_ok();
            if written { &counts.written } else { &counts.failed }.inc_by(lines);
            // Not while the queue is full, because the report would be dropped as well.
            let lost = counts.lost();
            if written && drained && lost > self.told {
                report(lost - self.told);
                self.told = lost;
            }
            for flushed in flushes {
                let _ = flushed.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead, BufReader},
        sync::Arc,
    };

    use super::*;

    fn leaked<T: Default>() -> &'static T {
        Box::leak(Box::default())
    }

    /// Reports into itself, as tracing does.
    fn logs(outlet: File, counts: &'static LineCounters) -> Arc<Logs> {
        let own = Arc::new(OnceLock::<Arc<Logs>>::new());
        let report = {
            let own = Arc::clone(&own);
            move |lost| own.get().unwrap().push(format!("lost {lost}\n").as_bytes())
        };
        let logs = Arc::new(Logs::spawn(outlet.into(), counts, report).unwrap());
        own.set(Arc::clone(&logs)).unwrap_or_else(|_| unreachable!());
        logs
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_which_are_counted_and_reported() {
        let (reader, writer) = io::pipe().unwrap();
        let counts: &LineCounters = leaked();
        let logs = logs(File::from(std::os::fd::OwnedFd::from(writer)), counts);
        let line = [b'x'; 999];
        let sent = 3 * MAX_QUEUED / line.len();
        for number in 0..sent {
            logs.push(format!("{number:06}{}\n", str::from_utf8(&line[7..]).unwrap()).as_bytes());
        }
        let dropped = counts.dropped.get();
        assert!(dropped as usize > sent / 2, "{dropped} of {sent}");
        // The end of the process does not wait for it either.
        logs.flush(Duration::from_millis(10));

        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let read: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("lost")).collect();
        assert_eq!(read.len() as u64 + dropped, sent as u64);
        // The lines are in the order in which they were logged, each once; some in between are
        // lost.
        assert!(read.is_sorted_by(|a, b| a.get(..6) < b.get(..6)));
        logs.push(b"after\n");
        logs.flush(Duration::from_secs(60));
        assert_eq!(lines.next().unwrap(), "after");
        assert_eq!(counts.written.get(), read.len() as u64 + 2);
    }

    #[test]
    fn a_reader_that_is_gone_and_a_full_disk_cost_lines_which_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let gone = File::from(std::os::fd::OwnedFd::from(writer));
        let full = File::options().write(true).open("/dev/full");
        assert_eq!(full.is_ok(), cfg!(target_os = "linux"));
        for outlet in [Ok(gone), full].into_iter().flatten() {
            let counts: &LineCounters = leaked();
            let logs = logs(outlet, counts);
            for _ in 0..10 {
                logs.push(b"line\n");
                logs.flush(Duration::from_secs(60));
            }
            assert_eq!(
                [counts.written.get(), counts.dropped.get(), counts.failed.get()],
                [0, 0, 10]
            );
        }
    }
}
