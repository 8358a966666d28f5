//! From nothing to a working token, in the steps of the documentation.

use std::sync::Arc;

use crate::support::{
    Suite,
    cli::{Cli, walk_through},
};

pub(crate) async fn a_domain_and_a_token_made_by_commands_work(suite: Arc<Suite>) {
    let world = suite.world().await;
    walk_through(&world, &Cli::of(&world), &[]).await;
}
