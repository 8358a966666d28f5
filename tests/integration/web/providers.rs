//! Sign-ins by a provider, which are the process's word: what a stolen login gains by it is bounded.

use std::sync::Arc;

use patgate::admin::web::{Caller, Error, Origin, ProviderSignIn};
use sqlx::Connection as _;

use super::{
    Site, fails, literal, new_token, not_permitted, not_signed_in, refused, run, sign_in_failed,
    too_many,
};
use crate::support::{Suite, value};

const ISSUER: &str = "https://id.example.com";

async fn enter(site: &Site<'_, '_>, subject: &str, email: Option<&str>) -> Result<Caller, Error> {
    enter_by(site, ISSUER, subject, email).await
}

async fn enter_by(
    site: &Site<'_, '_>,
    issuer: &str,
    subject: &str,
    email: Option<&str>,
) -> Result<Caller, Error> {
    let by = ProviderSignIn {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        verified_email: email.map(str::to_owned),
    };
    let signed_in = site.service.sign_in_by_provider(&Origin::default(), &by).await?;
    Ok(Caller { session: signed_in.secret, origin: Origin::default() })
}

async fn link(site: &Site<'_, '_>, subject: &str, user: &str) {
    let id = site.world.id(user);
    site.world
        .sql(&format!(
            "INSERT INTO patgate.issuers (issuer) VALUES ('{ISSUER}') ON CONFLICT DO NOTHING;
             INSERT INTO patgate.identities (issuer, subject, user_id)
             VALUES ('{ISSUER}', '{subject}', '{id}')"
        ))
        .await;
}

/// Only a subject that an administrator has linked to a user, of a provider that they have named.
pub(crate) async fn a_linked_subject_signs_in(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    fails(enter(&site, "s-ann", Some("ann@example.com")).await, sign_in_failed);
    link(&site, "s-ann", "ann").await;
    link(&site, "s-gone", "gone").await;
    let ann = enter(&site, "s-ann", None).await.unwrap();
    let session = site.service.session(&ann).await.unwrap();
    assert_eq!((&*session.email, &*session.method), ("ann@example.com", "oidc"));
    for (issuer, subject) in [
        (ISSUER, "s-bob"),
        (ISSUER, "S-ANN"),
        (ISSUER, ""),
        (ISSUER, "s-gone"),
        ("https://id.example.com/", "s-ann"),
        ("https://evil.example.com", "s-ann"),
        ("", "s-ann"),
    ] {
        // An address finds no user unless the provider is trusted for that.
        let outcome = enter_by(&site, issuer, subject, Some("bob@example.com")).await;
        fails(outcome, sign_in_failed);
    }
    // The line names the provider, the subject, and the database login that vouched.
    let line = "SELECT concat_ws(' ', login, method, details ->> 'issuer', details ->> 'subject')
                FROM patgate.audit_log WHERE action = 'session.begin'";
    let line: String = value(&world, line).await;
    assert_eq!(line, format!("web oidc {ISSUER} s-ann"));

    // A session ends with its link, and with its provider.
    world.sql("UPDATE patgate.issuers SET enabled = false").await;
    fails(site.service.session(&ann).await, not_signed_in);
    fails(enter(&site, "s-ann", None).await, sign_in_failed);
    world.sql("UPDATE patgate.issuers SET enabled = true").await;
    fails(site.service.session(&ann).await, not_signed_in);
    let ann = enter(&site, "s-ann", None).await.unwrap();
    // Enabling what is enabled ends nothing.
    world.sql("UPDATE patgate.issuers SET enabled = true").await;
    site.service.session(&ann).await.unwrap();
    world.sql("DELETE FROM patgate.identities WHERE subject = 's-ann'").await;
    fails(site.service.session(&ann).await, not_signed_in);
    link(&site, "s-ann", "ann").await;
    fails(site.service.session(&ann).await, not_signed_in);
    let ann = enter(&site, "s-ann", None).await.unwrap();
    world.sql("DELETE FROM patgate.identities WHERE subject = 's-ann'").await;
    // A link to another user does not turn the session into theirs.
    link(&site, "s-ann", "bob").await;
    fails(site.service.session(&ann).await, not_signed_in);
}

/// A verified address finds a user once, of a provider that is trusted for that, and never a platform
/// administrator.
pub(crate) async fn an_address_finds_a_user_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    world
        .sql(&format!(
            "INSERT INTO patgate.issuers (issuer, trusts_email) VALUES ('{ISSUER}', true)"
        ))
        .await;
    fails(enter(&site, "s1", None).await, sign_in_failed);
    for (subject, email) in [
        ("s-root", "root@example.com"),
        ("s-gone", "gone@example.com"),
        ("s-nobody", "nobody@example.com"),
    ] {
        fails(enter(&site, subject, Some(email)).await, sign_in_failed);
    }
    let ann = enter(&site, "s1", Some("Ann@Example.com")).await.unwrap();
    assert_eq!(site.service.session(&ann).await.unwrap().email, "ann@example.com");
    // From then on, the subject decides, and the address finds nobody else.
    let again = enter(&site, "s1", Some("bob@example.com")).await.unwrap();
    assert_eq!(site.service.session(&again).await.unwrap().email, "ann@example.com");
    fails(enter(&site, "s2", Some("ann@example.com")).await, sign_in_failed);
    let linked = "SELECT count(*) FROM patgate.audit_log WHERE action = 'identity.link'";
    assert_eq!(value::<i64>(&world, linked).await, 1);
}

