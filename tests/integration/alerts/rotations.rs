//! Routine rotations of the key ring under load: no alert fires, not even one that would be pending.
//! Then a stranger writes to Redis, and the alert on that does fire.

use std::{fs, sync::Arc, time::Duration};

use patgate_testing::prometheus::Prometheus;
use tokio::time::sleep;

use super::{files, fired_since, pauses};
use crate::{
    live::rotation::{Feed, Rotation},
    support::Suite,
};

const FLEETS: [(&str, usize, Feed); 3] = [
    ("patgate-two", 2, Feed::Polled),
    ("patgate-three", 3, Feed::Polled),
    ("patgate-relayed", 3, Feed::Relayed),
];

pub(crate) async fn of_the_key_ring_fire_none(suite: Arc<Suite>) {
    let folder = suite.dir.path().join("rotations");
    fs::create_dir(&folder).unwrap();
    let prometheus = Prometheus::start(&suite.stack, &folder, &files::hastened_rules()).await;
    for (job, size, feed) in FLEETS {
        let world = suite.world().await;
        let pauses = pauses::Pauses::watch(&world);
        let mut rotation = Rotation::prepare(&world, size, feed).await;
        prometheus.scrape(job, &rotation.ports(), "/metrics");
        scraped(&prometheus, job, size).await;
        let since = std::time::Instant::now();
        rotation
            .run(|rotation, newcomer| {
                let ports = [rotation.ports(), vec![newcomer]].concat();
                prometheus.scrape(job, &ports, "/metrics");
            })
            .await;
        scraped(&prometheus, job, size + 1).await;
        // As long as the windows of the alerts on one event.
        sleep(Duration::from_secs(5)).await;
        let mut fired = fired_since(&prometheus, since).await.remove(job).unwrap_or_default();
        println!("{job}: refused {:?}, fired {fired:?}", rotation.refused().await);
        if pauses.seen() {
            fired.retain(|name| !pauses::ALERTS.contains(&name.as_str()));
        }
        assert!(fired.is_empty(), "{job}: {fired:?}");
        rotation.forge_an_entry().await;
        let alert = format!(
            "ALERTS{{alertname=\"PatgateSealsRefused\",alertstate=\"firing\",job=\"{job}\"}}"
        );
        prometheus.until("the alert on a forged entry", &alert).await;
        prometheus.scrape(job, &[], "/metrics");
    }
    suite.stack.stop(&prometheus.server);
}

/// Waits until each replica was scraped some times.
async fn scraped(prometheus: &Prometheus, job: &str, replicas: usize) {
    let enough = format!("count(count_over_time(up{{job=\"{job}\"}}[2m]) >= 3) >= {replicas}");
    prometheus.until("all replicas to be scraped", &enough).await;
}
