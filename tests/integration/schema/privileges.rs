//! What each login may do: tried on each table and column.

use std::sync::Arc;

use sqlx::PgPool;

use super::{INSUFFICIENT_PRIVILEGE, attempt};
use crate::support::{Suite, World, value};

/// The tables that an administrator may write.
const MODEL: &[&str] = &[
    "backends",
    "domain_models",
    "domains",
    "pat_scopes",
    "pats",
    "role_members",
    "role_operations",
    "roles",
    "users",
];
/// Where replicas report how far they have read.
const LEASES: &str = "replicas";
/// Tables of the schema's owner that no other login needs to see.
const INTERNAL: &[&str] = &[
    "change_marks",
    "creations",
    "migrations",
    "oidc_logins",
    "sign_in_attempts",
    "sign_in_secret",
];
/// Tables of self-service that an administrator sees, and what they may do there: insert, delete and
/// update.
const SELF_SERVICE: &[(&str, [bool; 3])] = &[
    ("former_tokens", [false, false, false]),
    ("identities", [true, true, true]),
    ("invitations", [true, true, false]),
    ("issuers", [true, true, true]),
    ("local_accounts", [false, true, false]),
    ("policy", [false, false, true]),
    ("session_uses", [false, false, false]),
    ("sessions", [false, true, false]),
];

/// What neither login may do, with any role.
const NEVER: &[&str] = &[
    "CREATE TABLE patgate.mine (id int)",
    "CREATE FUNCTION patgate.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "DROP SCHEMA patgate CASCADE",
    "ALTER TABLE patgate.audit_log DISABLE TRIGGER append_only",
    "DROP TRIGGER append_only ON patgate.audit_log",
    "CREATE TRIGGER mine BEFORE INSERT ON patgate.users
     FOR EACH ROW EXECUTE FUNCTION patgate.refuse_audit_change()",
    "SET session_replication_role = replica",
    "SET ROLE patgate_migrate",
    "GRANT patgate_admin TO CURRENT_USER",
];

async fn login(world: &World<'_>, user: &str) -> PgPool {
    PgPool::connect(&world.suite.postgres_url(user, &world.database)).await.unwrap()
}

/// Returns false if a statement fails because of a missing privilege. Any other error means that it
/// was permitted.
async fn permitted(pool: &PgPool, sql: &str) -> bool {
    attempt(pool, sql).await != Err(INSUFFICIENT_PRIVILEGE.to_owned())
}

async fn names(world: &World<'_>, sql: &str) -> Vec<String> {
    value(world, &format!("SELECT coalesce(array_agg(n ORDER BY n), '{{}}') FROM ({sql}) AS x (n)"))
        .await
}

pub(crate) async fn tables(world: &World<'_>) -> Vec<String> {
    let tables =
        names(world, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'patgate'").await;
    for known in MODEL.iter().chain(&["audit_log", "schema_version"]) {
        assert!(tables.iter().any(|table| table == known), "{known} in {tables:?}");
    }
    tables
}

struct Rights {
    reads: bool,
    inserts: bool,
    deletes: bool,
    updates: fn(&str) -> bool,
}

/// Tries everything on every table.
async fn try_all(world: &World<'_>, user: &str, rights: impl Fn(&str) -> Rights) {
    let pool = login(world, user).await;
    for table in tables(world).await {
        let expected = rights(&table);
        for (statement, expected) in [
            (format!("SELECT FROM patgate.{table}"), expected.reads),
            (format!("INSERT INTO patgate.{table} DEFAULT VALUES"), expected.inserts),
            (format!("DELETE FROM patgate.{table}"), expected.deletes),
            (format!("TRUNCATE patgate.{table} CASCADE"), false),
            (format!("ALTER TABLE patgate.{table} ADD COLUMN mine int"), false),
            (format!("ALTER TABLE patgate.{table} DISABLE TRIGGER USER"), false),
            (format!("DROP TABLE patgate.{table} CASCADE"), false),
        ] {
            assert_eq!(permitted(&pool, &statement).await, expected, "{user}: {statement}");
        }
        let columns = format!(
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = 'patgate' AND table_name = '{table}' AND is_identity = 'NO'"
        );
        for column in names(world, &columns).await {
            let statement = format!("UPDATE patgate.{table} SET {column} = NULL");
            let expected = (expected.updates)(&column);
            assert_eq!(permitted(&pool, &statement).await, expected, "{user}: {statement}");
        }
    }
    for statement in NEVER {
        assert!(!permitted(&pool, statement).await, "{user}: {statement}");
    }
    pool.close().await;
}

pub(crate) async fn a_replica_may_read_and_keep_its_lease(suite: Arc<Suite>) {
    let world = suite.world().await;
    world.token(&[]).await;
    try_all(&world, "server", |table| Rights {
        reads: table != "audit_log"
            && !INTERNAL.contains(&table)
            && SELF_SERVICE.iter().all(|(own, _)| *own != table),
        inserts: table == LEASES,
        deletes: table == LEASES,
        updates: match table {
            LEASES => |_| true,
            _ => |_| false,
        },
    })
    .await;
}

pub(crate) async fn an_administrator_may_not_rewrite_history(suite: Arc<Suite>) {
    let world = suite.world().await;
    world.token(&[]).await;
    try_all(&world, "administrator", |table| {
        if let Some((_, [inserts, deletes, updates])) =
            SELF_SERVICE.iter().find(|(own, _)| *own == table)
        {
            let updates: fn(&str) -> bool = if *updates { |_| true } else { |_| false };
            return Rights { reads: true, inserts: *inserts, deletes: *deletes, updates };
        }
        let writes = MODEL.contains(&table);
        Rights {
            reads: !INTERNAL.contains(&table),
            inserts: writes || table == "audit_log",
            deletes: writes,
            updates: match table {
                "installation" => |column| column == "id",
                _ if writes => |_| true,
                _ => |_| false,
            },
        }
    })
    .await;
}

/// A login without a role of patgate's cannot even read.
pub(crate) async fn a_stranger_may_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let user = format!("nobody_{}", world.database);
    world.sql(&format!("CREATE ROLE {user} LOGIN")).await;
    try_all(&world, &user, |_| Rights {
        reads: false,
        inserts: false,
        deletes: false,
        updates: |_| false,
    })
    .await;
}

