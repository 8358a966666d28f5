//! Who waits for a change, where the feed is relayed, waits for each replica that may not have heard
//! of it, and for nobody else.

use std::sync::Arc;

use super::relayed;
use crate::{
    fleet::PATIENT,
    harness::Suite,
    tiers::{reader, status},
    waiting::revoke_and_wait,
};

/// The first replica hears nobody for a while; the next ones hear the first.
pub(crate) async fn who_has_just_started_is_waited_for(suite: Arc<Suite>) {
    let world = suite.world().await;
    let relayed = relayed(&world);
    let settings = [&relayed.each_ref().map(String::as_str)[..], &PATIENT].concat();
    let mut replicas = Vec::new();
    for count in 1..=4 {
        replicas.push(world.serve(&settings).await);
        let token = reader(&world).await;
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 200);
        }
        let output = revoke_and_wait(&world, &token).await;
        let said = String::from_utf8_lossy(&output.stderr);
        for replica in &replicas {
            assert_eq!(status(replica, &token).await, 401, "of {count}: {said}");
        }
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("applied by {count} replica")), "{said}");
    }
}
