//! The basis of every measurement: the servers, the number of rounds, and the report.

use std::{
    fs, process,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    grpc::{Connection, Pace, Requests, Tally},
    report::Report,
    requests::{Check, chat},
    servers::{Launcher, Running},
    site::{Issued, Site},
    statistics::Dice,
};

/// Concurrent streams, as from a busy Envoy.
pub(crate) const MANY: usize = 100;
/// Tokens in use, unless a measurement says otherwise.
pub(crate) const HOT: usize = 10_000;

pub(crate) struct Bench {
    pub(crate) site: Site,
    pub(crate) launcher: Launcher,
    pub(crate) plan: Plan,
    pub(crate) report: Report,
    pub(crate) dice: Dice,
}

/// Fewer rounds are not enough for an interval.
const LEAST: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// The kinds of runs.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Task {
    /// All measurements.
    Everything,
    /// All measurements, also with ten million tokens.
    Large,
    /// Only instructions.
    Check,
}

/// The number of rounds and the time limit.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The number of rounds, if there is time.
    pub(crate) rounds: usize,
    least: usize,
    started: Instant,
    budget: Duration,
    /// Tries the machinery; its figures mean nothing.
    pub(crate) quick: bool,
    /// Whether docs/performance.md shows the table.
    pub(crate) docs: bool,
    /// Duration of one side of one round.
    pub(crate) time: Duration,
    /// Whether to measure with ten million tokens also.
    pub(crate) large: bool,
}

impl Plan {
    /// Reads `BENCH_QUICK=1`, `BENCH_ROUNDS=…` and `DOCS=1` from the environment, if they are set.
    pub(crate) fn chosen(task: Task) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let quick = set("BENCH_QUICK").is_some();
        let least = if quick { 1 } else { LEAST };
        let rounds = set("BENCH_ROUNDS").map(|rounds| rounds.parse().expect("BENCH_ROUNDS"));
        let rounds = rounds.unwrap_or(if quick { 3 } else { 9 });
        assert!(rounds >= least, "BENCH_ROUNDS is at least {least}: fewer rounds say too little");
        Self {
            rounds,
            least,
            started: Instant::now(),
            // Ten million tokens have to be written before they can be asked for. A trial, and
            // counting instructions, may run on a busy machine.
            budget: if task == Task::Everything && !quick { 25 * MINUTE } else { 45 * MINUTE },
            quick,
            docs: set("DOCS").is_some() && !quick,
            time: Duration::from_millis(if quick { 300 } else { 1500 }),
            large: task == Task::Large,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends this program when its time is over, even in the middle of a measurement.
    pub(crate) fn keep_to_the_budget(self, left: &'static str) {
        thread::spawn(move || {
            thread::sleep(self.budget.saturating_sub(self.elapsed()));
            let minutes = self.budget.as_secs() / 60;
            eprintln!(
                "{minutes} minutes are over: this machine is too slow or too busy, or something \
                 hangs. {left}"
            );
            end_children();
            process::exit(1);
        });
    }

    /// Runs the planned number of rounds, or fewer when two thirds of the time have passed: the
    /// rest is for the measurements that follow.
    pub(crate) fn rounds<T>(&self, mut round: impl FnMut(usize) -> T) -> Vec<T> {
        let mut rounds = Vec::new();
        while rounds.len() < self.least
            || rounds.len() < self.rounds && self.elapsed() < self.budget * 2 / 3
        {
            rounds.push(round(rounds.len()));
        }
        rounds
    }

    /// Runs rounds in which each side is first in turn, so that neither gains if the machine gets
    /// slower or faster meanwhile.
    pub(crate) fn alternate<T>(&self, mut side: impl FnMut(usize) -> T) -> Vec<(T, T)> {
        self.rounds(|round| {
            if round.is_multiple_of(2) {
                let first = side(0);
                (first, side(1))
            } else {
                let second = side(1);
                (side(0), second)
            }
        })
    }
}

impl Bench {
    /// Measures checks per second of two servers, or of one with two kinds of requests, and the
    /// processor time of each, without the client's.
    pub(crate) fn throughput(&mut self, name: &str, sides: [(&Running, &Requests); 2]) {
        let plan = self.plan;
        let dice = &mut self.dice;
        let rounds = plan.alternate(|side| {
            let (running, requests) = sides[side];
            let before = running.cpu();
            let tally = run(running, plan.time, requests, MANY, dice);
            (tally.rate(), (running.cpu() - before).as_secs_f64() / tally.checks as f64)
        });
        self.report.ratio(name, rounds.iter().map(|(ours, theirs)| (ours.0, theirs.0)));
        let cpu = rounds.iter().map(|(ours, theirs)| (ours.1, theirs.1));
        self.report.ratio(&format!("{name}_cpu"), cpu);
    }
}

/// The supervisor, which ends all servers and their children.
fn end_children() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.collect();
    // If this fails, the supervisor notices that this process is gone.
    let _ = Command::new("kill").args(children.split_whitespace()).status();
}

/// Connects over TCP, on a connection of its own.
pub(crate) fn run(
    running: &Running,
    time: Duration,
    requests: &Requests,
    streams: usize,
    dice: &mut Dice,
) -> Tally {
    let connection = Connection::open(&running.tcp());
    let run =
        connection.and_then(|mut connection| connection.run_for(time, requests, streams, dice));
    run.unwrap_or_else(|error| panic!("{}: {error}", running.server.id))
}

/// Sends every request once, in order, so that the server knows all of them from then on. So many
/// unknown tokens at once may take longer than the deadline: those that were answered are known,
/// and the others are sent again.
pub(crate) fn ask_all(running: &Running, requests: &Requests) {
    const ATTEMPTS: usize = 10;
    let ask = || {
        let mut numbers = 0..requests.len();
        Connection::open(&running.tcp())?.run(requests, Pace::Closed(MANY), || numbers.next())
    };
    let attempts = (1..ATTEMPTS).map(|_| ask()).find(Result::is_ok);
    let run = attempts.unwrap_or_else(ask);
    run.unwrap_or_else(|error| panic!("{}: {error}", running.server.id));
}

/// Returns a chat of each token in its domain.
pub(crate) fn chats(tokens: &[Issued]) -> Requests {
    asking(tokens, |check| check)
}

/// Returns a changed chat of each token.
pub(crate) fn asking<'a>(
    tokens: &'a [Issued],
    change: impl Fn(Check<'a>) -> Check<'a>,
) -> Requests {
    let check = |token: &'a Issued| change(Check::post(chat(&token.domain), &token.text));
    Requests::new(tokens.iter().map(|token| check(token).encode()))
}
