//! A database of the version before self-service.

use std::{path::Path, sync::Arc};

use patgate_testing::stack::project;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, migrate::Migrator};

use super::service;
use crate::support::{Suite, World, cli::Cli, connect};

const BOOTSTRAP: &str = include_str!("../../../deploy/bootstrap.sql");
/// The last migration before self-service.
const BEFORE: i64 = 15;

/// A database at that version, closed to strangers as that release left it, with a user and a token
/// that lives for 400 days.
async fn earlier(world: &World<'_>, database: &str) {
    world.sql(&format!("CREATE DATABASE {database}")).await;
    let url = world.suite.postgres_url("postgres", database);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::raw_sql(BOOTSTRAP)).await.unwrap();
    connection.execute("SET ROLE patgate_migrate").await.unwrap();
    let all = Migrator::new(Path::new(&project("deploy/migrations"))).await.unwrap();
    let earlier = all.iter().filter(|migration| migration.version <= BEFORE).cloned();
    let earlier = Migrator {
        migrations: earlier.collect::<Vec<_>>().into(),
        table_name: "patgate.migrations".into(),
        ..Migrator::DEFAULT
    };
    earlier.run(&mut connection).await.unwrap();
    let closed = format!(
        "RESET ROLE; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO patgate_serve, patgate_admin, patgate_migrate;
         INSERT INTO patgate.users (id, email, name)
             VALUES (gen_random_uuid(), 'old@example.com', 'Old');
         INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
             SELECT gen_random_uuid(), id, 'old', sha256('x'), 'k1', now() + interval '400 days'
             FROM patgate.users;
         INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', 'b', 'c')"
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(closed))).await.unwrap();
    connection.close().await.unwrap();
}

pub(crate) async fn a_database_of_the_version_before_is_taken_up(suite: Arc<Suite>) {
    let world = suite.world().await;
    let owned = format!("owned_{}", world.database);
    let others = format!("others_{}", world.database);
    for database in [&owned, &others] {
        earlier(&world, database).await;
        let web = suite.postgres_url("web", database);
        assert!(PgConnection::connect(&web).await.is_err(), "{database}");
    }
    let cli = Cli::of(&world).with("postgres.url", &suite.postgres_url("postgres", &owned));
    let migrated = cli.run("migrate");
    assert_eq!((migrated.code, &*migrated.stderr), (0, ""), "{migrated:#?}");
    let pool = connect(&suite.postgres_url("web", &owned)).await;
    assert!(service(&world, pool.clone()).await.is_ok());
    pool.close().await;
    // What was there is as it was.
    let admin = Cli::of(&world).with("postgres.url", &suite.postgres_url("administrator", &owned));
    let tokens = admin.json("token list");
    assert_eq!((&tokens[0]["name"], &tokens[0]["status"]), (&"old".into(), &"live".into()));
    let line = &admin.json("audit list")[0];
    assert_eq!((&line["actor"], line["session"].is_null()), (&"a".into(), true));

    // A login that does not own the database says what its owner has to do.
    let migrator = format!("migrator_{}", world.database);
    world.sql(&format!("CREATE ROLE {migrator} LOGIN IN ROLE patgate_migrate")).await;
    let cli = Cli::of(&world).with("postgres.url", &suite.postgres_url(&migrator, &others));
    let migrated = cli.run("migrate");
    assert_eq!(migrated.code, 0, "{migrated:#?}");
    let grant = format!("GRANT CONNECT ON DATABASE {others} TO patgate_web");
    assert!(migrated.stderr.contains(&grant), "{migrated:#?}");
    world.sql(&grant).await;
    let pool = connect(&suite.postgres_url("web", &others)).await;
    assert!(service(&world, pool.clone()).await.is_ok());
    pool.close().await;
    for database in [&owned, &others] {
        world.sql(&format!("DROP DATABASE {database}")).await;
    }
}
