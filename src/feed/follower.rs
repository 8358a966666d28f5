//! Reads the feed if it is relayed: follows the replica that relays it, or is that replica.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    FeedReader, POOLED_RELAY, Relay,
    lease::{LeaseRow, RENEW_EVERY},
    reader::{PAUSE, POLL_EVERY, PollState, jittered, notified},
    relay::{RelayError, RelayedPoll},
};
use crate::{
    clock::{self, Tick},
    postgres::{Duty, Hold, Leadership, Offer, select},
    telemetry::FrameResult,
};

/// How long a follower waits for a frame.
const SILENCE: Duration = Duration::from_secs(2);
/// Then it listens once more for this long, since it may have stood still itself. If there is nothing
/// again, it polls Postgres itself, and offers to lead.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long a leader that cannot write to Redis leaves leading to others. No replica offers to lead
/// less often.
const MUTE_FOR: Duration = Duration::from_secs(10);
/// How often, at most, a follower asks Postgres for its current snapshot. What it knows from the
/// relay is as fresh as the latest of these statements.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// How often a leader looks for the leases of its followers after it has sent a change, and how
/// many times.
const HURRY: Duration = Duration::from_millis(50);
const HURRIES: u8 = 4;
/// How often a replica logs that it cannot lead behind a connection pooler.
const REPORT_POOLED_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long deleting the lease may take at the end: Redis may not answer.
const PARTING: Duration = Duration::from_secs(1);

impl FeedReader {
    /// Follows the replica that relays the feed, or is that replica, until `stop`.
    pub(crate) async fn run_relayed(self, mut relay: Relay, stop: CancellationToken) {
        let mut poll_state = PollState::default();
        let mut mute_until = clock::now();
        while !stop.is_cancelled() {
            relay.rewind();
            let followed = self.follow(&mut relay, &stop).await;
            let mut offer_at = mute_until.max(clock::now());
            if let Err(error) = followed {
                tracing::debug!(%error, "listening to the relay");
                // Another replica may lead all the same.
                offer_at = offer_at.max(clock::now().after(jittered(SILENCE)));
            }
            let leadership = self.read_alone(&mut relay, &mut poll_state, offer_at, &stop).await;
            if let Some(leadership) = leadership
                && self.lead(&mut relay, leadership, &mut poll_state, &stop).await
                    == LeadershipEnd::LeavesToOthers
            {
                mute_until = clock::now().after(MUTE_FOR);
            }
        }
        // First in Redis, so that a leader does not write it again.
        let _ = timeout(PARTING, relay.remove(&[self.lease.id()])).await;
        if let Some(now) = self.clock.now(clock::now())
            && let Err(error) = self.write_leases(&[self.lease.released(now)]).await
        {
            tracing::debug!(%error, "releasing the lease");
        }
    }

    /// Applies what is relayed, until the relay goes silent, or `stop`.
    async fn follow(&self, relay: &mut Relay, stop: &CancellationToken) -> Result<(), RelayError> {
        let done = stop.child_token();
        let followed = async {
            let followed = done.run_until_cancelled(self.apply_frames(relay)).await;
            done.cancel();
            followed.unwrap_or(Ok(()))
        };
        join(followed, self.observe(&done)).await.0
    }

