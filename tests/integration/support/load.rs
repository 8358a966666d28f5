//! Requests through Envoy without a pause, each answer of which is judged at once.
//!
//! A test states which answers are legal for tokens of each kind, and changes this as a fault
//! passes. An answer is legal if it was legal at any moment between its sending and its arrival. An
//! illegal one fails the test.

mod allowed;
mod ledger;
mod tokens;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use patgate_testing::{eventually, http::Session, wire::PATIENCE};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    TokenKind::{Cold, Forged, Hot, Revoked, Turning},
    tokens::{LoadTokens, TOKENS, forged},
};
use crate::support::{
    Replica, Token, World,
    fleet::{MODELS, answer},
};

pub(crate) use self::{
    allowed::{AllowedStatuses, CHANGING, FALTERING, TokenKind, UNREAD, WELL},
    ledger::Ledger,
};

/// Each with the moment from which it applies, in order.
type AllowedFrom = Arc<Mutex<Vec<(Instant, AllowedStatuses)>>>;

/// How often each client sends, unless an answer takes longer.
const PACE: [(TokenKind, usize, Duration); 5] = [
    (Hot, 4, Duration::from_millis(20)),
    (Cold, 2, Duration::from_millis(40)),
    (Revoked, 2, Duration::from_millis(40)),
    (Turning, 1, Duration::from_millis(20)),
    (Forged, 1, Duration::from_millis(40)),
];
/// Enough cold tokens for most tests.
pub(crate) const LASTING: Duration = Duration::from_secs(80);
/// For tests that stop and start servers: the supervisor handles one request at a time, for all
/// tests.
pub(crate) const LASTING_LONG: Duration = Duration::from_secs(200);
/// For a connection that ended without an answer.
pub(crate) const NOTHING: u16 = 0;

pub(crate) struct Load {
    allowed_from: AllowedFrom,
    answers: Ledger,
    illegal: watch::Receiver<Option<String>>,
    pub(crate) hot: Vec<Token>,
    pub(crate) revoked: Vec<Token>,
    pub(crate) turning: Token,
    /// In the order of their use.
    pub(crate) cold: Vec<Token>,
    clients: JoinSet<()>,
}

/// The state that the clients of one kind share.
struct Client {
    kind: TokenKind,
    port: u16,
    bearers: Vec<String>,
    next: AtomicUsize,
    allowed_from: AllowedFrom,
    /// Of this load, and of all loads.
    ledgers: [Ledger; 2],
    illegal: watch::Sender<Option<String>>,
}

impl Load {
    /// Sends through the Envoy at that port, for a test of this duration, and returns when tokens
    /// of each kind were answered.
    pub(crate) async fn lasting(long: Duration, world: &World<'_>, envoy: u16) -> Self {
        let colds = PACE.iter().filter(|(kind, ..)| *kind == Cold);
        let colds: f64 =
            colds.map(|(_, count, pace)| *count as f64 * long.div_duration_f64(*pace)).sum();
        let LoadTokens { hot, cold, revoked, turning } =
            LoadTokens::mint(world, colds as usize).await;
        let forged = forged(world.suite);
        let allowed_from = AllowedFrom::new(Mutex::new(vec![(Instant::now(), WELL)]));
        let ledgers = [Ledger::default(), world.suite.answers.clone()];
        let (report, illegal) = watch::channel(None);
        let mut clients = JoinSet::new();
        for (kind, count, pace) in PACE {
            let tokens = match kind {
                Hot => hot.as_slice(),
                Cold => &cold,
                Revoked => &revoked,
                Turning => std::slice::from_ref(&turning),
                Forged => &forged,
            };
            let client = Arc::new(Client {
                kind,
                port: envoy,
                bearers: tokens.iter().map(Token::bearer).collect(),
                next: AtomicUsize::new(0),
                allowed_from: Arc::clone(&allowed_from),
                ledgers: ledgers.clone(),
                illegal: report.clone(),
            });
            for _ in 0..count {
                clients.spawn(Arc::clone(&client).run(pace));
            }
        }
        let [answers, _] = ledgers;
        let load = Self { allowed_from, answers, illegal, hot, revoked, turning, cold, clients };
        load.bear(load.more(WELL, TOKENS as u64)).await;
        load
    }

    /// Makes sure that a replica has every token cached that is used repeatedly.
    pub(crate) async fn known_to(&self, replica: &Replica) {
        let allowed = self.allowed_from.lock().unwrap().last().unwrap().1;
        let turning = std::slice::from_ref(&self.turning);
        for (kind, tokens) in [(Hot, &self.hot[..]), (Revoked, &self.revoked), (Turning, turning)] {
            for token in tokens {
                let status = self.bear(answer(replica, token, MODELS)).await;
                assert!(allowed.allows(kind, status), "{status} to a {kind:?} token by a newcomer");
            }
        }
    }

    /// Sets what may be answered from now on.
    pub(crate) fn allow(&self, allowed: AllowedStatuses) -> Instant {
        let now = Instant::now();
        self.allow_from(now, allowed);
        now
    }

