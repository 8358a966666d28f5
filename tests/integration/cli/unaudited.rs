//! deploy/audit/unaudited.sql, by the command of docs/operations.md: what a thief with a login has
//! changed is listed, and what commands have changed is not.

use std::{process::Command, sync::Arc};

use patgate_testing::stack::project;

use super::audit::everything_is_recorded;
use crate::support::{Suite, World, cli::Cli, value};

/// What psql prints.
fn listed(world: &World<'_>) -> String {
    let psql = format!("{}/psql", world.suite.postgres.bin);
    let ran = Command::new(psql)
        .args([&world.url("postgres", world.port), "-f", "deploy/audit/unaudited.sql"])
        .current_dir(project("."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.is_empty(), "{said}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The lines that are in `after` and not in `before`, without the white space of the columns.
fn new_lines(before: &str, after: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let known: Vec<String> = before.lines().map(words).collect();
    let is_rule = |line: &String| line.chars().all(|letter| "-+".contains(letter));
    after.lines().map(words).filter(|line| !known.contains(line) && !is_rule(line)).collect()
}

const PLANTED: &[(&str, &str)] = &[
    ("INSERT INTO patgate.users (id, email, name, platform_admin)
      VALUES (gen_random_uuid(), 'thief@example.com', 'T', true)", "user | thief@example.com"),
    ("UPDATE patgate.users SET platform_admin = true WHERE email = 'bob@example.com'",
        "user | bob@example.com"),
    ("INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
      SELECT gen_random_uuid(), id, 'planted', sha256('x'), 'k1', now() + interval '1 day'
      FROM patgate.users WHERE email = 'ann@example.com'", "token | planted"),
    ("INSERT INTO patgate.pat_scopes
      SELECT gen_random_uuid(), p.id, d.id, 'models', '*', 'llm_read'
      FROM patgate.pats p, patgate.domains d WHERE p.name = 'planted' AND d.slug = 'beta'",
        "scope of a token |"),
    ("UPDATE patgate.pats SET expires_at = now() + interval '9 years' WHERE name = 'kept'",
        "token | kept"),
    ("UPDATE patgate.domains SET upstream = 'model-beta' WHERE slug = 'acme'",
        "domain | acme"),
    ("INSERT INTO patgate.domain_models SELECT id, 'planted', 'model-beta' FROM patgate.domains
      WHERE slug = 'acme'", "model of a domain | acme: planted"),
    ("INSERT INTO patgate.role_members SELECT r.id, u.id
      FROM patgate.roles r JOIN patgate.domains d ON d.id = r.domain_id, patgate.users u
      WHERE d.slug = 'beta' AND r.name = 'admin' AND u.email = 'thief@example.com'",
        "member of a role | beta: thief@example.com has admin"),
    ("INSERT INTO patgate.role_operations SELECT r.id, 'llm_rerank'
      FROM patgate.roles r JOIN patgate.domains d ON d.id = r.domain_id
      WHERE d.slug = 'acme' AND r.name = 'reader'", "operation of a role | acme: reader may llm_rerank"),
    ("INSERT INTO patgate.roles SELECT gen_random_uuid(), id, 'planted' FROM patgate.domains
      WHERE slug = 'acme'", "role | acme: planted"),
    ("UPDATE patgate.backends SET url = 'http://thief.example.com' WHERE name = 'model-acme'",
        "backend | model-acme: http://thief.example.com"),
    ("INSERT INTO patgate.issuers VALUES ('https://thief.example.com')",
        "provider of sign-ins | https://thief.example.com"),
    ("INSERT INTO patgate.identities SELECT 'https://thief.example.com', 's', id FROM patgate.users
      WHERE email = 'ann@example.com'", "subject of a provider | s of https://thief.example.com"),
    ("INSERT INTO patgate.local_accounts SELECT id, '\\x00112233445566778899aabbccddeeff', sha256('x')
      FROM patgate.users WHERE email = 'ann@example.com'", "password | ann@example.com"),
    ("INSERT INTO patgate.invitations SELECT sha256('y'), id, now(), now() + interval '1 day'
      FROM patgate.users WHERE email = 'ann@example.com'", "invitation | of user"),
    ("UPDATE patgate.policy SET token_longest = NULL", "policy |"),
    ("UPDATE patgate.installation SET id = gen_random_uuid()", "installation |"),
    ("ALTER TABLE patgate.audit_log DISABLE TRIGGER append_only", "patgate.audit_log | append_only"),
    ("CREATE ROLE planted_thief LOGIN; GRANT patgate_admin TO planted_thief",
        "planted_thief | patgate_admin"),
    ("GRANT UPDATE (revoked_at) ON patgate.pats TO planted_thief",
        "patgate.pats.revoked_at | planted_thief | UPDATE"),
    ("GRANT SELECT, INSERT ON patgate.users TO PUBLIC", "patgate.users | PUBLIC | INSERT, SELECT"),
];

pub(crate) async fn what_a_thief_has_changed_is_listed(suite: Arc<Suite>) {
    let world = suite.world().await;
    // The world itself was written by bare SQL.
    let before = listed(&world);
    let cli = Cli::of(&world);
    everything_is_recorded(&world, &cli, &cli.login(&world, "server")).await;
    cli.ok(
        "token create kept --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read",
    );
    cli.ok("user invite ann@example.com");
    cli.ok("role create acme helper --operation read");
    cli.ok("role member add acme helper ann@example.com");
    cli.ok("provider add https://id.example.com");
    cli.ok("provider link https://id.example.com s ann@example.com");
    let after = listed(&world);
    let kept: String = value(&world, "SELECT id::text FROM patgate.pats WHERE name = 'kept'").await;
    let tokens: Vec<String> =
        value(&world, "SELECT array_agg(id::text) FROM patgate.pats WHERE name <> 'kept'").await;
    assert!(!after.contains(&kept), "{after}");
    // The summary of the audit log is longer. And that test writes tokens by bare SQL, whose scopes no
    // command has written since.
    let known = |line: &String| {
        line.starts_with("administrator | ")
            || tokens.iter().any(|id| line.starts_with(&format!("scope of a token | {id}")))
    };
    let by_commands: Vec<_> =
        new_lines(&before, &after).into_iter().filter(|l| !known(l)).collect();
    assert!(by_commands.is_empty(), "{by_commands:#?}");

    let mut before = after;
    for (sql, expected) in PLANTED {
        world.sql(sql).await;
        let after = listed(&world);
        let new = new_lines(&before, &after);
        assert!(new.iter().any(|line| line.starts_with(expected)), "{sql}: {new:#?}");
        before = after;
    }
    world.sql("DROP OWNED BY planted_thief; DROP ROLE planted_thief").await;
    println!("{} planted changes are listed", PLANTED.len());
}
