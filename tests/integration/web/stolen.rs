//! What a stolen login of `patgate_web` cannot do without a session.

use std::sync::Arc;

use patgate::admin::web::Error;
use sqlx::AssertSqlSafe;

use super::{Site, literal, refused, run, service};
use crate::support::{Suite, World, cli::Cli, connect, value};

/// The functions that the role may execute, each as a call with this expression for the proof, and
/// NULL for everything else.
async fn calls(world: &World<'_>, proof: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT p.proname::text, format('SELECT patgate.%I(%s)', p.proname, (
             SELECT string_agg(CASE WHEN a = 'proof' THEN '{}'
                               ELSE 'NULL::' || format_type(t, NULL) END, ', ' ORDER BY n)
             FROM unnest(p.proargnames[:p.pronargs], p.proargtypes::oid[])
                 WITH ORDINALITY AS x (a, t, n)))
         FROM pg_proc p
         WHERE p.pronamespace = 'patgate'::regnamespace
           AND has_function_privilege('patgate_web', p.oid, 'EXECUTE')
         ORDER BY p.proname",
        proof.replace('\'', "''")
    );
    let calls: Vec<(String, String)> =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&world.postgres).await.unwrap();
    assert!(calls.len() > 45, "{}", calls.len());
    for name in ["web_why", "web_fleet", "web_domain_audit_log", "web_sessions", "web_rotate_token"]
    {
        assert!(calls.iter().any(|(known, _)| known == name), "{name}");
    }
    calls
}

/// Functions that act before anybody has signed in.
const WITHOUT_A_SESSION: [&str; 8] = [
    "web_accept_invitation",
    "web_begin_attempt",
    "web_begin_local_session",
    "web_begin_oidc_session",
    "web_invitation",
    "web_password_salt",
    "web_status",
    "web_wake",
];

/// Every function that acts for a user refuses a proof that is none, and every one that acts for
/// nobody gives nothing without its own proof.
pub(crate) async fn every_function_needs_a_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    // What is stored is no proof: who reads the table cannot act.
    let stored = format!("sha256({})", literal(&ann));
    for proof in ["sha256('guess')", "NULL", "''::bytea", &stored] {
        for (name, call) in calls(&world, proof).await {
            let expected = match &*name {
                _ if !WITHOUT_A_SESSION.contains(&&*name) && name != "web_end_session" => {
                    refused("PW001")
                }
                "web_end_session" | "web_password_salt" | "web_status" | "web_wake" => Ok(()),
                "web_begin_attempt" => refused("PW008"),
                "web_begin_local_session" | "web_begin_oidc_session" => refused("PW014"),
                _ => refused("PW003"),
            };
            assert_eq!(site.code(&call).await, expected, "{call}");
        }
    }
    // The session of Ann is untouched by all of this.
    site.service.session(&ann).await.unwrap();
}

/// Of everything else in the schema, the login may execute, read, write and become nothing.
pub(crate) async fn nothing_else_is_permitted(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let others = "SELECT array_agg(format('SELECT patgate.%I(%s)', p.proname, (
             SELECT string_agg('NULL::' || format_type(t, NULL), ', ')
             FROM unnest(p.proargtypes::oid[]) t)))
         FROM pg_proc p
         WHERE p.pronamespace = 'patgate'::regnamespace
           AND p.prorettype <> 'trigger'::regtype
           AND NOT (starts_with(p.proname, 'web_') AND NOT starts_with(p.proname, 'web_internal'))";
    let others: Vec<String> = value(&world, others).await;
    assert!(others.iter().any(|call| call.contains("web_internal_set_password(")), "{others:?}");
    assert!(others.iter().any(|call| call.contains("flip_canary(")), "{others:?}");
    for call in others {
        assert_eq!(site.code(&call).await, refused("42501"), "{call}");
    }
    for role in ["patgate_web_functions", "patgate_admin", "patgate_migrate", "patgate_serve"] {
        let become_it = format!("SET ROLE {role}");
        assert_eq!(site.code(&become_it).await, refused("42501"), "{role}");
        let grant = format!("GRANT {role} TO web");
        assert_eq!(site.code(&grant).await, refused("42501"), "{role}");
    }
    for sql in [
        "SET SESSION AUTHORIZATION postgres",
        "SET session_replication_role = replica",
        "ALTER FUNCTION patgate.web_status() SECURITY INVOKER",
        "ALTER FUNCTION patgate.web_status() SET search_path = pg_temp",
        "CREATE FUNCTION patgate.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION patgate.web_internal_guard() RETURNS void
             LANGUAGE sql AS 'SELECT NULL::void'",
        "GRANT EXECUTE ON FUNCTION patgate.web_internal_guard TO web",
        "ALTER TABLE patgate.sessions DISABLE TRIGGER ALL",
        "COPY patgate.sessions TO STDOUT",
        "SELECT 1; LOCK TABLE patgate.pats IN ACCESS SHARE MODE",
    ] {
        assert_eq!(site.code(sql).await, refused("42501"), "{sql}");
    }
}