    /// Sets what may be answered from some moment on, until the next change. Rules that would apply
    /// later are dropped.
    pub(crate) fn allow_from(&self, from: Instant, allowed: AllowedStatuses) {
        let mut allowed_from = self.allowed_from.lock().unwrap();
        allowed_from.retain(|(other, _)| *other < from);
        allowed_from.push((from, allowed));
    }

    /// Waits for `happens`, and panics if an illegal answer comes first.
    pub(crate) async fn bear<T>(&self, happens: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            answer = told(&self.illegal) => panic!("{answer}"),
            done = happens => done,
        }
    }

    /// Waits until there is an illegal answer, and describes it.
    pub(crate) async fn illegal(&self) -> String {
        told(&self.illegal).await
    }

    /// Waits until each kind was answered this many more times, as permitted.
    pub(crate) async fn more(&self, allowed: AllowedStatuses, times: u64) {
        for (kind, _, _) in PACE {
            let count = || self.answers.count(kind, |status| allowed.allows(kind, status));
            let enough = count() + times;
            eventually(&format!("{times} answers to {kind:?} tokens"), async || count() >= enough)
                .await;
        }
    }

    /// Continues until that moment.
    pub(crate) async fn until(&self, moment: Instant) {
        self.bear(tokio::time::sleep_until(moment.into())).await;
    }

    /// How often a kind got this status.
    pub(crate) fn count(&self, kind: TokenKind, status: u16) -> u64 {
        self.answers.count(kind, |answered| answered == status)
    }

    /// Ends the requests, and prints the answers.
    pub(crate) async fn end(mut self, row: &str) {
        self.clients.shutdown().await;
        if let Some(answer) = &*self.illegal.borrow() {
            panic!("{answer}");
        }
        println!("{row}: {}", self.answers);
    }
}

impl Client {
    async fn run(self: Arc<Self>, pace: Duration) {
        let mut session = Session::new(self.port);
        let mut pace = interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let turn = self.next.fetch_add(1, Relaxed);
            let Some(bearer) = self.bearer(turn) else {
                return self.tell("no cold tokens are left".to_owned());
            };
            self.judge(&TimedAnswer::to(&mut session, MODELS, bearer).await);
        }
    }

    fn bearer(&self, turn: usize) -> Option<&String> {
        let turn = if self.kind == Cold { turn } else { turn % self.bearers.len() };
        self.bearers.get(turn)
    }

    fn judge(&self, answer: &TimedAnswer) {
        let TimedAnswer { status, ref problem, sent, arrived } = *answer;
        let kind = self.kind;
        let (legal, allowed, since) = {
            let allowed_from = self.allowed_from.lock().unwrap();
            let ends = allowed_from.iter().skip(1).map(|(from, _)| Some(*from)).chain([None]);
            let in_force = allowed_from
                .iter()
                .zip(ends)
                .filter(|((from, _), end)| *from <= arrived && end.is_none_or(|end| sent < end));
            let legal = in_force.clone().any(|((_, allowed), _)| allowed.allows(kind, status));
            let (from, allowed) = in_force.last().map_or(allowed_from[0], |(allowed, _)| *allowed);
            (legal, allowed, sent.saturating_duration_since(from))
        };
        for ledger in &self.ledgers {
            ledger.add(kind, status, !legal && status == 200);
        }
        if !legal {
            self.tell(format!(
                "{status} {problem} to a {kind:?} token, sent {since:?} into {allowed:?}, which took \
                 {:?}",
                arrived - sent
            ));
        }
    }

    fn tell(&self, what: String) {
        tell(&self.illegal, what);
    }
}

/// Only the first report counts.
pub(crate) fn tell(report: &watch::Sender<Option<String>>, what: String) {
    report.send_if_modified(|told| {
        let first = told.is_none();
        told.get_or_insert(what);
        first
    });
}

/// Waits for the first report.
pub(crate) async fn told(illegal: &watch::Receiver<Option<String>>) -> String {
    match illegal.clone().wait_for(Option::is_some).await {
        Ok(answer) => answer.clone().unwrap(),
        Err(_) => "every client has ended".to_owned(),
    }
}

/// The answer to a request, and when it was in transit.
pub(crate) struct TimedAnswer {
    pub(crate) status: u16,
    pub(crate) problem: String,
    pub(crate) sent: Instant,
    pub(crate) arrived: Instant,
}

impl TimedAnswer {
    pub(crate) async fn to(session: &mut Session, path: &str, bearer: &str) -> Self {
        let sent = Instant::now();
        let answer = timeout(PATIENCE, session.get(path, bearer)).await;
        let (status, problem) = match answer {
            Ok(Ok(status)) => (status, String::new()),
            Ok(Err(error)) => (NOTHING, error.to_string()),
            Err(late) => (NOTHING, late.to_string()),
        };
        Self { status, problem, sent, arrived: Instant::now() }
    }
}
