//! Calls that Postgres does not answer in time.

use std::{sync::Arc, time::Duration};

use patgate::{
    admin::web::{Error, SelfService},
    api::Apis,
};
use patgate_testing::eventually;
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Site, patient_service, run};
use crate::{
    schema::pooler,
    support::{Suite, World, value},
};

const LIMIT: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Connections as `patgate admin` makes them, also to a pooler.
async fn pool(world: &World<'_>, port: u16) -> PgPool {
    let options: PgConnectOptions = world.url("web", port).parse().unwrap();
    let options = options.extra_float_digits(None).statement_cache_capacity(0);
    PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

async fn is_idle(world: &World<'_>) -> bool {
    let active = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND usename = 'web' AND state <> 'idle'";
    value::<i64>(world, active).await == 0
}

/// Whoever is told that it failed must be able to rely on that: the statement ends, and nothing of it is
/// committed later. The same through a pooler, whose connections keep no setting.
pub(crate) async fn a_late_statement_ends_and_changes_nothing(suite: Arc<Suite>) {
    let pooled = pooler::start(&suite, "transaction", "default_pool_size = 2\n");
    let ports = [suite.postgres.port].into_iter().chain(pooled.as_ref().map(|(.., port)| *port));
    for port in ports {
        let world = suite.world().await;
        let site = Site::of(&world).await;
        let login = pool(&world, port).await;
        let apis = Apis::embedded().unwrap();
        let service = patient_service(&world, login.clone(), apis, LIMIT).await.unwrap();
        ends(&world, &site, &service).await;
        login.close().await;
    }
    if let Some((_home, server, _)) = &pooled {
        suite.stack.stop(server);
    }
}

async fn ends(world: &World<'_>, site: &Site<'_, '_>, service: &SelfService) {
    let ann = site.signed_in("ann").await;
    let token = site.create(&ann, "laptop", &["acme:models:*:llm_read"]).await.id;
    let late = |outcome: Result<(), Error>| {
        let Err(Error::Unavailable(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("statement timeout"), "{reason}");
    };

    // One that waits for a lock, longer than it is waited for.
    let mut other = PgConnection::connect(&world.url("administrator", world.port)).await.unwrap();
    run(&mut other, "BEGIN").await.unwrap();
    run(&mut other, &format!("SELECT FROM patgate.pats WHERE id = '{token}' FOR UPDATE"))
        .await
        .unwrap();
    late(service.rotate_token(&ann, token, None, HOUR).await.map(drop));
    eventually("the rotation to end", async || is_idle(world).await).await;
    run(&mut other, "COMMIT").await.unwrap();
    let names = "SELECT string_agg(name, ' ') FROM patgate.pats";
    assert_eq!(value::<String>(world, names).await, "laptop");
    // Nothing is left of it on the connections.
    service.session(&ann).await.unwrap();
    let renamed = "desktop".parse().unwrap();
    let _ = service.update_token(&ann, token, None, Some(&renamed), None).await.unwrap();
    assert_eq!(value::<String>(world, names).await, "desktop");

    // One that works for too long.
    world
        .sql(
            "CREATE OR REPLACE FUNCTION patgate.web_internal_utc(moment timestamptz) RETURNS text
             LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
             'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'",
        )
        .await;
    late(service.token(&ann, token).await.map(drop));
    eventually("the look-up to end", async || is_idle(world).await).await;
}

/// Also for a caller that sets no limit: a function that waits for a lock gives up.
pub(crate) async fn every_function_gives_up_on_a_lock(suite: Arc<Suite>) {
    let world = suite.world().await;
    let functions = |condition: &str| {
        format!(
            "SELECT coalesce(string_agg(p.proname, ' ' ORDER BY p.proname), '') FROM pg_proc p
             WHERE p.pronamespace = 'patgate'::regnamespace
               AND has_function_privilege('patgate_web', p.oid, 'EXECUTE') AND {condition}"
        )
    };
    let all: String = value(&world, &functions("true")).await;
    for known in ["web_rotate_token", "web_why", "web_audit_log", "web_session"] {
        assert!(all.split(' ').any(|name| name == known), "{known}: {all}");
    }
    let without = functions(
        "coalesce(NOT p.proconfig @> '{lock_timeout=5s,\"search_path=pg_catalog, pg_temp\"}', true)",
    );
    assert_eq!(value::<String>(&world, &without).await, "");
}
