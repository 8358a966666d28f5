//! Reads the feed: on every notification, and at least twice a second, one statement.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sqlx::{
    PgPool, Row,
    postgres::{PgListener, PgRow},
    types::Uuid,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Change, Feed, Lease, Poll, Stamp, Subject, lease::RENEW_EVERY};
use crate::{
    clock::{Moment, Tick},
    domain::DomainId,
    postgres::{AskError, Postgres, select},
    principal::UserId,
    snapshot::{Snapshot, Xid},
    telemetry::Metrics,
    token::TokenId,
};

/// How long a change may go unnoticed when its notification is lost.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// After a failure, so that a server that comes back is not met by everybody at once. With the
/// poll's own time-out it stays below the five seconds in which all has to be well again.
const PAUSE: Duration = Duration::from_millis(400);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Changes that are read one by one. A statement that changes more at once would otherwise outrun
/// a poll's time-out, and the next poll's, and the feed would be lost.
const MOST_AT_ONCE: usize = 20_000;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const CHANNEL: &str = "patgate_changes";

/// How far a poll has read.
pub(crate) struct Polled {
    snapshot: Snapshot,
    verified: Moment,
    changes: usize,
}

/// What it takes to read the feed.
pub(crate) struct Reader {
    pub(crate) feed: Arc<Feed>,
    pub(crate) pool: PgPool,
    /// Whether a connection of that pool is nobody else's, so that it may listen. A pooler in
    /// transaction mode hands the connection that listens to others, whose statements would be
    /// interrupted by notifications, those that they cause themselves included.
    pub(crate) listens: bool,
    pub(crate) postgres: Postgres,
    pub(crate) lease: Lease,
    pub(crate) metrics: Metrics,
}

impl Reader {
    /// Polls until `stop`. Logs when contact is lost and when it is back.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let listener =
            self.listens.then(|| tokio::spawn(listen(self.pool.clone(), Arc::clone(&wake))));
        let _listener = listener.map(tokio_util::task::AbortOnDropHandle::new);
        let (mut connected, mut pruned) = (true, Tick::now());
        let mut renewed = None;
        while !stop.is_cancelled() {
            let began = Tick::now();
            let polled = self.poll().await;
            match &polled {
                Ok(_) if !connected => tracing::info!("the feed of changes is back"),
                Err(error) if connected => tracing::warn!(
                    %error,
                    "the feed of changes is lost; until it is back, what is known of a token is \
                     used until it is older than max_staleness",
                ),
                _ => {}
            }
            connected = polled.is_ok();
            let now = Tick::now();
            self.metrics.polled(connected);
            if let Ok(polled) = &polled
                && (polled.changes > 0
                    || renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY))
            {
                renewed = Some(now);
                self.lease.renew(&self.pool, &polled.snapshot, polled.verified).await;
            }
            if connected && now.since(pruned) > PRUNE_EVERY {
                pruned = now;
                self.postgres.prune_changes().await;
            }
            let wait = async {
                if connected {
                    // From one sending to the next, however long all else took.
                    let rest = POLL_EVERY.saturating_sub(Tick::now().since(began));
                    let _ = timeout(rest, wake.notified()).await;
                } else {
                    sleep(jittered(PAUSE)).await;
                }
            };
            let _ = stop.run_until_cancelled(wait).await;
        }
        self.lease.release(&self.pool).await;
    }

    /// Brings the record up to date.
    pub(crate) async fn poll(&self) -> Result<Polled, AskError> {
        // At first nothing is known, and everything that is retained is asked for.
        let (poll, mut polled) = self.ask(self.feed.polled_to()).await?;
        let mut anew = poll.after.is_none();
        if !self.apply(poll) {
            // There is a gap, or another server.
            let (poll, again) = self.ask(None).await?;
            self.apply(poll);
            (anew, polled) = (true, again);
        }
        if anew {
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

    async fn ask(&self, after: Option<Snapshot>) -> Result<(Poll, Polled), AskError> {
        let unseen = match &after {
            None => "true".to_owned(),
            Some(after) => format!(
                "c.xid >= '{}'::xid8 AND NOT pg_visible_in_snapshot(c.xid, '{after}'::pg_snapshot)",
                after.xmin().0
            ),
        };
        let sql = format!("{CHANGES} {unseen} LIMIT {}", MOST_AT_ONCE + 1);
        let reply = self.postgres.ask(sql).await?;
        let (sent, stamp) = (reply.as_of, Stamp::clone(&reply.stamp));
        let polled = |stamp: &Stamp, changes| Polled {
            snapshot: stamp.snapshot.clone(),
            verified: reply.verified,
            changes,
        };
        if reply.rows.len() > MOST_AT_ONCE {
            // Begins anew here, as if all before were pruned: everything is read again.
            let horizon = stamp.snapshot.clone();
            let polled = polled(&stamp, reply.rows.len());
            let changes = Vec::new();
            return Ok((Poll { sent, stamp, horizon, after: None, changes }, polled));
        }
        let horizon: String = reply.rows[0].try_get("horizon")?;
        let horizon = horizon.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let changes: Vec<_> = reply
            .rows
            .iter()
            .filter_map(|row| change(row).transpose())
            .collect::<Result<_, _>>()?;
        self.metrics.changes_read(changes.len());
        let polled = polled(&stamp, changes.len());
        Ok((Poll { sent, stamp, horizon, after, changes }, polled))
    }
}

const CHANGES: &str = select!(
    "
       (SELECT h.snapshot::text FROM patgate.change_horizon h) AS horizon,
       c.xid::text AS xid, c.kind, c.key
FROM (SELECT) AS always
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
        "membership" => {
            let (user, domain) = key.split_once('/')?;
            Subject::Membership(UserId(id(user)?), DomainId(id(domain)?))
        }
        _ => return None,
    })
}

/// Wakes the reader. Whatever goes wrong here costs time only: there is the next poll.
async fn listen(pool: PgPool, wake: Arc<Notify>) {
    loop {
        let attempt = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
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
fn jittered(pause: Duration) -> Duration {
    let spread = u32::try_from(Tick::now().as_micros() % 256).unwrap_or(0);
    pause / 2 + pause / 512 * spread
}
