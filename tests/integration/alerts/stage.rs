//! Where events happen: all are prepared, all is quiet, and then they happen together.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use patgate_testing::prometheus::Prometheus;
use tokio::{sync::Barrier, time::sleep};

use super::events::Story;
use crate::support::{Replica, Suite};

/// Between two acts that cause an alert.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for an alert to fire: some seconds, as the rules are hastened, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many scrapes of each replica come before the events: more than the windows of most rules have.
const QUIET_SCRAPES: u32 = 12;
/// How long no alert has been pending or firing before the events.
const SILENCE: &str = "3s";

pub(super) struct Stage<'s> {
    pub(super) suite: &'s Suite,
    pub(super) prometheus: &'s Prometheus,
    prepared: Barrier,
    fired: Barrier,
}

impl<'s> Stage<'s> {
    /// For so many stories.
    pub(super) fn new(suite: &'s Suite, prometheus: &'s Prometheus, stories: usize) -> Self {
        let barrier = || Barrier::new(stories + 1);
        Self { suite, prometheus, prepared: barrier(), fired: barrier() }
    }

    /// Has the replicas of a story scraped.
    pub(super) fn scrape(&self, story: &Story, replicas: &[&Replica]) {
        let ports: Vec<u16> = replicas.iter().map(|replica| replica.http.port()).collect();
        self.prometheus.scrape(story.job, &ports, "/metrics");
    }

    /// A story is prepared, and waits until its event may happen.
    pub(super) async fn prepared(&self) {
        self.prepared.wait().await;
        self.prepared.wait().await;
    }

    /// Lets the events happen once all of them are prepared and no alert is even pending. Returns the
    /// time of that.
    pub(super) async fn direct(&self) -> Instant {
        self.prepared.wait().await;
        let quiet = format!(
            "min by (job) (up) == 1 and min by (job) (count_over_time(up[2m])) >= {QUIET_SCRAPES}"
        );
        let prepared = self.prometheus.jobs();
        self.prometheus
            .until("all replicas to be scraped", &format!("count({quiet}) >= {prepared}"))
            .await;
        let silence = format!("absent(max_over_time(ALERTS{{job!=\"\"}}[{SILENCE}]))");
        self.prometheus.until("silence before the events", &silence).await;
        let quiet_since = Instant::now();
        self.prepared.wait().await;
        quiet_since
    }

    /// Judges what has fired once all alerts have that should. Until then, no replica ends that a
    /// story has not ended.
    pub(super) async fn judge(&self, judge: impl Future<Output = ()>) {
        self.fired.wait().await;
        judge.await;
        self.fired.wait().await;
    }

    /// Repeats what causes the alerts of a story until they have fired, and waits for the other
    /// stories.
    pub(super) async fn until_fired(&self, story: &Story, act: impl AsyncFn()) {
        self.until_these_fired(story, story.fires, act).await;
        self.fired.wait().await;
        self.fired.wait().await;
    }

    /// The same for some of its alerts.
    pub(super) async fn until_these_fired(
        &self,
        story: &Story,
        names: &[&str],
        act: impl AsyncFn(),
    ) {
        let (job, began) = (story.job, Instant::now());
        let ever = format!(
            "group by (alertname) (max_over_time(ALERTS{{alertstate=\"firing\",job=\"{job}\"}}[1h]))"
        );
        loop {
            for _ in 0..5 {
                act().await;
                sleep(PAUSE).await;
            }
            let mut fired = self.prometheus.query(&ever).await.unwrap();
            let fired: BTreeSet<String> =
                fired.iter_mut().filter_map(|sample| sample.labels.remove("alertname")).collect();
            if names.iter().all(|name| fired.contains(*name)) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{job}: of {names:?}, only {fired:?} fired");
        }
    }
}
