//! How many denials a second one proven token is answered with.
//!
//! A denial costs as much as an allow, and more where a body had to be read for it; and no rate
//! limit of Envoy's that goes by what patgate has permitted counts it. Beyond its rate, a token is
//! told to wait, and no body is read for it.
//!
//! What is known of a token are two places in a table of fixed size, chosen by two secret keys. A
//! token is beyond its rate if both places are: two tokens share one now and then, and both of them
//! once in 16 million. With a thousand tokens beyond their rate, one in twenty shares both with some.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicI64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

use crate::{clock::Tick, token::TokenId};

/// Places of each row; 32 KiB.
const PLACES: usize = 4096;
/// Unused denials are saved up for so long: a client that is refused a hundred times at its start
/// is no flood.
const SAVED: Duration = Duration::from_secs(10);

/// The denials of all tokens.
pub(crate) struct DenialRates {
    /// From one denial to the next, if they come evenly. Nothing where there is no bound.
    interval: Option<Duration>,
    rows: [RateTable; 2],
}

struct RateTable {
    keys: RandomState,
    /// For each place the tick at which its next denial would come if they came evenly.
    next: Vec<AtomicI64>,
}

impl DenialRates {
    /// So many a second; 0 is no bound.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        let row = || RateTable {
            keys: RandomState::new(),
            next: (0..PLACES).map(|_| AtomicI64::new(i64::MIN)).collect(),
        };
        Self { interval, rows: [row(), row()] }
    }

    /// Whether this token has no denial left.
    pub(crate) fn is_spent(&self, token: TokenId, now: Tick) -> bool {
        let Some(interval) = self.interval else { return false };
        self.places(token).into_iter().flatten().all(|place| {
            Tick::from_micros(place.load(Relaxed)) > now.after(SAVED.saturating_sub(interval))
        })
    }

    /// Takes one of this token's denials. False if it has none left.
    pub(crate) fn take(&self, token: TokenId, now: Tick) -> bool {
        let Some(interval) = self.interval else { return true };
        if self.is_spent(token, now) {
            return false;
        }
        let step = |next: i64| {
            let next = Tick::from_micros(next).max(now).after(interval);
            // Whoever shares one of the places is not made to wait longer than that.
            Some(next.min(now.after(SAVED)).as_micros())
        };
        for place in self.places(token).into_iter().flatten() {
            let _ = place.fetch_update(AcqRel, Relaxed, step);
        }
        true
    }

    fn places(&self, token: TokenId) -> [Option<&AtomicI64>; 2] {
        let place = |row: &'_ RateTable| row.keys.hash_one(token) as usize % PLACES;
        let [one, other] = &self.rows;
        [one.next.get(place(one)), other.next.get(place(other))]
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn token(number: u128) -> TokenId {
        TokenId(Uuid::from_u128(number))
    }

    #[test]
    fn a_token_has_so_many_and_others_lose_none() {
        let rates = DenialRates::new(10);
        let start = Tick::from_micros(77);
        let taken = |number, at: Tick| (0..1000).filter(|_| rates.take(token(number), at)).count();
        assert_eq!(taken(1, start), 100, "what ten seconds save up");
        assert!(rates.is_spent(token(1), start));
        for number in 2..50 {
            assert!(!rates.is_spent(token(number), start), "{number}");
            assert_eq!(taken(number, start), 100, "{number}");
        }
        let second = Duration::from_secs(1);
        assert!(!rates.is_spent(token(1), start.after(second / 10)));
        assert_eq!(taken(1, start.after(second)), 10);
        assert_eq!(taken(1, start.after(second * 100)), 100);
    }

    #[test]
    fn without_a_bound_there_is_none() {
        let rates = DenialRates::new(0);
        let now = Tick::from_micros(77);
        assert!((0..10_000).all(|_| rates.take(token(1), now)));
        assert!(!rates.is_spent(token(1), now));
    }
}
