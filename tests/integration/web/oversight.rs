//! What those who watch over others see: the replicas, and the audit log of a domain.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use patgate::{
    admin::web::{History, HistoryEntry, ScopeRemoval},
    domain::DomainRef,
    operation::Operation,
    token::{PlainToken, TokenId},
};
use patgate_testing::eventually;
use serde_json::json;

use super::{Site, fails, literal, needs_elevation, not_found, not_permitted, parsed, refused};
use crate::support::{Suite, cli::Cli, value};

pub(crate) async fn the_fleet_is_for_platform_administrators(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let ann = site.signed_in("ann").await;
    fails(it.fleet(&ann).await, not_permitted);
    let root = site.signed_in("root").await;
    fails(it.fleet(&root).await, needs_elevation);
    let root = site.elevated().await;
    assert!(it.fleet(&root).await.unwrap().replicas.is_empty());

    let _replicas = [world.serve(&["max_staleness=60s"]).await, world.serve(&[]).await];
    eventually("two leases", async || it.fleet(&root).await.unwrap().replicas.len() == 2).await;
    let token = site.create(&ann, "laptop", &[]).await;
    let since = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8";
    let since = u64::try_from(value::<i64>(&world, since).await).unwrap();
    eventually("both have read the change", async || {
        let fleet = it.fleet(&root).await.unwrap();
        fleet.replicas.iter().all(|replica| replica.position >= since)
    })
    .await;
    let fleet = it.fleet(&root).await.unwrap();
    assert!(fleet.position >= since);
    let stalenesses: BTreeSet<u64> =
        fleet.replicas.iter().map(|replica| replica.max_staleness_ms).collect();
    assert!(stalenesses.contains(&60_000) && stalenesses.len() == 2, "{stalenesses:?}");
    let names: Vec<String> =
        value(&world, "SELECT array_agg(name ORDER BY name, id) FROM patgate.replicas").await;
    assert!(fleet.replicas.iter().all(|replica| replica.counts), "{fleet:?}");
    assert_eq!(fleet.replicas.into_iter().map(|it| it.name).collect::<Vec<_>>(), names);
    drop(token);

    // Leases of replicas that are gone, in this installation and in another.
    let lease = |name: &str, behind: &str, installation: &str, snapshot: &str| {
        format!(
            "INSERT INTO patgate.replicas (id, name, snapshot, watermark, max_staleness, installation)
             VALUES (gen_random_uuid(), '{name}', '{snapshot}', clock_timestamp() - interval '{behind}',
                     '1 hour', {installation})"
        )
    };
    let (own, all) = ("patgate.identity()", "9223372036854775807:9223372036854775807:");
    world.sql(&lease("late:1", "90 minutes", own, "5:5:")).await;
    world.sql(&lease("gone:1", "3 hours", own, "5:5:")).await;
    world.sql(&lease("ended:1", "1 minute", own, all)).await;
    world.sql(&lease("other:1", "1 minute", "'1/1/other'", "5:5:")).await;
    let fleet = it.fleet(&root).await.unwrap();
    let shown: Vec<_> =
        fleet.replicas.iter().filter(|replica| !names.contains(&replica.name)).collect();
    let [late] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((&*late.name, late.counts, late.position), ("late:1", false, 5));
    let minutes = late.lag_ms / 60_000;
    assert!((90..95).contains(&minutes), "{late:?}");
}

fn of(domain: &str) -> History {
    let domain = Some(DomainRef::parse(domain).unwrap());
    History { domain, limit: 1000, ..History::default() }
}

fn actions(lines: &[HistoryEntry]) -> Vec<&str> {
    lines.iter().rev().map(|line| &*line.action).collect()
}

