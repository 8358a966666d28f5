//! The times of faults, which decide whether a 503 is excused.

use std::{fmt, sync::Mutex, time::Instant};

use crate::support::fleet::HEALED;

/// How many faults the report of a violation shows.
const TOLD: usize = 4;

struct FaultPeriod {
    what: String,
    /// Whether the fault excuses a 503.
    excuses: bool,
    from: Instant,
    /// `None` while it lasts.
    until: Option<Instant>,
}

pub(super) struct FaultPeriods {
    began: Instant,
    spells: Mutex<Vec<FaultPeriod>>,
}

impl FaultPeriods {
    pub(super) fn from(began: Instant) -> Self {
        Self { began, spells: Mutex::default() }
    }

    /// The time since the start of the soak.
    pub(super) fn at(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.began).as_secs_f64()
    }

    pub(super) fn worsens(&self, what: String, excuses: bool) {
        println!("{:7.2} s  {what}", self.at(Instant::now()));
        let spell = FaultPeriod { what, excuses, from: Instant::now(), until: None };
        self.spells.lock().unwrap().push(spell);
    }

    /// Returns when everything must work again.
    pub(super) fn clears(&self) -> Instant {
        let now = Instant::now();
        self.spells.lock().unwrap().last_mut().unwrap().until = Some(now);
        now + HEALED
    }

    /// Returns whether a 503 that was in transit then is excused.
    pub(super) fn excuses(&self, sent: Instant, arrived: Instant) -> bool {
        self.any(sent, arrived, |spell| spell.excuses)
    }

    /// Returns whether nothing was wrong or recovering then.
    pub(super) fn is_fair(&self, from: Instant, until: Instant) -> bool {
        !self.any(from, until, |_| true)
    }

    fn any(&self, from: Instant, until: Instant, which: fn(&FaultPeriod) -> bool) -> bool {
        let lasts = |spell: &FaultPeriod| spell.until.is_none_or(|healed| from <= healed + HEALED);
        let spells = self.spells.lock().unwrap();
        spells.iter().rev().any(|spell| which(spell) && spell.from <= until && lasts(spell))
    }
}

impl fmt::Display for FaultPeriods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults until {:.3} s:", self.began.elapsed().as_secs_f64())?;
        let spells = self.spells.lock().unwrap();
        for FaultPeriod { what, excuses, from, until } in
            &spells[spells.len().saturating_sub(TOLD)..]
        {
            let excuses = if *excuses { ", 503 excused" } else { "" };
            write!(f, "  from {:.3} s ", self.at(*from))?;
            match until {
                Some(until) => write!(f, "to {:.3} s", self.at(*until))?,
                None => write!(f, "on")?,
            }
            writeln!(f, ": {what}{excuses}")?;
        }
        Ok(())
    }
}
