//! Tokens through their life: scopes, rotation, and what is deleted together.

use std::sync::Arc;

use crate::support::{
    Suite, Token, World,
    cli::{Cli, answer, ask, get},
    value,
};

const OK: (u16, &str) = (200, "ok");
const DENIED: (u16, &str) = (403, "permission_denied");

/// An entity's id is everything between the type and the last colon.
pub(crate) async fn scopes_hold_colons_and_slashes(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let acme = world.id("acme");
    let entity = "org/qwen2.5:7b:q4";
    let other = "org/qwen2.5:7b";
    let token = cli.mint(&format!(
        "token create t --user ann@example.com --expires-in 1h \
         --scope acme:models:{entity}:llm_read --scope {acme}:models:{other}:llm_delete"
    ));
    let path = |model: &str| format!("/proxy/acme/v1/models/{model}");
    let replica = world.serve(&[]).await;
    for (model, expected) in
        [(entity, OK), (other, DENIED), ("org", DENIED), ("org/qwen2.5:7b:q4:x", DENIED)]
    {
        let (status, code) = expected;
        assert_eq!(get(&replica, &token, &path(model)).await, answer(status, code), "{model}");
    }
    assert_eq!(ask(&replica, &token, "acme").await, answer(200, "answered"));

    let shown = cli.json(&format!("token show {}", token.id));
    let scopes: Vec<_> = shown["scopes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scope| (scope["entity_id"].as_str().unwrap(), scope["operation"].as_str().unwrap()))
        .collect();
    assert_eq!(scopes, [(other, "llm_delete"), (entity, "llm_read")]);

    // The output can be used as input.
    let table = cli.ok(&format!("token show {}", token.id));
    let mut printed: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("scope:")).map(str::trim).collect();
    assert_eq!(
        printed,
        ["acme:models:org/qwen2.5:7b:llm_delete", "acme:models:org/qwen2.5:7b:q4:llm_read"]
    );
    let last = printed.pop().unwrap();
    let left = cli.json(&format!("token scope remove {} {last}", token.id));
    assert_eq!(left["scopes"].as_array().unwrap().len(), 1);
    // Adding twice is the same as adding once; removing a missing scope removes nothing else
    // either.
    let given = cli.json(&format!("token scope add {0} {last} {last}", token.id));
    assert_eq!(given, cli.json(&format!("token scope add {} {last}", token.id)));
    cli.refused(&format!("token scope remove {} {last} acme:models:x:llm_read", token.id), 3, "x");
    assert_eq!(cli.json(&format!("token show {}", token.id)), given);
}

/// The command warns about scopes that grant nothing, and only about those.
fn warnings(cli: &Cli<'_>, command: &str) -> usize {
    let ran = cli.run(command);
    assert_eq!(ran.code, 0, "{ran:#?}");
    ran.stderr.matches("warning").count()
}

async fn seconds(world: &World<'_>, token: &Token, from: &str) -> i64 {
    let id = token.id;
    let sql = format!(
        "SELECT round(extract(epoch FROM expires_at - {from}))::int8 FROM patgate.pats WHERE id = '{id}'"
    );
    value(world, &sql).await
}

