//! Reads the feed: on every notification, and every 400 ms, one statement.

use std::{
    convert::Infallible,
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use sqlx::{
    Row,
    postgres::{PgListener, PgRow},
    types::Uuid,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Change, Feed, Lease, Poll, Stamp, Subject,
    lease::{self, Note, RENEW_EVERY},
    recording::Triggers,
};
use crate::{
    clock::{Clock, Moment, Tick},
    config,
    domain::DomainId,
    postgres::{AskError, Postgres, select},
    principal::UserId,
    schema,
    snapshot::{Snapshot, Xid},
    tasks::Tasks,
    telemetry::Metrics,
    token::TokenId,
};

/// How long a change may go unnoticed when its notification is lost.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(400);
/// After a failure, so that a server that comes back is not met by everybody at once. With the
/// poll's own time-out it stays below the five seconds in which all has to be well again.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Changes that are read one by one. A statement that changes more at once would otherwise outrun
/// a poll's time-out, and the next poll's, and the feed would be lost.
const MOST_AT_ONCE: usize = 20_000;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Whether there is more to be forgotten than it could at once.
const PRUNE: &str = "SELECT patgate.prune_changes() AS more";
/// Of many changes in a row, each would wake every replica.
const BUNCH: Duration = Duration::from_millis(5);

/// A poll that is recorded, and Postgres's time at which it was made.
pub(crate) struct Polled {
    pub(super) poll: Poll,
    verified: Moment,
}

/// What it takes to read the feed.
pub(crate) struct Reader {
    pub(crate) feed: Arc<Feed>,
    pub(crate) clock: Arc<Clock>,
    /// How to reach it for what takes a connection of its own.
    pub(crate) settings: config::Postgres,
    /// Whether a connection made so is nobody else's, so that it may listen. A pooler in
    /// transaction mode hands the connection that listens to others, whose statements would be
    /// interrupted by notifications, those that they cause themselves included.
    pub(crate) listens: bool,
    pub(crate) postgres: Postgres,
    pub(crate) lease: Lease,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) max_staleness: Duration,
}

/// What one poll leaves to the next.
pub(super) struct Rounds {
    /// What the log has been told about the feed since it was last read; empty while it is read.
    complaints: Vec<Discriminant<AskError>>,
    renewed: Option<Tick>,
    prune_at: Tick,
    prunes: bool,
}

impl Default for Rounds {
    fn default() -> Self {
        let prune_at = Tick::now().after(PRUNE_EVERY);
        Self { complaints: Vec::new(), renewed: None, prune_at, prunes: true }
    }
}

