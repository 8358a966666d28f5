//! How long a session counts.

use std::sync::Arc;

use patgate::admin::web::{Caller, Origin, SessionSecret, UserEdit};

use super::{Site, fails, not_found, not_signed_in};
use crate::support::{Suite, value};

pub(crate) async fn a_session_ends(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("ann").await;
    let sign_in = async || site.sign_in("ann", &password).await.unwrap();
    let works = async |caller: &Caller| site.service.session(caller).await.is_ok();

    // By signing out: that one, once, and no other.
    let [one, two] = [sign_in().await, sign_in().await];
    site.service.sign_out(&one).await.unwrap();
    site.service.sign_out(&one).await.unwrap();
    fails(site.service.session(&one).await, not_signed_in);
    assert!(works(&two).await);
    let ends = "SELECT count(*) FROM patgate.audit_log WHERE action = 'session.end'";
    assert_eq!(value::<i64>(&world, ends).await, 1);

    // By signing out everywhere.
    let three = sign_in().await;
    site.service.sign_out_everywhere(&two).await.unwrap();
    for caller in [&two, &three] {
        fails(site.service.session(caller).await, not_signed_in);
    }
    fails(site.service.sign_out_everywhere(&two).await, not_signed_in);

    // By time: unused, and in any case.
    for column in
        ["used_at = used_at - interval '30 minutes'", "begun_at = begun_at - interval '12 hours'"]
    {
        let old = sign_in().await;
        assert!(works(&old).await);
        world.sql(&format!("UPDATE patgate.sessions SET {column}")).await;
        fails(site.service.session(&old).await, not_signed_in);
    }
    // A shorter limit holds for sessions that exist.
    let old = sign_in().await;
    world.sql("UPDATE patgate.sessions SET begun_at = begun_at - interval '2 hours'").await;
    assert!(works(&old).await);
    world.sql("UPDATE patgate.policy SET session_longest = '1 hour'").await;
    fails(site.service.session(&old).await, not_signed_in);
    world.sql("UPDATE patgate.policy SET session_longest = '12 hours'").await;

    // Using one keeps it from being unused, and from nothing else.
    let used = sign_in().await;
    world.sql("UPDATE patgate.sessions SET used_at = used_at - interval '20 minutes'").await;
    assert!(works(&used).await);
    world.sql("UPDATE patgate.sessions SET used_at = used_at - interval '20 minutes'").await;
    assert!(works(&used).await);

    // With the password.
    let last = sign_in().await;
    world.sql("DELETE FROM patgate.local_accounts").await;
    fails(site.service.session(&last).await, not_signed_in);
    // What has ended is removed in time.
    world.sql("UPDATE patgate.sessions SET begun_at = begun_at - interval '13 hours'").await;
    site.signed_in("bob").await;
    assert_eq!(value::<i64>(&world, "SELECT count(*) FROM patgate.sessions").await, 1);

    let guessed = Caller { session: SessionSecret::random().unwrap(), origin: Origin::default() };
    fails(site.service.session(&guessed).await, not_signed_in);
}