/// A login for self-service has no table at all; see `web::stolen` for its functions.
pub(crate) async fn self_service_has_no_table(suite: Arc<Suite>) {
    let world = suite.world().await;
    world.token(&[]).await;
    try_all(&world, "web", |_| Rights {
        reads: false,
        inserts: false,
        deletes: false,
        updates: |_| false,
    })
    .await;
}

/// What an administrator cannot read: what proves a session, an invitation or a password; and what
/// the functions for self-service cannot: digests and credentials.
pub(crate) async fn proofs_and_digests_are_not_read(suite: Arc<Suite>) {
    let world = suite.world().await;
    let readable = |role: &str, table: &str, column: &str| {
        format!("SELECT has_column_privilege('{role}', 'patgate.{table}', '{column}', 'SELECT')")
    };
    for (role, table, column) in [
        ("patgate_admin", "sessions", "proof_hash"),
        ("patgate_admin", "invitations", "proof_hash"),
        ("patgate_admin", "local_accounts", "verifier"),
        ("patgate_admin", "local_accounts", "salt"),
        ("patgate_web_functions", "pats", "digest"),
        ("patgate_web_functions", "backends", "credential"),
        ("patgate_web_functions", "backends", "credential_key_id"),
        ("patgate_sync", "backends", "credential"),
        ("patgate_sync", "backends", "credential_key_id"),
        ("patgate_sync", "backends", "credential_set_at"),
        ("patgate_sync", "pats", "digest"),
        ("patgate_sync", "users", "email"),
        ("patgate_sync", "domains", "slug"),
    ] {
        let sql = readable(role, table, column);
        assert!(!value::<bool>(&world, &sql).await, "{role} {table} {column}");
    }
    assert!(value::<bool>(&world, &readable("patgate_admin", "sessions", "login")).await);
    assert!(value::<bool>(&world, &readable("patgate_sync", "backends", "url")).await);
    // And it cannot change a token's owner, or write a line of the audit log in another's name.
    for (table, column, privilege) in [
        ("pats", "user_id", "UPDATE"),
        ("pats", "id", "UPDATE"),
        ("audit_log", "login", "INSERT"),
        ("audit_log", "at", "INSERT"),
        ("policy", "token_longest", "UPDATE"),
        ("issuers", "issuer", "INSERT"),
    ] {
        let sql = format!(
            "SELECT has_column_privilege('patgate_web_functions', 'patgate.{table}', '{column}',
                 '{privilege}')"
        );
        assert!(!value::<bool>(&world, &sql).await, "{table} {column} {privilege}");
    }
}

