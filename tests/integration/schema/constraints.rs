//! Meaningless rows cannot be written, whichever login tries.

use std::{collections::BTreeSet, sync::Arc};

use patgate::operation::{EntityType, Operation};

use super::attempt;
use crate::support::{Suite, World, value};

const CHECK: &str = "23514";
const NOT_NULL: &str = "23502";
const UNIQUE: &str = "23505";
const FOREIGN_KEY: &str = "23503";
/// The value does not have the column's type.
const MALFORMED: &str = "22P02";

/// The database has the same words and pairs as the program.
pub(crate) async fn the_vocabulary_is_the_programs(suite: Arc<Suite>) {
    let world = suite.world().await;
    let stored: Vec<String> =
        value(&world, "SELECT array_agg(operation) FROM patgate.operations").await;
    let stored: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
    assert_eq!(stored, Operation::ALL.iter().map(|o| o.as_str()).collect());

    let stored: Vec<String> = value(
        &world,
        "SELECT array_agg(entity_type || ' ' || operation) FROM patgate.entity_operations",
    )
    .await;
    let pairs = |entity: &EntityType| {
        let entity = *entity;
        entity.operations().iter().map(move |operation| format!("{entity} {operation}"))
    };
    let known: BTreeSet<String> = EntityType::ALL.iter().flat_map(pairs).collect();
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), known);
}

