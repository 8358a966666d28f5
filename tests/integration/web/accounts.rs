//! Local accounts: passwords, attempts, invitations, and rights that need the password again.

use std::{fs, sync::Arc};

use patgate::admin::{
    AuditFilter,
    web::{Caller, History, Origin, Password, SessionSecret, TokenQuery, UserEdit},
};
use sha2::{Digest as _, Sha256};

use super::{
    Site, fails, hex, literal, needs_elevation, not_found, not_permitted, not_signed_in, proof_of,
    refused, run, sign_in_failed, too_many_attempts,
};
use crate::support::{Suite, connect, value};

const WRONG: &str = "not the password of anyone here";

fn wrong() -> Password {
    WRONG.parse().unwrap()
}

pub(crate) async fn a_password_signs_in(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("ann").await;
    let ann = site.sign_in("ann", &password).await.unwrap();
    let session = site.service.session(&ann).await.unwrap();
    assert_eq!(session.user, world.id("ann"));
    assert_eq!((&*session.email, &*session.method), ("ann@example.com", "local"));
    assert!(!session.platform_admin && !session.elevated && session.has_password);

    // Every other combination fails alike.
    world.sql("UPDATE patgate.users SET enabled = true WHERE name = 'gone'").await;
    let gone = site.account("gone").await;
    site.sign_in("gone", &gone).await.unwrap();
    world.sql("UPDATE patgate.users SET enabled = false WHERE name = 'gone'").await;
    fails(site.sign_in("gone", &gone).await, sign_in_failed);
    for (user, password) in
        [("ann", &wrong()), ("bob", &wrong()), ("bob", &password), ("nobody", &password)]
    {
        fails(site.sign_in(user, password).await, sign_in_failed);
    }

    // The audit log says who signed in, from where, and by which database login.
    let log = world.admin(world.postgres.clone()).await;
    let filter = AuditFilter {
        actor: None,
        login: None,
        since: None,
        action: None,
        object: None,
        limit: 100,
    };
    let lines = log.audit_log(&filter).await.unwrap();
    let line = lines.iter().find(|line| line.session == Some(session.session)).unwrap();
    assert_eq!((&*line.action, &*line.actor), ("session.begin", "web:ann@example.com"));
    assert_eq!(line.login.as_deref(), Some("web"));
    assert_eq!(line.address.as_deref(), Some("192.0.2.7"));
    assert_eq!(line.request_id.as_deref(), Some("request-1"));
    assert_eq!(line.method.as_deref(), Some("local"));
}

/// Of a cookie, a link or a password, the database sees only digests, even in the log of statements.
pub(crate) async fn the_database_sees_no_secret(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let invitation = site.invited("ann", "1 hour").await;
    let origin = Origin::default();
    site.service.accept_invitation(&origin, &invitation, &wrong()).await.unwrap();
    let ann = site.sign_in("ann", &wrong()).await.unwrap();
    site.service.session(&ann).await.unwrap();
    let log = fs::read_to_string(&suite.postgres.log).unwrap();
    let proof = hex(&proof_of(&ann.session.expose()));
    assert!(log.contains(&proof), "the log has the arguments of statements");
    let raw = |text: &str| {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        hex(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap())
    };
    for secret in [ann.session.expose(), invitation.expose()] {
        assert!(!log.contains(&*secret) && !log.contains(&raw(&secret)));
    }
    assert!(!log.contains(WRONG) && !log.contains(&hex(WRONG.as_bytes())));
    // And what it stores is not what it was shown.
    let stored: Vec<Vec<u8>> =
        value(&world, "SELECT array_agg(proof_hash) FROM patgate.sessions").await;
    assert_eq!(stored, [Sha256::digest(proof_of(&ann.session.expose())).to_vec()]);
}

