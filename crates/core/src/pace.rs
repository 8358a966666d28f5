//! A pace: so many per second, and a bounded number at once after a pause.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use crate::clock::Tick;

const SECOND: i64 = 1_000_000_000;

/// A token bucket, kept as the time of its next slot. Slots that were not used lately are saved up
/// to the size of a burst, so a caller that asks rarely never waits.
pub struct Pace {
    /// Nanoseconds from one slot to the next.
    interval: i64,
    /// How long unused slots are saved, in nanoseconds.
    saved: i64,
    /// The next slot, in nanoseconds of a tick.
    next: AtomicI64,
}

impl Pace {
    /// Makes a pace of `per_second` slots, with up to `burst` at once. Both count as at least 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = SECOND / i64::from(per_second.max(1));
        let saved = interval * i64::from(burst.max(1) - 1);
        Self { interval, saved, next: AtomicI64::new(i64::MIN) }
    }

    /// Returns the time from one slot to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval.unsigned_abs())
    }

    /// Returns the next slot. One that has passed may be used at once.
    pub fn peek(&self, now: Tick) -> Tick {
        tick(self.slot(self.next.load(Relaxed), now))
    }

    /// Takes the next slot, whenever it is, and returns it.
    pub fn take(&self, now: Tick) -> Tick {
        let step = |next: i64| Some(self.slot(next, now) + self.interval);
        let taken = self.next.fetch_update(Relaxed, Relaxed, step);
        tick(self.slot(taken.unwrap_or_else(|next| next), now))
    }

    /// Takes the next slot if it may be used at once. Returns whether it was taken.
    pub fn admits(&self, now: Tick) -> bool {
        let step = |next: i64| {
            let slot = self.slot(next, now);
            (slot <= nanos(now)).then_some(slot + self.interval)
        };
        self.next.fetch_update(Relaxed, Relaxed, step).is_ok()
    }

    fn slot(&self, next: i64, now: Tick) -> i64 {
        next.max(nanos(now).saturating_sub(self.saved))
    }
}

fn nanos(tick: Tick) -> i64 {
    tick.as_micros().saturating_mul(1000)
}

/// Returns the first tick that is not before the slot.
fn tick(nanos: i64) -> Tick {
    Tick::from_micros(nanos.saturating_add(999).div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: i64) -> Tick {
        Tick::from_micros(millis * 1000)
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let pace = Pace::new(100, 10);
        let start = millis(1_000_000);
        let slots: Vec<_> = (0..30).map(|_| pace.take(start)).collect();
        assert!(slots[..10].iter().all(|slot| *slot <= start), "the burst");
        assert_eq!(slots[10..], (1..=20).map(|n| millis(1_000_000 + 10 * n)).collect::<Vec<_>>());
        // However long no slot was taken, no more than a burst is saved up.
        let later = millis(9_000_000);
        let at_once = (0..30).filter(|_| pace.take(later) <= later).count();
        assert_eq!(at_once, 10);
    }

    #[test]
    fn who_asks_seldom_never_waits() {
        for rate in [1, 9, 500] {
            let pace = Pace::new(rate, rate / 10);
            for n in 0..100 {
                let now = millis(1_000_000 + 1000 * n);
                assert!(pace.take(now) <= now, "{rate} a second");
            }
        }
    }

    #[test]
    fn no_window_has_more_than_its_share() {
        let pace = Pace::new(50, 5);
        // Slots are taken as fast as they come, with a pause in the middle.
        let mut now = millis(1_000_000);
        let mut slots = Vec::new();
        for n in 0..400 {
            if n == 200 {
                now = now.after(Duration::from_secs(7));
            }
            now = now.max(pace.take(now));
            slots.push(now);
        }
        for (at, from) in slots.iter().enumerate() {
            let within = |slot: &&Tick| slot.since(*from) < Duration::from_secs(1);
            assert!(slots[at..].iter().filter(within).count() <= 50 + 5, "from {from:?} on");
        }
    }

    #[test]
    fn so_many_a_second_and_no_more() {
        let pace = Pace::new(10, 10);
        let start = Tick::from_micros(77);
        let admitted = |at: Tick| (0..100).filter(|_| pace.admits(at)).count();
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start.after(Duration::from_millis(99))), 0);
        assert_eq!(admitted(start.after(Duration::from_millis(100))), 1);
        assert_eq!(admitted(start.after(Duration::from_secs(60))), 10, "a second's worth");
    }

    #[test]
    fn a_slot_between_two_ticks_is_not_used_early() {
        // Three slots in a microsecond: the fourth is in the next one.
        let pace = Pace::new(3_000_000, 1);
        let now = millis(1);
        assert_eq!(pace.take(now), now);
        assert!((0..2).all(|_| pace.take(now) > now));
        assert!(!pace.admits(now));
    }
}