pub(crate) async fn tokens_rotate_at_once_or_after_a_grace(suite: Arc<Suite>) {
    const HOUR: i64 = 3600;
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let create = |name: &str, life: &str| {
        cli.mint(&format!(
            "token create {name} --user ann@example.com --expires-in {life} --description why \
             --scope acme:models:*:llm_read"
        ))
    };
    let rotate = |token: &Token, how: &str| cli.mint(&format!("token rotate {} {how}", token.id));
    let show = |token: &Token| cli.json(&format!("token show {}", token.id));

    let at_once = create("at-once", "2h");
    let was = show(&at_once);
    let next = rotate(&at_once, "");
    let old = show(&at_once);
    let new = show(&next);
    assert_ne!(at_once.id, next.id);
    for kept in ["name", "description", "owner", "scopes", "key_id"] {
        assert_eq!(new[kept], was[kept], "{kept}");
    }
    assert_eq!((&old["status"], &new["status"]), (&"revoked".into(), &"live".into()));
    let renamed = old["name"].as_str().unwrap();
    let end = &at_once.id.to_string()[24..];
    assert!(renamed.starts_with("at-once ") && renamed.contains(end), "{renamed}");
    assert_eq!(seconds(&world, &next, "issued_at").await, 2 * HOUR);

    let with_grace = create("with-grace", "2h");
    let successor = rotate(&with_grace, "--grace 1h --expires-in 3h");
    assert_eq!(seconds(&world, &successor, "issued_at").await, 3 * HOUR);
    let left = seconds(&world, &with_grace, "now()").await;
    assert!((HOUR - 120..=HOUR).contains(&left), "{left}");
    assert_eq!(show(&with_grace)["status"], "live");

    // The grace period does not extend the token's life.
    let short = create("short", "10m");
    rotate(&short, "--grace 24h");
    assert_eq!(seconds(&world, &short, "issued_at").await, 600);

    let replica = world.serve(&[]).await;
    for (token, expected) in [
        (&at_once, answer(401, "token_revoked")),
        (&next, answer(200, "ok")),
        (&with_grace, answer(200, "ok")),
        (&successor, answer(200, "ok")),
    ] {
        assert_eq!(ask(&replica, token, "acme").await, expected);
    }

    // A name of the maximum length still has room for the id of its origin, repeatedly.
    let name = "n".repeat(200);
    let mut long = create(&name, "1h");
    for _ in 0..2 {
        let successor = rotate(&long, "--grace 5m");
        assert_eq!(show(&successor)["name"], name.as_str());
        assert_eq!(show(&long)["name"].as_str().unwrap().len(), 200);
        long = successor;
    }

    let scope = "--scope acme:models:*:llm_read";
    for (owner, scope, expected) in
        [("ann", scope, 0), ("bob", scope, 1), ("root", scope, 0), ("ann", "", 1)]
    {
        let create = format!(
            "token create warned{} --user {owner}@example.com --expires-in 1h {scope}",
            scope.len()
        );
        assert_eq!(warnings(&cli, &create), expected, "{create}");
    }
}

pub(crate) async fn deletion_takes_along_what_hangs_on_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let acme = ("acme", "models", "*", "llm_read");
    let beta = ("beta", "models", "*", "llm_read");
    let ann = world.token(&[acme]).await;
    let bob = world.token_for("bob", "1 hour", &[acme, beta]).await;
    let ann_id = world.id("ann");
    let acme_id = world.id("acme");
    let count = async |from: &str| {
        value::<i64>(&world, &format!("SELECT count(*) FROM patgate.{from}")).await
    };
    let of_ann = [
        format!("users WHERE id = '{ann_id}'"),
        format!("pats WHERE user_id = '{ann_id}'"),
        format!("pat_scopes WHERE pat_id = '{}'", ann.id),
        format!("role_members WHERE user_id = '{ann_id}'"),
    ];
    let of_acme = [
        format!("domains WHERE id = '{acme_id}'"),
        format!("pat_scopes WHERE domain_id = '{acme_id}'"),
        format!("roles WHERE domain_id = '{acme_id}'"),
        // The domain's role `admin` has the domain's id.
        format!("role_operations WHERE role_id = '{acme_id}'"),
        format!("role_members WHERE role_id = '{acme_id}'"),
    ];
    for (command, gone) in [
        ("user delete ann@example.com --yes", of_ann.as_slice()),
        ("domain delete acme --yes", &of_acme),
    ] {
        for rows in gone {
            assert!(count(rows).await > 0, "nothing to be deleted: {rows}");
        }
        cli.ok(command);
        for rows in gone {
            assert_eq!(count(rows).await, 0, "{command}: {rows}");
        }
    }
    // Data of others is unchanged.
    let replica = world.serve(&[]).await;
    assert_eq!(ask(&replica, &bob, "beta").await, answer(200, "ok"));
    assert_eq!(ask(&replica, &bob, "acme").await, answer(403, "permission_denied"));

    // A new user of that name gets neither back.
    cli.ok("user create ann@example.com --name Ann --platform-admin");
    cli.ok("domain create acme --name Acme --upstream model-acme --all-models");
    cli.ok("user set-platform-admin bob@example.com true");
    let next = world.serve(&[]).await;
    assert_eq!(ask(&next, &ann, "acme").await, answer(401, "invalid_token"));
    assert_eq!(ask(&next, &bob, "acme").await, answer(403, "permission_denied"));
    assert_eq!(count("audit_log").await, 5);
}
