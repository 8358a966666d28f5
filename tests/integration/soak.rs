//! For minutes, with random faults and random changes, every answer is compared with what may have
//! been known.

mod dice;
mod fault_periods;
mod faults;
mod history;
mod site;
mod subjects;

use std::{
    collections::BTreeMap,
    env,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::{
    dice::Dice, fault_periods::FaultPeriods, faults::Fault, site::SoakServers, subjects::Subjects,
};
use crate::support::{
    Suite,
    fleet::HEALED,
    load::{FALTERING, Load, TokenKind, WELL},
    withdrawals::PROMISED,
};

/// Not named PATGATE_…, which the replicas would read as a setting.
const SECONDS: &str = "SOAK_SECONDS";
const SEED: &str = "SOAK_SEED";
/// How much a replica may grow after the warm-up.
const GROWTH: u64 = 20 << 20;
/// How long a fault lasts, and how long everything stays healthy after the recovery, in
/// milliseconds.
const LASTS: (u64, u64) = (1500, 9000);
const RESTS: (u64, u64) = (2500, 6000);

pub(crate) fn is_wanted() -> bool {
    env::var_os(SECONDS).is_some()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

pub(crate) async fn every_answer_is_accounted_for(suite: Arc<Suite>) {
    let long = Duration::from_secs(number(SECONDS).unwrap());
    let drawn = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = number(SEED).unwrap_or(drawn.into());
    let mut dice = Dice::new(seed);
    let relay = dice.one_of(&["off", "redis"]);
    println!("SEED={seed}: {long:?}, feed.relay={relay}");

    let mut site = SoakServers::start(&suite, relay).await;
    let envoy = site.gate.envoy.port;
    let load = Load::lasting(long + Duration::from_secs(60), &site.world, envoy).await;
    let fault_periods = Arc::new(FaultPeriods::from(Instant::now()));
    let subjects = Subjects::start(&site.world, envoy, &fault_periods, seed).await;
    let mut soak =
        Soak { site: &mut site, load: &load, fault_periods: &fault_periods, drawn: <_>::default() };
    let resident = tokio::select! {
        biased;
        wrong = load.illegal() => panic!("SEED={seed}: {wrong}\n{fault_periods}"),
        wrong = subjects.illegal() => panic!("SEED={seed}: {wrong}\n{fault_periods}"),
        resident = soak.run(long, &mut dice) => resident,
    };

    let drawn: Vec<_> =
        soak.drawn.iter().map(|(fault, count)| format!("{fault} × {count}")).collect();
    println!("faults: {}", drawn.join(", "));
    println!("{} changes; changing tokens: {}", subjects.changes(), subjects.answers);
    for status in [200, 401, 403] {
        let count = subjects.answers.count(TokenKind::Turning, |s| s == status);
        assert!(count > 0, "no changing token ever got {status}");
    }
    let mut took = subjects.end(&fault_periods, PROMISED).await;
    load.end("others").await;
    took.sort_unstable();
    assert!(!took.is_empty(), "SEED={seed}: too short for a change in fair weather");
    let [p50, p99, max] = [50, 99, 100].map(|part| took[(took.len() - 1) * part / 100]);
    println!(
        "{} changes in fair weather were obeyed after p50 {p50:?}, p99 {p99:?}, max {max:?}",
        took.len()
    );
    let [start, warm, middle, end] =
        [0, 1, 2, 4].map(|part| resident[(resident.len() - 1) * part / 4]);
    println!(
        "MiB of each replica: {} at the start, {} in the middle, {} at the end",
        mib(start),
        mib(middle),
        mib(end)
    );
    assert!(p99 <= PROMISED, "SEED={seed}: {p99:?}");
    let grown = end[0].saturating_sub(warm[0]);
    assert!(grown < GROWTH, "SEED={seed}: replica 0 grew by {} MiB", grown >> 20);
}

fn mib(resident: [u64; site::REPLICAS]) -> String {
    resident.map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20))).join(" ")
}

struct Soak<'a, 's> {
    site: &'a mut SoakServers<'s>,
    load: &'a Load,
    fault_periods: &'a FaultPeriods,
    /// How often each fault was drawn.
    drawn: BTreeMap<String, u64>,
}

impl Soak<'_, '_> {
    /// Returns the memory of the replicas, measured once between two faults.
    async fn run(&mut self, long: Duration, dice: &mut Dice) -> Vec<[u64; site::REPLICAS]> {
        let began = Instant::now();
        let mut resident = vec![self.site.resident()];
        while began.elapsed() < long {
            self.fault(&Fault::draw(dice), dice.between(LASTS.0, LASTS.1)).await;
            tokio::time::sleep(dice.between(RESTS.0, RESTS.1)).await;
            resident.push(self.site.resident());
        }
        resident
    }

    /// Afterwards, everything works again.
    async fn fault(&mut self, faults: &[Fault], lasts: Duration) {
        for fault in faults {
            *self.drawn.entry(format!("{fault:?}")).or_default() += 1;
        }
        let excuses = faults.iter().any(|fault| fault.excuses());
        self.fault_periods.worsens(format!("{faults:?} for {lasts:?}"), excuses);
        if excuses {
            self.load.allow(FALTERING);
        }
        for fault in faults {
            fault.begin(self.site).await;
        }
        tokio::time::sleep(lasts).await;
        for fault in faults {
            fault.end(self.site).await;
        }
        let well = self.fault_periods.clears();
        self.load.allow_from(well, WELL);
        tokio::time::sleep(HEALED).await;
        self.load.more(WELL, 5).await;
        self.site.gate.healthy(site::REPLICAS as u64).await;
    }
}
