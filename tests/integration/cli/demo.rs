//! From nothing to a token that works, the way the documentation walks.

use std::sync::Arc;

use crate::support::{
    Suite,
    cli::{Cli, walk_through},
};

pub(crate) async fn the_demo(suite: Arc<Suite>) {
    let world = suite.world().await;
    walk_through(&world, &Cli::of(&world), &[]).await;
}
