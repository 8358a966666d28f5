//! The shipped tables side by side, and the domains that they need.

use uuid::Uuid;

use crate::support::{Suite, World};

pub(crate) const CLOUD: &str = "acme.cubecloud.dev";

/// The domain of the table that serves one tenant.
pub(crate) async fn open_aigne(world: &World<'_>) -> String {
    open(world, "aigne").await
}

/// A domain in which ann may do everything.
pub(crate) async fn open(world: &World<'_>, slug: &str) -> String {
    let domain = Uuid::now_v7();
    let ann = world.id("ann");
    world
        .sql(&format!(
            "INSERT INTO patgate.domains (id, slug, name, enabled, upstream, all_models)
                 VALUES ('{domain}', '{slug}', '{slug}', true, 'model-beta', true);
             INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{domain}', '{domain}', 'admin');
             INSERT INTO patgate.role_operations
                 SELECT '{domain}', operation FROM patgate.operations;
             INSERT INTO patgate.role_members VALUES ('{domain}', '{ann}')"
        ))
        .await;
    domain.to_string()
}

pub(crate) fn tables(suite: &Suite) -> String {
    format!("apis={}", suite.shipped_tables)
}
