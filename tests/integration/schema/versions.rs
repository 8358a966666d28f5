//! Which schema versions a release accepts, and what it says about the others.

use std::sync::Arc;

use patgate::{app::App, postgres::SCHEMA};

use crate::support::{Suite, World, cli::Cli, value};

/// Starts on a database, with the library and with the program, and returns the result.
async fn start(world: &World<'_>, database: &str) -> Result<(), String> {
    let url = world.suite.postgres_url("server", database);
    let built = App::build(&world.config(&[&format!("postgres.url={url}")])).await;
    built.map(drop).map_err(|error| error.to_string())
}

fn serve<'s>(world: &World<'s>, database: &str) -> Cli<'s> {
    Cli::of(world)
        .with("listen.grpc", "127.0.0.1:0")
        .with("listen.http", "127.0.0.1:0")
        .with("start.require", "postgres")
        .with("postgres.url", &world.suite.postgres_url("server", database))
}

async fn refused(world: &World<'_>, database: &str, reason: &str) {
    let error = start(world, database).await.unwrap_err();
    assert!(error.contains(reason), "{error}");
    serve(world, database).refused("serve", 1, reason);
    serve(world, database).refused("user list", 1, reason);
}

pub(crate) async fn this_version_and_the_next_are_served(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world).login(&world, "postgres");
    let set = async |version: i32| {
        world.sql(&format!("UPDATE patgate.schema_version SET version = {version}")).await;
    };
    for version in [SCHEMA, SCHEMA + 1] {
        set(version).await;
        assert_eq!(start(&world, &world.database).await, Ok(()));
        serve(&world, &world.database).ok("user list");
        // A release that is rolled back, and migrates at startup, leaves a newer schema unchanged.
        assert!(cli.ok("migrate").starts_with("nothing to do\n"));
        let stored: i32 = value(&world, "SELECT version FROM patgate.schema_version").await;
        assert_eq!(stored, version);
    }
    // Of several migrations of one release, some are missing.
    let number = async |from: i64, to: i64| {
        let sql = format!("UPDATE patgate.migrations SET version = {to} WHERE version = {from}");
        world.sql(&sql).await;
    };
    set(SCHEMA).await;
    number(28, -28).await;
    refused(&world, &world.database, "lacks the migration 0028 self service limits, which").await;
    number(27, -27).await;
    let both =
        "lacks 2 migrations, 0027 history of deleted tokens to 0028 self service limits, which";
    refused(&world, &world.database, both).await;
    number(-28, 28).await;
    number(-27, 27).await;
    assert_eq!(start(&world, &world.database).await, Ok(()));

    set(SCHEMA - 1).await;
    refused(&world, &world.database, "run `patgate migrate`").await;
    set(SCHEMA + 2).await;
    refused(&world, &world.database, "upgrade patgate").await;
    cli.refused("migrate", 1, "upgrade patgate");
    world.sql("DELETE FROM patgate.schema_version").await;
    refused(&world, &world.database, "`patgate migrate` creates it").await;

    let empty = format!("empty_{}", world.database);
    world.sql(&format!("CREATE DATABASE {empty}")).await;
    refused(&world, &empty, "`patgate migrate` creates it").await;
    refused(&world, "no_such_database", "does not exist").await;
}