    async fn apply_frames(&self, relay: &mut Relay) -> Result<(), RelayError> {
        let mut heard_at = clock::now();
        let mut renewed = None;
        loop {
            let left = SILENCE.saturating_sub(clock::now().since(heard_at));
            let last_call = left.is_zero();
            let receiving = relay.receive(if last_call { LAST_CALL } else { left });
            let heard = tokio::select! {
                heard = receiving => heard?,
                () = self.distrusted.notified() => {
                    if let Err(error) = self.poll().await {
                        tracing::warn!(
                            %error,
                            "a key has left the ring that had sealed relayed changes, and Postgres \
                             cannot be polled yet instead"
                        );
                    }
                    continue;
                }
            };
            self.metrics.frames(FrameResult::Retired, heard.retired);
            self.metrics.frames(FrameResult::Refused, heard.refused);
            self.metrics.frames(FrameResult::Superseded, heard.superseded);
            let mut spoke = false;
            let mut changed = false;
            for RelayedPoll { poll, seal } in heard.polls {
                if self.changes.is_behind(&poll.stamp.lineage) {
                    self.metrics.frames(FrameResult::Superseded, 1);
                    continue;
                }
                spoke = true;
                heard_at = clock::now();
                changed |= poll.brings_news();
                let joined = self.changes.follow(poll, seal, relay.ring());
                let result = if joined { FrameResult::Applied } else { FrameResult::Gap };
                self.metrics.frames(result, 1);
                if !joined && let Err(error) = self.poll().await {
                    tracing::warn!(%error, "a gap in the relayed changes cannot be closed yet");
                }
            }
            if last_call && !spoke {
                return Ok(());
            }
            let now = clock::now();
            if changed || renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_EVERY) {
                renewed = Some(now);
                // A Redis that takes no writes can be read all the same.
                if let Some(lease) = self.current_lease(now)
                    && let Err(error) = relay.write_lease(&lease).await
                {
                    tracing::debug!(%error, "leaving a lease for the leader");
                }
            }
        }
    }

    /// Polls for itself while no leader is heard, until one is, or until this replica leads. Offers to
    /// lead at `offer_at`, and then more and more rarely: each offer is a connection, and if Redis is
    /// gone for all replicas, all of them make one.
    async fn read_alone(
        &self,
        relay: &mut Relay,
        poll_state: &mut PollState,
        mut offer_at: Tick,
        stop: &CancellationToken,
    ) -> Option<Leadership> {
        self.metrics.fell_silent();
        let mut pause = SILENCE;
        while !stop.is_cancelled() {
            if clock::now() >= offer_at {
                match Leadership::take(&self.settings, self.changes.installation(), &Duty::relay())
                    .await
                {
                    Offer::Leads(leadership) => return Some(*leadership),
                    Offer::Declined => {}
                    Offer::Pooled => self.found_pooled(poll_state),
                }
                offer_at = clock::now().after(jittered(pause));
                pause = MUTE_FOR.min(2 * pause);
            }
            let began = clock::now();
            let rest = match self.round(poll_state).await {
                // Counted from one sending to the next, however long everything else took.
                Some(_) => POLL_EVERY.saturating_sub(clock::now().since(began)),
                None => jittered(PAUSE),
            };
            let heard = stop.run_until_cancelled(self.leader_is_heard(relay, rest)).await;
            if heard == Some(true) {
                return None;
            }
        }
        None
    }

    /// Waits for `rest`, or until a leader is heard. Returns whether one was.
    async fn leader_is_heard(&self, relay: &mut Relay, rest: Duration) -> bool {
        let until = clock::now().after(rest);
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return false;
            }
            relay.skip();
            match relay.receive(left).await {
                Ok(heard) => {
                    self.metrics.frames(FrameResult::Retired, heard.retired);
                    self.metrics.frames(FrameResult::Refused, heard.refused);
                    self.metrics.frames(FrameResult::Superseded, heard.superseded);
                    let current = |RelayedPoll { poll, .. }: &RelayedPoll| {
                        !self.changes.is_behind(&poll.stamp.lineage)
                    };
                    if heard.polls.iter().any(current) {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "listening to the relay");
                    sleep(until.since(clock::now())).await;
                }
            }
        }
    }

    /// Reports that no session at `feed.url` is this replica's alone, so that none can hold the lock.
    fn found_pooled(&self, poll_state: &mut PollState) {
        self.metrics.feed_pooled(true);
        if poll_state.pooled.passes(clock::now(), REPORT_POOLED_EVERY) {
            tracing::warn!("{POOLED_RELAY}");
        }
    }

    /// Says what this replica knows, for commands that wait for a change.
    fn current_lease(&self, now: Tick) -> Option<LeaseRow> {
        let watermark = now.before(self.changes.watermark_age(now)?);
        Some(self.lease.row(self.changes.polled_to()?, self.clock.at(watermark)?))
    }

    /// Asks Postgres now and then for its current snapshot, by which relayed polls are dated.
    async fn observe(&self, done: &CancellationToken) {
        let every = OBSERVE_EVERY.min(self.max_staleness / 6);
        // It ends between two statements: ending within one would cost the connection.
        while !done.is_cancelled() {
            let pause = match self.postgres.ask(OBSERVE.to_owned()).await {
                Ok(reply) => {
                    self.changes.observe(&reply.stamp, reply.as_of);
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

    /// Polls and relays until the lock is lost, `stop`, or Redis takes no frames.
    async fn lead(
        &self,
        relay: &mut Relay,
        mut leadership: Leadership,
        poll_state: &mut PollState,
        stop: &CancellationToken,
    ) -> LeadershipEnd {
        tracing::info!(epoch = leadership.epoch, "relaying the feed of changes");
        let _leading = self.metrics.leading();
        let wake = Arc::new(Notify::new());
        let _listener = self.listen(&wake);
        let mut sent_at = clock::now();
        let mut asked_at = clock::now();
        let mut hurry = 0;
        let mut refused = None;
        while !stop.is_cancelled() {
            let began = clock::now();
            // If the poll failed, Redis was not asked.
            let polled = self.round(poll_state).await;
            refused = refused.filter(|_| polled.is_some());
            if let Some(polled) = polled {
                match relay.publish(leadership.epoch, &polled.poll).await {
                    Ok(()) => sent_at = clock::now(),
                    Err(error) => refused = Some(error),
                }
                if polled.poll.brings_news() {
                    hurry = HURRIES;
                }
            }
            let now = clock::now();
            if now.since(sent_at) > SILENCE {
                match refused {
                    Some(error) => tracing::warn!(
                        %error,
                        "Redis accepts no frames from this replica; another replica relays the \
                         feed, if Redis accepts its frames. Check whether this replica can write \
                         to redis.url"
                    ),
                    // `round` has logged why.
                    None => tracing::warn!(
                        "this replica has no poll of the feed to relay; another replica relays it, \
                         if that one can read the feed"
                    ),
                }
                return LeadershipEnd::LeavesToOthers;
            }
            if now.since(asked_at) >= RENEW_EVERY {
                asked_at = now;
                match leadership.holds().await {
                    Hold::Holds => {}
                    Hold::Lost => {
                        tracing::warn!("the connection that held the relay's lock is lost");
                        return LeadershipEnd::MayLeadAgain;
                    }
                    Hold::Pooled => {
                        self.found_pooled(poll_state);
                        return LeadershipEnd::LeavesToOthers;
                    }
                }
                self.pass_leases_on(relay).await;
            } else if hurry > 0 {
                self.pass_leases_on(relay).await;
            }
            // A command that waits for a change waits for the leases of the followers that have just
            // received it.
            let pause = if hurry > 0 { HURRY } else { POLL_EVERY };
            hurry = hurry.saturating_sub(1);
            let rest = pause.saturating_sub(clock::now().since(began));
            let _ = stop.run_until_cancelled(notified(&wake, rest)).await;
        }
        LeadershipEnd::MayLeadAgain
    }

    /// Writes the followers' leases where commands read them, and deletes expired ones.
    async fn pass_leases_on(&self, relay: &mut Relay) {
        let Some(now) = self.clock.now(clock::now()) else { return };
        let Ok(leases) = relay.leases().await else { return };
        let (gone, live): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| lease.has_expired(now));
        if let Err(error) = self.write_leases(&live).await {
            tracing::debug!(%error, "handing leases on");
        }
        if !gone.is_empty() {
            let gone: Vec<_> = gone.iter().map(|lease| lease.id).collect();
            let _ = relay.remove(&gone).await;
        }
    }
}

/// How a leader ends leading.
#[derive(PartialEq)]
enum LeadershipEnd {
    /// Others may take over, and so may this one.
    MayLeadAgain,
    /// Others may take over, since they may be able to write to Redis.
    LeavesToOthers,
}

/// Selects only what every statement selects.
const OBSERVE: &str = select!("true AS observed");
