//! `patgate migrate`: which login may run it, how often, and what happens without privileges.

use std::sync::Arc;

use patgate::postgres::SCHEMA;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{Suite, World, cli::Cli};

const BOOTSTRAP: &str = include_str!("../../../deploy/bootstrap.sql");
const DENIED: i32 = 4;

/// A cluster that was never migrated.
pub(crate) struct Cluster {
    pub(crate) port: u16,
}

impl Cluster {
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) async fn sql(&self, user: &str, database: &str, sql: &str) {
        let pool = PgPool::connect(&self.url(user, database)).await.unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await;
        pool.close().await;
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    fn cli<'s>(&self, world: &World<'s>, user: &str, database: &str) -> Cli<'s> {
        Cli::of(world).with("postgres.url", &self.url(user, database))
    }
}

pub(crate) async fn any_login_with_the_privileges_can_migrate(suite: Arc<Suite>) {
    let server = suite.stack.start("postgres", json!({}));
    let world = suite.world().await;
    migrates(&world, &Cluster { port: server.port }).await;
    suite.stack.stop(&server);
}

/// From an empty cluster on, without a superuser unless one is needed.
pub(crate) async fn migrates(world: &World<'_>, cluster: &Cluster) {
    cluster
        .sql(
            "postgres",
            "postgres",
            "CREATE ROLE migrator LOGIN CREATEROLE; CREATE ROLE deployer LOGIN;",
        )
        .await;
    for database in ["first", "second", "third", "fourth"] {
        cluster.sql("postgres", "postgres", &format!("CREATE DATABASE {database}")).await;
    }
    cluster.sql("postgres", "postgres", "GRANT CREATE ON DATABASE first TO migrator").await;

    // The command tells a login without privileges what it lacks, and leaves nothing behind.
    let deployer = cluster.cli(world, "deployer", "first");
    deployer.refused("migrate", DENIED, "bootstrap.sql");
    deployer.refused("user list", 1, "`patgate migrate` creates it");

    let migrator = cluster.cli(world, "migrator", "first");
    let first = migrator.json("migrate");
    assert_eq!(first["version"], SCHEMA);
    let applied = first["applied"].as_array().unwrap();
    assert_eq!(applied[0], json!([1, "identity"]));
    let nothing = json!({ "applied": [], "version": SCHEMA });
    assert_eq!(migrator.json("migrate"), nothing);
    assert_eq!(migrator.ok("migrate"), format!("nothing to do\nschema version {SCHEMA}\n"));

    // The roles exist now; the next login needs membership in one of them.
    deployer.refused("migrate", DENIED, "GRANT patgate_migrate TO deployer");
    assert!(!deployer.run("migrate").stderr.contains("CREATEROLE"));
    cluster.sql("migrator", "first", "GRANT patgate_migrate TO deployer").await;
    assert_eq!(deployer.json("migrate"), nothing);
    // The next migration may be run by another login than the first.
    cluster
        .sql(
            "deployer",
            "first",
            "SET ROLE patgate_migrate; ALTER TABLE patgate.users ADD COLUMN later text;",
        )
        .await;
    assert_eq!(migrator.json("migrate"), nothing);

    // A superuser has switched all triggers of a table off. The owner of the schema may switch on
    // patgate's own, and not those of foreign keys.
    cluster.sql("postgres", "first", "ALTER TABLE patgate.pats DISABLE TRIGGER ALL").await;
    let ran = deployer.run("migrate");
    assert_eq!(ran.code, DENIED, "{ran:?}");
    let statements = ran.stderr.split_once("as a superuser: ").expect("statements").1.trim();
    assert!(statements.starts_with("ALTER TABLE patgate.pats ENABLE TRIGGER \"RI_"), "{ran:?}");
    assert!(ran.stderr.contains("pats.pats_user_id_fkey"), "{ran:?}");
    assert!(!ran.stderr.contains("record_change"), "{ran:?}");
    cluster.sql("postgres", "first", statements).await;
    assert_eq!(deployer.json("migrate"), nothing);
    cluster.sql("postgres", "first", "ALTER TABLE patgate.pats DISABLE TRIGGER ALL").await;
    assert_eq!(cluster.cli(world, "postgres", "first").json("migrate"), nothing);
    assert_eq!(deployer.json("migrate"), nothing);

    // In another database of the cluster, where it cannot create a schema.
    let elsewhere = cluster.cli(world, "deployer", "second");
    elsewhere.refused("migrate", DENIED, "CREATE on the database");
    cluster.sql("postgres", "postgres", "GRANT CREATE ON DATABASE second TO deployer").await;
    assert_eq!(elsewhere.json("migrate"), first);

    // After an administrator of the cluster has prepared it.
    cluster.sql("postgres", "third", BOOTSTRAP).await;
    cluster.sql("postgres", "third", BOOTSTRAP).await;
    let prepared = cluster.cli(world, "deployer", "third");
    assert_eq!(prepared.json("migrate"), first);
    assert_eq!(prepared.json("migrate"), nothing);

    // Two at once: one of them finds nothing to do.
    let fourth = cluster.cli(world, "postgres", "fourth");
    let both = [fourth.spawn("migrate --output json"), fourth.spawn("migrate --output json")];
    let mut applied: Vec<usize> = both
        .into_iter()
        .map(|child| {
            let ran = fourth.finish("migrate", child.wait_with_output().unwrap());
            assert_eq!(ran.code, 0, "{ran:#?}");
            let migrated: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            migrated["applied"].as_array().unwrap().len()
        })
        .collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, first["applied"].as_array().unwrap().len()]);
}
