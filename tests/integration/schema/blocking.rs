//! What other logins can lock or flood, without delaying a change.

use std::{
    io::{BufRead as _, BufReader},
    sync::Arc,
};

use patgate_testing::eventually;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::attempt;
use crate::support::{
    Suite,
    cli::{Cli, answer, ask},
    tokens::reader,
    value,
};

const ROWS: [&str; 4] = ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"];
const TABLES: [&str; 8] = [
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];
/// Keys that this release, or the previous one, locks.
const ADVISORY: [&str; 5] = [
    "'patgate migrate'",
    "'patgate prune'",
    "'patgate relay'",
    "'patgate prune ' || id",
    "'patgate relay ' || id",
];

/// Takes every lock that a login can take, in one transaction that stays open, and returns them.
async fn hold_everything(connection: &mut PgConnection, tables: &[String]) -> Vec<String> {
    // This must come first in its transaction.
    let mut wanted = vec!["SELECT patgate.prune_changes()".to_owned()];
    for table in tables {
        wanted.extend(ROWS.map(|mode| format!("SELECT FROM patgate.{table} FOR {mode}")));
        wanted.extend(TABLES.map(|mode| format!("LOCK TABLE patgate.{table} IN {mode} MODE")));
    }
    wanted.extend(
        [
            "SELECT patgate.note_uses(ARRAY(SELECT id FROM patgate.pats))",
            "SELECT patgate.sweep_uses('00000000-0000-0000-0000-000000000000')",
            "SELECT patgate.flip_canary(gen_random_uuid(), '1 hour')",
            "SELECT patgate.remove_canary(id) FROM patgate.pats",
            "SELECT count(*) FROM (SELECT pg_advisory_lock(n) FROM generate_series(0, 99) n) x",
        ]
        .map(str::to_owned),
    );
    wanted.extend(ADVISORY.map(|key| {
        format!("SELECT pg_advisory_lock(hashtextextended({key}, 0)) FROM patgate.installation")
    }));
    connection.execute("BEGIN").await.unwrap();
    let mut held = Vec::new();
    for sql in wanted {
        connection.execute("SAVEPOINT here").await.unwrap();
        match connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await {
            Ok(_) => held.push(sql),
            Err(_) => drop(connection.execute("ROLLBACK TO here").await.unwrap()),
        }
    }
    held
}

pub(crate) async fn a_replicas_login_holds_up_no_change(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let replica = world.serve(&[]).await;
    let [revoked, deleted, bulk] =
        [reader(&world).await, reader(&world).await, reader(&world).await];
    for token in [&revoked, &deleted, &bulk] {
        assert_eq!(ask(&replica, token, "acme").await, answer(200, "ok"));
    }
    let noted = "SELECT count(*) FROM patgate.pat_uses";
    eventually("notes to be written", async || value::<i64>(&world, noted).await == 3).await;
    let tables = super::privileges::tables(&world).await;
    let url = world.suite.postgres_url("server", &world.database);
    let mut thief = PgConnection::connect(&url).await.unwrap();
    let held = hold_everything(&mut thief, &tables).await;
    let holds = |held: &[String], sql: &str| held.iter().any(|it| it == sql);
    for sql in [
        "LOCK TABLE patgate.pats IN ACCESS SHARE MODE",
        "LOCK TABLE patgate.replicas IN ACCESS EXCLUSIVE MODE",
        "SELECT patgate.note_uses(ARRAY(SELECT id FROM patgate.pats))",
    ] {
        assert!(holds(&held, sql), "{sql}: {held:#?}");
    }
    let [token, other] = [&revoked, &deleted].map(|token| token.id);
    for command in [
        format!("token revoke {token}"),
        format!("token delete {token}"),
        format!("token delete {other}"),
        "token revoke --domain acme --yes".to_owned(),
        "user disable ann@example.com".to_owned(),
        "user delete ann@example.com --yes".to_owned(),
        "role revoke acme admin llm_read".to_owned(),
        "domain model set acme m --upstream model-beta".to_owned(),
        "domain disable acme".to_owned(),
        "domain delete acme --yes".to_owned(),
    ] {
        let ran = cli.run(&command);
        assert!(ran.is_without_warning(), "{command}: {ran:#?}");
    }
    for token in [&revoked, &deleted, &bulk] {
        eventually("its refusal", async || ask(&replica, token, "acme").await.0 == 401).await;
    }
    thief.execute("ROLLBACK").await.unwrap();

    // With a privilege that this login had in an earlier release, it could have locked any token.
    let row = "SELECT FROM patgate.pats FOR UPDATE";
    assert!(!holds(&held, row));
    world.sql("GRANT UPDATE (last_used_at) ON patgate.pats TO patgate_serve").await;
    assert!(holds(&hold_everything(&mut thief, &tables).await, row));
    thief.close().await.unwrap();
}

