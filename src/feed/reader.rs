//! Reads the feed: on every notification, and at least twice a second, one statement.

use std::{convert::Infallible, sync::Arc, time::Duration};

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
    Change, Feed, Lease, Poll, Relay, Stamp, Subject,
    leader::Leadership,
    lease::{self, Note, RENEW_EVERY},
    relay::RelayError,
};
use crate::{
    clock::{Clock, Moment, Tick},
    config,
    domain::DomainId,
    postgres::{AskError, Postgres, select},
    principal::UserId,
    schema,
    snapshot::{Snapshot, Xid},
    telemetry::Metrics,
    token::TokenId,
};

/// How long a change may go unnoticed when its notification is lost.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// After a failure, so that a server that comes back is not met by everybody at once. With the
/// poll's own time-out it stays below the five seconds in which all has to be well again.
const PAUSE: Duration = Duration::from_millis(400);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Changes that are read one by one. A statement that changes more at once would otherwise outrun
/// a poll's time-out, and the next poll's, and the feed would be lost.
const MOST_AT_ONCE: usize = 20_000;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Of many changes in a row, each would wake every replica.
const BUNCH: Duration = Duration::from_millis(5);
/// How long a follower hears nothing before it reads for itself, and offers itself as a leader.
const SILENCE: Duration = Duration::from_millis(2500);
/// How long a leader whom nobody can hear leaves it to others.
const MUTE_FOR: Duration = Duration::from_secs(10);
/// How often a follower asks Postgres what it sees, at most. What is known from the relay is as
/// fresh as the latest of these.
const VISIT_EVERY: Duration = Duration::from_secs(5);
/// After a change, a leader looks so often for the leases of those whom it has told.
const HURRY: Duration = Duration::from_millis(50);
const HURRIES: u8 = 4;
const CHANNEL: &str = "patgate_changes";

/// A poll that is recorded, and Postgres's time at which it was made.
struct Polled {
    poll: Poll,
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
    pub(crate) max_staleness: Duration,
}

/// What one poll leaves to the next.
struct Rounds {
    connected: bool,
    renewed: Option<Tick>,
    pruned: Tick,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { connected: true, renewed: None, pruned: Tick::now() }
    }
}

impl Reader {
    /// Polls until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let mut listener = self.listens.then(|| self.listen(&wake));
        let mut rounds = Rounds::default();
        while !stop.is_cancelled() {
            let (began, connected) = (Tick::now(), rounds.connected);
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

    /// Follows the replica that relays the feed, or is it, until `stop`.
    pub(crate) async fn run_relayed(self, mut relay: Relay, stop: CancellationToken) {
        let (mut rounds, mut mute_until) = (Rounds::default(), Tick::now());
        while !stop.is_cancelled() {
            let followed = tokio::select! {
                followed = self.follow(&mut relay) => followed,
                never = self.visit() => match never {},
                () = stop.cancelled() => break,
            };
            if let Err(error) = followed {
                tracing::debug!(%error, "listening to the relay");
            }
            relay.rewind();
            let leadership = match Tick::now() >= mute_until {
                true => Leadership::take(&self.settings).await,
                false => None,
            };
            match leadership {
                // Nobody is heard, and nobody is to be: each reads for itself.
                None => {
                    self.round(&mut rounds).await;
                }
                Some(leadership) => {
                    let led = self.lead(&mut relay, leadership, &mut rounds, &stop);
                    if led.await == Step::Down {
                        mute_until = Tick::now().after(MUTE_FOR);
                    }
                }
            }
        }
        let _ = relay.remove(&[self.lease.id()]).await;
        self.lease.release(&self.postgres).await;
    }

    /// Applies what is relayed, until nothing is heard any more.
    async fn follow(&self, relay: &mut Relay) -> Result<(), RelayError> {
        let (mut heard_at, mut renewed) = (Tick::now(), None);
        loop {
            let silence = SILENCE.saturating_sub(Tick::now().since(heard_at));
            if silence.is_zero() {
                return Ok(());
            }
            let heard = relay.hear(silence).await?;
            self.metrics.frames("refused", heard.refused);
            self.metrics.frames("superseded", heard.superseded);
            let mut changed = false;
            for poll in heard.polls {
                if self.feed.is_behind(&poll.stamp.server) {
                    self.metrics.frames("superseded", 1);
                    continue;
                }
                heard_at = Tick::now();
                changed |= poll.brings_news();
                let joined = self.feed.follow(poll);
                self.metrics.frames(if joined { "applied" } else { "gap" }, 1);
                if !joined && let Err(error) = self.poll().await {
                    tracing::warn!(%error, "a gap in what is relayed cannot be closed yet");
                }
            }
            let now = Tick::now();
            if changed || renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY) {
                renewed = Some(now);
                if let Some(note) = self.note(now) {
                    relay.leave(&note).await?;
                }
            }
        }
    }

    /// What this replica knows, for who waits for a change.
    fn note(&self, now: Tick) -> Option<Note> {
        let watermark = now.before(self.feed.watermark_age(now)?);
        Some(self.lease.note(self.feed.polled_to()?, self.clock.now(watermark)?))
    }

    /// Asks Postgres now and then what it sees: by that, relayed polls are dated.
    async fn visit(&self) -> Infallible {
        let every = VISIT_EVERY.min(self.max_staleness / 6);
        loop {
            let pause = match self.postgres.ask(VISIT.to_owned()).await {
                Ok(reply) => {
                    self.feed.visit(&reply.stamp, reply.as_of);
                    every
                }
                Err(error) => {
                    tracing::debug!(%error, "dating what is relayed");
                    PAUSE
                }
            };
            sleep(jittered(pause)).await;
        }
    }

