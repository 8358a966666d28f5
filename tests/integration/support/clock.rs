//! A clock of the database server that tests can set.

use crate::support::World;

/// Makes everything of patgate's in this database use a clock that can be set.
pub(crate) async fn with_a_clock(world: &World<'_>) {
    world
        .sql(&format!(
            "CREATE SCHEMA faked;
             CREATE TABLE faked.clock (ahead interval NOT NULL);
             INSERT INTO faked.clock VALUES ('0');
             CREATE FUNCTION faked.now() RETURNS timestamptz LANGUAGE sql STABLE
                 AS 'SELECT pg_catalog.now() + ahead FROM faked.clock';
             GRANT USAGE ON SCHEMA faked TO PUBLIC;
             GRANT SELECT ON faked.clock TO PUBLIC;
             ALTER ROLE server IN DATABASE {0} SET search_path = faked, pg_catalog;
             ALTER ROLE administrator IN DATABASE {0} SET search_path = faked, pg_catalog;
             ALTER FUNCTION patgate.prune_changes SET search_path = faked, pg_catalog, pg_temp;
             ALTER TABLE patgate.change_marks ALTER at SET DEFAULT faked.now()",
            world.database
        ))
        .await;
}

pub(crate) async fn put(world: &World<'_>, ahead: &str) {
    world.sql(&format!("UPDATE faked.clock SET ahead = '{ahead}'")).await;
}