pub(crate) async fn a_command_that_waits_names_who_holds_the_lock(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = reader(&world).await;
    for (login, since) in [
        ("administrator", "in a transaction since 2"),
        ("postgres", "since when, only pg_read_all_stats may see"),
    ] {
        let mut holder = PgConnection::connect(&world.url(login, world.port)).await.unwrap();
        let hold = format!(
            "SET application_name = 'nightly job'; BEGIN;
             SELECT FROM patgate.pats WHERE id = '{}' FOR UPDATE",
            token.id
        );
        holder.execute(sqlx::raw_sql(AssertSqlSafe(hold))).await.unwrap();
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();

        let mut child = cli.spawn(&format!("token revoke {}", token.id));
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        let expected = format!(
            "waiting for a lock that is held by nightly job (pid {pid}, login {login}, {since}"
        );
        assert!(said.contains(&expected), "{said}, not {expected}");
        holder.execute("ROLLBACK").await.unwrap();
        let ran = cli.finish("token revoke", child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{ran:#?}");
        // Open until here, so that all output has a reader.
        drop(stderr);
        holder.close().await.unwrap();
    }
}

/// The database determines the order, time and login of an entry in the audit log.
pub(crate) async fn an_audit_line_cannot_be_forged(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = reader(&world).await;
    let url = world.suite.postgres_url("administrator", &world.database);
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    let mut written = async |columns: &str, values: &str| {
        let sql = format!(
            "INSERT INTO patgate.audit_log ({columns} actor, action, object)
             OVERRIDING SYSTEM VALUE VALUES ({values} 'somebody', 'token.revoke', 'x')"
        );
        administrator
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .map(drop)
            .map_err(|error| error.as_database_error().unwrap().code().unwrap().into_owned())
    };
    let denied = Err(super::INSUFFICIENT_PRIVILEGE.to_owned());
    for (columns, values) in [
        ("id,", "(SELECT coalesce(max(id), 0) + 1 FROM patgate.audit_log),"),
        ("at,", "'2020-01-01',"),
        ("login,", "'postgres',"),
        ("id, at, login,", "1, now(), session_user,"),
    ] {
        assert_eq!(written(columns, values).await, denied, "{columns}");
        // None of this prevents a command from writing its entry.
        cli.ok("user set-platform-admin ann@example.com true");
    }
    assert_eq!(written("", "").await, Ok(()));
    cli.ok(&format!("token revoke {}", token.id));
    let lines = cli.json("audit list --limit 2");
    for (line, actor) in [(&lines[0], None), (&lines[1], Some("somebody"))] {
        assert_eq!(line["login"], "administrator", "{line}");
        assert!(actor.is_none_or(|actor| line["actor"] == actor), "{line}");
    }
    let young = "SELECT bool_and(at > now() - interval '10 minutes') FROM patgate.audit_log";
    assert!(value::<bool>(&world, young).await);
    assert!(cli.ok("audit list").lines().next().unwrap().contains("  LOGIN  "));
    let numbers = "SELECT setval('patgate.audit_log_id_seq', 1)";
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    assert_eq!(attempt(&pool, numbers).await, denied);
    pool.close().await;
}

/// A token whose row says that it was issued in the future, which no command writes.
pub(crate) async fn a_token_of_the_future_is_refused_and_counted(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let replica = world.serve(&[]).await;
    let future = reader(&world).await;
    let past = reader(&world).await;
    let issue = |at: &str, token: &crate::support::Token| {
        format!("UPDATE patgate.pats SET issued_at = {at} WHERE id = '{}'", token.id)
    };
    let soon = issue("now() + interval '2 minutes'", &future);
    assert_eq!(attempt(&world.postgres, &soon).await, Err("23514".to_owned()));
    // As in a restored dump, or a replayed change.
    world
        .sql(&format!("BEGIN; SET LOCAL session_replication_role = replica; {soon}; COMMIT"))
        .await;
    world.sql(&issue("'-infinity'", &past)).await;
    let count = "patgate_decisions_total{outcome=\"deny\",code=\"token_not_yet_issued\",\
         enforced=\"true\"}";
    assert_eq!(ask(&replica, &past, "acme").await, answer(200, "ok"));
    let before = replica.metric(count).await;
    assert_eq!(ask(&replica, &future, "acme").await, answer(401, "token_not_yet_issued"));
    assert_eq!(replica.metric(count).await, before + 1);
    // It can be revoked nevertheless.
    cli.ok(&format!("token revoke {}", future.id));
    let revoked = answer(401, "token_revoked");
    eventually("its revocation", async || ask(&replica, &future, "acme").await == revoked).await;
}
