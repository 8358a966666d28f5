//! Domains beside those that every world has.

use crate::support::World;

/// Adds a domain in which ann may do everything. With `all_models`, it sees every model of its
/// backend, and otherwise those that the test lists.
pub(crate) async fn add_domain(
    world: &World<'_>,
    id: &str,
    slug: &str,
    upstream: &str,
    all_models: bool,
) {
    let ann = world.id("ann");
    world
        .sql(&format!(
            "INSERT INTO patgate.domains (id, slug, name, enabled, upstream, all_models)
                 VALUES ('{id}', '{slug}', '{slug}', true, '{upstream}', {all_models});
             INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{id}', '{id}', 'admin');
             INSERT INTO patgate.role_operations
                 SELECT '{id}', operation FROM patgate.operations;
             INSERT INTO patgate.role_members VALUES ('{id}', '{ann}')"
        ))
        .await;
}