pub(crate) async fn failures_lock_an_account_and_no_other(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.account("ann").await;
    let bob = site.account("bob").await;
    let open = site.sign_in("ann", &ann).await.unwrap();
    world.sql("UPDATE patgate.policy SET failed_attempts = 3").await;
    // An account that does not exist fails in the same way, as often.
    for user in ["ann", "nobody"] {
        for _ in 0..3 {
            fails(site.sign_in(user, &wrong()).await, sign_in_failed);
        }
        for password in [&wrong(), &ann] {
            fails(site.sign_in(user, password).await, too_many_attempts);
        }
    }
    site.sign_in("bob", &bob).await.unwrap();
    // Sessions go on.
    site.service.session(&open).await.unwrap();
    let locks = "SELECT array_agg(object ORDER BY id) FROM patgate.audit_log
                 WHERE action = 'account.lock'";
    let locks: Vec<String> = value(&world, locks).await;
    assert_eq!(locks, [world.id("ann").to_string(), "unknown".to_owned()]);
    // Once the failures are older, the account is open.
    world.sql("UPDATE patgate.sign_in_attempts SET at = at - interval '15 minutes'").await;
    site.sign_in("ann", &ann).await.unwrap();
    // A success forgets the failures before it.
    for _ in 0..3 {
        fails(site.sign_in("ann", &wrong()).await, sign_in_failed);
        site.sign_in("ann", &ann).await.unwrap();
    }
}

/// The salt of an address does not say whether a user has it, before and after they have a password.
pub(crate) async fn a_salt_tells_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let salt = async |email: &str| -> Vec<u8> {
        sqlx::query_scalar("SELECT patgate.web_password_salt($1)")
            .bind(email.to_owned())
            .fetch_one(&site.login)
            .await
            .unwrap()
    };
    let before = salt("ann@example.com").await;
    site.account("ann").await;
    assert_eq!(salt("ann@example.com").await, before);
    assert_eq!(salt("Ann@Example.com").await, before);
    site.account("ann").await;
    assert_eq!(salt("ann@example.com").await, before);
    let nobody = salt("nobody@example.com").await;
    assert_eq!((nobody.len(), before.len()), (16, 16));
    assert_eq!(salt("nobody@example.com").await, nobody);
    assert_ne!(nobody, before);
    // Another installation has other salts.
    let other = suite.world().await;
    other.sql("UPDATE patgate.sign_in_secret SET secret = sha256('another')").await;
    let elsewhere: Vec<u8> =
        value(&other, "SELECT patgate.web_password_salt('ann@example.com')").await;
    assert_ne!(elsewhere, before);
}

