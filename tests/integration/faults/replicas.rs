//! One of two replicas is killed, frozen, or replaced.

use std::{sync::Arc, time::Instant};

use patgate_testing::eventually;
use serde_json::json;

use crate::support::{
    Suite,
    envoy::patient,
    fleet::status,
    load::{AllowedStatuses, FALTERING, TokenKind, WELL},
    processes::Processes,
    tokens::revoke,
};

/// Only its requests in flight can be lost; Envoy asks the other replica instead.
pub(crate) async fn one_of_two_replicas_is_killed(suite: Arc<Suite>) {
    const KILLS: usize = 5;
    let world = suite.world().await;
    let two = Processes::start(&world, 2, &json!({}), patient("10s", "10s"));
    let load = two.load(&world).await;
    for kill in 0..KILLS {
        let victim = &two.processes[kill % 2];
        load.allow(FALTERING);
        suite.stack.signal(victim, "KILL");
        load.allow(WELL);
        load.bear(load.more(WELL, 20)).await;
        load.bear(two.healthy(1)).await;
        load.bear(load.more(WELL, 20)).await;
        suite.stack.restart(victim);
        load.bear(two.healthy(2)).await;
        load.bear(load.more(WELL, 10)).await;
    }
    let lost: u64 = [TokenKind::Hot, TokenKind::Cold, TokenKind::Revoked, TokenKind::Turning]
        .map(|kind| load.count(kind, 503))
        .iter()
        .sum();
    println!(
        "{lost} lost by {KILLS} kills; retries, refused, late: {:?}",
        two.failed_tries().await
    );
    load.end("one of two replicas killed").await;
}

/// It keeps its connections and does not answer; later it continues with its old data.
pub(crate) async fn one_of_two_replicas_is_frozen(suite: Arc<Suite>) {
    let world = suite.world().await;
    let short = json!({ "PATGATE_MAX_STALENESS": "3s", "PATGATE_NEGATIVE_TTL": "1s" });
    // As shipped, ten times slower.
    let two = Processes::start(&world, 2, &short, patient("2s", "5s"));
    let load = two.load(&world).await;
    suite.stack.signal(&two.processes[0], "STOP");
    load.bear(two.healthy(1)).await;
    load.allow(AllowedStatuses { turning: &[200, 401], ..WELL });
    revoke(&world, &load.turning).await;
    let committed = Instant::now();
    let turned = AllowedStatuses { turning: &[401], ..WELL };
    load.allow_from(committed + super::STALENESS, turned);
    load.until(committed + super::STALENESS).await;
    load.bear(load.more(turned, 20)).await;
    suite.stack.signal(&two.processes[0], "CONT");
    // Including its first answers.
    assert_eq!(status(&two.replicas[0], &load.turning).await, 401);
    load.bear(two.healthy(2)).await;
    load.bear(load.more(turned, 20)).await;
    println!("retries, refused, late: {:?}", two.failed_tries().await);
    load.end("one of two replicas frozen").await;
}

/// One replica after the other is told to end and replaced, as in a rollout. No client notices.
pub(crate) async fn two_replicas_are_replaced(suite: Arc<Suite>) {
    let world = suite.world().await;
    let two = Processes::start(&world, 2, &json!({}), patient("10s", "10s"));
    let load = two.load(&world).await;
    for process in &two.processes {
        suite.stack.signal(process, "TERM");
        load.bear(two.healthy(1)).await;
        load.bear(eventually("patgate to end", async || !suite.stack.is_running(process))).await;
        // A rollout waits for readiness, not for Envoy.
        suite.stack.restart(process);
    }
    load.bear(two.healthy(2)).await;
    load.bear(load.more(WELL, 50)).await;
    println!("retries, refused, late: {:?}", two.failed_tries().await);
    load.end("two replicas replaced").await;
}
