//! Every replica obeys every change, by whatever means it is made.

use std::{collections::BTreeMap, sync::Arc};

use crate::support::{
    Suite, Token, World,
    fleet::{Fleet, MODELS},
    settings::PATIENT,
    tokens::reader,
};

const RENAMED: &str = "/proxy/renamed/v1/models";
const LISTED: &str = "/proxy/picky/v1/models/org/listed";

/// The SQL of a change, and the answers that differ afterwards.
type FeedStep = (&'static str, String, &'static [(&'static str, u16)]);

pub(crate) async fn every_change_is_obeyed_everywhere(suite: Arc<Suite>) {
    let world = suite.world().await;
    let fleet = Fleet::of(&world, 3, &PATIENT).await;
    let token = world
        .token(&[("acme", "models", "*", "llm_read"), ("picky", "models", "*", "llm_read")])
        .await;
    let bystander = world.token_for("bob", "1 hour", &[("beta", "models", "*", "llm_read")]).await;
    let theirs = "/proxy/beta/v1/models";
    fleet.all_answer(&bystander, theirs, 200).await;
    let read = world.statements_with(&bystander.id.to_string());

    let mut known = BTreeMap::from([(MODELS, 200), (RENAMED, 403), (LISTED, 200)]);
    for (what, sql, turns) in steps(&world, &token) {
        for (path, status) in &known {
            fleet.all_answer(&token, path, *status).await;
        }
        world.sql(&sql).await;
        for (path, after) in turns {
            let before = known.insert(path, *after).unwrap();
            fleet.turn(what, (&token, path), before, *after).await;
        }
        for (path, status) in &known {
            fleet.all_answer(&token, path, *status).await;
        }
    }
    fleet.all_answer(&bystander, theirs, 200).await;
    assert_eq!(
        world.statements_with(&bystander.id.to_string()),
        read,
        "it was none of its business"
    );
    world.sql("TRUNCATE patgate.pat_scopes").await;
    fleet.turn("all scopes removed", (&bystander, theirs), 200, 403).await;
}

fn steps(world: &World<'_>, token: &Token) -> Vec<FeedStep> {
    let acme = world.id("acme");
    let picky = world.id("picky");
    let ann = world.id("ann");
    let bob = world.id("bob");
    let pat = |set: &str| format!("UPDATE patgate.pats SET {set} WHERE id = '{}'", token.id);
    let user = |set: &str| format!("UPDATE patgate.users SET {set} WHERE id = '{ann}'");
    let domain = |set: &str| format!("UPDATE patgate.domains SET {set} WHERE id = '{acme}'");
    let revoked = "revoked_at = now()";
    let alive = "revoked_at = NULL";
    let replayed =
        |sql: &str| format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT");
    let nested = |sql: &str| format!("BEGIN; SAVEPOINT one; {sql}; RELEASE SAVEPOINT one; COMMIT");
    let role = format!(
        "INSERT INTO patgate.roles (id, domain_id, name) VALUES ('{acme}', '{acme}', 'admin');
         INSERT INTO patgate.role_operations VALUES ('{acme}', 'llm_read');
         INSERT INTO patgate.role_members VALUES ('{acme}', '{ann}')"
    );
    let member = |from, to| {
        format!(
            "UPDATE patgate.role_members SET user_id = '{to}'
             WHERE role_id = '{acme}' AND user_id = '{from}'"
        )
    };
    let no = &[(MODELS, 403)];
    let unauthenticated = &[(MODELS, 401), (LISTED, 401), (RENAMED, 401)];
    let well = &[(MODELS, 200), (LISTED, 200), (RENAMED, 403)];
    vec![
        ("revoked", pat(revoked), unauthenticated),
        ("no longer revoked", pat(alive), well),
        ("revoked by a replayed statement", replayed(&pat(revoked)), unauthenticated),
        ("the same back", replayed(&pat(alive)), well),
        ("revoked within a savepoint", nested(&pat(revoked)), unauthenticated),
        ("the same back within a savepoint", nested(&pat(alive)), well),
        ("expired", pat("expires_at = now() - interval '1 day'"), unauthenticated),
        ("prolonged", pat("expires_at = now() + interval '1 day'"), well),
        ("used", pat("last_used_at = now()"), &[]),
        (
            "scope removed",
            format!(
                "DELETE FROM patgate.pat_scopes
                 WHERE pat_id = '{}' AND domain_id = '{acme}'",
                token.id
            ),
            no,
        ),
        (
            "scope added",
            format!(
                "INSERT INTO patgate.pat_scopes VALUES
                     (gen_random_uuid(), '{}', '{acme}', 'models', '*', 'llm_read')",
                token.id
            ),
            well,
        ),
        ("owner disabled", user("enabled = false"), unauthenticated),
        ("owner enabled", user("enabled = true"), well),
        ("membership given to another", member(ann, bob), no),
        ("and back", member(bob, ann), well),
        (
            "membership removed",
            format!("DELETE FROM patgate.role_members WHERE role_id = '{acme}'"),
            no,
        ),
        ("platform admin", user("platform_admin = true"), well),
        ("no longer", user("platform_admin = false"), no),
        (
            "membership added",
            format!("INSERT INTO patgate.role_members VALUES ('{acme}', '{ann}')"),
            well,
        ),
        (
            "operation removed",
            format!(
                "DELETE FROM patgate.role_operations
                 WHERE role_id = '{acme}' AND operation = 'llm_read'"
            ),
            no,
        ),
        (
            "operation added",
            format!("INSERT INTO patgate.role_operations VALUES ('{acme}', 'llm_read')"),
            well,
        ),
        ("role deleted", format!("DELETE FROM patgate.roles WHERE id = '{acme}'"), no),
        ("role made again", role, well),
        ("domain disabled", domain("enabled = false"), no),
        ("domain enabled", domain("enabled = true"), well),
        ("domain renamed", domain("slug = 'renamed'"), &[(MODELS, 403), (RENAMED, 200)]),
        ("and back", domain("slug = 'acme'"), well),
        (
            "model removed",
            format!(
                "DELETE FROM patgate.domain_models
                 WHERE domain_id = '{picky}' AND model = 'org/listed'"
            ),
            &[(LISTED, 403)],
        ),
        (
            "model added",
            format!(
                "INSERT INTO patgate.domain_models VALUES ('{picky}', 'org/listed', 'model-acme')"
            ),
            well,
        ),
        (
            "token deleted",
            format!(
                "CREATE TABLE gone AS SELECT * FROM patgate.pats WHERE id = '{0}';
                 CREATE TABLE theirs AS SELECT * FROM patgate.pat_scopes WHERE pat_id = '{0}';
                 DELETE FROM patgate.pats WHERE id = '{0}'",
                token.id
            ),
            unauthenticated,
        ),
        (
            "a token that did not exist",
            "INSERT INTO patgate.pats SELECT * FROM gone;
             INSERT INTO patgate.pat_scopes SELECT * FROM theirs"
                .to_owned(),
            well,
        ),
        ("domain deleted", format!("DELETE FROM patgate.domains WHERE id = '{acme}'"), no),
        ("owner deleted", format!("DELETE FROM patgate.users WHERE id = '{ann}'"), unauthenticated),
    ]
}

/// Every request may write it; no entry must be read again because of it.
pub(crate) async fn the_last_use_is_no_change(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let changes = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM patgate.changes");
        count.fetch_one(&world.postgres).await.unwrap()
    };
    let before = changes().await;
    assert!(before > 0);
    world.sql("UPDATE patgate.pats SET last_used_at = now()").await;
    assert_eq!(changes().await, before);
    world
        .sql(&format!(
            "UPDATE patgate.pats SET last_used_at = now(), revoked_at = now() WHERE id = '{}'",
            token.id
        ))
        .await;
    assert_eq!(changes().await, before + 1);
}
