//! What every measurement stands on: the servers, how often to ask, and where figures go.

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

/// Streams at once, as a busy Envoy has them.
pub(crate) const MANY: usize = 100;
/// Tokens in use, as far as nothing else is said.
pub(crate) const HOT: usize = 10_000;

pub(crate) struct Bench {
    pub(crate) site: Site,
    pub(crate) launcher: Launcher,
    pub(crate) plan: Plan,
    pub(crate) report: Report,
    pub(crate) dice: Dice,
}

/// Fewer rounds than that say too little.
const LEAST: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// What there is to do.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Task {
    /// All measurements.
    Everything,
    /// With ten million tokens, too.
    Large,
    /// Instructions alone.
    Check,
}

/// How thoroughly, and how long.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// So many, as long as there is time.
    pub(crate) rounds: usize,
    least: usize,
    started: Instant,
    budget: Duration,
    /// Tries the machinery; its figures mean nothing.
    pub(crate) quick: bool,
    /// Whether docs/performance.md is to show the table.
    pub(crate) docs: bool,
    /// Of one side of one round.
    pub(crate) time: Duration,
    /// With ten million tokens, too.
    pub(crate) large: bool,
}

impl Plan {
    /// `BENCH_QUICK=1`, `BENCH_ROUNDS=…` and `DOCS=1`, where they are set.
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
            budget: if task == Task::Everything && !quick { 15 * MINUTE } else { 45 * MINUTE },
            quick,
            docs: set("DOCS").is_some() && !quick,
            time: Duration::from_millis(if quick { 300 } else { 1500 }),
            large: task == Task::Large,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends this program when its time is over, whatever it waits for then.
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

    /// As many as are planned, and fewer when two thirds of the time have passed: the rest is for
    /// what is still to come.
    pub(crate) fn rounds<T>(&self, mut round: impl FnMut(usize) -> T) -> Vec<T> {
        let mut rounds = Vec::new();
        while rounds.len() < self.least
            || rounds.len() < self.rounds && self.elapsed() < self.budget * 2 / 3
        {
            rounds.push(round(rounds.len()));
        }
        rounds
    }

    /// Rounds in which each side comes first in turn, so that neither gains by a machine that
    /// gets slower or faster meanwhile.
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
    /// Checks a second of two servers, or of one with two kinds of requests; and the processor time
    /// of each, in which the client has no part.
    pub(crate) fn throughput(&mut self, name: &str, sides: [(&Running, &Requests); 2]) {
        let (plan, dice) = (self.plan, &mut self.dice);
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

/// The supervisor, which then ends all servers, and what was started beside it.
fn end_children() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.collect();
    // Should it fail: the supervisor notices that we are gone.
    let _ = Command::new("kill").args(children.split_whitespace()).status();
}

/// Over TCP, on a connection of its own.
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

/// Every request once, in their order, so that all of them are known from then on. So many unknown
/// tokens at once may be more than fit into the deadline: what was answered then is known, and the
/// rest is asked for again.
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

/// A chat of each token in its domain.
pub(crate) fn chats(tokens: &[Issued]) -> Requests {
    asking(tokens, |check| check)
}

/// A chat of each, changed.
pub(crate) fn asking<'a>(
    tokens: &'a [Issued],
    change: impl Fn(Check<'a>) -> Check<'a>,
) -> Requests {
    let check = |token: &'a Issued| change(Check::post(chat(&token.domain), &token.text));
    Requests::new(tokens.iter().map(|token| check(token).encode()))
}