/// The operation `audit_log_read` in a domain shows the lines of that domain, and of no other.
pub(crate) async fn auditors_of_a_domain_read_its_lines(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let cli = Cli::of(&world);
    let ann = site.signed_in("ann").await;
    let bob = site.signed_in("bob").await;
    let reader = site.signed_in("reader").await;
    // By whom: a member without the operation, and strangers, who cannot distinguish.
    fails(it.history(&reader, &of("acme")).await, not_permitted);
    for domain in ["beta", "nowhere"] {
        fails(it.history(&reader, &of(domain)).await, not_found);
    }
    site.grant("acme", "audit_log_read", "reader").await;
    assert!(it.history(&reader, &of("acme")).await.unwrap().is_empty());
    fails(it.history(&reader, &of("beta")).await, not_found);

    // Lines of both domains, by self-service and by commands.
    let acme = DomainRef::parse("acme").unwrap();
    let beta = DomainRef::parse("beta").unwrap();
    let role = "helper".parse().unwrap();
    for (caller, domain) in [(&ann, &acme), (&bob, &beta)] {
        let _ = it.create_role(caller, domain, &role, &[Operation::LlmRead]).await.unwrap();
        let member = "reader@example.com".parse().unwrap();
        let _ = it.add_member(caller, domain, &role, &member).await.unwrap();
        let _ = it.delete_role(caller, domain, &role).await.unwrap();
    }
    cli.ok("domain update acme --mode shadow");
    cli.ok("domain update beta --mode shadow");
    cli.ok("role create acme by-command --operation read");
    let own =
        site.create(&ann, "own", &["acme:models:*:llm_read", "picky:models:*:llm_read"]).await;
    let _ = it.add_scopes(&ann, own.id, None, &parsed(&["picky:models:m:llm_read"])).await.unwrap();
    site.create(&bob, "bobs", &["beta:models:*:llm_read"]).await;
    site.create(&ann, "elsewhere", &["picky:models:*:llm_read"]).await;
    let made = cli.mint(
        "token create ci --user ann@example.com --scope acme:models:*:llm_read \
         --scope picky:models:*:llm_read",
    );
    cli.ok(&format!("token delete {}", made.id));

    let lines = it.history(&reader, &of("acme")).await.unwrap();
    assert_eq!(
        actions(&lines),
        [
            "role.create",
            "role.add_member",
            "role.delete",
            "domain.update",
            "role.create",
            "token.create",
            "token.add_scope",
            "token.create",
            "token.delete",
        ]
    );
    let by_id = it.history(&reader, &of(&world.id("acme").to_string())).await.unwrap();
    assert_eq!(by_id.len(), lines.len());
    // Nothing of other domains, of addresses, sessions and logins is in them.
    let text = serde_json::to_string(&lines).unwrap();
    for hidden in ["picky", "beta", "192.0.2.7", "\"login\":\"", "bob@"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    let created = lines.iter().find(|line| line.object == own.id.to_string());
    assert_eq!(created.unwrap().details["scopes"], serde_json::json!([]));
    assert_eq!(lines[1].details["scopes"], serde_json::json!(["acme:models:*:llm_read"]));
    // An own line has the own address.
    let anns = it.history(&ann, &of("acme")).await.unwrap();
    assert_eq!(anns.last().unwrap().address.as_deref(), Some("192.0.2.7"));

    // The filters, and the way through.
    let filtered = History { action: Some("role".to_owned()), limit: 2, ..of("acme") };
    let some = it.history(&reader, &filtered).await.unwrap();
    assert_eq!(actions(&some), ["role.delete", "role.create"]);
    let before = History { before: Some(some[1].id), ..filtered.clone() };
    let earlier = it.history(&reader, &before).await.unwrap();
    assert_eq!(actions(&earlier), ["role.create", "role.add_member"]);
    let by = History { actor: Some("web:ann@example.com".to_owned()), ..of("acme") };
    assert_eq!(it.history(&reader, &by).await.unwrap().len(), 5);
    let about = History { object: Some(world.id("acme").to_string()), ..of("acme") };
    assert_eq!(actions(&it.history(&reader, &about).await.unwrap()), ["domain.update"]);

    // Platform administrators need no role, and see logins as well.
    let root = site.signed_in("root").await;
    fails(it.history(&root, &of("acme")).await, not_found);
    let root = site.elevated().await;
    let all = it.history(&root, &of("acme")).await.unwrap();
    assert!(all.len() == lines.len() && all.iter().all(|line| line.login.is_some()), "{all:?}");
    // The right ends with the role.
    world.sql("DELETE FROM patgate.role_operations WHERE operation = 'audit_log_read'").await;
    fails(it.history(&reader, &of("acme")).await, not_permitted);
    let call = format!(
        "SELECT patgate.web_domain_audit_log({}, NULL, NULL, NULL, NULL, NULL, 10)",
        literal(&reader)
    );
    assert_eq!(site.code(&call).await, refused("PW003"));
}

/// A slug that another domain has had before leads to none of its lines.
pub(crate) async fn a_slug_of_another_domain_shows_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let cli = Cli::of(&world);
    let bob = site.signed_in("bob").await;
    cli.ok("role create acme early --operation read");
    cli.ok("role delete acme early");
    cli.ok("role create acme kept --operation read");
    let token = cli.mint("token create t --user ann@example.com --scope acme:models:*:llm_read");
    cli.ok(&format!("token scope remove {} acme:models:*:llm_read", token.id));
    cli.ok("role create beta bobs --operation read");
    cli.ok("role delete beta bobs");
    assert_eq!(
        actions(&it.history(&bob, &of("beta")).await.unwrap()),
        ["role.create", "role.delete"]
    );
    // Bob's domain takes the name of Ann's.
    cli.ok("domain rename acme former");
    cli.ok("domain rename beta acme");
    cli.ok("role create acme late --operation read");
    cli.ok("role delete acme late");
    let lines = it.history(&bob, &of("acme")).await.unwrap();
    assert_eq!(actions(&lines), ["domain.rename", "role.create", "role.delete"]);
    assert!(lines[..2].iter().all(|line| line.details["role"] == "late"), "{lines:?}");
    // Ann's keeps what is known by an id.
    let ann = site.signed_in("ann").await;
    let lines = it.history(&ann, &of("former")).await.unwrap();
    assert_eq!(actions(&lines), ["role.create", "domain.rename"]);
    assert_eq!(lines[1].details["role"], "kept");
    // One that is created with a former name begins with nothing.
    cli.ok("domain create beta --name New --upstream model-acme --all-models");
    let root = site.elevated().await;
    assert_eq!(actions(&it.history(&root, &of("beta")).await.unwrap()), ["domain.create"]);
}

