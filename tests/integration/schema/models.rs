//! Which models a domain sees: all of them only if it is marked so, and none if its list is empty,
//! in this release and in the previous one.

use std::sync::Arc;

use patgate::domain::{Domain, DomainId, Models};
use patgate_testing::eventually;
use serde_json::json;
use sqlx::{AssertSqlSafe, types::Json};

use crate::support::{
    Suite, World,
    cli::{Cli, answer, get},
    value,
};

/// Reverts the migration that marks explicitly which domains see all models.
const BEFORE: &str = "DROP FUNCTION patgate.keep_domain_closed, patgate.keep_list_closed,
        patgate.keep_lists_closed CASCADE;
    DELETE FROM patgate.domain_models WHERE model = '(none) *';
    ALTER TABLE patgate.domains DROP COLUMN all_models;
    ALTER TABLE patgate.domain_models DROP CONSTRAINT domain_models_pattern,
        ADD CONSTRAINT domain_models_pattern
            CHECK (model NOT LIKE '%*%' OR model ~ '^[A-Za-z0-9._:/@+*-]+$') NOT VALID;
    DELETE FROM patgate.migrations WHERE version = 11";

const LISTED: &str = "/proxy/picky/v1/models/org/listed";
const OTHER: &str = "/proxy/picky/v1/models/unlisted";
const ACME: &str = "/proxy/acme/v1/models/anything";

/// Texts that clients and administrators may use as a model's name, including that of the special
/// row.
const NAMES: &[&str] = &["m", "org/listed", "(none) *", "(none) x", "(none) ", "*", "none", ""];

/// Reads a domain like the previous release: with this part of its query, and reading a list
/// without entries as "all models".
async fn read_by_the_release_before(world: &World<'_>, slug: &str) -> Domain {
    let sql = format!(
        "SELECT (SELECT json_agg(json_build_array(m.model, m.upstream))
                 FROM patgate.domain_models m WHERE m.domain_id = d.id) AS models
         FROM patgate.domains d WHERE d.slug = '{slug}'"
    );
    type Rows = Vec<(Box<str>, Box<str>)>;
    let rows: Option<Json<Rows>> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&world.postgres).await.unwrap();
    let models = match rows {
        Some(Json(rows)) if !rows.is_empty() => Models::Listed(rows),
        _ => Models::All,
    };
    let id = DomainId(value(world, "SELECT gen_random_uuid()").await);
    Domain::new(id, slug.parse().unwrap(), true, "model-acme".into(), models)
}

/// Checks that both releases let the domain see no model.
async fn sees_none(world: &World<'_>, slug: &str, how: &str) {
    let before = read_by_the_release_before(world, slug).await;
    for name in NAMES {
        assert_eq!(before.upstream_for(Some(name)), None, "{how}: {slug}: {name}");
    }
    let shown = Cli::of(world).json(&format!("domain show {slug}"));
    assert_eq!((&shown["all_models"], &shown["models"]), (&json!(false), &json!([])), "{how}");
}

