//! What a client could gain by keeping a transaction open, or by being at the same time: nothing.

use std::sync::Arc;

use patgate_testing::eventually;
use sqlx::{Connection as _, PgConnection};

use super::{Site, fails, literal, not_signed_in, refused, run};
use crate::support::{Suite, World, value};

async fn connection(world: &World<'_>, login: &str) -> PgConnection {
    PgConnection::connect(&world.url(login, world.port)).await.unwrap()
}

/// Adds a scope to a token, or a member to a role.
fn add_scope(caller: &str, token: &str) -> String {
    format!(
        "SELECT patgate.web_add_scopes({caller}, NULL, NULL, '{token}', NULL,
             '[{{\"domain\": \"acme\", \"entity_type\": \"models\", \"entity_id\": \"*\",
                \"operations\": [\"llm_create\"]}}]')"
    )
}

fn rotate(caller: &str, token: &str) -> String {
    format!(
        "SELECT patgate.web_rotate_token({caller}, NULL, NULL, '{token}', NULL, gen_random_uuid(),
             sha256('new'), 'k1', 1000000)"
    )
}

async fn waits_for_a_lock(world: &World<'_>) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("a transaction to wait", async || value::<i64>(world, waiting).await == 1).await;
}

/// A transaction sees what others have committed meanwhile, and time goes on in it.
pub(crate) async fn a_transaction_does_not_stretch_a_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("ann").await;
    let mut thief = connection(&world, "web").await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED"] {
        let ann = site.sign_in("ann", &password).await.unwrap();
        let reads = format!("SELECT patgate.web_session({})", literal(&ann));
        run(&mut thief, &format!("BEGIN ISOLATION LEVEL {isolation}")).await.unwrap();
        assert_eq!(run(&mut thief, &reads).await, refused("PW012"), "{isolation}");
        run(&mut thief, "ROLLBACK").await.unwrap();
        run(&mut thief, &format!("SET default_transaction_isolation = '{isolation}'"))
            .await
            .unwrap();
        assert_eq!(run(&mut thief, &reads).await, refused("PW012"), "{isolation}");
        run(&mut thief, "RESET default_transaction_isolation").await.unwrap();
    }
    for ends in [
        "DELETE FROM patgate.sessions",
        "UPDATE patgate.users SET enabled = false WHERE name = 'ann';
         UPDATE patgate.users SET enabled = true WHERE name = 'ann'",
        "UPDATE patgate.sessions SET begun_at = begun_at - interval '12 hours'",
        "UPDATE patgate.policy SET session_idle = '1 microsecond'",
    ] {
        let ann = site.sign_in("ann", &password).await.unwrap();
        let reads = format!("SELECT patgate.web_session({})", literal(&ann));
        run(&mut thief, "BEGIN").await.unwrap();
        // A reading call that wrote nothing, so that no lock of it keeps the session.
        run(&mut thief, "SELECT now()").await.unwrap();
        run(&mut thief, &reads).await.unwrap();
        world.sql(ends).await;
        assert_eq!(run(&mut thief, &reads).await, refused("PW001"), "{ends}");
        run(&mut thief, "ROLLBACK").await.unwrap();
        world.sql("UPDATE patgate.policy SET session_idle = '30 minutes'").await;
    }
}

/// Each pair of a change that rests on a right, and of what takes the right away.
const LOSSES: &[&str] = &[
    "DELETE FROM patgate.role_members m USING patgate.users u
     WHERE u.id = m.user_id AND u.name = 'ann'",
    "DELETE FROM patgate.role_operations WHERE operation = 'llm_create'",
    "DELETE FROM patgate.roles WHERE name = 'admin' AND domain_id = (
         SELECT id FROM patgate.domains WHERE slug = 'acme')",
    "UPDATE patgate.users SET enabled = false WHERE name = 'ann'",
];

