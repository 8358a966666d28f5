//! Finds the primary among several servers, and follows it after a failover.
//!
//! A connection goes to the server that was last known as the primary, and is used only if that is
//! still the primary. If not, or if it does not answer soon, all servers are asked at once. One that
//! was left behind by a failover may still answer as a primary: of several, the one on the latest
//! timeline is chosen, and one on an earlier timeline than was ever seen is never chosen.
//!
//! This only chooses where to ask. Whether an answer is used is the rule of `freshness`.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt as _, stream::FuturesUnordered};
use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Address, ConnectError, Servers,
    connect::{Connection, Target},
};
use crate::clock::{self, Tick};

/// Time limit for one of several servers: its connection, TLS, authentication and first answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the known primary has before the others are asked as well. A lookup waits for all of it
/// for `postgres.query_timeout` at most.
const HEDGE: Duration = Duration::from_millis(250);
/// How long to wait, after a primary has answered, for servers that have not: one of them may be on a
/// later timeline.
const GRACE: Duration = Duration::from_millis(250);
/// How often a server that is no primary is asked again while others have not answered: it may be
/// promoted meanwhile. Every replica asks, and the server has other things to do then.
const AGAIN: Duration = Duration::from_secs(1);
/// For this long, the result of a search that found none stands, for the same reason; or until a later
/// timeline is seen, by whichever setting: then there is a primary, which checks already need.
const BETWEEN_SEARCHES: Duration = Duration::from_secs(1);

/// The state of a server. Every login may read it, also before `patgate migrate`.
const STANDING: &str = "
    SELECT pg_is_in_recovery() AS standby, system_identifier::int8 AS system,
           CASE WHEN pg_is_in_recovery() THEN 0 ELSE
               ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))
                   ::bit(32)::int8 END AS timeline
    FROM pg_control_system()";

/// What one address has found out about its servers.
#[derive(Default)]
pub(super) struct Known {
    /// The server that was last found to be the primary, by its name.
    primary: Option<String>,
    /// The cluster that all servers belong to.
    system: Option<i64>,
}

/// The latest timeline of each cluster, by system identifier. Clones share it.
#[derive(Clone, Default)]
pub struct Timelines(Arc<Mutex<HashMap<i64, i64>>>);

impl Timelines {
    /// Records a timeline, and returns whether it is the latest that was seen.
    fn admit(&self, system: i64, timeline: i64) -> bool {
        let mut latest = self.latest();
        let latest = latest.entry(system).or_default();
        *latest = timeline.max(*latest);
        *latest == timeline
    }

    /// Increases with each later timeline.
    fn progress(&self) -> i64 {
        self.latest().values().sum()
    }

