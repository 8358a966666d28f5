//! Reads the feed where it is relayed: follows the replica that does, or is it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Reader, Relay,
    leader::Leadership,
    lease::{self, Note, RENEW_EVERY},
    reader::{PAUSE, POLL_EVERY, Rounds, awaken, jittered},
    relay::RelayError,
};
use crate::{clock::Tick, postgres::select};

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

impl Reader {
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