/// An insertion with a placeholder, the values that are accepted, and those that are refused.
struct Column {
    insert: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

/// `{acme}`, `{ann}` and so on are ids of the world, `{token}` is a token's.
const COLUMNS: &[Column] = &[
    Column {
        insert: "INSERT INTO patgate.users (id, email, name) VALUES (gen_random_uuid(), {}, 'n')",
        good: &["'zoe@example.com'", "'z@e'", "repeat('z', 252) || '@e'", "'zoë@example.com'"],
        bad: &[
            "NULL",
            "''",
            "'zoe'",
            "'@e'",
            "'z@'",
            "'z@e@e'",
            "'z @e'",
            "'Zoe@example.com'",
            "E'z\\n@e'",
            "E'z@e\\n'",
            "E'z@e\\x01'",
            "repeat('z', 253) || '@e'",
        ],
    },
    Column {
        insert: "INSERT INTO patgate.users (id, email, name) VALUES (gen_random_uuid(), 'z@e', {})",
        good: &["'n'", "repeat('ü', 200)"],
        bad: &["NULL", "''", "repeat('n', 201)", "E'a\\nb'", "E'a\\x1b[2J'", "E'\\x7f'"],
    },
    Column {
        insert: "INSERT INTO patgate.users (id, email, name, platform_admin)
                 VALUES (gen_random_uuid(), 'z@e', 'n', {})",
        good: &["true", "false"],
        bad: &["NULL"],
    },
    Column {
        insert: "INSERT INTO patgate.users (id, email, name, enabled)
                 VALUES (gen_random_uuid(), 'z@e', 'n', {})",
        good: &["true", "false"],
        bad: &["NULL"],
    },
    Column {
        insert: "INSERT INTO patgate.backends (name, url, kind) VALUES ({}, 'http://h', 'vllm')",
        good: &["'v'", "'0.a_b-c'", "repeat('a', 63)"],
        bad: &["NULL", "''", "'-a'", "'A'", "'a/b'", "'a b'", "E'a\\n'", "repeat('a', 64)"],
    },
    Column {
        insert: "INSERT INTO patgate.backends (name, url, kind) VALUES ('v', {}, 'vllm')",
        good: &["'http://h'", "'https://h:1/v1'"],
        bad: &["NULL", "''", "'h:1'", "'ftp://h'", "'http://'", "'http://a b'", "E'http://a\\n'"],
    },
    Column {
        insert: "INSERT INTO patgate.backends (name, url, kind) VALUES ('v', 'http://h', {})",
        good: &["'vllm'", "'ollama'", "'openai'"],
        bad: &["NULL", "''", "'VLLM'", "'gpt'"],
    },
    Column {
        insert: "INSERT INTO patgate.backends VALUES ('v', 'http://h', 'vllm', now(), {}, 'k', now())",
        good: &["sha256('x')", "decode(repeat('00', 8192), 'hex')"],
        bad: &["''", "decode(repeat('00', 29), 'hex')", "decode(repeat('00', 8193), 'hex')"],
    },
    Column {
        insert: "INSERT INTO patgate.backends
                 VALUES ('v', 'http://h', 'vllm', now(), sha256('x'), {}, now())",
        good: &["'k'", "'0-'", "repeat('k', 32)"],
        bad: &["''", "'K'", "'-k'", "'k_'", "repeat('k', 33)"],
    },
    Column {
        insert: "INSERT INTO patgate.backends
                 VALUES ('v', 'http://h', 'vllm', now(), sha256('x'), 'k', {})",
        good: &["now()"],
        bad: &["'infinity'", "'-infinity'"],
    },
    Column {
        insert: "INSERT INTO patgate.domains (id, slug, name, upstream)
                 VALUES (gen_random_uuid(), {}, 'n', 'model-acme')",
        good: &["'ab'", "'a-'", "'a1--b'", "repeat('a', 63)", "'aaaaaaaa-bbbb-4ccc-8ddd'"],
        bad: &[
            "NULL",
            "''",
            "'a'",
            "'1a'",
            "'-a'",
            "'Ab'",
            "'a_b'",
            "'a.b'",
            "'a/b'",
            "'ä1'",
            "'a b'",
            "E'ab\\n'",
            "E'\\nab'",
            "repeat('a', 64)",
            "'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee'",
        ],
    },
    Column {
        insert: "INSERT INTO patgate.domains (id, slug, name, upstream)
                 VALUES (gen_random_uuid(), 'new', {}, 'model-acme')",
        good: &["'n'", "repeat('n', 200)"],
        bad: &["NULL", "''", "repeat('n', 201)", "E'a\\tb'"],
    },
    Column {
        insert: "INSERT INTO patgate.domains (id, slug, name, upstream, enabled)
                 VALUES (gen_random_uuid(), 'new', 'n', 'model-acme', {})",
        good: &["false"],
        bad: &["NULL"],
    },
    Column {
        insert: "INSERT INTO patgate.domains (id, slug, name, upstream, all_models)
                 VALUES (gen_random_uuid(), 'new', 'n', 'model-acme', {})",
        good: &["true", "false"],
        bad: &["NULL"],
    },
    Column {
        insert: "INSERT INTO patgate.domain_models VALUES ('{acme}', {}, 'model-acme')",
        good: &["'org/m:7b'", "repeat('m', 256)", "'*'", "'a*b'", "'a,b'", "'a._-:/@+9*'"],
        bad: &[
            "NULL",
            "''",
            "repeat('m', 257)",
            "E'm\\n'",
            "'**'",
            "'*a*'",
            "'a*/b*c'",
            "'a,*'",
            "'ü*'",
            "'* b'",
        ],
    },
    Column {
        insert: "INSERT INTO patgate.roles VALUES (gen_random_uuid(), '{acme}', {})",
        good: &["'helper'", "'a1_-'", "repeat('a', 63)"],
        bad: &["NULL", "''", "'1a'", "'Helper'", "'a b'", "E'a\\n'", "repeat('a', 64)"],
    },
    Column {
        insert: "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
                 VALUES (gen_random_uuid(), '{ann}', {}, sha256('x'), 'k', now() + '1 hour')",
        good: &["'n'", "repeat('n', 200)"],
        bad: &["NULL", "''", "repeat('n', 201)", "E'a\\nb'"],
    },
    Column {
        insert:
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at, description)
                 VALUES (gen_random_uuid(), '{ann}', 'n', sha256('x'), 'k', now() + '1 hour', {})",
        good: &["''", "repeat('n', 2000)"],
        bad: &["NULL", "repeat('n', 2001)", "E'a\\nb'"],
    },
    Column {
        insert: "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
                 VALUES (gen_random_uuid(), '{ann}', 'n', {}, 'k', now() + '1 hour')",
        good: &["sha256('x')"],
        bad: &["NULL", "''", "'x'", "sha224('x')", "sha512('x')", "sha256('x') || '\\x00'"],
    },
    Column {
        insert: "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
                 VALUES (gen_random_uuid(), '{ann}', 'n', sha256('x'), {}, now() + '1 hour')",
        good: &["'k'", "'0-'", "repeat('k', 32)"],
        bad: &["NULL", "''", "'K'", "'-k'", "'k_'", "repeat('k', 33)"],
    },
    Column {
        insert: "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
                 VALUES (gen_random_uuid(), '{ann}', 'n', sha256('x'), 'k', {})",
        good: &["now() + interval '1 microsecond'", "now() + interval '1000 years'"],
        // No token is valid without end, or expired from the start.
        bad: &["NULL", "now()", "now() - interval '1 second'", "'infinity'", "'-infinity'"],
    },
    Column {
        insert: "INSERT INTO patgate.pat_scopes
                 VALUES (gen_random_uuid(), '{token}', '{acme}', 'models', {}, 'llm_read')",
        good: &["'*'", "'org/m:7b'", "'**'", "repeat('m', 256)"],
        // Neither an empty nor an absent value means "any".
        bad: &["NULL", "''", "repeat('m', 257)", "E'm\\n'"],
    },
    Column {
        insert: "INSERT INTO patgate.pat_scopes
                 VALUES (gen_random_uuid(), '{token}', '{acme}', 'domains', {}, 'read')",
        good: &["'*'", "'{acme}'"],
        bad: &["NULL", "''", "'acme'", "'{beta}'", "upper('{acme}')"],
    },
    Column {
        insert: "INSERT INTO patgate.audit_log (actor, action, object) VALUES ({}, 'a', 'o')",
        good: &["'cli:root'"],
        bad: &["NULL", "''"],
    },
    Column {
        insert: "INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', {}, 'o')",
        good: &["'token.revoke'"],
        bad: &["NULL", "''"],
    },
    Column {
        insert: "INSERT INTO patgate.audit_log (actor, action, object) VALUES ('a', 'a', {})",
        good: &["'1'"],
        bad: &["NULL", "''"],
    },
];

