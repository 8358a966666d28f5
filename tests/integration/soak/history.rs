//! The states of a token over time, and the answers that they permit.
//!
//! A change took effect at some moment between its start and its confirmation. An answer may
//! reflect the state at any moment from `STALENESS` before the request until the answer arrived.
//! The permissions of a token and the state of its domain are cached separately, and may be of
//! different moments; but each is of one moment.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::{dice::Dice, fault_periods::FaultPeriods};
use crate::support::withdrawals::WITHDRAWALS;

pub(super) const STALENESS: Duration = Duration::from_secs(3);
/// At most one of each group is taken at a time: giving one back would also give back the other.
const EXCLUSIVE: [&[usize]; 4] = [&[0, 1, 2], &[3, 4], &[5], &[DOMAIN]];
const DOMAIN: usize = 6;
/// How many changes the report of a violation shows.
const TOLD: usize = 5;

/// What is taken away, as indexes in `WITHDRAWALS`.
type Withdrawn = Vec<usize>;

struct MadeChange {
    asked: Instant,
    /// `None` until it is confirmed.
    done: Option<Instant>,
    taken: Withdrawn,
    /// How long after its confirmation an answer still showed the old state.
    late: Duration,
}

pub(super) struct History(Vec<MadeChange>);

impl History {
    /// Nothing is taken away.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let change = MadeChange {
            asked: now,
            done: Some(now),
            taken: Withdrawn::new(),
            late: <_>::default(),
        };
        Self(vec![change])
    }

    /// Takes something away or gives it back, so that most tokens work most of the time. Returns
    /// the index in `WITHDRAWALS`, and whether it was taken.
    pub(super) fn begin(&mut self, dice: &mut Dice) -> (usize, bool) {
        let mut taken = self.0.last().unwrap().taken.clone();
        let exclusive = dice.one_of(&EXCLUSIVE);
        let back = taken.iter().position(|way| exclusive.contains(way));
        let back = back.or_else(|| (!taken.is_empty() && !dice.once_in(3)).then_some(0));
        let did = match back {
            Some(back) => (taken.remove(back), false),
            None => {
                taken.push(dice.one_of(exclusive));
                (taken[taken.len() - 1], true)
            }
        };
        let change = MadeChange { asked: Instant::now(), done: None, taken, late: <_>::default() };
        self.0.push(change);
        did
    }

    pub(super) fn done(&mut self) {
        self.0.last_mut().unwrap().done = Some(Instant::now());
    }

    /// Returns whether this answer is permitted.
    pub(super) fn judge(&mut self, status: u16, sent: Instant, arrived: Instant) -> bool {
        let ends = self.0.iter().skip(1).map(|next| next.done).chain([None]);
        let possible: Vec<&Withdrawn> = self
            .0
            .iter()
            .zip(ends)
            .filter(|(change, _)| change.asked <= arrived)
            .filter(|(_, end)| end.is_none_or(|end| sent <= end + STALENESS))
            .map(|(change, _)| &change.taken)
            .collect();
        let legal = possible
            .iter()
            .any(|token| possible.iter().any(|domain| answer(token, domain) == status));
        // Only for the last change, if it was confirmed when the request was sent.
        if let Some(last) = self.0.last_mut()
            && let Some(done) = last.done
            && done <= sent
            && answer(&last.taken, &last.taken) != status
        {
            last.late = last.late.max(sent - done);
        }
        legal
    }

    pub(super) fn changes(&self) -> usize {
        self.0.len() - 1
    }

    /// Returns how long changes took to apply that were made in fair weather and were visible for
    /// this long.
    pub(super) fn obeyed<'h>(
        &'h self,
        fault_periods: &'h FaultPeriods,
        visible: Duration,
    ) -> impl Iterator<Item = Duration> + 'h {
        self.0.windows(3).filter_map(move |changes| {
            let [before, change, after] = changes else { return None };
            let done = change.done?;
            let seen = answer(&before.taken, &before.taken) != answer(&change.taken, &change.taken)
                && after.asked >= done + visible
                && fault_periods.is_fair(change.asked, done + visible);
            seen.then_some(change.late)
        })
    }

    /// The latest changes, as a text.
    pub(super) fn tell(&self, fault_periods: &FaultPeriods) -> String {
        let mut told = String::new();
        for MadeChange { asked, done, taken, .. } in &self.0[self.0.len().saturating_sub(TOLD)..] {
            let names: Vec<_> = taken.iter().map(|way| WITHDRAWALS[*way].0).collect();
            let done = done.map_or("?".to_owned(), |done| format!("{:.3}", fault_periods.at(done)));
            let asked = fault_periods.at(*asked);
            let status = answer(taken, taken);
            let _ = writeln!(told, "  at {asked:.3}–{done} s: {status}, {names:?}");
        }
        told
    }
}

/// The answer for what is taken from the token and from the domain. A 401 never becomes a 403.
fn answer(token: &[usize], domain: &[usize]) -> u16 {
    let of_token = token.iter().filter(|way| **way != DOMAIN);
    let of_domain = domain.iter().filter(|way| **way == DOMAIN);
    of_token.chain(of_domain).map(|way| WITHDRAWALS[*way].1).min().unwrap_or(200)
}