/// With the login alone, and whatever is rolled back, an account has no more attempts than permitted.
pub(crate) async fn an_attempt_counts_whatever_becomes_of_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    site.account("ann").await;
    world.sql("UPDATE patgate.policy SET failed_attempts = 5").await;
    // What the database stores, so that the right answer can be given without knowing the password.
    world.sql("UPDATE patgate.local_accounts SET verifier = sha256(sha256('right'))").await;
    let mut thief = site.login.acquire().await.unwrap();
    let attempts = "SELECT count(*) FROM patgate.sign_in_attempts";
    let begin = |answer: &str| {
        format!(
            "patgate.web_begin_attempt(NULL, NULL, 'ann@example.com', sha256(sha256('{answer}')))"
        )
    };
    let finish = |attempt: &str, answer: &str| {
        format!(
            "SELECT patgate.web_begin_local_session(NULL, NULL, '{attempt}', 'ann@example.com',
                 sha256('{answer}'), sha256('mine'))"
        )
    };
    let attempt = async |answer: &str| -> String {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {}::text", begin(answer))))
            .fetch_one(&site.login)
            .await
            .unwrap()
    };

    // An attempt that is not committed cannot be tried, whether in its own statement, after it, or
    // behind a savepoint.
    for sql in [
        format!(
            "SELECT patgate.web_begin_local_session(NULL, NULL, {}, 'ann@example.com',
                 sha256('right'), sha256('mine'))",
            begin("right")
        ),
        format!(
            "DO $$ DECLARE a uuid := {}; BEGIN
                 PERFORM patgate.web_begin_local_session(NULL, NULL, a, 'ann@example.com',
                     sha256('right'), sha256('mine')); END $$",
            begin("right")
        ),
        format!(
            "DO $$ DECLARE a uuid; BEGIN
                 BEGIN a := {}; EXCEPTION WHEN division_by_zero THEN END;
                 PERFORM patgate.web_begin_local_session(NULL, NULL, a, 'ann@example.com',
                     sha256('right'), sha256('mine')); END $$",
            begin("right")
        ),
    ] {
        assert_eq!(run(&mut thief, &sql).await, refused("PW014"), "{sql}");
    }
    assert_eq!(value::<i64>(&world, attempts).await, 0);

    // An attempt tries the answer that it has promised, for its own account, soon, by its own login.
    let promised = attempt("wrong").await;
    assert_eq!(run(&mut thief, &finish(&promised, "right")).await, refused("PW014"));
    let other = attempt("right").await;
    let swapped = finish(&other, "right").replace("ann@", "bob@");
    assert_eq!(run(&mut thief, &swapped).await, refused("PW014"));
    world.sql("UPDATE patgate.sign_in_attempts SET login = 'another'").await;
    assert_eq!(run(&mut thief, &finish(&other, "right")).await, refused("PW014"));
    world
        .sql(
            "UPDATE patgate.sign_in_attempts SET login = 'web',
                 at = clock_timestamp() - interval '61 seconds'",
        )
        .await;
    assert_eq!(run(&mut thief, &finish(&other, "right")).await, refused("PW014"));

    // Rolling back a try brings back no attempt: these two, and three more.
    for _ in 0..3 {
        let one = attempt("wrong").await;
        let sql = format!("BEGIN; {}", finish(&one, "wrong"));
        assert_eq!(run(&mut thief, &sql).await, refused("PW014"));
        run(&mut thief, "ROLLBACK").await.unwrap();
    }
    let sql = format!("SELECT {}", begin("right"));
    assert_eq!(run(&mut thief, &sql).await, refused("PW007"));

    // Attempts that were begun at the same time, so that none saw the others: none may be tried.
    world.sql("DELETE FROM patgate.sign_in_attempts").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = connection(&site).await;
        run(&mut connection, "BEGIN").await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let sql = format!("SELECT {}::text", begin("right"));
            let id: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            ids.push(id);
        }
        open.push((connection, ids));
    }
    let mut all = Vec::new();
    for (mut connection, ids) in open {
        run(&mut connection, "COMMIT").await.unwrap();
        all.extend(ids);
    }
    assert_eq!(value::<i64>(&world, attempts).await, 6);
    for id in all {
        assert_eq!(run(&mut thief, &finish(&id, "right")).await, refused("PW007"));
    }
    // The table does not grow without a bound either.
    world.sql("UPDATE patgate.policy SET attempts_per_minute = 6").await;
    let other = begin("right").replace("ann@", "someone-else@");
    assert_eq!(run(&mut thief, &format!("SELECT {other}")).await, refused("PW007"));
}

async fn connection(site: &Site<'_, '_>) -> sqlx::PgConnection {
    use sqlx::Connection as _;
    sqlx::PgConnection::connect(&site.world.url("web", site.world.port)).await.unwrap()
}

pub(crate) async fn an_invitation_is_good_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let origin = Origin::default();
    let first = site.invited("ann", "1 hour").await;
    assert_eq!(site.service.invitation(&first).await.unwrap().email, "ann@example.com");
    site.service.accept_invitation(&origin, &first, &wrong()).await.unwrap();
    let session = site.sign_in("ann", &wrong()).await.unwrap();
    fails(site.service.accept_invitation(&origin, &first, &wrong()).await, not_found);

    let expired = site.invited("ann", "-1 second").await;
    let guessed = patgate::admin::web::InvitationSecret::random().unwrap();
    let gone = site.invited("gone", "1 hour").await;
    for bad in [&expired, &guessed, &gone] {
        fails(site.service.invitation(bad).await, not_found);
        fails(site.service.accept_invitation(&origin, bad, &wrong()).await, not_found);
    }
    site.service.session(&session).await.unwrap();

    // Two at once: one of them sets the password, and every session ends.
    let second = site.invited("ann", "1 hour").await;
    let another: Password = "another long password".parse().unwrap();
    let (one, two) = tokio::join!(
        site.service.accept_invitation(&origin, &second, &another),
        site.service.accept_invitation(&origin, &second, &another),
    );
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
    fails(site.service.session(&session).await, not_signed_in);
    fails(site.sign_in("ann", &wrong()).await, sign_in_failed);
    site.sign_in("ann", &another).await.unwrap();
    // An operator's is recorded, and replaces the ones before.
    let admin = world.admin(connect(&world.url("administrator", world.port)).await).await;
    let user = "ann@example.com".parse().unwrap();
    let week = std::time::Duration::from_secs(7 * 24 * 60 * 60);
    let replaced = admin.invite_user(&user, week).await.unwrap().value.secret;
    let operators = admin.invite_user(&user, 9 * week).await.unwrap().value.secret;
    fails(site.service.invitation(&replaced).await, not_found);
    site.service.accept_invitation(&origin, &operators, &wrong()).await.unwrap();
    site.sign_in("ann", &wrong()).await.unwrap();
    let recorded = "SELECT count(*) FROM patgate.audit_log
                    WHERE action = 'account.invite' AND actor = 'tester'";
    assert_eq!(value::<i64>(&world, recorded).await, 2);
    // An invitation that was never used ends with the next password.
    let unused = site.invited("ann", "1 hour").await;
    let last = site.invited("ann", "1 hour").await;
    site.service.accept_invitation(&origin, &last, &wrong()).await.unwrap();
    fails(site.service.invitation(&unused).await, not_found);
}