/// Either the change sees the loss, or the loss waits for the change.
pub(crate) async fn a_right_is_not_used_after_its_loss(suite: Arc<Suite>) {
    for (loss, scope, member) in [
        (LOSSES[0], "PW002", Some("PW003")),
        // A role without this operation is one that Ann may give.
        (LOSSES[1], "PW002", None),
        (LOSSES[2], "PW002", Some("PW003")),
        (LOSSES[3], "PW001", Some("PW001")),
    ] {
        for (change, expected) in
            [("scope", Some(scope)), ("rotation", Some(scope)), ("member", member)]
        {
            let Some(expected) = expected else { continue };
            let world = suite.world().await;
            let site = Site::of(&world).await;
            let ann = site.signed_in("ann").await;
            let creates = ["acme:models:*:llm_create"];
            let scopes = if change == "rotation" { &creates[..] } else { &[] };
            let token = site.create(&ann, "laptop", scopes).await.id.to_string();
            let change = match change {
                "member" => format!(
                    "SELECT patgate.web_add_member({}, NULL, NULL, 'acme', 'admin',
                         'bob@example.com')",
                    literal(&ann)
                ),
                "rotation" => rotate(&literal(&ann), &token),
                _ => add_scope(&literal(&ann), &token),
            };
            // The loss came first, and is not committed yet.
            let mut loses = connection(&world, "administrator").await;
            run(&mut loses, "BEGIN").await.unwrap();
            run(&mut loses, loss).await.unwrap();
            let mut changes = connection(&world, "web").await;
            let (changed, ()) = tokio::join!(run(&mut changes, &change), async {
                waits_for_a_lock(&world).await;
                run(&mut loses, "COMMIT").await.unwrap();
            });
            assert_eq!(changed, refused(expected), "{loss}: {change}");
        }
    }
    for (loss, rotates) in LOSSES.iter().flat_map(|loss| [(loss, false), (loss, true)]) {
        let world = suite.world().await;
        let site = Site::of(&world).await;
        let ann = site.signed_in("ann").await;
        let token = site.create(&ann, "laptop", &["acme:models:*:llm_create"]).await.id.to_string();
        let change = if rotates { rotate } else { add_scope };
        // The change came first: the loss waits until it has ended.
        let mut changes = connection(&world, "web").await;
        run(&mut changes, "BEGIN").await.unwrap();
        run(&mut changes, &change(&literal(&ann), &token)).await.unwrap();
        let mut loses = connection(&world, "administrator").await;
        let (lost, ()) = tokio::join!(run(&mut loses, loss), async {
            waits_for_a_lock(&world).await;
            run(&mut changes, "COMMIT").await.unwrap();
        });
        lost.unwrap();
    }
}

/// A role cannot grow while a member is added to it by a user who could not give the larger one.
pub(crate) async fn a_role_does_not_grow_while_it_is_given(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    site.grant("acme", "add_role_users llm_read", "reader").await;
    let role = site.grant("acme", "llm_read", "bob").await;
    let reader = site.signed_in("reader").await;
    let ann = site.signed_in("ann").await;
    let grow = format!(
        "SELECT patgate.web_change_role({}, NULL, NULL, 'acme', '{role}', '{{llm_create}}', '{{}}')",
        literal(&ann)
    );
    let give = format!(
        "SELECT patgate.web_add_member({}, NULL, NULL, 'acme', '{role}', 'ann@example.com')",
        literal(&reader)
    );
    let mut first = connection(&world, "web").await;
    run(&mut first, "BEGIN").await.unwrap();
    run(&mut first, &grow).await.unwrap();
    let mut second = connection(&world, "web").await;
    let (given, ()) = tokio::join!(run(&mut second, &give), async {
        waits_for_a_lock(&world).await;
        run(&mut first, "COMMIT").await.unwrap();
    });
    assert_eq!(given, refused("PW002"));
    // As it is small, it could have been given.
    let small = site.grant("acme", "llm_read", "bob").await;
    let give = give.replace(&role, &small);
    assert_eq!(run(&mut second, &give).await, Ok(()));
}

/// A request that is repeated at the same time creates one token.
pub(crate) async fn a_repeated_request_creates_one_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let new = patgate::admin::web::NewOwnToken {
        idempotency_key: Some("key".to_owned()),
        ..super::new_token("laptop", &["acme:models:*:llm_read"])
    };
    let call = || site.service.create_token(&ann, &new);
    let (a, b, c) = tokio::join!(call(), call(), call());
    let mut created = 0;
    let mut ids = Vec::new();
    for made in [a, b, c] {
        match made.unwrap().value {
            patgate::admin::web::Creation::Created { plain, token } => {
                suite.minted.lock().unwrap().push(plain.expose().to_owned());
                created += 1;
                ids.push(token.id);
            }
            patgate::admin::web::Creation::Repeated { id, token } => {
                assert_eq!(token.unwrap().id, id.0);
                ids.push(id.0);
            }
        }
    }
    assert_eq!(created, 1);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(value::<i64>(&world, "SELECT count(*) FROM patgate.pats").await, 1);
}

