//! The only code that reads a clock.

use jiff::{SignedDuration, Timestamp};
pub use patgate_core::clock::{Clock, Moment, Tick};
use rustix::time::{ClockId, clock_gettime};

/// Returns the current instant of this machine's monotonic clock, which includes suspended time.
pub fn now() -> Tick {
    // A laptop or a virtual machine that slept must not take old data for fresh.
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere (macOS), the monotonic clock includes sleep already.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    Tick::from_micros(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000)
}

/// Returns the seconds since 1970 by this machine's wall clock. Only what an identity provider has dated
/// is compared with them, and the cookie of a sign-in there: a provider knows no other clock.
pub(crate) fn wall_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A reading of this machine's wall clock, for the dates of records that people read. Nothing is
/// ever compared with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    pub(crate) now: Timestamp,
    pub(crate) tick: Tick,
}

impl WallClock {
    pub(crate) fn read() -> Self {
        Self { now: Timestamp::now(), tick: now() }
    }

    /// Returns the time that the wall clock showed, or will show, at `tick`.
    pub(crate) fn at(&self, tick: Tick) -> Timestamp {
        let since =
            SignedDuration::from_micros(tick.as_micros().saturating_sub(self.tick.as_micros()));
        // Outside the range of calendars, the reading itself is as good.
        self.now.checked_add(since).unwrap_or(self.now)
    }
}
