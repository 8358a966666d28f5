//! Logs what is wrong with Redis, once while it lasts and not for each command.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::ErrorKind;

use super::fault::RedisFault;
use crate::clock::Tick;

/// While a fault lasts, it is logged again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);
/// A fault that comes and goes is logged at most this often.
const BACK_AFTER: Duration = Duration::from_secs(60);

/// Logs faults of one use of Redis: each kind once while it lasts, and then every ten minutes.
pub(crate) struct FaultLog {
    /// What the fault means for patgate, for the log.
    consequence: &'static str,
    /// When each kind may be logged again.
    logged: Mutex<Vec<(ErrorKind, Tick)>>,
    open: AtomicBool,
}

impl FaultLog {
    pub(crate) fn new(consequence: &'static str) -> Self {
        Self { consequence, logged: Mutex::default(), open: AtomicBool::new(false) }
    }

    /// Logs a fault unless it was logged lately.
    pub(crate) fn fault(&self, fault: RedisFault, now: Tick) {
        if self.due(fault.kind, now) {
            tracing::warn!(why = %fault, "Redis cannot be used; {}", self.consequence);
            self.open.store(true, Relaxed);
        }
    }

    fn due(&self, kind: ErrorKind, now: Tick) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let next = now.after(AGAIN_AFTER);
        match logged.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, at)) if now < *at => false,
            Some((_, at)) => {
                *at = next;
                true
            }
            None => {
                logged.push((kind, next));
                true
            }
        }
    }

    /// Notes a success, and logs it if there was a fault.
    pub(crate) fn recovered(&self, now: Tick) {
        if self.open.load(Relaxed) && self.open.swap(false, Relaxed) {
            tracing::info!("Redis can be used again");
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            logged.iter_mut().for_each(|(_, at)| *at = (*at).min(now.after(BACK_AFTER)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_once_and_again_seldom() {
        let fault_log = FaultLog::new("nothing is lost");
        let silent = ErrorKind::Io;
        let refused = ErrorKind::AuthenticationFailed;
        let start = Tick::from_micros(0);
        let just_before = |moment: Tick| moment.before(Duration::from_micros(1));
        assert!(fault_log.due(silent, start));
        assert!(!fault_log.due(silent, start));
        assert!(fault_log.due(refused, start), "it is of another kind");
        let again = start.after(AGAIN_AFTER);
        assert!(!fault_log.due(silent, just_before(again)));
        fault_log.fault(RedisFault::silence(BACK_AFTER), again);
        assert!(!fault_log.due(silent, again), "it was logged");
        // A fault that comes back is logged sooner, but not at once.
        fault_log.recovered(again);
        let back = again.after(BACK_AFTER);
        assert!(!fault_log.due(silent, just_before(back)));
        assert!(fault_log.due(silent, back));
    }
}