/// Whatever a user does to tokens with a scope in a domain, its auditors find it, also after the token, the
/// scope, and the slug have gone.
pub(crate) async fn no_line_is_hidden_from_the_auditors_of_a_domain(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let ann = site.signed_in("ann").await;
    site.grant("acme", "audit_log_read", "reader").await;
    let reader = site.signed_in("reader").await;
    let minted = |plain: PlainToken| suite.minted.lock().unwrap().push(plain.expose().to_owned());
    let (in_it, elsewhere) = ("acme:models:*:llm_read", "picky:models:*:llm_read");

    let old = site.create(&ann, "laptop", &[in_it, elsewhere]).await.id;
    let (plain, new, _) = it.rotate_token(&ann, old, None, Duration::ZERO).await.unwrap().value;
    minted(plain);
    let new = TokenId(new.id);
    let name = "desktop".parse().unwrap();
    let _ = it.update_token(&ann, new, None, Some(&name), None).await.unwrap();
    let (plain, _) = it.reset_token(&ann, new, None, None).await.unwrap().value;
    minted(plain);
    let more = parsed(&["picky:models:m:llm_read"]);
    let _ = it.add_scopes(&ann, new, None, &more).await.unwrap();
    let _ = it.remove_scopes(&ann, new, None, &ScopeRemoval::Scopes(more)).await.unwrap();
    let _ = it.revoke_token(&ann, new).await.unwrap();
    let _ = it.delete_token(&ann, new, None).await.unwrap();
    let fewer = ScopeRemoval::Scopes(parsed(&[in_it]));
    let _ = it.remove_scopes(&ann, old, None, &fewer).await.unwrap();
    // From here on, the token is none of the domain's.
    let _ = it.delete_token(&ann, old, None).await.unwrap();
    Cli::of(&world).ok("domain rename acme former");

    let mut lines = it.history(&reader, &of("former")).await.unwrap();
    lines.reverse();
    let shown: Vec<_> =
        lines.iter().map(|line| (&*line.action, line.details["scopes_total"].as_u64())).collect();
    assert_eq!(
        shown,
        [
            ("token.create", Some(1)),
            ("token.rotate", Some(1)),
            ("token.create", Some(1)),
            ("token.update", None),
            ("token.reset_secret", Some(1)),
            ("token.add_scope", Some(0)),
            ("token.remove_scope", Some(0)),
            ("token.revoke", Some(1)),
            ("token.delete", Some(1)),
            ("token.remove_scope", Some(1)),
            ("domain.rename", None),
        ]
    );
    for line in &lines {
        match line.details["scopes_total"].as_u64() {
            Some(1) => assert_eq!(line.details["scopes"], json!([in_it]), "{line:?}"),
            Some(_) => assert_eq!(line.details["scopes"], json!([]), "{line:?}"),
            None => assert!(line.details.get("scopes").is_none(), "{line:?}"),
        }
        assert!(line.details.get("domains").is_none(), "{line:?}");
    }
    assert!(!serde_json::to_string(&lines).unwrap().contains("picky"), "{lines:?}");
    // The user sees all of it.
    let own = History { limit: 1, action: Some("token.delete".to_owned()), ..History::default() };
    let own =
        it.history(&site.elevated().await, &History { everything: true, ..own }).await.unwrap();
    assert_eq!(own[0].details["domains"].as_object().unwrap().len(), 1, "{own:?}");
}

