//! Tokens that are changed and used all the time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use patgate_testing::http::Session;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{dice::Dice, fault_periods::FaultPeriods, history::History};
use crate::support::{
    World,
    load::{Ledger, TimedAnswer, TokenKind, tell, told},
    withdrawals::{self, Subject, WITHDRAWALS, keep},
};

/// How long the clients of each token pause between two requests: some tokens are hot, and some are
/// unused until they are old.
const PAUSES: [(usize, u64, u64); 3] = [(4, 20, 30), (8, 80, 120), (4, 10, 4000)];
/// Changes come in quick succession, or so slowly that the last one certainly took effect.
const QUICK: (u64, u64) = (50, 1000);
const SLOW: (u64, u64) = (3000, 9000);

/// One token, with its administrator and its users.
struct Case {
    subject: Subject,
    history: Mutex<History>,
    fault_periods: Arc<FaultPeriods>,
    /// Of this test, and of all tests.
    ledgers: [Ledger; 2],
    illegal: watch::Sender<Option<String>>,
}

pub(super) struct Subjects {
    cases: Vec<Arc<Case>>,
    pub(super) answers: Ledger,
    illegal: watch::Receiver<Option<String>>,
    tasks: JoinSet<()>,
}

impl Subjects {
    pub(super) async fn start(
        world: &World<'_>,
        envoy: u16,
        fault_periods: &Arc<FaultPeriods>,
        seed: u64,
    ) -> Self {
        let answers = Ledger::default();
        let (report, illegal) = watch::channel(None);
        let mut cases = Vec::new();
        let mut pauses = Vec::new();
        for (count, shortest, longest) in PAUSES {
            for _ in 0..count {
                cases.push(Arc::new(Case {
                    subject: withdrawals::subject(world).await,
                    history: Mutex::new(History::new()),
                    fault_periods: Arc::clone(fault_periods),
                    ledgers: [answers.clone(), world.suite.answers.clone()],
                    illegal: report.clone(),
                }));
                pauses.push((shortest, longest));
            }
        }
        keep(world).await;
        // Without any proxy.
        let url = world.url("postgres", world.port);
        let mut tasks = JoinSet::new();
        for (at, (case, pauses)) in cases.iter().zip(pauses).enumerate() {
            let dice = |of: u64| Dice::new(seed ^ ((2 * at as u64 + of) << 32));
            tasks.spawn(Arc::clone(case).administer(url.clone(), dice(1)));
            tasks.spawn(Arc::clone(case).ask(envoy, pauses, dice(2)));
        }
        Self { cases, answers, illegal, tasks }
    }

    /// Waits until there is an illegal answer, and describes it.
    pub(super) async fn illegal(&self) -> String {
        told(&self.illegal).await
    }

    pub(super) fn changes(&self) -> usize {
        self.cases.iter().map(|case| case.history.lock().unwrap().changes()).sum()
    }

    /// Ends all changes and requests. Returns how long changes in fair weather took, for tokens
    /// that are used often enough to show it.
    pub(super) async fn end(
        mut self,
        fault_periods: &FaultPeriods,
        visible: Duration,
    ) -> Vec<Duration> {
        self.tasks.shutdown().await;
        let often = PAUSES[0].0 + PAUSES[1].0;
        let mut took = Vec::new();
        for case in &self.cases[..often] {
            took.extend(case.history.lock().unwrap().obeyed(fault_periods, visible));
        }
        took
    }
}

impl Case {
    async fn ask(self: Arc<Self>, envoy: u16, (shortest, longest): (u64, u64), mut dice: Dice) {
        let Subject { token, path, .. } = &self.subject;
        let bearer = token.bearer();
        let mut session = Session::new(envoy);
        loop {
            sleep(dice.between(shortest, longest)).await;
            self.judge(&TimedAnswer::to(&mut session, path, &bearer).await);
        }
    }

    fn judge(&self, answer: &TimedAnswer) {
        let TimedAnswer { status, ref problem, sent, arrived } = *answer;
        let mut history = self.history.lock().unwrap();
        let legal = if status == 503 {
            self.fault_periods.excuses(sent, arrived)
        } else {
            history.judge(status, sent, arrived)
        };
        for ledger in &self.ledgers {
            ledger.add(TokenKind::Turning, status, !legal && status == 200);
        }
        if !legal {
            let sent = self.fault_periods.at(sent);
            let arrived = self.fault_periods.at(arrived);
            let history = history.tell(&self.fault_periods);
            tell(
                &self.illegal,
                format!(
                    "{status} {problem} to token {}, sent at {sent:.3} s, arrived at {arrived:.3} \
                     s; its history:\n{history}",
                    self.subject.token.id
                ),
            );
        }
    }

    async fn administer(self: Arc<Self>, url: String, mut dice: Dice) {
        let mut connection = None;
        loop {
            let (shortest, longest) = dice.one_of(&[QUICK, SLOW]);
            sleep(dice.between(shortest, longest)).await;
            let (way, takes) = self.history.lock().unwrap().begin(&mut dice);
            let [take, give] = WITHDRAWALS[way].2(&self.subject);
            self.make(&url, &mut connection, if takes { take } else { give }).await;
            self.history.lock().unwrap().done();
        }
    }

    /// Repeats the change until it is certainly made. Postgres may be down.
    async fn make(&self, url: &str, connection: &mut Option<PgConnection>, sql: String) {
        for attempt in 0.. {
            let made = async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => PgConnection::connect(url).await?,
                };
                sqlx::raw_sql(AssertSqlSafe(sql.as_str())).execute(&mut open).await?;
                *connection = Some(open);
                Ok(())
            };
            let code = match made.await {
                Ok(()) => return,
                Err(sqlx::Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
                Err(_) => String::new(),
            };
            match code.as_str() {
                // It was made; only the confirmation was lost.
                "23505" if attempt > 0 => return,
                // Shutting down, starting, or not running.
                "" | "57P01" | "57P02" | "57P03" => sleep(Duration::from_millis(50)).await,
                _ => return tell(&self.illegal, format!("{code}: {sql}")),
            }
        }
    }
}