/// Whoever the process says has signed in: the session has no rights of a platform administrator, and
/// no way to them.
pub(crate) async fn a_providers_word_makes_no_administrator(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("root").await;
    // What root's token was granted with the password proven.
    let proven = site.sign_in("root", &password).await.unwrap();
    site.service.elevate(&proven, &password).await.unwrap();
    let strong = site.create(&proven, "strong", &["acme:models:*:llm_create"]).await.id;
    link(&site, "s-root", "root").await;
    let root = enter(&site, "s-root", None).await.unwrap();
    assert!(site.service.session(&root).await.unwrap().platform_admin);
    fails(site.service.users(&root, None, 0, 1).await, not_permitted);
    // Even with the right password.
    fails(site.service.elevate(&root, &password).await, not_permitted);
    fails(site.service.users(&root, None, 0, 1).await, not_permitted);
    fails(
        site.service.create_token(&root, &new_token("t", &["acme:models:*:llm_read"])).await,
        not_permitted,
    );
    fails(site.service.reset_token(&root, strong, None, None).await, not_permitted);
    assert!(site.service.grantable(&root).await.unwrap().is_empty());
    // Not even the owner of the tables makes such a session one.
    let elevates = "UPDATE patgate.sessions SET elevated_until = now() + interval '1 hour'
                    WHERE method = 'oidc'";
    let mut owner = world.postgres.acquire().await.unwrap();
    assert_eq!(run(&mut owner, elevates).await, refused("23514"));
    assert_eq!(
        run(&mut owner, "UPDATE patgate.sessions SET method = 'local' WHERE method = 'oidc'").await,
        refused("23514")
    );
}

/// The sessions that a login begins on its own word are few, also if it begins them at the same time.
pub(crate) async fn the_sessions_of_a_word_are_few(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    link(&site, "s-ann", "ann").await;
    world.sql("UPDATE patgate.policy SET oidc_per_minute = 4").await;
    let begin = |n: usize| {
        format!(
            "SELECT patgate.web_begin_oidc_session(NULL, NULL, '{ISSUER}', 's-ann', NULL,
                 sha256('mine {n}'))"
        )
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let url = world.url("web", world.port);
        open.push(sqlx::PgConnection::connect(&url).await.unwrap());
    }
    let [one, two] = &mut open[..] else { unreachable!() };
    run(one, "BEGIN").await.unwrap();
    for n in 0..4 {
        run(one, &begin(n)).await.unwrap();
    }
    assert_eq!(run(one, &format!("SAVEPOINT a; {}", begin(4))).await, refused("PW013"));
    run(one, "ROLLBACK TO a").await.unwrap();
    // The other one waits for the first, and then sees its sessions.
    let fifth = begin(5);
    let (other, ()) = tokio::join!(run(two, &fifth), async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        patgate_testing::eventually("the other", async || value::<i64>(&world, waiting).await == 1)
            .await;
        run(one, "COMMIT").await.unwrap();
    });
    assert_eq!(other, refused("PW013"));
    // Another login has its own.
    let second = format!("web_{}", world.database);
    world.sql(&format!("CREATE ROLE {second} LOGIN IN ROLE patgate_web")).await;
    let mut elsewhere = sqlx::PgConnection::connect(&world.url(&second, world.port)).await.unwrap();
    run(&mut elsewhere, &begin(6)).await.unwrap();
    // And in all, not only in a minute.
    world.sql("UPDATE patgate.sessions SET begun_at = begun_at - interval '1 minute'").await;
    world.sql("UPDATE patgate.policy SET oidc_sessions = 5").await;
    enter(&site, "s-ann", None).await.unwrap();
    fails(enter(&site, "s-ann", None).await, too_many);
    // None at all, where operators want none.
    world.sql("UPDATE patgate.policy SET oidc_per_minute = 0").await;
    world.sql("DELETE FROM patgate.sessions").await;
    fails(enter(&site, "s-ann", None).await, too_many);
}

/// A proof that another session has begins no second one, whose user would be another.
pub(crate) async fn a_proof_belongs_to_one_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    link(&site, "s-bob", "bob").await;
    let ann = site.signed_in("ann").await;
    let fixed = format!(
        "SELECT patgate.web_begin_oidc_session(NULL, NULL, '{ISSUER}', 's-bob', NULL, {})",
        literal(&ann)
    );
    assert_eq!(site.code(&fixed).await, refused("23505"));
    assert_eq!(site.service.session(&ann).await.unwrap().email, "ann@example.com");
}