/// A line is short, however much a request names, and every domain finds its own in it.
pub(crate) async fn a_line_does_not_grow_with_the_request(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let ann = site.signed_in("ann").await;
    let long: Vec<String> = (0..499)
        .map(|n| format!("acme:models:{n:0>250}:llm_read"))
        .chain(["picky:models:*:llm_read".to_owned()])
        .collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let token = site.create(&ann, "wide", &long).await.id;
    let (plain, ..) = it.rotate_token(&ann, token, None, Duration::ZERO).await.unwrap().value;
    suite.minted.lock().unwrap().push(plain.expose().to_owned());
    let empty = site.create(&ann, "empty", &[]).await.id;
    let _ = it.add_scopes(&ann, empty, None, &parsed(&long)).await.unwrap();
    let _ = it.remove_scopes(&ann, empty, None, &ScopeRemoval::All).await.unwrap();
    let _ = it.delete_token(&ann, token, None).await.unwrap();
    // Over SQL, with one operation over and over, and words that are none.
    for call in [
        "web_create_role({}, NULL, NULL, 'acme', 'role', array_fill('llm_read'::text, '{9999}'))",
        "web_change_role({}, NULL, NULL, 'acme', 'role', array_fill('llm_read'::text, '{9999}'),
             array_fill(repeat('x', 99), '{9999}'))",
    ] {
        let call = call.replacen("{}", &literal(&ann), 1);
        assert_eq!(site.code(&format!("SELECT patgate.{call}")).await, Ok(()));
    }
    let longest = "SELECT max(length(details::text)) FROM patgate.audit_log";
    let longest: i32 = value(&world, longest).await;
    assert!(longest < 5000, "{longest}");
    let lines = "SELECT count(*) FROM patgate.audit_log
                 WHERE (details -> 'scopes_total')::int = 500
                   AND details -> 'scopes' ? 'picky:models:*:llm_read'";
    // Made, replaced, made as the replacement, added, removed, deleted.
    assert_eq!(value::<i64>(&world, lines).await, 6);
    // Those that are short are all there.
    let short: Vec<String> = (0..50).map(|n| format!("acme:models:m{n:02}:llm_read")).collect();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let token = site.create(&ann, "short", &short).await.id;
    let line = format!(
        "SELECT jsonb_array_length(details -> 'scopes') FROM patgate.audit_log
         WHERE object = '{token}'"
    );
    assert_eq!(value::<i32>(&world, &line).await, 50);
}