/// Users see their own sessions and end them one by one, and nobody else's.
pub(crate) async fn a_user_governs_their_own_sessions(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let password = site.account("ann").await;
    let sign_in = async || site.sign_in("ann", &password).await.unwrap();
    let id = async |caller: &Caller| it.session(caller).await.unwrap().session;
    let [one, two, idle, old, past] =
        [sign_in().await, sign_in().await, sign_in().await, sign_in().await, sign_in().await];
    let [one_id, two_id] = [id(&one).await, id(&two).await];
    let bob = site.signed_in("bob").await;
    let bobs = id(&bob).await;
    // Those that do not count are not shown: unused, too old, and of an earlier epoch.
    for (caller, change) in [
        (&idle, "used_at = used_at - interval '31 minutes'"),
        (&old, "begun_at = begun_at - interval '13 hours'"),
        (&past, "epoch = epoch - 1"),
    ] {
        let id = id(caller).await;
        world.sql(&format!("UPDATE patgate.sessions SET {change} WHERE id = '{id}'")).await;
    }
    let listed = it.sessions(&one).await.unwrap();
    let shown: Vec<_> = listed.iter().map(|session| (session.id, session.current)).collect();
    assert_eq!(shown, [(two_id, false), (one_id, true)]);
    let first = &listed[0];
    assert_eq!((&*first.method, first.address.as_deref()), ("local", Some("192.0.2.7")));
    assert!(!first.elevated && first.issuer.is_none());
    let current = it.session(&two).await.unwrap();
    assert_eq!((&first.begun_at, &first.ends_at), (&current.begun_at, &current.ends_at));

    // Of two by a provider, the one that began before the provider was enabled again does not count.
    world
        .sql(&format!(
            "INSERT INTO patgate.issuers (issuer, enabled, enabled_at)
                 VALUES ('https://id.example.com', true, now() - interval '1 minute');
             INSERT INTO patgate.identities (issuer, subject, user_id, linked_at)
                 VALUES ('https://id.example.com', 's', '{ann}', now() - interval '1 hour');
             INSERT INTO patgate.sessions
                 (proof_hash, user_id, epoch, method, issuer, subject, begun_at)
             SELECT sha256(convert_to(ago, 'UTF8')), id, session_epoch, 'oidc',
                    'https://id.example.com', 's', now() - ago::interval
             FROM patgate.users, unnest(ARRAY['30 seconds', '2 minutes']) ago
             WHERE id = '{ann}'",
            ann = world.id("ann")
        ))
        .await;
    let listed = it.sessions(&one).await.unwrap();
    let issuers: Vec<_> = listed.iter().filter_map(|session| session.issuer.as_deref()).collect();
    assert_eq!((listed.len(), issuers), (3, vec!["https://id.example.com"]));

    for none in [bobs, uuid::Uuid::new_v4()] {
        fails(it.end_session(&one, none).await, not_found);
    }
    it.session(&bob).await.unwrap();
    it.end_session(&one, two_id).await.unwrap();
    fails(it.session(&two).await, not_signed_in);
    fails(it.end_session(&one, two_id).await, not_found);
    let line = "SELECT concat_ws(' ', actor, session, details ->> 'ended') FROM patgate.audit_log
                WHERE action = 'session.end'";
    assert_eq!(
        value::<String>(&world, line).await,
        format!("web:ann@example.com {one_id} {two_id}")
    );
    // The own one, too.
    it.end_session(&one, one_id).await.unwrap();
    fails(it.sessions(&one).await, not_signed_in);
    // A platform administrator has no hand in the sessions of others.
    let root = site.elevated().await;
    let own = it.sessions(&root).await.unwrap();
    assert!(own.iter().any(|session| session.current && session.elevated), "{own:?}");
    fails(it.end_session(&root, bobs).await, not_found);
}

/// By whatever means a user is disabled, none of their sessions counts again when they are enabled.
pub(crate) async fn disabling_a_user_ends_their_sessions_for_good(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let root = site.elevated().await;
    let password = site.account("ann").await;
    let ann = "ann@example.com".parse().unwrap();
    let bob = site.signed_in("bob").await;
    for means in ["sql", "page", "command"] {
        let session = site.sign_in("ann", &password).await.unwrap();
        site.service.session(&session).await.unwrap();
        let set = async |enabled: bool| match means {
            "sql" => {
                let sql = "UPDATE patgate.users SET enabled = $1 WHERE name = 'ann'";
                sqlx::query(sql).bind(enabled).execute(&world.postgres).await.unwrap();
            }
            "page" => {
                let edit = UserEdit { enabled: Some(enabled), platform_admin: None };
                let _changed = site.service.update_user(&root, &ann, edit).await.unwrap();
            }
            _ => {
                let admin = world.admin(world.postgres.clone()).await;
                let _changed = admin.set_user_enabled(&ann, enabled).await.unwrap();
            }
        };
        set(false).await;
        fails(site.service.session(&session).await, not_signed_in);
        fails(site.sign_in("ann", &password).await, super::sign_in_failed);
        set(true).await;
        fails(site.service.session(&session).await, not_signed_in);
        let next = site.sign_in("ann", &password).await.unwrap();
        site.service.session(&next).await.unwrap();
    }
    site.service.session(&bob).await.unwrap();
    // A user who is gone, and a new one with the same address.
    let session = site.sign_in("ann", &password).await.unwrap();
    let _deleted = site.service.delete_user(&root, &ann).await.unwrap();
    fails(site.service.session(&session).await, not_signed_in);
    world
        .sql(
            "INSERT INTO patgate.users (id, email, name)
             VALUES (gen_random_uuid(), 'ann@example.com', 'another')",
        )
        .await;
    fails(site.service.session(&session).await, not_signed_in);
    fails(site.sign_in("ann", &password).await, super::sign_in_failed);
}