/// Statements that contradict other rows.
const REFUSED: &[(&str, &[&str])] = &[
    (
        FOREIGN_KEY,
        &[
            "INSERT INTO patgate.domains (id, slug, name, upstream)
         VALUES (gen_random_uuid(), 'new', 'n', 'nowhere')",
            "INSERT INTO patgate.domain_models VALUES ('{acme}', 'm', 'nowhere')",
            "INSERT INTO patgate.domain_models VALUES (gen_random_uuid(), 'm', 'model-acme')",
            "INSERT INTO patgate.roles VALUES (gen_random_uuid(), gen_random_uuid(), 'r')",
            "INSERT INTO patgate.role_operations VALUES (gen_random_uuid(), 'read')",
            "INSERT INTO patgate.role_operations VALUES ('{acme}', 'llm')",
            "INSERT INTO patgate.role_operations VALUES ('{acme}', '*')",
            "INSERT INTO patgate.role_members VALUES (gen_random_uuid(), '{ann}')",
            "INSERT INTO patgate.role_members VALUES ('{acme}', gen_random_uuid())",
            "UPDATE patgate.pats SET user_id = gen_random_uuid()",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), gen_random_uuid(), '{acme}', 'models', '*', 'llm_read')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', gen_random_uuid(), 'models', '*', 'llm_read')",
            // An unknown word, and known words that do not form a pair.
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', 'models', '*', 'llm')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', '*', '*', 'llm_read')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', 'models', '*', 'read')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', 'scim', '*', 'execute')",
            "INSERT INTO patgate.entity_operations VALUES ('models', 'llm')",
            // A backend that is in use cannot be deleted.
            "DELETE FROM patgate.backends WHERE name = 'model-acme'",
            "DELETE FROM patgate.operations WHERE operation = 'llm_read'",
            "DELETE FROM patgate.entity_operations WHERE entity_type = 'models'",
        ],
    ),
    (
        UNIQUE,
        &[
            "INSERT INTO patgate.users (id, email, name)
         VALUES (gen_random_uuid(), 'ann@example.com', 'n')",
            "INSERT INTO patgate.users (id, email, name) VALUES ('{ann}', 'z@e', 'n')",
            "INSERT INTO patgate.backends VALUES ('model-acme', 'http://h', 'vllm')",
            "INSERT INTO patgate.domains (id, slug, name, upstream)
         VALUES (gen_random_uuid(), 'acme', 'n', 'model-acme')",
            "UPDATE patgate.domains SET slug = 'acme' WHERE slug = 'beta'",
            "INSERT INTO patgate.domain_models VALUES ('{picky}', 'other', 'model-beta')",
            "INSERT INTO patgate.roles VALUES (gen_random_uuid(), '{acme}', 'admin')",
            "INSERT INTO patgate.role_operations VALUES ('{acme}', 'read')",
            "INSERT INTO patgate.role_members VALUES ('{acme}', '{ann}')",
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
         VALUES (gen_random_uuid(), '{ann}', '{token}', sha256('x'), 'k', now() + '1 hour')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', 'models', 'm', 'llm_read')",
            "INSERT INTO patgate.schema_version (version) VALUES (1)",
        ],
    ),
    (
        CHECK,
        &[
            "INSERT INTO patgate.schema_version VALUES (1, false)",
            // No domain sees all models and also lists some.
            "UPDATE patgate.domains SET all_models = true WHERE slug = 'picky'",
            // A credential is complete or absent.
            "UPDATE patgate.backends SET credential = sha256('x')",
            "UPDATE patgate.backends SET credential_key_id = 'k', credential_set_at = now()",
            "INSERT INTO patgate.backends
         VALUES ('v', 'http://h', 'vllm', now(), sha256('x'), 'k', NULL)",
            "INSERT INTO patgate.backends
         VALUES ('v', 'http://h', 'vllm', now(), sha256('x'), NULL, now())",
        ],
    ),
    (
        NOT_NULL,
        &[
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', NULL, '*', 'llm_read')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', '{acme}', 'models', '*', NULL)",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), '{token}', NULL, 'models', '*', 'llm_read')",
            "INSERT INTO patgate.pat_scopes
         VALUES (gen_random_uuid(), NULL, '{acme}', 'models', '*', 'llm_read')",
            "UPDATE patgate.pats SET user_id = NULL",
            "UPDATE patgate.pats SET issued_at = NULL",
            "UPDATE patgate.schema_version SET version = NULL",
        ],
    ),
    (MALFORMED, &["UPDATE patgate.users SET id = 'ann'"]),
];