pub(crate) async fn a_password_is_changed_by_who_knows_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("ann").await;
    let [one, two] = [
        site.sign_in("ann", &password).await.unwrap(),
        site.sign_in("ann", &password).await.unwrap(),
    ];
    let new: Password = "a new long password".parse().unwrap();
    fails(site.service.change_password(&one, &wrong(), &new).await, sign_in_failed);
    site.service.session(&two).await.unwrap();
    site.service.change_password(&one, &password, &new).await.unwrap();
    for old in [&one, &two] {
        fails(site.service.session(old).await, not_signed_in);
    }
    fails(site.sign_in("ann", &password).await, sign_in_failed);
    site.sign_in("ann", &new).await.unwrap();
    let stranger = Caller { session: SessionSecret::random().unwrap(), origin: Origin::default() };
    fails(site.service.change_password(&stranger, &new, &password).await, not_signed_in);
}

/// A platform administrator has these rights only for a while after proving the password again.
pub(crate) async fn elevation_needs_the_password(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann_password = site.account("ann").await;
    let ann = site.sign_in("ann", &ann_password).await.unwrap();
    let password = site.account("root").await;
    let root = site.sign_in("root", &password).await.unwrap();
    let users = async |caller: &Caller| site.service.users(caller, None, 0, 10).await;
    fails(users(&root).await, needs_elevation);
    fails(site.service.elevate(&root, &wrong()).await, sign_in_failed);
    fails(site.service.elevate(&root, &ann_password).await, sign_in_failed);
    fails(site.service.elevate(&ann, &ann_password).await, not_permitted);
    fails(users(&root).await, needs_elevation);
    fails(users(&ann).await, not_permitted);

    site.service.elevate(&root, &password).await.unwrap();
    assert_eq!(users(&root).await.unwrap().total, 5);
    // Not in another session of the same user.
    let second = site.sign_in("root", &password).await.unwrap();
    fails(users(&second).await, needs_elevation);
    site.service.lower(&root).await.unwrap();
    fails(users(&root).await, needs_elevation);
    site.service.elevate(&root, &password).await.unwrap();
    world.sql("UPDATE patgate.sessions SET elevated_until = clock_timestamp()").await;
    fails(users(&root).await, needs_elevation);
    // And only for as long as the user is a platform administrator.
    site.service.elevate(&root, &password).await.unwrap();
    world.sql("UPDATE patgate.users SET platform_admin = false WHERE name = 'root'").await;
    fails(users(&root).await, not_permitted);
    let everything = History { everything: true, limit: 10, ..History::default() };
    fails(site.service.history(&root, &everything).await, not_permitted);
    let of_all = TokenQuery { of_all_users: true, name: None, state: None, offset: 0, limit: 10 };
    fails(site.service.tokens(&root, &of_all).await, not_permitted);
    let bob = "bob@example.com".parse().unwrap();
    let edit = UserEdit { platform_admin: Some(true), enabled: None };
    fails(site.service.update_user(&root, &bob, edit).await, not_permitted);

    // An attempt for one user elevates no other, over SQL.
    let code = site
        .code(&format!(
            "SELECT patgate.web_elevate({}, NULL, NULL, gen_random_uuid(), sha256('x'))",
            literal(&ann)
        ))
        .await;
    assert_eq!(code, refused("PW014"));
}
