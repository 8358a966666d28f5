//! A change deletes outdated copies from Redis at once, and from a running replica within its
//! bound.

use std::{sync::Arc, time::Duration};

use patgate_testing::{
    eventually,
    proxy::{Mode, Proxy},
};

use crate::support::{
    Scope, Suite, Token, World,
    cli::{Cli, answer, ask, get},
    redis_at, value,
};

const READ: &str = "llm_read";

/// Counts the keys in Redis that have an entry, in every format that ever existed.
async fn cached(world: &World<'_>, kind: &str, name: &str) -> usize {
    let mut connection = redis_at(&world.redis_url).await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("patgate:*:{kind}:{name}"))
        .query_async(&mut connection)
        .await
        .unwrap();
    keys.len()
}

/// A change, who it affects, and the answers before and after.
struct CachedChange {
    command: &'static str,
    owner: &'static str,
    scopes: &'static [Scope<'static>],
    /// A slug, and the rest of the path.
    path: (&'static str, &'static str),
    before: (u16, &'static str),
    after: (u16, &'static str),
}

const OK: (u16, &str) = (200, "ok");
const DENIED: (u16, &str) = (403, "permission_denied");

/// A change that takes something from Ann's token for `acme`.
const fn taking(command: &'static str, after: (u16, &'static str)) -> CachedChange {
    CachedChange {
        command,
        owner: "ann",
        scopes: &[("acme", "models", "*", READ)],
        path: ("acme", "/v1/models"),
        before: OK,
        after,
    }
}

const CHANGES: &[CachedChange] = &[
    taking("token revoke {token}", (401, "token_revoked")),
    taking("token rotate {token}", (401, "token_revoked")),
    taking("token delete {token}", (401, "invalid_token")),
    taking("token revoke --user ann@example.com --yes", (401, "token_revoked")),
    taking("token revoke --domain acme --yes", (401, "token_revoked")),
    taking("token scope remove {token} acme:models:*:llm_read", DENIED),
    taking("role member remove acme admin ann@example.com", DENIED),
    taking("role revoke acme admin llm_read", DENIED),
    taking("role delete acme admin", DENIED),
    taking("user disable ann@example.com", (401, "owner_disabled")),
    taking("user delete ann@example.com --yes", (401, "invalid_token")),
    taking("domain disable acme", DENIED),
    taking("domain rename acme apex", DENIED),
    taking("domain delete acme --yes", DENIED),
    CachedChange {
        path: ("acme", "/v1/models/unlisted"),
        ..taking("domain model set acme listed --upstream model-beta", DENIED)
    },
    CachedChange {
        path: ("picky", "/v1/models/org/listed"),
        scopes: &[("picky", "models", "*", READ)],
        ..taking("domain model unset picky org/listed", DENIED)
    },
    // Changes that give something.
    CachedChange {
        scopes: &[],
        before: DENIED,
        ..taking("token scope add {token} acme:models:*:llm_read", OK)
    },
    CachedChange {
        owner: "bob",
        before: DENIED,
        ..taking("role member add acme admin {owner}", OK)
    },
    CachedChange {
        owner: "bob",
        before: DENIED,
        ..taking("user set-platform-admin {owner} true", OK)
    },
    CachedChange {
        owner: "reader",
        scopes: &[("acme", "domains", "*", "audit_log_read")],
        path: ("acme", "/audit/logs"),
        before: DENIED,
        ..taking("role grant acme reader audit_log_read", OK)
    },
    CachedChange {
        owner: "gone",
        before: (401, "owner_disabled"),
        ..taking("user enable gone@example.com", OK)
    },
    CachedChange {
        scopes: &[("closed", "models", "*", READ)],
        path: ("closed", "/v1/models"),
        before: DENIED,
        ..taking("domain enable closed", OK)
    },
];

/// A replica fills Redis, then the change is made. Another replica, which knows only what Redis and
/// Postgres hold, answers by the current state.
pub(crate) async fn a_replica_that_starts_later_obeys_a_change(suite: Arc<Suite>) {
    for change in CHANGES {
        let world = suite.world().await;
        let token = world.token_for(change.owner, "1 hour", change.scopes).await;
        let (slug, rest) = change.path;
        let path = format!("/proxy/{slug}{rest}");
        let first = world.serve(&[]).await;
        let by_id = format!("/proxy/{}{rest}", world.id(slug));
        for path in [&path, &by_id] {
            let (status, code) = change.before;
            assert_eq!(get(&first, &token, path).await, answer(status, code), "{}", change.command);
        }
        filled(&world, change, &token).await;
        // It writes no more entries after it has ended.
        drop(first);

        let owner = format!("{}@example.com", change.owner);
        let id = token.id.to_string();
        let command = change.command.replace("{token}", &id).replace("{owner}", &owner);
        Cli::of(&world).ok(&command);
        assert_eq!(cached(&world, "principal", &id).await, 0, "{command}");
        if command.starts_with("domain") {
            for name in references(&world, slug) {
                assert_eq!(cached(&world, "domain", &name).await, 0, "{command}: {name}");
            }
        }
        let (status, code) = change.after;
        let next = world.serve(&[]).await;
        assert_eq!(get(&next, &token, &path).await, answer(status, code), "{command}");
    }
}