/// Neither the owner of the log nor a superuser who replays changes can edit it by accident.
pub(crate) async fn nobody_edits_the_audit_log(suite: Arc<Suite>) {
    let world = suite.world().await;
    world.sql("INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', 'b', 'c')").await;
    // The trigger reports the same error as a missing privilege, so the privilege is checked
    // separately.
    let granted = "SELECT r || ' ' || p FROM unnest(ARRAY['patgate_serve', 'patgate_admin',
             'patgate_web', 'patgate_sync', 'patgate_web_functions']) r,
             unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) p
         WHERE has_table_privilege(r, 'patgate.audit_log', p)
            OR p = 'UPDATE' AND has_any_column_privilege(r, 'patgate.audit_log', p)";
    assert_eq!(names(&world, granted).await, [""; 0]);
    for role in
        ["", "SET LOCAL ROLE patgate_migrate;", "SET LOCAL session_replication_role = replica;"]
    {
        for statement in [
            "UPDATE patgate.audit_log SET actor = 'x'",
            "UPDATE patgate.audit_log SET actor = 'x' WHERE false",
            "DELETE FROM patgate.audit_log",
            "DELETE FROM patgate.audit_log WHERE false",
            "TRUNCATE patgate.audit_log",
            "MERGE INTO patgate.audit_log l USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        ] {
            let sql = format!("{role} {statement}");
            assert!(!permitted(&world.postgres, &sql).await, "{sql}");
        }
        let insert = "INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', 'b', 'c')";
        assert_eq!(attempt(&world.postgres, &format!("{role} {insert}")).await, Ok(()), "{role}");
    }
}

/// Everything that a migration creates belongs to one role, and functions that run with its rights
/// cannot be misled by a search path.
pub(crate) async fn everything_belongs_to_the_migrating_role(suite: Arc<Suite>) {
    let world = suite.world().await;
    let foreign = "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'patgate'::regnamespace AND relowner <> 'patgate_migrate'::regrole
         UNION ALL SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'patgate'::regnamespace AND proowner <> CASE
             WHEN starts_with(proname, 'web_') THEN 'patgate_web_functions'::regrole
             ELSE 'patgate_migrate'::regrole END
         UNION ALL SELECT nspname::text FROM pg_namespace
         WHERE nspname = 'patgate' AND nspowner <> 'patgate_migrate'::regrole";
    assert_eq!(names(&world, foreign).await, [""; 0]);
    let astray = "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'patgate'::regnamespace
           AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search_path=pg\\_catalog%')";
    assert_eq!(names(&world, astray).await, [""; 0]);
    // Only functions that a login may call run with their owner's rights, and these belong to a role
    // that owns nothing else.
    let definers = "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'patgate'::regnamespace AND starts_with(proname, 'web_')
           AND prosecdef = starts_with(proname, 'web_internal_')";
    assert_eq!(names(&world, definers).await, [""; 0]);
    // The check itself finds what exists.
    let all = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'patgate'::regnamespace";
    assert!(names(&world, all).await.contains(&"refuse_audit_change".to_owned()));
    let superusers = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'patgate\\_%'
           AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolbypassrls)";
    assert_eq!(names(&world, superusers).await, [""; 0]);
}

/// A login that may execute a trigger's function may attach it to its own table, where it runs with
/// its owner's rights. Every login may execute a function unless that is revoked.
pub(crate) async fn nobody_executes_what_is_not_meant_for_them(suite: Arc<Suite>) {
    let world = suite.world().await;
    let executes = |who: &str| {
        format!(
            "SELECT p.proname::text FROM pg_proc p, aclexplode(coalesce(p.proacl,
                 acldefault('f', p.proowner))) AS a
             WHERE p.pronamespace = 'patgate'::regnamespace AND a.privilege_type = 'EXECUTE'
               AND a.grantee = {who}"
        )
    };
    assert_eq!(names(&world, &executes("0")).await, [""; 0]);
    for (role, functions) in [
        (
            "patgate_serve",
            &[
                "applied_migrations",
                "flip_canary",
                "identity",
                "note_uses",
                "place",
                "prune_changes",
                "recording",
                "remove_canary",
                "sweep_uses",
            ][..],
        ),
        (
            "patgate_admin",
            &["applied_migrations", "identity", "place", "prune_changes", "recording"],
        ),
        ("patgate_sync", &["applied_migrations", "identity", "place"]),
    ] {
        let granted = names(&world, &executes(&format!("'{role}'::regrole"))).await;
        assert_eq!(granted, functions, "{role}");
    }
    // For self-service, its own functions and nothing else.
    let granted = names(&world, &executes("'patgate_web'::regrole")).await;
    let meant = "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'patgate'::regnamespace AND starts_with(proname, 'web_')
           AND NOT starts_with(proname, 'web_internal_')";
    assert_eq!(granted, names(&world, meant).await);
    let triggers = "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'patgate'::regnamespace AND prorettype = 'trigger'::regtype";
    let triggers = names(&world, triggers).await;
    assert!(triggers.contains(&"users_changed".to_owned()), "{triggers:?}");
    for user in ["server", "administrator", "web"] {
        let pool = login(&world, user).await;
        for function in &triggers {
            let sql = format!(
                "CREATE TEMPORARY TABLE mine (id uuid);
                 CREATE TRIGGER mine AFTER INSERT ON mine
                     FOR EACH ROW EXECUTE FUNCTION patgate.{function}()"
            );
            assert!(!permitted(&pool, &sql).await, "{user}: {function}");
        }
        pool.close().await;
    }
}