pub(crate) async fn rows_that_mean_nothing_are_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = world.token(&[("acme", "models", "m", "llm_read")]).await;
    let fill = |sql: &str| {
        ["acme", "beta", "picky", "ann"]
            .iter()
            .fold(sql.replace("{token}", &token.id.to_string()), |sql, name| {
                sql.replace(&format!("{{{name}}}"), &world.id(name).to_string())
            })
    };
    for Column { insert, good, bad } in COLUMNS {
        for value in *good {
            let sql = fill(&insert.replace("{}", value));
            assert_eq!(attempt(&world.postgres, &sql).await, Ok(()), "{sql}");
        }
        for value in *bad {
            let sql = fill(&insert.replace("{}", value));
            let expected = if *value == "NULL" { NOT_NULL } else { CHECK };
            assert_eq!(attempt(&world.postgres, &sql).await, Err(expected.to_owned()), "{sql}");
        }
    }
    for (expected, statements) in REFUSED {
        for sql in *statements {
            let sql = fill(sql);
            let outcome = attempt(&world.postgres, &sql).await;
            assert_eq!(outcome, Err((*expected).to_owned()), "{sql}");
        }
    }
}

/// Deleting a row deletes the rows that refer to it, and no others.
pub(crate) async fn deletion_cascades(suite: Arc<Suite>) {
    // In this order: each deletion depends on the previous ones.
    let tables = [
        "users",
        "domains",
        "domain_models",
        "roles",
        "role_operations",
        "role_members",
        "pats",
        "pat_scopes",
    ];
    for (statement, expected) in [
        ("DELETE FROM patgate.pats WHERE user_id = '{ann}'", [0, 0, 0, 0, 0, 0, 1, 2]),
        ("DELETE FROM patgate.users WHERE id = '{ann}'", [1, 0, 0, 0, 0, 3, 1, 2]),
        ("DELETE FROM patgate.roles WHERE id = '{acme}'", [0, 0, 0, 1, 27, 2, 0, 0]),
        ("DELETE FROM patgate.domains WHERE slug = 'acme'", [0, 1, 0, 2, 28, 3, 0, 2]),
        // With the row that stands for an empty list.
        ("DELETE FROM patgate.domains WHERE slug = 'picky'", [0, 1, 3, 1, 27, 1, 0, 1]),
    ] {
        let world = suite.world().await;
        let scopes = [("acme", "models", "*", "llm_read"), ("picky", "models", "*", "llm_read")];
        world.token(&scopes).await;
        world.token_for("bob", "1 hour", &scopes[..1]).await;
        let before = counts(&world, &tables).await;
        let sql = ["ann", "acme"].iter().fold(statement.to_owned(), |sql, name| {
            sql.replace(&format!("{{{name}}}"), &world.id(name).to_string())
        });
        world.sql(&sql).await;
        let after = counts(&world, &tables).await;
        let gone: Vec<i64> = before.iter().zip(&after).map(|(b, a)| b - a).collect();
        assert_eq!(gone, expected, "{statement}: of {tables:?}");
    }
    // Renaming a backend also renames all references to it.
    let world = suite.world().await;
    world.sql("UPDATE patgate.backends SET name = 'renamed' WHERE name = 'model-acme'").await;
    let used = "SELECT (SELECT count(*) FROM patgate.domains WHERE upstream = 'renamed')
                     + (SELECT count(*) FROM patgate.domain_models WHERE upstream = 'renamed')";
    assert_eq!(value::<i64>(&world, used).await, 5);
}

async fn counts(world: &World<'_>, tables: &[&str]) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in tables {
        counts.push(value(world, &format!("SELECT count(*) FROM patgate.{table}")).await);
    }
    counts
}