/// Objects of the login's own that look like those of the functions are not used by them.
pub(crate) async fn shadows_are_not_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let mut thief = site.login.acquire().await.unwrap();
    let acts = format!("SELECT patgate.web_session({})", literal(&ann));
    let guess = "SELECT patgate.web_session(sha256('guess'))";
    for shadow in [
        "SET search_path = pg_temp, public, pg_catalog",
        "CREATE TEMPORARY TABLE sessions (proof_hash bytea, user_id uuid)",
        "INSERT INTO pg_temp.sessions VALUES (sha256(sha256('guess')), gen_random_uuid())",
        "CREATE TEMPORARY TABLE users (id uuid, email text, enabled boolean)",
        "CREATE TEMPORARY TABLE policy (session_longest interval)",
        "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql
             AS 'SELECT pg_catalog.sha256(''guess'')'",
        "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql
             AS 'SELECT ''-infinity''::timestamptz'",
        "CREATE FUNCTION pg_temp.current_setting(text) RETURNS text LANGUAGE sql
             AS 'SELECT ''read committed'''",
        "CREATE FUNCTION pg_temp.always(bytea, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR pg_temp.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = pg_temp.always)",
        "CREATE DOMAIN pg_temp.uuid AS text",
        "SET transform_null_equals = on",
        "SET datestyle = 'German'",
        "SET timezone = 'Asia/Kathmandu'",
        "SET bytea_output = 'escape'",
        "SET standard_conforming_strings = off",
        "SET plan_cache_mode = force_generic_plan",
    ] {
        // Some of them are refused, depending on the version of Postgres.
        let _ = run(&mut thief, shadow).await;
        assert_eq!(run(&mut thief, guess).await, refused("PW001"), "{shadow}");
        assert_eq!(run(&mut thief, &acts).await, Ok(()), "{shadow}");
    }
}

/// Nothing of a line in the audit log is the login's to choose, except what it says about itself.
pub(crate) async fn audit_lines_are_not_forged(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    for sql in [
        "INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', 'b', 'c')",
        "SELECT patgate.web_internal_audit(NULL, NULL, NULL, 'a', 'b', '{}')",
        "SELECT setval('patgate.audit_log_id_seq', 1)",
        "UPDATE patgate.audit_log SET actor = 'x'",
    ] {
        assert_eq!(site.code(sql).await, refused("42501"), "{sql}");
    }
    let create = |request: &str, name: &str| {
        format!(
            "SELECT patgate.web_create_token({}, '198.51.100.9', {request}, gen_random_uuid(),
                 '{name}', '', sha256('d'), 'k1', NULL, NULL, '[]', NULL)",
            literal(&ann)
        )
    };
    // A text that would look like another line.
    for request in ["E'a\\nb'", "E'a\\x1b'", "repeat('x', 201)"] {
        assert_eq!(site.code(&create(request, "t")).await, refused("23514"), "{request}");
    }
    // An exception that is caught takes the change along with its line.
    let caught = format!(
        "DO $$ BEGIN BEGIN {}; RAISE division_by_zero;
             EXCEPTION WHEN division_by_zero THEN END; END $$",
        create("'r'", "caught").replace("SELECT", "PERFORM")
    );
    assert_eq!(site.code(&caught).await, Ok(()));
    let mut thief = site.login.acquire().await.unwrap();
    run(&mut thief, "SET application_name = 'other'; SET ROLE web").await.unwrap();
    run(&mut thief, &create("'r'", "made")).await.unwrap();
    let named = |name: &str| {
        format!("SELECT count(*) FROM patgate.audit_log WHERE details ->> 'name' = '{name}'")
    };
    assert_eq!(value::<i64>(&world, &named("caught")).await, 0);
    let tokens = "SELECT array_agg(name::text) FROM patgate.pats";
    assert_eq!(value::<Vec<String>>(&world, tokens).await, ["made"]);
    let line = "SELECT concat_ws(' ', actor, login, host(address), request_id, method, action)
                FROM patgate.audit_log ORDER BY id DESC LIMIT 1";
    assert_eq!(
        value::<String>(&world, line).await,
        "web:ann@example.com web 198.51.100.9 r local token.create"
    );
}

