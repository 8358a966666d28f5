//! Limits how many denials per second one verified token gets.
//!
//! A denial costs as much as an allow, and more if a body had to be read for it. Envoy's rate
//! limits cannot count denials, because they use metadata of what patgate permitted. A token above
//! its rate is told to wait (429), and patgate reads no body for it.
//!
//! The state of a token is two places in a table of fixed size, chosen by two secret keys. A token
//! is above its rate if both places are. Two tokens share one place now and then, and both places
//! once in 16 million. If a thousand tokens are above their rate, one token in twenty shares both
//! places with some of them.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicI64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

use crate::{clock::Tick, token::TokenId};

/// The number of places per row; the row takes 32 KiB.
const PLACES: usize = 4096;
/// How much unused rate a token can save up: a client that is refused a hundred times when it
/// starts is no flood.
const SAVED: Duration = Duration::from_secs(10);

/// The denial rates of all tokens.
pub(crate) struct DenialRates {
    /// The time between two denials at an even rate; `None` if there is no limit.
    interval: Option<Duration>,
    rows: [RateTable; 2],
}

struct RateTable {
    keys: RandomState,
    /// For each place, the tick of its next denial at an even rate.
    next: Vec<AtomicI64>,
}

impl DenialRates {
    /// Permits `per_second` denials per token; 0 means no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        let row = || RateTable {
            keys: RandomState::new(),
            next: (0..PLACES).map(|_| AtomicI64::new(i64::MIN)).collect(),
        };
        Self { interval, rows: [row(), row()] }
    }

    /// Returns whether this token has no denial left.
    pub(crate) fn is_spent(&self, token: TokenId, now: Tick) -> bool {
        let Some(interval) = self.interval else { return false };
        self.places(token).into_iter().flatten().all(|place| {
            Tick::from_micros(place.load(Relaxed)) > now.after(SAVED.saturating_sub(interval))
        })
    }

    /// Takes one of this token's denials. Returns false if it has none left.
    pub(crate) fn take(&self, token: TokenId, now: Tick) -> bool {
        let Some(interval) = self.interval else { return true };
        if self.is_spent(token, now) {
            return false;
        }
        let step = |next: i64| {
            let next = Tick::from_micros(next).max(now).after(interval);
            // A token that shares one of the places does not have to wait longer than this.
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