/// Tokens that are made at the same time count as if they were made one after the other.
pub(crate) async fn no_user_has_too_many_tokens_by_haste(suite: Arc<Suite>) {
    for (first, second) in [("create", "create"), ("create", "rotate"), ("rotate", "create")] {
        let world = suite.world().await;
        let site = Site::of(&world).await;
        let ann = site.signed_in("ann").await;
        let token = site.create(&ann, "laptop", &[]).await.id.to_string();
        world.sql("UPDATE patgate.policy SET tokens_per_user = 2").await;
        let call = |what: &str, name: &str| match what {
            "rotate" => rotate(&literal(&ann), &token),
            _ => format!(
                "SELECT patgate.web_create_token({}, NULL, NULL, gen_random_uuid(), '{name}', '',
                     sha256('{name}'), 'k1', 3600000000, NULL, '[]', NULL)",
                literal(&ann)
            ),
        };
        let mut one = connection(&world, "web").await;
        run(&mut one, "BEGIN").await.unwrap();
        run(&mut one, &call(first, "one")).await.unwrap();
        let mut two = connection(&world, "web").await;
        let late = call(second, "two");
        let (outcome, ()) = tokio::join!(run(&mut two, &late), async {
            waits_for_a_lock(&world).await;
            run(&mut one, "COMMIT").await.unwrap();
        });
        assert_eq!(outcome, refused("PW013"), "{first} {second}");
        // Another user is not held up.
        run(&mut one, "BEGIN").await.unwrap();
        world.sql("UPDATE patgate.policy SET tokens_per_user = 3").await;
        run(&mut one, &call("create", "three")).await.unwrap();
        let bob = site.signed_in("bob").await;
        site.create(&bob, "laptop", &[]).await;
        run(&mut one, "COMMIT").await.unwrap();
    }
}

/// Requests in one session do not wait for each other, and no request keeps it from being ended.
pub(crate) async fn requests_of_a_session_do_not_wait(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let root = site.elevated().await;
    for caller in [&ann, &root] {
        world.sql("UPDATE patgate.sessions SET used_at = used_at - interval '5 minutes'").await;
        let reads =
            format!("SELECT patgate.web_tokens({}, false, NULL, NULL, 0, 9)", literal(caller));
        // One that takes its time.
        let mut slow = connection(&world, "web").await;
        run(&mut slow, "BEGIN").await.unwrap();
        run(&mut slow, &reads).await.unwrap();
        let session = site.service.session(caller).await.unwrap();
        site.service.sessions(caller).await.unwrap();
        if session.elevated {
            site.service.lower(caller).await.unwrap();
        }
        site.service.sign_out(caller).await.unwrap();
        fails(site.service.session(caller).await, not_signed_in);
        assert_eq!(run(&mut slow, &reads).await, refused("PW001"));
        run(&mut slow, "ROLLBACK").await.unwrap();
    }
    // What is used late is not unused.
    let password = site.account("ann").await;
    let ann = site.sign_in("ann", &password).await.unwrap();
    let used = "SELECT max(n.used_at) > now() - interval '1 minute' FROM patgate.session_uses n";
    assert!(!value::<bool>(&world, used).await);
    world.sql("UPDATE patgate.sessions SET used_at = used_at - interval '5 minutes'").await;
    site.service.session(&ann).await.unwrap();
    assert!(value::<bool>(&world, used).await);
    // With the session goes what is noted of its use.
    site.service.sign_out(&ann).await.unwrap();
    site.sign_in("ann", &password).await.unwrap();
    let left = "SELECT count(*) FROM patgate.session_uses n
                WHERE NOT EXISTS (SELECT FROM patgate.sessions s WHERE s.id = n.session)";
    assert_eq!(value::<i64>(&world, left).await, 0);
}
