//! What every measurement stands on: the servers, how often to ask, and where figures go.

use std::time::Duration;

use crate::{
    grpc::{Connection, Pace, Requests, Tally},
    report::Report,
    requests,
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

/// How thoroughly.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Of one side of one round.
    pub(crate) time: Duration,
    /// With ten million tokens, too.
    pub(crate) large: bool,
}

impl Plan {
    /// `BENCH_QUICK=1` tries the machinery; its figures mean nothing. `BENCH_ROUNDS` sets the rest.
    pub(crate) fn chosen(large: bool) -> Self {
        let quick = std::env::var("BENCH_QUICK").is_ok_and(|quick| !quick.is_empty());
        let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
        Self {
            rounds: rounds.unwrap_or(if quick { 3 } else { 9 }),
            time: Duration::from_millis(if quick { 300 } else { 1500 }),
            large,
        }
    }

    /// Rounds in which each side comes first in turn, so that neither gains by a machine that
    /// gets slower or faster meanwhile.
    pub(crate) fn alternate<T>(&self, mut side: impl FnMut(usize) -> T) -> Vec<(T, T)> {
        let both = |round: usize| {
            if round.is_multiple_of(2) {
                let first = side(0);
                (first, side(1))
            } else {
                let second = side(1);
                (side(0), second)
            }
        };
        (0..self.rounds).map(both).collect()
    }
}

impl Bench {
    /// Throughput in checks a second of two servers, or of one with two kinds of requests.
    pub(crate) fn throughput(&mut self, name: &str, sides: [(&Running, &Requests); 2]) {
        let (plan, dice) = (self.plan, &mut self.dice);
        let rounds = plan.alternate(|side| {
            let (running, requests) = sides[side];
            run(running, plan.time, requests, MANY, dice).rate()
        });
        self.report.ratio(name, rounds);
    }
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

/// Every request once, in their order, so that all of them are known from then on.
pub(crate) fn ask_all(running: &Running, requests: &Requests) {
    let mut numbers = 0..requests.len();
    let connection = Connection::open(&running.tcp());
    let run = connection
        .and_then(|mut connection| connection.run(requests, Pace::Closed(MANY), || numbers.next()));
    run.unwrap_or_else(|error| panic!("{}: {error}", running.server.id));
}

/// A chat of each token in its domain.
pub(crate) fn chats(tokens: &[Issued]) -> Requests {
    let chat = |token: &Issued| requests::check(&requests::chat(&token.domain), &token.text, 0);
    Requests::new(tokens.iter().map(chat))
}