impl Reader {
    /// Polls until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let mut listener = self.listens.then(|| self.listen(&wake));
        let mut rounds = Rounds::default();
        while !stop.is_cancelled() {
            let (began, connected) = (Tick::now(), rounds.complaints.is_empty());
            let polled = self.round(&mut rounds).await;
            if polled.is_some() && !connected && listener.is_some() {
                // Where it listened may be lost as well, without a word.
                listener = Some(self.listen(&wake));
            }
            let wait = match polled {
                // From one sending to the next, however long all else took.
                Some(_) => {
                    let rest = POLL_EVERY.saturating_sub(Tick::now().since(began));
                    awaken(&wake, rest).left_future()
                }
                None => sleep(jittered(PAUSE)).right_future(),
            };
            let _ = stop.run_until_cancelled(wait).await;
        }
        self.lease.release(&self.postgres).await;
    }

    /// One poll, and what goes with it. Logs when contact is lost, each reason once, and when it is
    /// back.
    pub(super) async fn round(&self, rounds: &mut Rounds) -> Option<Polled> {
        let polled = self.poll().await;
        match &polled {
            Ok(_) if rounds.complaints.is_empty() => {}
            Ok(_) => {
                tracing::info!("the feed of changes is back");
                rounds.complaints.clear();
            }
            Err(error) if rounds.complaints.contains(&discriminant(error)) => {}
            Err(error) => {
                rounds.complaints.push(discriminant(error));
                tracing::warn!(
                    %error,
                    "the feed of changes is lost; until it is back, what is known of a token is \
                     used until it is older than max_staleness",
                );
            }
        }
        let now = Tick::now();
        self.metrics.polled(polled.is_ok());
        let polled = polled.ok()?;
        let due = rounds.renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY);
        if due || polled.poll.brings_news() {
            rounds.renewed = Some(now);
            if let Err(error) = self.renew(&polled).await {
                tracing::debug!(%error, "renewing the lease");
            }
        }
        if now >= rounds.prune_at {
            let more = self.prune(rounds).await;
            rounds.prune_at = now.after(if more { POLL_EVERY } else { PRUNE_EVERY });
        }
        Some(polled)
    }

    /// Forgets a slice of what everybody has read; says whether there is more. It takes less than
    /// the time between two polls. Logs when it begins to fail, and when it works again.
    async fn prune(&self, rounds: &mut Rounds) -> bool {
        let answer = self.postgres.fetch(PRUNE.to_owned()).await.and_then(|rows| {
            Ok(rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<bool, _>("more")?)
        });
        match &answer {
            Ok(_) if !rounds.prunes => tracing::info!("the feed of changes is pruned again"),
            Err(error) if rounds.prunes => tracing::warn!(
                %error,
                "the feed of changes cannot be pruned; until it can, patgate.changes grows",
            ),
            _ => {}
        }
        rounds.prunes = answer.is_ok();
        answer.unwrap_or(false)
    }

    /// Brings the record up to date, if it can be done at the start, and takes the lease: who waits
    /// for a change has to know of this replica before it answers for the first time. Without one it
    /// starts all the same, on a server that takes no writes for instance.
    pub(crate) async fn begin(&self) {
        let Some(polled) = self.catch_up().await else { return };
        if let Err(error) = self.renew(&polled).await {
            tracing::warn!(
                %error,
                "the lease cannot be written yet; until it is, `token revoke --wait` does not know \
                 of this replica",
            );
        }
    }

    /// Brings the record up to date, and leaves no trace: others than replicas read it, too.
    pub(crate) async fn catch_up(&self) -> Option<Polled> {
        let polled = self.poll().await;
        polled
            .inspect_err(|error| tracing::warn!(%error, "the feed of changes cannot be read yet"))
            .ok()
    }

    async fn renew(&self, polled: &Polled) -> Result<(), AskError> {
        let snapshot = polled.poll.stamp.snapshot.clone();
        self.hand_over(&[self.lease.note(snapshot, polled.verified)]).await
    }

    /// Hands leases to the administrators.
    pub(super) async fn hand_over(&self, notes: &[Note]) -> Result<(), AskError> {
        lease::renew(&self.postgres, self.feed.installation(), notes).await
    }

    pub(super) async fn poll(&self) -> Result<Polled, AskError> {
        // At first nothing is known, and everything that is retained is asked for.
        let mut polled = self.ask(self.feed.polled_to()).await?;
        if self.feed.triggers().is_some_and(|known| known.state != polled.poll.triggers.state) {
            self.metrics.triggers_switched();
            tracing::warn!(
                "triggers that record changes were off, or created again, since the last poll: what \
                 happened meanwhile may not be recorded, so all from before is read again"
            );
        }
        if !self.apply(polled.poll.clone()) {
            // There is a gap, or another server.
            polled = self.ask(None).await?;
            self.apply(polled.poll.clone());
        }
        if polled.poll.after.is_none() {
            self.metrics.feed_restarted();
        }
        Ok(polled)
    }

    fn apply(&self, poll: Poll) -> bool {
        let began = Tick::now();
        let age = self.feed.watermark_age(began);
        let joined = self.feed.apply(poll);
        if joined && let Some(age) = age {
            // Until now checks were answered from it.
            self.metrics.renewed_at(age + Tick::now().since(began));
        }
        joined
    }

    async fn ask(&self, after: Option<Snapshot>) -> Result<Polled, AskError> {
        let unseen = match &after {
            None => "true".to_owned(),
            Some(after) => format!(
                "c.xid >= '{}'::xid8 AND NOT pg_visible_in_snapshot(c.xid, '{after}'::pg_snapshot)",
                after.xmin().0
            ),
        };
        let sql = format!("{CHANGES} {unseen} LIMIT {}", MOST_AT_ONCE + 1);
        let reply = self.postgres.ask(sql).await?;
        let (sent, stamp, verified) = (reply.as_of, Stamp::clone(&reply.stamp), reply.verified);
        let horizon: String = reply.rows[0].try_get("horizon")?;
        let horizon = horizon.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let triggers = Triggers::of_row(&reply.rows[0])?;
        self.metrics.recording(triggers.is_ok());
        let triggers = triggers?;
        if reply.rows.len() > MOST_AT_ONCE {
            // Begins anew here, as if all before were pruned: everything is read again.
            let horizon = stamp.snapshot.clone();
            let poll = Poll { sent, stamp, triggers, horizon, after: None, changes: Vec::new() };
            return Ok(Polled { poll, verified });
        }
        let changes: Vec<_> = reply
            .rows
            .iter()
            .filter_map(|row| change(row).transpose())
            .collect::<Result<_, _>>()?;
        self.metrics.changes_read(changes.len());
        Ok(Polled { poll: Poll { sent, stamp, triggers, horizon, after, changes }, verified })
    }

    pub(super) fn listen(&self, wake: &Arc<Notify>) -> AbortOnDropHandle<()> {
        let channel = self.feed.installation().channel();
        let listening = listen(self.settings.clone(), channel, Arc::clone(wake));
        AbortOnDropHandle::new(self.tasks.spawn("listener for changes", listening))
    }
}