    // No code that can panic runs under this lock.
    fn latest(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A search that runs or has ended. Callers share one.
pub(super) struct Search {
    servers: Servers,
    /// The timelines when it began.
    progress: i64,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// When a search ended, and the place of the primary that it found.
type Outcome = (Tick, Result<usize, ConnectError>);

/// A server that is the primary, as it says itself.
struct Standing {
    system: i64,
    timeline: i64,
}

impl Address {
    /// Connects to the primary among these servers.
    pub(super) async fn connect_to(&self, servers: &Servers) -> Result<Connection, ConnectError> {
        let generation = self.generation();
        if let [only] = servers.options() {
            let target = Target::new(self.key(), only);
            let connection = target.connect().await?;
            return Ok(Connection::new(connection, target, self.clone(), generation));
        }
        let mut entered = None;
        if let Some(index) = self.place_of_primary(servers) {
            let entering = self.enter(servers, index);
            tokio::pin!(entering);
            match timeout(HEDGE, &mut entering).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(_)) => entered = Some(index),
                Err(_) => {
                    let found = self.find(servers);
                    tokio::pin!(found);
                    tokio::select! {
                        connection = &mut entering => match connection {
                            Ok(connection) => return Ok(connection),
                            Err(_) => entered = Some(index),
                        },
                        found = &mut found => match found? {
                            found if found == index => return entering.await,
                            found => return self.enter(servers, found).await,
                        },
                    }
                }
            }
        }
        // Meanwhile, another caller may have found it.
        let index = match self.place_of_primary(servers) {
            Some(index) if entered.is_some_and(|entered| entered != index) => index,
            _ => self.find(servers).await?,
        };
        self.enter(servers, index).await
    }

    /// Connects to one of several servers, and makes sure that it is the primary.
    async fn enter(&self, servers: &Servers, index: usize) -> Result<Connection, ConnectError> {
        let generation = self.generation();
        let (connection, target, standing) = self.meet(servers, index).await?;
        self.admit(&target, &standing)?;
        Ok(Connection::new(connection, target, self.clone(), generation))
    }

    async fn meet(
        &self,
        servers: &Servers,
        index: usize,
    ) -> Result<(PgConnection, Target, Standing), ConnectError> {
        // Every index is one of these servers.
        let options = servers.options().get(index).cloned().unwrap_or_else(PgConnectOptions::new);
        let target = Target::new(self.key(), &options);
        // Boxed, because there are many ways to meet a server.
        let meeting = Box::pin(async {
            let mut connection = target.connect().await?;
            let read = async {
                let row = connection.fetch_one(sqlx::raw_sql(STANDING)).await?;
                Ok((
                    row.try_get::<bool, _>("standby")?,
                    Standing { system: row.try_get("system")?, timeline: row.try_get("timeline")? },
                ))
            };
            match read.await.map_err(|error| target.unreachable(&error))? {
                (true, _) => Err(target.unreachable_for("it is a standby".to_owned())),
                (false, standing) => Ok((connection, standing)),
            }
        });
        let met = timeout(PATIENCE, meeting).await;
        let (connection, standing) =
            met.unwrap_or_else(|_| Err(target.unreachable_for("no answer".to_owned())))?;
        Ok((connection, target, standing))
    }

    /// Refuses a server that is left behind, or of another cluster.
    fn admit(&self, target: &Target, standing: &Standing) -> Result<(), ConnectError> {
        let Standing { system, timeline } = *standing;
        if self.known().system.is_some_and(|known| known != system) {
            return Err(target.unreachable_for(format!(
                "it belongs to another cluster than the other servers (system identifier {system})"
            )));
        }
        if !self.timelines().admit(system, timeline) {
            return Err(target.unreachable_for(format!(
                "it is on timeline {timeline}, which a later primary has left behind"
            )));
        }
        Ok(())
    }

    /// Where the known primary is among these servers.
    fn place_of_primary(&self, servers: &Servers) -> Option<usize> {
        let known = self.known();
        let primary = known.primary.as_ref()?;
        (0..servers.options().len()).find(|index| servers.name(*index) == *primary)
    }

    /// Asks all servers, and returns the place of the primary. Callers at the same time share one
    /// search, which continues if they give up.
    ///
    /// # Errors
    ///
    /// If none is a primary that can be used; says what each of them is.
    pub(crate) async fn find(&self, servers: &Servers) -> Result<usize, ConnectError> {
        let mut outcome = self.search(servers);
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.ok().and_then(|ended| ended.clone()) {
            Some((_, outcome)) => outcome,
            // It can only have panicked.
            None => Err(self.none_of("the search for the primary ended".to_owned(), false)),
        }
    }

    fn search(&self, servers: &Servers) -> watch::Receiver<Option<Outcome>> {
        let progress = self.timelines().progress();
        let mut running = self.running_search();
        if let Some(search) = running.as_ref().filter(|search| search.servers == *servers) {
            let usable = match &*search.outcome.borrow() {
                None => search.outcome.has_changed().is_ok(),
                Some((at, outcome)) => {
                    outcome.is_err()
                        && search.progress == progress
                        && clock::now().since(*at) < BETWEEN_SEARCHES
                }
            };
            if usable {
                return search.outcome.clone();
            }
        }
        let (report, outcome) = watch::channel(None);
        *running = Some(Search { servers: servers.clone(), progress, outcome: outcome.clone() });
        let (address, servers) = (self.clone(), servers.clone());
        tokio::spawn(async move {
            let found = address.ask_all(&servers).await;
            report.send_replace(Some((clock::now(), found)));
        });
        outcome
    }

    async fn ask_all(&self, servers: &Servers) -> Result<usize, ConnectError> {
        let ask = async |index: usize, wait: Duration| {
            sleep(wait).await;
            let met = self.meet(servers, index).await;
            (index, wait.is_zero(), met.map(|(_, target, standing)| (target, standing)))
        };
        let count = servers.options().len();
        let mut asked: FuturesUnordered<_> =
            (0..count).map(|index| ask(index, Duration::ZERO)).collect();
        let mut unanswered = count;
        let mut reasons = vec![None; count];
        let mut best: Option<(Standing, usize)> = None;
        let mut mixed = false;
        let grace = pending().left_future();
        tokio::pin!(grace);
        while unanswered > 0 {
            let (index, first, met) = tokio::select! {
                () = &mut grace => break,
                Some(next) = asked.next() => next,
            };
            unanswered -= usize::from(first);
            let met = met.and_then(|(target, standing)| {
                self.admit(&target, &standing)?;
                match &best {
                    // Not known which of them is meant.
                    Some((other, _)) if other.system != standing.system => {
                        mixed = true;
                        let reason = "it is a primary of another cluster than another server";
                        Err(target.unreachable_for(reason.to_owned()))
                    }
                    _ => Ok(standing),
                }
            });
            match met {
                Ok(standing) => {
                    if best.is_none() {
                        grace.set(sleep(GRACE).right_future());
                    }
                    // Of two on one timeline, the one that is known, else the first in the URL.
                    let rank = |standing: &Standing, index: usize| {
                        let known = self.place_of_primary(servers) == Some(index);
                        (standing.timeline, known, std::cmp::Reverse(index))
                    };
                    if best
                        .as_ref()
                        .is_none_or(|(other, at)| rank(other, *at) < rank(&standing, index))
                    {
                        best = Some((standing, index));
                    }
                }
                Err(error) => {
                    if let Some(reason) = reasons.get_mut(index) {
                        *reason = Some(error);
                    }
                    asked.push(ask(index, AGAIN));
                }
            }
        }
        match best.filter(|_| !mixed) {
            Some((standing, index)) => {
                self.found(servers, index, &standing);
                Ok(index)
            }
            None => {
                let refused = reasons.iter().flatten().any(|error| error.login_refused);
                let reasons =
                    reasons.iter().flatten().map(|ConnectError { server, reason, .. }| {
                        format!("{}: {reason}", server.trim_start_matches(" at "))
                    });
                let reasons: Vec<_> = reasons.collect();
                Err(self.none_of(reasons.join("; "), refused))
            }
        }
    }

    fn none_of(&self, reasons: String, login_refused: bool) -> ConnectError {
        let reason = format!("none of its servers is a primary that can be used: {reasons}");
        ConnectError { key: self.key(), server: String::new(), reason, login_refused }
    }

    /// Notes where the primary is. If it was elsewhere, connections that lead there are replaced.
    fn found(&self, servers: &Servers, index: usize, standing: &Standing) {
        let name = servers.name(index);
        let mut known = self.known();
        known.system = Some(standing.system);
        let before = known.primary.replace(name.clone());
        drop(known);
        if before.is_some_and(|before| before != name) {
            self.replace_connections();
            self.count_move();
            tracing::warn!(
                setting = self.key(),
                server = name,
                timeline = standing.timeline,
                "another server is the primary now"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeline_is_admitted_after_a_later_one_of_its_cluster() {
        let timelines = Timelines::default();
        let elsewhere = timelines.clone();
        for (system, timeline, admitted, later) in [
            (1, 2, true, true),
            (1, 2, true, false),
            (1, 1, false, false),
            (2, 1, true, true),
            (1, 3, true, true),
            (1, 2, false, false),
        ] {
            let before = timelines.progress();
            assert_eq!(elsewhere.admit(system, timeline), admitted, "{system} {timeline}");
            assert_eq!(timelines.progress() > before, later, "{system} {timeline}");
        }
        assert!(!timelines.admit(1, 2), "clones share what they know");
    }
}