/// Whatever deletes a token, its owner sees what was done with it, and no other user does, not even one
/// who has the owner's address later, or a token with its id.
pub(crate) async fn a_deleted_token_stays_in_its_owners_history(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let cli = Cli::of(&world);
    let ann = site.signed_in("ann").await;
    let bob = site.signed_in("bob").await;
    let seen = async |caller, id: &str| {
        let about = History { object: Some(id.to_owned()), limit: 10, ..History::default() };
        actions(&it.history(caller, &about).await.unwrap()).join(" ")
    };
    let by_page = site.create(&ann, "page", &[]).await.id;
    let _ = it.delete_token(&ann, by_page, None).await.unwrap();
    let by_command = cli.mint("token create command --user ann@example.com").id;
    cli.ok(&format!("token scope add {by_command} acme:models:*:llm_read"));
    cli.ok(&format!("token delete {by_command}"));
    let by_sql = site.create(&ann, "sql", &[]).await.id;
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{by_sql}'")).await;
    let by_page = by_page.to_string();
    for (id, expected) in [
        (&by_page, "token.create token.delete"),
        (&by_command.to_string(), "token.create token.add_scope token.delete"),
        (&by_sql.to_string(), "token.create"),
    ] {
        assert_eq!(seen(&ann, id).await, expected);
        assert_eq!(seen(&bob, id).await, "");
    }
    let all = History { action: Some("token".to_owned()), limit: 100, ..History::default() };
    assert_eq!(it.history(&ann, &all).await.unwrap().len(), 6);

    let id_of = |user: &str| world.id(user).to_string();
    world
        .sql(&format!(
            "UPDATE patgate.users SET email = 'former@example.com' WHERE id = '{}';
             UPDATE patgate.users SET email = 'ann@example.com' WHERE id = '{}'",
            id_of("ann"),
            id_of("bob")
        ))
        .await;
    assert_eq!(seen(&ann, &by_page).await, "token.create token.delete");
    assert!(it.history(&bob, &all).await.unwrap().is_empty());
    // The process makes the ids.
    let create = |id: &str| {
        format!(
            "SELECT patgate.web_create_token({}, NULL, NULL, '{id}', 'again', '', sha256('x'), 'k1',
                 3600000000, NULL, '[]', NULL)",
            literal(&bob)
        )
    };
    assert_eq!(site.code(&create(&by_page)).await, refused("PW008"));
    assert_eq!(site.code(&create(&id_of("ann"))).await, Ok(()));
    assert_eq!(seen(&bob, &id_of("ann")).await, "token.create");

    // An operator gives a token to another user, with whom its history begins.
    let given = site.create(&ann, "given", &[]).await.id.to_string();
    world
        .sql(&format!("UPDATE patgate.pats SET user_id = '{}' WHERE id = '{given}'", id_of("bob")))
        .await;
    cli.ok(&format!("token revoke {given}"));
    assert_eq!(seen(&ann, &given).await, "token.create");
    assert_eq!(seen(&bob, &given).await, "token.revoke");
    cli.ok(&format!("token delete {given}"));
    assert_eq!(seen(&ann, &given).await, "token.create");
    assert_eq!(seen(&bob, &given).await, "token.revoke token.delete");
}
