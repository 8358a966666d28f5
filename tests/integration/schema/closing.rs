//! Which logins may connect to a migrated database.

use std::{path::Path, sync::Arc};

use patgate_testing::stack::project;
use sqlx::{Connection as _, Executor as _, PgConnection, migrate::Migrator};

use super::INSUFFICIENT_PRIVILEGE;
use crate::support::{Suite, cli::Cli};

const BOOTSTRAP: &str = include_str!("../../../deploy/bootstrap.sql");
/// The last migration before the one that closes the database.
const BEFORE: i64 = 11;

async fn connects(suite: &Suite, user: &str, database: &str) -> bool {
    match PgConnection::connect(&suite.postgres_url(user, database)).await {
        Ok(connection) => connection.close().await.map(|()| true).unwrap(),
        Err(error) => {
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, INSUFFICIENT_PRIVILEGE, "{error}");
            false
        }
    }
}

/// Locks that any login of a database could hold, and its connections, are for patgate's logins
/// only.
pub(crate) async fn a_database_is_closed_to_strangers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let database = format!("own_{}", world.database);
    let stranger = format!("stranger_{}", world.database);
    world.sql(&format!("CREATE ROLE {stranger} LOGIN")).await;
    world.sql(&format!("CREATE DATABASE {database}")).await;
    let connects = async |user: &str| connects(&suite, user, &database).await;
    assert!(connects(&stranger).await);
    let cli = Cli::of(&world).with("postgres.url", &suite.postgres_url("postgres", &database));
    let migrated = cli.run("migrate");
    assert_eq!((migrated.code, &*migrated.stderr), (0, ""), "{migrated:#?}");
    for (user, expected) in [
        (&*stranger, false),
        ("server", true),
        ("administrator", true),
        ("web", true),
        ("router", true),
    ] {
        assert_eq!(connects(user).await, expected, "{user}");
    }
    // An operator who opens it again has a reason, and gets a warning.
    world.sql(&format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC")).await;
    let again = cli.run("migrate");
    assert_eq!(again.code, 0, "{again:#?}");
    let said = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
    assert!(again.stderr.contains(&said), "{again:#?}");
    assert!(connects(&stranger).await);
}

/// A database as the previous release left it, which other logins use.
pub(crate) async fn logins_that_lose_access_to_the_database_are_reported(suite: Arc<Suite>) {
    let world = suite.world().await;
    let database = format!("used_{}", world.database);
    let [stranger, taker] = ["monitor", "taker"].map(|name| format!("{name}_{}", world.database));
    world.sql(&format!("CREATE ROLE {stranger} LOGIN")).await;
    world.sql(&format!("CREATE ROLE {taker} LOGIN NOINHERIT IN ROLE patgate_admin")).await;
    world.sql(&format!("CREATE DATABASE {database}")).await;
    let url = suite.postgres_url("postgres", &database);
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
    connection.close().await.unwrap();
    for user in [&*stranger, &taker, "server"] {
        assert!(connects(&suite, user, &database).await, "{user}");
    }

    let cli = Cli::of(&world).with("postgres.url", &url);
    let migrated = cli.run("migrate");
    assert_eq!(migrated.code, 0, "{migrated:#?}");
    for said in [
        "only logins with a role of patgate's, the owner and superusers may connect",
        &format!("GRANT CONNECT ON DATABASE {database} TO …"),
    ] {
        assert!(migrated.stderr.contains(said), "{said}: {migrated:#?}");
    }
    for (user, expected) in
        [(&*stranger, false), (&taker, true), ("server", true), ("web", true), ("router", true)]
    {
        assert_eq!(connects(&suite, user, &database).await, expected, "{user}");
    }
    // It continues as before, with the role that it assumes.
    let mut taking = PgConnection::connect(&suite.postgres_url(&taker, &database)).await.unwrap();
    let read = "SET ROLE patgate_admin; SELECT count(*) FROM patgate.users";
    taking.execute(sqlx::raw_sql(read)).await.unwrap();
    taking.close().await.unwrap();

    let again = cli.run("migrate");
    assert_eq!((again.code, &*again.stderr), (0, ""), "{again:#?}");
    world.sql(&format!("DROP DATABASE {database}")).await;
}
