//! Records when tokens were last used, after the answers.
//!
//! A request pays for one comparison: each entry in memory holds the time at which its last use was
//! recorded. Uses that are due go into a bounded queue, and from there in batches into Postgres.
//! Nothing is tried twice: if a record is lost, the next use after a minute replaces it. It is
//! better to lose records than to delay anything, an administrator's transaction included.

use std::{fmt::Write as _, time::Duration};

use sqlx::{Row, types::Uuid};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Tick,
    telemetry::Metrics,
    token::TokenId,
    turnstile::Turnstile,
    writer::{WriteError, Writer},
};

/// Tokens that may wait to be written; more are dropped and counted.
const MAX_QUEUE: usize = 8192;
/// Tokens per statement.
const MAX_BATCH: usize = 1000;
/// How long the first token of a batch waits for others.
const GATHER: Duration = Duration::from_secs(2);
/// How often one replica records the use of one token. Rows that were written within the last
/// minute are skipped, and a record may wait for up to `GATHER` in the queue. So a minute and
/// `GATHER` lie between two records, and neither comes too early.
const NOTE_EVERY: Duration = Duration::from_secs(60).saturating_add(GATHER);

/// When a use of an entry was last recorded.
#[derive(Debug, Default)]
pub(crate) struct Noted(Turnstile);

impl Noted {
    /// Returns whether this use must be recorded; true for one use at a time.
    fn due(&self, now: Tick) -> bool {
        self.0.passes(now, NOTE_EVERY)
    }

    /// Takes over the time from the entry that this one replaces.
    pub(crate) fn succeed(&self, earlier: &Self) {
        self.0.succeed(&earlier.0);
    }
}

/// Accepts the uses of tokens.
pub(crate) struct LastUses {
    queue: mpsc::Sender<TokenId>,
    metrics: Metrics,
}

impl LastUses {
    /// Returns the queue and its writer, which the caller must run.
    pub(crate) fn new(writer: Writer, metrics: Metrics) -> (Self, Scribe) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let scribe =
            Scribe { waiting, writer, metrics: metrics.clone(), well: true, swept: Uuid::nil() };
        (Self { queue, metrics }, scribe)
    }

    /// Records that a token was used, unless this was done within the last minute. Does not wait.
    pub(crate) fn note(&self, token: TokenId, noted: &Noted, now: Tick) {
        if noted.due(now) && self.queue.try_send(token).is_err() {
            self.metrics.last_uses("dropped", 1);
        }
    }
}

/// Writes the recorded uses.
pub(crate) struct Scribe {
    waiting: mpsc::Receiver<TokenId>,
    writer: Writer,
    metrics: Metrics,
    /// Whether the last batch was written.
    well: bool,
    /// The id up to which the records of deleted tokens were removed, along with the batches.
    swept: Uuid,
}

impl Scribe {
    /// Writes until `stop`, and then what is still queued.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.gather(&mut batch, &stop).await {
            self.write(&batch).await;
            batch.clear();
        }
    }

    /// Returns false if it was stopped and nothing is left.
    async fn gather(&mut self, batch: &mut Vec<TokenId>, stop: &CancellationToken) -> bool {
        let waiting = &mut self.waiting;
        let company = async {
            waiting.recv_many(batch, MAX_BATCH).await;
            let more = async {
                while batch.len() < MAX_BATCH
                    && waiting.recv_many(batch, MAX_BATCH - batch.len()).await > 0
                {}
            };
            let _ = timeout(GATHER, more).await;
        };
        if stop.run_until_cancelled(company).await.is_none() {
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
                self.metrics.last_uses("written", written);
                self.metrics.last_uses("skipped", noted.saturating_sub(written));
            }
            Err(_) => self.metrics.last_uses("dropped", noted),
        }
    }
}

/// Skips records that another session has locked, such as another replica that writes the same.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_use_in_a_while_is_noted() {
        let (noted, start) = (Noted::default(), Tick::from_micros(5));
        let renewed = Noted::default();
        assert!(noted.due(start));
        assert!(!noted.due(start) && !noted.due(start.after(NOTE_EVERY / 2)));
        renewed.succeed(&noted);
        assert!(!renewed.due(start.after(NOTE_EVERY / 2)), "an entry that was read again");
        assert!(renewed.due(start.after(NOTE_EVERY)));
    }
}
