//! Records when tokens were last used, after the answers.
//!
//! This costs each request one comparison: each entry in memory has its own throttle, which lets a
//! use pass once in a while. A map beside the entries would cost each request a second lookup. A
//! use that passes goes into a bounded queue, and from there in batches into Postgres. Nothing is
//! tried twice: the next use after a minute replaces a lost note, and losing notes is better than
//! delaying anything, including an administrator's transaction.

use std::{fmt::Write as _, time::Duration};

use sqlx::{Row, types::Uuid};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Tick,
    postgres::{BackgroundWriter, WriteError},
    telemetry::{LastUseResult, Metrics},
    throttle::Throttle,
    token::TokenId,
};

/// How many tokens may wait to be written; further ones are dropped and counted.
const MAX_QUEUE: usize = 8192;
/// How many tokens one statement holds.
const MAX_BATCH: usize = 1000;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(2);
/// How often one replica records the use of one token. Rows that were written within the last
/// minute are skipped, and a record may wait for up to `GATHER` in the queue. So a minute and
/// `GATHER` lie between two records, and neither comes too early.
const NOTE_EVERY: Duration = Duration::from_secs(60).saturating_add(GATHER);

/// Takes notes of the uses of tokens.
pub(crate) struct LastUses {
    queue: mpsc::Sender<TokenId>,
    metrics: Metrics,
}

impl LastUses {
    /// Returns the queue, and the task that empties it, which the caller must run.
    pub(crate) fn new(writer: BackgroundWriter, metrics: Metrics) -> (Self, LastUseWriter) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let last_use_writer = LastUseWriter {
            waiting,
            writer,
            metrics: metrics.clone(),
            well: true,
            swept: Uuid::nil(),
        };
        (Self { queue, metrics }, last_use_writer)
    }

    /// Notes that a token was used, if its throttle lets this use pass. Does not wait.
    pub(crate) fn note(&self, token: TokenId, notes: &Throttle, now: Tick) {
        if notes.passes(now, NOTE_EVERY) && self.queue.try_send(token).is_err() {
            self.metrics.last_uses(LastUseResult::Dropped, 1);
        }
    }
}

/// Writes the notes to Postgres.
pub(crate) struct LastUseWriter {
    waiting: mpsc::Receiver<TokenId>,
    writer: BackgroundWriter,
    metrics: Metrics,
    /// Whether the last batch was written.
    well: bool,
    /// Each batch also deletes some notes of deleted tokens; this is the last id that it looked at.
    swept: Uuid,
}

impl LastUseWriter {
    /// Writes until `stop`, and then what is still queued.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.gather(&mut batch, &stop).await {
            self.write(&batch).await;
            batch.clear();
        }
    }

    /// Collects a batch. Returns false once it was stopped and nothing is left.
    async fn gather(&mut self, batch: &mut Vec<TokenId>, stop: &CancellationToken) -> bool {
        let waiting = &mut self.waiting;
        let collected = async {
            waiting.recv_many(batch, MAX_BATCH).await;
            let more = async {
                while batch.len() < MAX_BATCH
                    && waiting.recv_many(batch, MAX_BATCH - batch.len()).await > 0
                {}
            };
            let _ = timeout(GATHER, more).await;
        };
        if stop.run_until_cancelled(collected).await.is_none() {
            self.waiting.close();
            while batch.len() < MAX_BATCH
                && let Ok(token) = self.waiting.try_recv()
            {
                batch.push(token);
            }
        }
        !batch.is_empty()
    }

    async fn write(&mut self, batch: &[TokenId]) {
        let outcome = self.writer.run(&statement(batch, self.swept)).await;
        let written = outcome.and_then(|row| {
            self.swept = row.try_get::<Option<Uuid>, _>("swept")?.unwrap_or_default();
            Ok(row.try_get::<i64, _>("written")?)
        });
        match &written {
            Ok(_) if !self.well => tracing::info!("the last uses of tokens are written again"),
            Err(error) if self.well => tracing::warn!(
                %error,
                "the last uses of tokens cannot be written; until they can, they are dropped",
            ),
            _ => {}
        }
        self.well = written.is_ok();
        self.count(batch.len() as u64, written);
    }

    fn count(&self, noted: u64, written: Result<i64, WriteError>) {
        match written {
            Ok(written) => {
                let written = u64::try_from(written).unwrap_or(0);
                self.metrics.last_uses(LastUseResult::Written, written);
                self.metrics.last_uses(LastUseResult::Skipped, noted.saturating_sub(written));
            }
            Err(_) => self.metrics.last_uses(LastUseResult::Dropped, noted),
        }
    }
}

/// Skips notes that another session has locked: that is another replica, which writes the same.
fn statement(batch: &[TokenId], swept: Uuid) -> String {
    let mut ids = String::with_capacity(33 * batch.len());
    for TokenId(id) in batch {
        let comma = if ids.is_empty() { "" } else { "," };
        // Without hyphens, which is shorter. Writing to a string does not fail.
        let _ = write!(ids, "{comma}{}", id.as_simple());
    }
    let swept = swept.as_simple();
    format!(
        "SELECT patgate.note_uses('{{{ids}}}') AS written, patgate.sweep_uses('{swept}') AS swept"
    )
}
