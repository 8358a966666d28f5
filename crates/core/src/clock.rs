//! The two clocks of patgate. Nothing here reads a clock: every tick is an argument.
//!
//! A [`Tick`] is this machine's monotonic clock, including suspended time: ages and deadlines are
//! measured in it. A [`Moment`] is a point in Postgres's clock: expiry and the moment of
//! verification, which travels between replicas, are written in it. Nothing of this is
//! ever compared with this machine's wall clock, so neither skew between machines nor a step of their clocks extends a
//! bound.
//!
//! Only a request-reply pair relates the two. If a statement is sent at tick `s` and answered with
//! `p`, Postgres's time while it ran, then Postgres's time was at most `p` at `s`, hence is at most
//! `p + (t - s)` at tick `t`.
//!
//! Postgres's own clock may also step. A step forward makes entries of other replicas in Redis
//! look too old, and tokens expire by it. A step back revives nothing that has expired here, and
//! entries from before the step do not look younger to a process that saw the time before it. A
//! process that started after the step cannot know of it: to it, an entry from before looks
//! younger by the size of the step. That matters only while the feed is lost, and only for entries
//! that exist longer than `max_staleness` after the start: at most for the lifetime of an entry in
//! Redis.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Microseconds of this machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(i64);

impl Tick {
    /// Returns the time from `earlier` to this tick; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// Returns the tick that is `duration` earlier.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Returns the tick that is `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns the microseconds, for storage in an atomic.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the tick of so many microseconds: the reverse of [`Tick::as_micros`].
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since the Unix epoch in Postgres's clock.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub i64);

/// What is known of Postgres's clock.
#[derive(Debug)]
pub struct Clock {
    /// `p - s` of the last trip.
    offset: AtomicI64,
    /// When the last trip was sent.
    sent: AtomicI64,
    /// The latest moment that [`Clock::now`] has returned.
    high_water: AtomicI64,
    /// The highest recent offset.
    highest: Mutex<Highest>,
}

const UNKNOWN: i64 = i64::MIN;
/// Minimum time for which an offset is remembered: longer than the lifetime in Redis of an entry
/// that was written by it.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// The highest offset of the current period, and of the previous one.
#[derive(Debug)]
struct Highest {
    since: Tick,
    now: i64,
    before: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            offset: AtomicI64::new(UNKNOWN),
            sent: AtomicI64::new(UNKNOWN),
            high_water: AtomicI64::new(UNKNOWN),
            highest: Mutex::new(Highest { since: Tick(0), now: UNKNOWN, before: UNKNOWN }),
        }
    }
}

impl Clock {
    /// Records a trip: `answered` is Postgres's time at some point after `sent`.
    pub fn observe(&self, sent: Tick, answered: Moment) {
        // The last trip wins, so that a slow trip and the drift between the clocks lose their
        // effect. Two trips that race here may swap their sends; both are true, so either offset is
        // a bound.
        if self.sent.fetch_max(sent.0, Relaxed) <= sent.0 {
            self.offset.store(answered.0 - sent.0, Relaxed);
        }
        self.highest().note(sent, answered.0 - sent.0);
    }

    /// Returns the latest time that Postgres's clock can show at `tick`. It never runs backward
    /// within a process, so what has expired stays expired. `None` before the first trip.
    pub fn now(&self, tick: Tick) -> Option<Moment> {
        let Moment(bound) = self.at(tick)?;
        Some(Moment(self.high_water.fetch_max(bound, Relaxed).max(bound)))
    }

    /// Returns the latest time that Postgres's clock can have shown at a past tick. Unlike
    /// [`Clock::now`], it ignores the moments that were returned since. `None` before the first
    /// trip.
    pub fn at(&self, tick: Tick) -> Option<Moment> {
        Some(Moment(self.offset()?.saturating_add(tick.0)))
    }

