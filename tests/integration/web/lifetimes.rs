//! The longest and the default life of a token, which an operator sets.

use std::{sync::Arc, time::Duration};

use patgate::admin::{
    Expiry,
    web::{Error, NewOwnToken},
};

use super::{Site, fails, new_token, refused, run, too_long};
use crate::support::{Suite, cli::Cli, value};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// By every way to make a token, or to extend one.
pub(crate) async fn no_new_token_lives_too_long(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world);
    let ann = site.signed_in("ann").await;
    let old = world.token_for("ann", "400 days", &[]).await;
    let older = world.token_for("ann", "400 days", &[]).await.id;
    world
        .sql("UPDATE patgate.policy SET token_longest = '30 days', token_default = '7 days'")
        .await;

    let new = |name: &str, expiry| NewOwnToken { expiry, ..new_token(name, &[]) };
    let late = [Expiry::In(31 * DAY), Expiry::At("2099-01-01T00:00:00Z".parse().unwrap())];
    for expiry in late {
        let outcome = site.service.create_token(&ann, &new("late", Some(expiry))).await;
        let Err(Error::LifetimeTooLong { longest, message }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(longest, Some(30 * DAY));
        assert_eq!(message, "a token must expire within 30 days, as an operator has set");
    }
    fails(site.service.reset_token(&ann, old.id, None, Some(late[1])).await, too_long);
    let fits = site.service.create_token(&ann, &new("fits", Some(Expiry::In(30 * DAY)))).await;
    let fits = site.plain(fits.unwrap().value);
    fails(
        site.service.reset_token(&ann, fits.id, None, Some(Expiry::In(31 * DAY))).await,
        too_long,
    );
    let reset = site.service.reset_token(&ann, fits.id, None, Some(Expiry::In(DAY))).await.unwrap();
    suite.minted.lock().unwrap().push(reset.value.0.expose().to_owned());
    // A new secret is a new grant, also of a token that may live on for longer as it is.
    let between = Some(Expiry::In(200 * DAY));
    fails(site.service.reset_token(&ann, older, None, between).await, too_long);
    let reset = site.service.reset_token(&ann, older, None, None).await.unwrap();
    suite.minted.lock().unwrap().push(reset.value.0.expose().to_owned());
    let days = format!(
        "SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int4 FROM patgate.pats
         WHERE id = '{older}'"
    );
    assert_eq!(value::<i32>(&world, &days).await, 30);
    // Without a time, the default.
    let default = site.create(&ann, "default", &[]).await.id;
    let days = format!(
        "SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int4 FROM patgate.pats
         WHERE id = '{default}'"
    );
    assert_eq!(value::<i32>(&world, &days).await, 7);

    // By command.
    let refusal = "a token must expire within 30d, which is token_longest of `patgate policy show`";
    cli.refused("token create t --user ann@example.com --expires-in 31d", 1, refusal);
    cli.refused(&format!("token rotate {} --expires-in 31d", old.id), 1, refusal);
    cli.mint("token create t --user ann@example.com --expires-in 30d");
    cli.mint(&format!("token rotate {} --expires-in 10d", fits.id));
    // By SQL, with whatever date of issue; and extending one that exists.
    let mut administrator = crate::support::connect(&world.url("administrator", world.port))
        .await
        .acquire()
        .await
        .unwrap();
    let insert = |issued: &str, expires: &str| {
        format!(
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, issued_at, expires_at)
             VALUES (gen_random_uuid(), '{}', gen_random_uuid()::text, sha256('x'), 'k1', {issued},
                     {expires})",
            world.id("ann")
        )
    };
    for sql in [
        insert("now()", "now() + interval '31 days'"),
        insert("now() - interval '1 year'", "now() + interval '31 days'"),
        format!(
            "UPDATE patgate.pats SET expires_at = expires_at + interval '40 days' WHERE id = '{}'",
            fits.id
        ),
        format!(
            "UPDATE patgate.pats SET expires_at = expires_at + interval '1 second' WHERE id = '{}'",
            old.id
        ),
        "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
             SELECT gen_random_uuid(), user_id, 'copy', digest, key_id, expires_at
             FROM patgate.pats WHERE expires_at > now() + interval '1 year'"
            .to_owned(),
    ] {
        assert_eq!(run(&mut administrator, &sql).await, refused("PW006"), "{sql}");
    }
    for sql in [
        insert("now()", "now() + interval '30 days'"),
        // A token that exists keeps its life, and can be changed and shortened.
        format!("UPDATE patgate.pats SET name = 'kept' WHERE id = '{}'", old.id),
        format!(
            "UPDATE patgate.pats SET expires_at = expires_at - interval '1 day' WHERE id = '{}'",
            old.id
        ),
        "SELECT 1".to_owned(),
    ] {
        assert_eq!(run(&mut administrator, &sql).await, Ok(()), "{sql}");
    }
    // Its secret can be renewed without a new life.
    let reset = site.service.reset_token(&ann, old.id, None, None).await.unwrap();
    suite.minted.lock().unwrap().push(reset.value.0.expose().to_owned());
    // A canary, which nobody can use, is not concerned.
    world
        .sql("UPDATE patgate.policy SET token_default = '1 minute', token_longest = '1 minute'")
        .await;
    world.sql("SELECT patgate.flip_canary(gen_random_uuid(), '1 hour')").await;
    // Contradictory limits are refused, and so are limits that are none.
    for set in [
        "token_default = '2 minutes'",
        "token_longest = '0'",
        "token_longest = '-1 day'",
        "token_default = NULL",
        "session_idle = '0'",
        "failed_attempts = 0",
    ] {
        let sql = format!("UPDATE patgate.policy SET {set}");
        let code = run(&mut administrator, &sql).await.unwrap_err();
        assert!(code == "23514" || code == "23502", "{code}: {set}");
    }
    let session = site.service.session(&ann).await.unwrap();
    assert_eq!((session.token_longest_seconds, session.token_default_seconds), (Some(60), 60));
}