const CHANGES: &str = select!(
    "
       (SELECT h.snapshot::text FROM patgate.change_horizon h) AS horizon,
       recording.*, c.xid::text AS xid, c.kind, c.key
FROM patgate.recording() AS recording
LEFT JOIN patgate.changes c ON"
);

fn change(row: &PgRow) -> Result<Option<(Xid, Change)>, sqlx::Error> {
    let Some(xid) = row.try_get::<Option<&str>, _>("xid")? else { return Ok(None) };
    let xid = xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let (kind, key): (&str, &str) = (row.try_get("kind")?, row.try_get("key")?);
    // What this release cannot read may be about anything.
    let change = subject(kind, key).map_or(Change::Everything, Change::To);
    Ok(Some((Xid(xid), change)))
}

fn subject(kind: &str, key: &str) -> Option<Subject> {
    let id = |text: &str| Uuid::try_parse(text).ok();
    Some(match kind {
        "token" => Subject::Token(TokenId(id(key)?)),
        "user" => Subject::User(UserId(id(key)?)),
        "domain" => Subject::Domain(DomainId(id(key)?)),
        "slug" => Subject::Slug(key.parse().ok()?),
        "backend" => Subject::Backend(key.into()),
        "membership" => {
            let (user, domain) = key.split_once('/')?;
            Subject::Membership(UserId(id(user)?), DomainId(id(domain)?))
        }
        _ => return None,
    })
}

/// Until the next notification, or for so long. Notifications that come in a bunch count as one.
pub(super) async fn awaken(wake: &Notify, pause: Duration) {
    if timeout(pause, wake.notified()).await.is_ok() {
        sleep(BUNCH).await;
    }
}

/// Wakes the reader. Whatever goes wrong here costs time only: there is the next poll.
async fn listen(settings: config::Postgres, channel: String, wake: Arc<Notify>) {
    loop {
        let attempt = async {
            let pool = schema::connect(&settings).await.map_err(sqlx::Error::config)?;
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&channel).await?;
            loop {
                // Nothing comes after a reconnect, though something may have happened meanwhile.
                listener.try_recv().await?;
                wake.notify_one();
            }
        };
        let Err(error): Result<Infallible, sqlx::Error> = attempt.await;
        tracing::debug!(%error, "listening for changes");
        sleep(jittered(LISTEN_AGAIN_AFTER)).await;
    }
}

/// Between half and the whole of `pause`.
pub(super) fn jittered(pause: Duration) -> Duration {
    let spread = u32::try_from(Tick::now().as_micros() % 256).unwrap_or(0);
    pause / 2 + pause / 512 * spread
}
