//! Other major versions of Postgres, if this machine has them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use patgate_testing::{eventually, ports::free_port};
use sqlx::{Connection, PgConnection};

use super::{
    migrating::{Cluster, migrates},
    process::ServerDirectory,
};
use crate::support::{
    Suite, World,
    cli::{Cli, walk_through},
};

/// Where Debian installs them, in one directory per version.
const INSTALLED: &str = "/usr/lib/postgresql";

pub(crate) async fn other_versions_of_postgres(suite: Arc<Suite>) {
    let versions: Vec<PathBuf> = fs::read_dir(INSTALLED)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        .collect();
    if versions.is_empty() {
        let skipped = format!("skipped: no other version of Postgres in {INSTALLED}");
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{skipped}");
        println!("{skipped}");
    }
    for bin in versions {
        works_on(&suite.world().await, &bin).await;
    }
}

async fn works_on(world: &World<'_>, bin: &Path) {
    let suite = world.suite;
    let home = ServerDirectory::new();
    let port = free_port();
    // For the search for leaks.
    let server = home.postgres(suite, bin, port, &["log_statement=all".to_owned()]);
    let cluster = Cluster { port };
    // The server listens before it accepts logins.
    eventually("Postgres to be up", async || {
        PgConnection::connect(&cluster.url("postgres", "postgres")).await.is_ok()
    })
    .await;

    migrates(world, &cluster).await;
    cluster
        .sql(
            "postgres",
            "postgres",
            "CREATE ROLE server LOGIN IN ROLE patgate_serve;
             CREATE ROLE administrator LOGIN IN ROLE patgate_admin;",
        )
        .await;
    let cli = Cli::of(world).with("postgres.url", &cluster.url("administrator", "first"));
    cli.ok("backend create other --url http://127.0.0.1:1 --kind ollama");
    cli.ok("domain create acme --name Acme --upstream other --all-models");
    let settings = format!("postgres.url={}", cluster.url("server", "first"));
    walk_through(world, &cli, &[&settings]).await;
    // Postgres's own fast shutdown, which returns its shared memory.
    suite.stack.signal(&server, "INT");
    suite.stack.stop(&server);
}