    /// Returns the tick at which Postgres's clock showed `moment`, or an earlier tick.
    ///
    /// `None` before the first trip, and for a moment after `tick`, which no replica can have seen.
    pub fn tick_of(&self, moment: Moment, tick: Tick) -> Option<Tick> {
        self.offset()?;
        // If the clock stepped back recently, `moment` may be from before the step.
        let highest = self.highest().get();
        let then = Tick(moment.0.checked_sub(highest)?);
        (then <= tick).then_some(then)
    }

    // No code that can panic runs under this lock.
    fn highest(&self) -> MutexGuard<'_, Highest> {
        self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offset(&self) -> Option<i64> {
        match self.offset.load(Relaxed) {
            UNKNOWN => None,
            offset => Some(offset),
        }
    }
}

impl Highest {
    fn note(&mut self, sent: Tick, offset: i64) {
        if sent.since(self.since) > REMEMBERED {
            (self.since, self.before, self.now) = (sent, self.now, UNKNOWN);
        }
        self.now = self.now.max(offset);
    }

    fn get(&self) -> i64 {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_the_first_trip() {
        let clock = Clock::default();
        assert_eq!(clock.now(Tick(1)), None);
        assert_eq!(clock.tick_of(Moment(1), Tick(1)), None);
    }

    #[test]
    fn an_upper_bound_on_postgres_time() {
        let clock = Clock::default();
        clock.observe(Tick(100), Moment(1_000));
        assert_eq!(clock.now(Tick(150)), Some(Moment(1_050)));
        assert_eq!(clock.tick_of(Moment(1_000), Tick(150)), Some(Tick(100)));
    }

    #[test]
    fn what_has_passed_does_not_move_on_with_the_time() {
        let clock = Clock::default();
        assert_eq!(clock.at(Tick(1)), None);
        clock.observe(Tick(100), Moment(1_000));
        assert_eq!(clock.now(Tick(900)), Some(Moment(1_800)));
        assert_eq!(clock.at(Tick(150)), Some(Moment(1_050)));
        assert_eq!(clock.now(Tick(150)), Some(Moment(1_800)));
    }

    #[test]
    fn a_step_back_revives_nothing() {
        let clock = Clock::default();
        clock.observe(Tick(100), Moment(1_000));
        assert_eq!(clock.now(Tick(200)), Some(Moment(1_100)));
        clock.observe(Tick(210), Moment(500));
        assert_eq!(clock.now(Tick(220)), Some(Moment(1_100)));
    }

    #[test]
    fn a_step_back_makes_nothing_younger() {
        let clock = Clock::default();
        clock.observe(Tick(100), Moment(1_000));
        let verified = Moment(1_050);
        assert_eq!(clock.tick_of(verified, Tick(200)), Some(Tick(150)));
        clock.observe(Tick(210), Moment(1_010));
        assert_eq!(clock.tick_of(verified, Tick(300)), Some(Tick(150)));
        // After two periods, nothing is left that was written before the step.
        for _ in 0..2 {
            let later = clock.highest().since.after(REMEMBERED).after(Duration::from_micros(1));
            assert_eq!(clock.tick_of(verified, Tick(300)), Some(Tick(150)));
            clock.observe(later, Moment(later.0 + 800));
        }
        assert_eq!(clock.tick_of(verified, Tick(300)), Some(Tick(250)));
    }

    #[test]
    fn a_step_forward_makes_older() {
        let clock = Clock::default();
        clock.observe(Tick(100), Moment(1_000));
        clock.observe(Tick(210), Moment(5_000));
        assert_eq!(clock.tick_of(Moment(1_050), Tick(300)), Some(Tick(1_050 - 4_790)));
        assert_eq!(clock.tick_of(Moment(9_000), Tick(300)), None);
    }

    #[test]
    fn a_late_reply_does_not_replace_a_newer_trip() {
        let clock = Clock::default();
        clock.observe(Tick(200), Moment(1_200));
        clock.observe(Tick(100), Moment(1_150));
        assert_eq!(clock.now(Tick(300)), Some(Moment(1_300)));
    }
}
