//! Reads the feed where it is relayed: follows the replica that does, or is it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Reader, Relay,
    leader::Leadership,
    lease::{Note, RENEW_EVERY},
    reader::{PAUSE, POLL_EVERY, Rounds, awaken, jittered},
    relay::RelayError,
};
use crate::{clock::Tick, postgres::select};

/// How long nothing is heard before it is silence.
const SILENCE: Duration = Duration::from_secs(2);
/// Then a follower listens for once more, lest it was itself that stood still. If there is nothing
/// again, it reads for itself, and offers itself as a leader.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long a leader whom nobody can hear leaves it to others. Nobody offers itself less often.
const MUTE_FOR: Duration = Duration::from_secs(10);
/// How often a follower asks Postgres what it sees, at most. What is known from the relay is as
/// fresh as the latest of these.
const VISIT_EVERY: Duration = Duration::from_secs(5);
/// After a change, a leader looks so often for the leases of those whom it has told.
const HURRY: Duration = Duration::from_millis(50);
const HURRIES: u8 = 4;
/// For taking a lease back from a Redis that may not answer.
const PARTING: Duration = Duration::from_secs(1);

impl Reader {
    /// Follows the replica that relays the feed, or is it, until `stop`.
    pub(crate) async fn run_relayed(self, mut relay: Relay, stop: CancellationToken) {
        let (mut rounds, mut mute_until) = (Rounds::default(), Tick::now());
        while !stop.is_cancelled() {
            relay.rewind();
            let followed = self.follow(&mut relay, &stop).await;
            let mut offer_at = mute_until.max(Tick::now());
            if let Err(error) = followed {
                tracing::debug!(%error, "listening to the relay");
                // Somebody may lead all the same.
                offer_at = offer_at.max(Tick::now().after(jittered(SILENCE)));
            }
            let leadership = self.read_alone(&mut relay, &mut rounds, offer_at, &stop).await;
            if let Some(leadership) = leadership
                && self.lead(&mut relay, leadership, &mut rounds, &stop).await == Step::Down
            {
                mute_until = Tick::now().after(MUTE_FOR);
            }
        }
        // First there, so that a leader does not hand it on again.
        let _ = timeout(PARTING, relay.remove(&[self.lease.id()])).await;
        if let Some(now) = self.clock.now(Tick::now())
            && let Err(error) = self.hand_over(&[self.lease.released(now)]).await
        {
            tracing::debug!(%error, "releasing the lease");
        }
    }

    /// Applies what is relayed, until nothing is heard any more, or `stop`.
    async fn follow(&self, relay: &mut Relay, stop: &CancellationToken) -> Result<(), RelayError> {
        let done = stop.child_token();
        let followed = async {
            let followed = done.run_until_cancelled(self.hear_out(relay)).await;
            done.cancel();
            followed.unwrap_or(Ok(()))
        };
        join(followed, self.visit(&done)).await.0
    }