/// In whichever way the last model of a list is removed, and however a domain without models is
/// created.
pub(crate) async fn an_empty_list_permits_no_model(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let replica = world.serve(&["max_staleness=60s"]).await;
    let scopes = ["acme", "picky"].map(|slug| (slug, "models", "*", "llm_read"));
    let token = world.token(&scopes).await;
    let ok = answer(200, "ok");
    let denied = answer(403, "permission_denied");
    let picky = world.id("picky");

    assert_eq!(get(&replica, &token, LISTED).await, ok);
    cli.ok("domain model unset picky other");
    let last = cli.run("domain model unset picky org/listed");
    assert_eq!(last.code, 0, "{last:#?}");
    for said in ["lists no model any more", "`patgate domain update picky --all-models`"] {
        assert!(last.stderr.contains(said), "{said}: {last:#?}");
    }
    for (how, sql) in [
        ("by command", "SELECT".to_owned()),
        (
            "all rows of a domain",
            format!("DELETE FROM patgate.domain_models WHERE domain_id = '{picky}'"),
        ),
        (
            "the row that stands for none",
            "DELETE FROM patgate.domain_models WHERE model = '(none) *'".to_owned(),
        ),
        (
            "a new name for that row",
            format!(
                "UPDATE patgate.domain_models SET model = 'm' WHERE domain_id = '{picky}';
             DELETE FROM patgate.domain_models WHERE model = 'm'"
            ),
        ),
        ("all rows", "TRUNCATE patgate.domain_models".to_owned()),
        (
            "another backend",
            format!("UPDATE patgate.domains SET upstream = 'model-beta' WHERE id = '{picky}'"),
        ),
    ] {
        world.sql(&sql).await;
        sees_none(&world, "picky", how).await;
        for path in [LISTED, OTHER] {
            eventually(how, async || get(&replica, &token, path).await == denied).await;
        }
        assert_eq!(get(&replica, &token, ACME).await, ok, "{how}");
    }
    // The row does not keep a backend in use that the domain does not use.
    let uses = format!("SELECT upstream FROM patgate.domain_models WHERE domain_id = '{picky}'");
    assert_eq!(value::<String>(&world, &uses).await, "model-beta");

    cli.ok("domain create none --name None --upstream model-acme --no-models");
    sees_none(&world, "none", "without models").await;
    // As the previous release creates one.
    world
        .sql(
            "INSERT INTO patgate.domains (id, slug, name, upstream, mode, enforced_share)
             VALUES (gen_random_uuid(), 'earlier', 'x', 'model-acme', 'enforce', 100)",
        )
        .await;
    sees_none(&world, "earlier", "by the release before").await;

    let opened = cli.run("domain update picky --all-models").stderr;
    assert_eq!(opened, "patgate: domain picky sees all models\n");
    for path in [LISTED, OTHER] {
        eventually("all models", async || get(&replica, &token, path).await == ok).await;
    }
    assert!(cli.ok("domain show picky").lines().any(|line| line == "models:      all"));
    let before = read_by_the_release_before(&world, "picky").await;
    assert_eq!(before.upstream_for(Some("m")), Some("model-acme"));

    // From its first entry on, the domain sees what it lists, whether or not a command made it.
    let narrowed = cli.run("domain model set picky org/listed --upstream model-acme").stderr;
    assert!(narrowed.contains("it saw all models before"), "{narrowed}");
    eventually("a list", async || get(&replica, &token, OTHER).await == denied).await;
    assert_eq!(get(&replica, &token, LISTED).await, ok);
    let opened = cli.run("domain update picky --all-models").stderr;
    assert_eq!(opened, "patgate: domain picky sees all models; its list of 1 is deleted\n");
    let acme = world.id("acme");
    world
        .sql(&format!("INSERT INTO patgate.domain_models VALUES ('{acme}', 'm', 'model-acme')"))
        .await;
    eventually("a list", async || get(&replica, &token, ACME).await == denied).await;
    assert_eq!(cli.json("domain show acme")["all_models"], false);

    let listed =
        cli.json("domain create some --name Some --upstream model-acme --model m --model n*");
    assert_eq!(listed["all_models"], false);
    let before = read_by_the_release_before(&world, "some").await;
    for (model, upstream) in [("m", Some("model-acme")), ("n7", Some("model-acme")), ("o", None)] {
        assert_eq!(before.upstream_for(Some(model)), upstream, "{model}");
    }
}

/// Domains that see all models because they have no list continue to; the others do not begin to.
pub(crate) async fn a_migration_keeps_the_models_that_each_domain_sees(suite: Arc<Suite>) {
    let world = suite.world().await;
    world.sql(BEFORE).await;
    Cli::of(&world).login(&world, "postgres").ok("migrate");
    let cli = Cli::of(&world);
    for (slug, all_models) in [("acme", true), ("beta", true), ("closed", true), ("picky", false)] {
        assert_eq!(cli.json(&format!("domain show {slug}"))["all_models"], all_models, "{slug}");
        let before = read_by_the_release_before(&world, slug).await;
        let listed = before.upstream_for(Some("org/listed"));
        let other = before.upstream_for(Some("unlisted"));
        assert_eq!((listed.is_some(), other.is_some()), (true, all_models), "{slug}");
    }
    assert!(cli.ok("domain show picky").contains("org/listed (model-beta), other (model-acme)"));
}