/// Without a session, the login can lock nothing that a change waits for.
pub(crate) async fn no_change_is_held_up_without_a_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("ann").await;
    let ann = site.sign_in("ann", &password).await.unwrap();
    let cli = Cli::of(&world);
    let mut thief = site.login.acquire().await.unwrap();
    let mut held = 0;
    run(&mut thief, "BEGIN").await.unwrap();
    let mut wanted: Vec<String> =
        calls(&world, "sha256('guess')").await.into_iter().map(|(_, call)| call).collect();
    for table in crate::schema::privileges::tables(&world).await {
        for mode in ["UPDATE", "SHARE", "KEY SHARE"] {
            wanted.push(format!("SELECT FROM patgate.{table} FOR {mode}"));
        }
        wanted.push(format!("LOCK TABLE patgate.{table} IN ACCESS SHARE MODE"));
    }
    wanted.push(
        "SELECT patgate.web_begin_attempt(NULL, NULL, 'ann@example.com', sha256('x'))".to_owned(),
    );
    for sql in wanted {
        run(&mut thief, "SAVEPOINT here").await.unwrap();
        match run(&mut thief, &sql).await {
            Ok(()) => held += 1,
            Err(_) => run(&mut thief, "ROLLBACK TO here").await.unwrap(),
        }
    }
    assert!(held > 2, "{held}");
    site.sign_in("ann", &password).await.unwrap();
    site.service.session(&ann).await.unwrap();
    for command in [
        "role revoke acme admin llm_read",
        "user disable ann@example.com",
        "user delete ann@example.com --yes",
        "domain delete acme --yes",
    ] {
        let ran = cli.run(command);
        assert!(ran.is_without_warning(), "{command}: {ran:#?}");
    }
    run(&mut thief, "ROLLBACK").await.unwrap();
}

/// The process refuses to use a login that may do more.
pub(crate) async fn another_login_is_not_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let named = |name: &str| format!("{name}_{}", world.database);
    let [both, reader, creator, heir, nobody] =
        ["both", "reads", "creates", "inherits", "nothing"].map(named);
    world
        .sql(&format!(
            "CREATE ROLE {both} LOGIN IN ROLE patgate_web, patgate_admin;
             CREATE ROLE {reader} LOGIN IN ROLE patgate_web;
             CREATE ROLE {creator} LOGIN CREATEROLE IN ROLE patgate_web;
             CREATE ROLE {heir} LOGIN IN ROLE patgate_web, {creator};
             CREATE ROLE {nobody} LOGIN;
             GRANT SELECT (user_id) ON patgate.sessions TO {reader}"
        ))
        .await;
    for (login, why) in [
        ("postgres", "it is a superuser"),
        ("administrator", "it is a member of patgate_admin"),
        ("server", "it is a member of patgate_serve"),
        (&*both, "it is a member of patgate_admin"),
        (&*reader, "it may read or change the table sessions"),
        (&*creator, "it has CREATEROLE"),
        (&*heir, "which has CREATEROLE"),
    ] {
        let pool = connect(&world.url(login, world.port)).await;
        match service(&world, pool).await {
            Err(Error::TooPowerful { reason, .. }) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{login}: {other:?}"),
        }
    }
    let pool = connect(&world.url(&nobody, world.port)).await;
    assert!(matches!(service(&world, pool).await, Err(Error::Denied(_))));
    let pool = connect(&world.url("web", world.port)).await;
    assert!(service(&world, pool).await.is_ok());
}
