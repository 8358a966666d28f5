//! The shipped tables side by side, and the domains that they need.

use uuid::Uuid;

use crate::support::{Suite, World, domains::add_domain};

pub(crate) const CLOUD: &str = "acme.cubecloud.dev";

/// Opens the domain of the table that serves one tenant.
pub(crate) async fn open_aigne(world: &World<'_>) -> String {
    open(world, "aigne").await
}

/// Makes a domain in which ann may do everything.
pub(crate) async fn open(world: &World<'_>, slug: &str) -> String {
    let id = Uuid::now_v7().to_string();
    add_domain(world, &id, slug, "model-beta", true).await;
    id
}

pub(crate) fn tables(suite: &Suite) -> String {
    format!("apis={}", suite.shipped_tables)
}