    async fn hear_out(&self, relay: &mut Relay) -> Result<(), RelayError> {
        let (mut heard_at, mut renewed) = (Tick::now(), None);
        loop {
            let left = SILENCE.saturating_sub(Tick::now().since(heard_at));
            let last_call = left.is_zero();
            let heard = relay.hear(if last_call { LAST_CALL } else { left }).await?;
            self.metrics.frames("refused", heard.refused);
            self.metrics.frames("superseded", heard.superseded);
            let (mut spoke, mut changed) = (false, false);
            for poll in heard.polls {
                if self.feed.is_behind(&poll.stamp.server) {
                    self.metrics.frames("superseded", 1);
                    continue;
                }
                (spoke, heard_at) = (true, Tick::now());
                changed |= poll.brings_news();
                let joined = self.feed.follow(poll);
                self.metrics.frames(if joined { "applied" } else { "gap" }, 1);
                if !joined && let Err(error) = self.poll().await {
                    tracing::warn!(%error, "a gap in what is relayed cannot be closed yet");
                }
            }
            if last_call && !spoke {
                return Ok(());
            }
            let now = Tick::now();
            if changed || renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY) {
                renewed = Some(now);
                // A Redis that takes no writes can be read all the same.
                if let Some(note) = self.note(now)
                    && let Err(error) = relay.leave(&note).await
                {
                    tracing::debug!(%error, "leaving a lease for the leader");
                }
            }
        }
    }

    /// Nobody is heard: reads for itself, until somebody is, or until it leads. Offers itself at
    /// `offer_at` and then now and then: each time is a connection, and if Redis is gone for all,
    /// all of them make one.
    async fn read_alone(
        &self,
        relay: &mut Relay,
        rounds: &mut Rounds,
        mut offer_at: Tick,
        stop: &CancellationToken,
    ) -> Option<Leadership> {
        self.metrics.fell_silent();
        let mut pause = SILENCE;
        while !stop.is_cancelled() {
            if Tick::now() >= offer_at {
                let leadership = Leadership::take(&self.settings, self.feed.installation()).await;
                if leadership.is_some() {
                    return leadership;
                }
                offer_at = Tick::now().after(jittered(pause));
                pause = MUTE_FOR.min(2 * pause);
            }
            let began = Tick::now();
            let rest = match self.round(rounds).await {
                // From one sending to the next, however long all else took.
                Some(_) => POLL_EVERY.saturating_sub(Tick::now().since(began)),
                None => jittered(PAUSE),
            };
            let heard = stop.run_until_cancelled(self.hears_anybody(relay, rest)).await;
            if heard == Some(true) {
                return None;
            }
        }
        None
    }

    /// Rests, unless somebody says something meanwhile.
    async fn hears_anybody(&self, relay: &mut Relay, rest: Duration) -> bool {
        let until = Tick::now().after(rest);
        loop {
            let left = until.since(Tick::now());
            if left.is_zero() {
                return false;
            }
            relay.skip();
            match relay.hear(left).await {
                Ok(heard) => {
                    self.metrics.frames("refused", heard.refused);
                    self.metrics.frames("superseded", heard.superseded);
                    if heard.polls.iter().any(|poll| !self.feed.is_behind(&poll.stamp.server)) {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "listening to the relay");
                    sleep(until.since(Tick::now())).await;
                }
            }
        }
    }

    /// What this replica knows, for who waits for a change.
    fn note(&self, now: Tick) -> Option<Note> {
        let watermark = now.before(self.feed.watermark_age(now)?);
        Some(self.lease.note(self.feed.polled_to()?, self.clock.at(watermark)?))
    }

    /// Asks Postgres now and then what it sees: by that, relayed polls are dated.
    async fn visit(&self, done: &CancellationToken) {
        let every = VISIT_EVERY.min(self.max_staleness / 6);
        // Between two statements, not amid one, which would cost the connection.
        while !done.is_cancelled() {
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
            let _ = done.run_until_cancelled(sleep(jittered(pause))).await;
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
        let mut refused = None;
        while !stop.is_cancelled() {
            let began = Tick::now();
            // Of a poll that fails, Redis knows nothing.
            let polled = self.round(rounds).await;
            refused = refused.filter(|_| polled.is_some());
            if let Some(polled) = polled {
                match relay.publish(leadership.epoch, &polled.poll).await {
                    Ok(()) => told_at = Tick::now(),
                    Err(error) => refused = Some(error),
                }
                if polled.poll.brings_news() {
                    hurry = HURRIES;
                }
            }
            let now = Tick::now();
            if now.since(told_at) > SILENCE {
                match refused {
                    Some(error) => tracing::warn!(
                        %error,
                        "Redis takes no frames from this replica; another one relays the feed, if \
                         Redis takes them from it: see whether redis.url can be written to from here"
                    ),
                    // Why, `round` has logged.
                    None => tracing::warn!(
                        "this replica has no poll of the feed to relay; another one relays it, if \
                         it can read the feed"
                    ),
                }
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
        if let Err(error) = self.hand_over(&live).await {
            tracing::debug!(%error, "handing leases on");
        }
        if !gone.is_empty() {
            let gone: Vec<_> = gone.iter().map(|lease| lease.id).collect();
            let _ = relay.remove(&gone).await;
        }
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