    /// Polls and relays until the lock is lost, `stop`, or nobody can be told.
    async fn lead(
        &self,
        relay: &mut Relay,
        mut leadership: Leadership,
        rounds: &mut Rounds,
        stop: &CancellationToken,
    ) -> Step {
        tracing::info!(epoch = leadership.epoch, "relaying the feed of changes");
        let _leading = self.metrics.leading();
        let wake = Arc::new(Notify::new());
        let _listener = self.listen(&wake);
        let (mut told_at, mut asked_at, mut hurry) = (Tick::now(), Tick::now(), 0);
        while !stop.is_cancelled() {
            let began = Tick::now();
            if let Some(polled) = self.round(rounds).await {
                match relay.publish(leadership.epoch, &polled.poll).await {
                    Ok(()) => told_at = Tick::now(),
                    Err(error) => tracing::debug!(%error, "relaying the feed of changes"),
                }
                if polled.poll.brings_news() {
                    hurry = HURRIES;
                }
            }
            let now = Tick::now();
            if now.since(told_at) > SILENCE {
                tracing::warn!("Redis takes no frames; another replica may have more luck");
                return Step::Down;
            }
            if now.since(asked_at) >= RENEW_EVERY {
                asked_at = now;
                if !leadership.holds().await {
                    tracing::warn!("the connection that held the relay's lock is lost");
                    return Step::Aside;
                }
                self.hand_on(relay).await;
            } else if hurry > 0 {
                self.hand_on(relay).await;
            }
            // Who waits for a change waits for the leases of those who have just been told.
            let pause = if hurry > 0 { HURRY } else { POLL_EVERY };
            hurry = hurry.saturating_sub(1);
            let rest = pause.saturating_sub(Tick::now().since(began));
            let _ = stop.run_until_cancelled(awaken(&wake, rest)).await;
        }
        Step::Aside
    }

    /// Hands the followers' leases on to the administrators.
    async fn hand_on(&self, relay: &mut Relay) {
        let Some(now) = self.clock.now(Tick::now()) else { return };
        let Ok(leases) = relay.leases().await else { return };
        let (gone, live): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| lease.has_expired(now));
        lease::renew(&self.postgres, &live).await;
        if !gone.is_empty() {
            let gone: Vec<_> = gone.iter().map(|lease| lease.id).collect();
            let _ = relay.remove(&gone).await;
        }
    }

    /// One poll, and what goes with it. Logs when contact is lost and when it is back.
    async fn round(&self, rounds: &mut Rounds) -> Option<Polled> {
        let polled = self.poll().await;
        match &polled {
            Ok(_) if !rounds.connected => tracing::info!("the feed of changes is back"),
            Err(error) if rounds.connected => tracing::warn!(
                %error,
                "the feed of changes is lost; until it is back, what is known of a token is used \
                 until it is older than max_staleness",
            ),
            _ => {}
        }
        rounds.connected = polled.is_ok();
        let now = Tick::now();
        self.metrics.polled(rounds.connected);
        let polled = polled.ok()?;
        let due = rounds.renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY);
        if due || polled.poll.brings_news() {
            rounds.renewed = Some(now);
            let snapshot = polled.poll.stamp.snapshot.clone();
            lease::renew(&self.postgres, &[self.lease.note(snapshot, polled.verified)]).await;
        }
        if now.since(rounds.pruned) > PRUNE_EVERY {
            rounds.pruned = now;
            let prune = "SELECT patgate.prune_changes()".to_owned();
            self.postgres.run("pruning the feed of changes", prune).await;
        }
        Some(polled)
    }

    /// Brings the record up to date, if it can be done at the start.
    pub(crate) async fn catch_up(&self) {
        if let Err(error) = self.poll().await {
            tracing::warn!(%error, "the feed of changes cannot be read yet");
        }
    }

    async fn poll(&self) -> Result<Polled, AskError> {
        // At first nothing is known, and everything that is retained is asked for.
        let mut polled = self.ask(self.feed.polled_to()).await?;
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
        if reply.rows.len() > MOST_AT_ONCE {
            // Begins anew here, as if all before were pruned: everything is read again.
            let horizon = stamp.snapshot.clone();
            let poll = Poll { sent, stamp, horizon, after: None, changes: Vec::new() };
            return Ok(Polled { poll, verified });
        }
        let horizon: String = reply.rows[0].try_get("horizon")?;
        let horizon = horizon.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let changes: Vec<_> = reply
            .rows
            .iter()
            .filter_map(|row| change(row).transpose())
            .collect::<Result<_, _>>()?;
        self.metrics.changes_read(changes.len());
        Ok(Polled { poll: Poll { sent, stamp, horizon, after, changes }, verified })
    }

    fn listen(&self, wake: &Arc<Notify>) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(listen(self.settings.clone(), Arc::clone(wake))))
    }
}

/// How a leader ends.
#[derive(PartialEq)]
enum Step {
    /// Others may take over, and so may this one.
    Aside,
    /// Others may take over, who can perhaps be heard.
    Down,
}

/// Nothing but what every statement tells.
const VISIT: &str = select!("true AS visited");

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

/// Until the next notification, or for so long. Notifications that come in a bunch count as one.
async fn awaken(wake: &Notify, pause: Duration) {
    if timeout(pause, wake.notified()).await.is_ok() {
        sleep(BUNCH).await;
    }
}

/// Wakes the reader. Whatever goes wrong here costs time only: there is the next poll.
async fn listen(settings: config::Postgres, wake: Arc<Notify>) {
    loop {
        let attempt = async {
            let pool = schema::connect(&settings).await.map_err(sqlx::Error::config)?;
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
