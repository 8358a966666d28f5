//! A fleet on which no alert must fire, with all that can be switched on, and some traffic.

use std::{sync::Arc, time::Duration};

use patgate_testing::prometheus::Prometheus;
use tokio::{task::JoinHandle, time::sleep};

use super::files;
use crate::support::{
    Replica, Suite,
    decision_log::file,
    fleet::{Fleet, MODELS, answer},
    relay::{relayed, the_leader},
    tls_files::Files,
    tokens::reader,
};

/// As the rules name it.
pub(super) const JOB: &str = "patgate";

pub(super) struct Healthy {
    _fleet: Arc<Fleet>,
    /// Has a certificate. It is asked for metrics only.
    _encrypted: Replica,
    traffic: JoinHandle<()>,
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.traffic.abort();
    }
}

impl Healthy {
    pub(super) async fn start(suite: &Suite, prometheus: &Prometheus) -> Self {
        let world = suite.world().await;
        let log = format!("decision_log.to={}", file(&world, "healthy").display());
        let settings = relayed(&world);
        let more = ["canary.every=500ms", "decision_log.sample_allows=100%", &log];
        let settings = [&settings.each_ref().map(String::as_str)[..], &more].concat();
        let fleet = Arc::new(Fleet::of(&world, 2, &settings).await);
        the_leader(&fleet).await;
        let encryption = Files::new(&world).settings();
        let encrypted = [&settings[..], &[&encryption[0], &encryption[1]]].concat();
        let encrypted = world.serve(&encrypted).await;
        let replicas = fleet.0.iter().map(AsRef::as_ref).chain([&encrypted]);
        let ports: Vec<u16> = replicas.map(|replica| replica.http.port()).collect();
        prometheus.scrape(JOB, &ports, "/metrics");
        // Allows from memory, and from Postgres the first time; and some denials.
        let mut tokens = Vec::new();
        for _ in 0..20 {
            tokens.push(reader(&world).await);
        }
        let asked = Arc::clone(&fleet);
        let traffic = tokio::spawn(async move {
            for token in tokens.iter().cycle() {
                for replica in &asked.0 {
                    assert_eq!(answer(replica, token, MODELS).await, 200);
                    assert_eq!(answer(replica, token, "/proxy/beta/v1/models").await, 403);
                }
                sleep(Duration::from_millis(25)).await;
            }
        });
        Self { _fleet: fleet, _encrypted: encrypted, traffic }
    }

    /// Every query of the dashboard and of the runbook.
    pub(super) async fn answers_every_query(&self, prometheus: &Prometheus) {
        for (title, query) in files::dashboard_queries(JOB) {
            let found = prometheus.query(&query).await.unwrap_or_else(|e| panic!("{title}: {e}"));
            let has_data = found.iter().any(|sample| !sample.value.is_nan());
            assert!(has_data, "{title}: no data for {query}: {found:?}");
        }
        for query in files::runbook_queries(JOB) {
            let found = prometheus.query(&query).await.unwrap_or_else(|e| panic!("{e}"));
            assert!(!found.is_empty(), "runbook: no data for {query}");
        }
        assert!(!self.traffic.is_finished(), "a request was not answered as it should be");
    }
}