/// Waits for the entries that the change will outdate.
async fn filled(world: &World<'_>, change: &CachedChange, token: &Token) {
    let mut expected = vec![("principal", token.id.to_string())];
    if change.command.starts_with("domain") {
        expected.extend(references(world, change.path.0).map(|name| ("domain", name)));
    }
    for (kind, name) in expected {
        eventually("entries in Redis", async || cached(world, kind, &name).await == 1).await;
    }
}

fn references(world: &World<'_>, slug: &str) -> [String; 2] {
    [slug.to_owned(), world.id(slug).to_string()]
}

/// A replica with the old state in its memory.
pub(crate) async fn a_running_replica_follows_within_the_bound(suite: Arc<Suite>) {
    const BOUND: Duration = Duration::from_secs(3);
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = cli.mint(
        "token create t --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read",
    );
    let replica = world.serve(&["deadline=2s", "max_staleness=3s", "negative_ttl=1s"]).await;
    let scope = "acme:domains:*:audit_log_read";
    for (verb, before, after) in [("add", DENIED, OK), ("remove", OK, DENIED)] {
        let path = "/proxy/acme/audit/logs";
        assert_eq!(get(&replica, &token, path).await, answer(before.0, before.1));
        cli.ok(&format!("token scope {verb} {} {scope}", token.id));
        let committed = std::time::Instant::now();
        eventually("the change", async || {
            let asked = committed.elapsed();
            let now = get(&replica, &token, path).await;
            assert!(now.0 != before.0 || asked <= BOUND, "{verb}: {now:?} {asked:?} later");
            now.0 == after.0
        })
        .await;
        // The rest of the token is unchanged.
        assert_eq!(ask(&replica, &token, "acme").await, answer(200, "ok"));
    }
}

/// A renamed domain leaves its slug free for another domain, with nothing attached.
pub(crate) async fn a_slug_is_free_at_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = cli.mint(
        "token create t --user ann@example.com --expires-in 1h --scope acme:models:*:llm_read",
    );
    let first = world.serve(&[]).await;
    assert_eq!(ask(&first, &token, "acme").await, answer(200, "ok"));
    let id = world.id("acme").to_string();
    eventually("entries in Redis", async || {
        cached(&world, "principal", &token.id.to_string()).await == 1
            && cached(&world, "domain", "acme").await == 1
    })
    .await;
    drop(first);

    cli.ok("domain rename acme apex");
    let second = world.serve(&[]).await;
    assert_eq!(ask(&second, &token, "acme").await, answer(403, "permission_denied"));
    assert_eq!(ask(&second, &token, "apex").await, answer(200, "ok"));
    assert_eq!(ask(&second, &token, &id).await, answer(200, "ok"));

    // The slug is another domain's now: the token's scope is in the domain for which it was given.
    cli.ok("domain create acme --name Another --upstream model-beta --all-models");
    cli.ok("role member add acme admin ann@example.com");
    let third = world.serve(&[]).await;
    assert_eq!(ask(&third, &token, "acme").await, answer(403, "permission_denied"));
    assert_eq!(ask(&third, &token, "apex").await, answer(200, "ok"));
}

pub(crate) async fn without_redis_a_change_is_made_all_the_same(suite: Arc<Suite>) {
    let world = suite.world().await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let url = world.redis_url.replace(&suite.valkey.port.to_string(), &proxy.port.to_string());
    let cli = Cli::of(&world).with("redis.url", &url);
    for mode in [Mode::Refuse, Mode::BlackHole] {
        proxy.set(mode);
        let token = world.token(&[("acme", "models", "*", READ)]).await;
        let ran = cli.run(&format!("token revoke {}", token.id));
        assert_eq!(ran.code, 0, "{mode:?}: {ran:#?}");
        assert!(ran.stderr.contains("warning: Redis"), "{mode:?}: {ran:#?}");
        assert!(ran.stderr.contains("max_staleness (30s)"), "{mode:?}: {ran:#?}");
        let revoked =
            format!("SELECT revoked_at IS NOT NULL FROM patgate.pats WHERE id = '{}'", token.id);
        assert!(value::<bool>(&world, &revoked).await, "{mode:?}");
    }
    // The command waits for a slow Redis.
    for mode in [Mode::Delay(Duration::from_millis(600)), Mode::Pass] {
        proxy.set(mode);
        let token = world.token(&[]).await;
        let ran = cli.run(&format!("token revoke {}", token.id));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{mode:?}");
    }
}
