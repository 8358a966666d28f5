//! Replacing a token by a new one, while the old one still works for a while.

use std::{sync::Arc, time::Duration};

use patgate::token::TokenId;
use patgate_testing::eventually;
use uuid::Uuid;

use super::{
    Site, changed, exists, fails, literal, not_found, not_permitted, refused, token_ended, too_many,
};
use crate::support::{
    Suite, Token,
    cli::{Cli, answer, ask},
    value,
};

const READS: &str = "acme:models:*:llm_read";
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: i64 = 24 * 60 * 60;

/// Both tokens work during the overlap; names, scopes and durations are those of the command.
pub(crate) async fn the_old_token_works_for_the_overlap(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let replica = world.serve(&[]).await;
    let ann = site.signed_in("ann").await;
    let old = site.create(&ann, "laptop", &[READS, "acme:models:*:llm_create"]).await;
    let described = "for the laptop".parse().unwrap();
    let _ = it.update_token(&ann, old.id, None, None, Some(&described)).await.unwrap();
    let before = it.token(&ann, old.id).await.unwrap();
    assert_eq!(ask(&replica, &old, "acme").await, answer(200, "ok"));

    fails(it.rotate_token(&ann, old.id, Some("x"), HOUR).await, changed);
    let version = Some(&*before.version);
    let rotated = it.rotate_token(&ann, old.id, version, HOUR).await.unwrap();
    let (plain, token, replaced) = rotated.value;
    let new = Token { id: TokenId(token.id), text: plain.expose().to_owned() };
    suite.minted.lock().unwrap().push(new.text.clone());
    // The same request again names a version that has gone.
    fails(it.rotate_token(&ann, old.id, version, HOUR).await, changed);
    let ok = answer(200, "ok");
    eventually("the new token", async || ask(&replica, &new, "acme").await == ok).await;
    assert_eq!(ask(&replica, &old, "acme").await, ok);

    let scopes = |token: &patgate::admin::web::OwnToken| {
        let scope = |it: &patgate::admin::web::OwnScope| {
            format!("{}:{}:{}:{}", it.domain, it.entity_type, it.entity_id, it.operation)
        };
        token.scopes.iter().map(scope).collect::<Vec<_>>()
    };
    assert_eq!((&*token.name, &*token.description), ("laptop", "for the laptop"));
    assert_eq!((scopes(&token), scopes(&replaced)), (scopes(&before), scopes(&before)));
    let id = old.id.to_string();
    assert_eq!(replaced.name, format!("laptop (replaced {})", &id[id.len() - 12..]));
    assert_eq!((&*replaced.status.to_string(), replaced.revoked_at), ("live", None));
    let seconds = async |what: &str, id: TokenId| -> i64 {
        let sql = format!("SELECT round(extract(epoch FROM {what}))::int8 FROM patgate.pats");
        value(&world, &format!("{sql} WHERE id = '{id}'")).await
    };
    assert_eq!(seconds("expires_at - issued_at", new.id).await, 30 * DAY);
    let left = seconds("expires_at - now()", old.id).await;
    assert!((3500..=3600).contains(&left), "{left}");
    let lines = "SELECT string_agg(concat_ws(' ', action, object, details ->> 'replaced_by',
                     details ->> 'replaces', details ->> 'grace_seconds', actor), E'\\n' ORDER BY id)
                 FROM (SELECT * FROM patgate.audit_log ORDER BY id DESC LIMIT 2) AS l";
    let expected = format!(
        "token.rotate {id} {new} 3600 web:ann@example.com\ntoken.create {new} {id} web:ann@example.com",
        new = new.id
    );
    assert_eq!(value::<String>(&world, lines).await, expected);

    // Without an overlap, the old one is revoked.
    let rotated = it.rotate_token(&ann, new.id, None, Duration::ZERO).await.unwrap();
    let (plain, next, replaced) = rotated.value;
    suite.minted.lock().unwrap().push(plain.expose().to_owned());
    assert!(replaced.revoked_at.is_some());
    let revoked = answer(401, "token_revoked");
    eventually("the revocation", async || ask(&replica, &new, "acme").await == revoked).await;
    // A longer overlap than the old one has left prolongs nothing, and neither does the longest.
    let expires = it.token(&ann, TokenId(next.id)).await.unwrap().expires_at;
    world.sql("UPDATE patgate.policy SET token_longest = '10 days', token_default = '1 day'").await;
    let long = Duration::from_secs(400 * DAY as u64);
    let rotated = it.rotate_token(&ann, TokenId(next.id), None, long).await.unwrap();
    let (plain, last, replaced) = rotated.value;
    suite.minted.lock().unwrap().push(plain.expose().to_owned());
    assert_eq!(replaced.expires_at, expires);
    assert_eq!(seconds("expires_at - issued_at", TokenId(last.id)).await, 10 * DAY);
    let rotated = it.rotate_token(&ann, TokenId(last.id), None, Duration::MAX).await.unwrap();
    suite.minted.lock().unwrap().push(rotated.value.0.expose().to_owned());

    // The command chooses the same name, with the same rule for the old one.
    let other = world.token_for("ann", "1 day", &[]).await;
    world.sql(&format!("UPDATE patgate.pats SET name = 'ci' WHERE id = '{}'", other.id)).await;
    Cli::of(&world).mint(&format!("token rotate {} --grace 1h", other.id));
    let text = other.id.to_string();
    let named = it.token(&ann, other.id).await.unwrap().name;
    assert_eq!(named, format!("ci (replaced {})", &text[text.len() - 12..]));
}

/// What a new token may not have, a rotation does not give.
pub(crate) async fn a_rotation_is_a_new_grant(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let ann = site.signed_in("ann").await;
    let root = site.elevated().await;
    let bobs = world.token_for("bob", "1 hour", &[]).await.id;
    let canary = TokenId(Uuid::new_v4());
    world.sql(&format!("SELECT patgate.flip_canary('{canary}', '1 hour')")).await;
    // Nobody rotates another's token, with whatever rights.
    for caller in [&ann, &root] {
        for id in [bobs, canary, TokenId(Uuid::new_v4())] {
            fails(it.rotate_token(caller, id, None, HOUR).await, not_found);
        }
    }
    let expired = world.token_for("ann", "-1 minute", &[]).await.id;
    fails(it.rotate_token(&ann, expired, None, HOUR).await, token_ended);
    let revoked = site.create(&ann, "revoked", &[]).await.id;
    let _ = it.revoke_token(&ann, revoked).await.unwrap();
    fails(it.rotate_token(&ann, revoked, None, HOUR).await, token_ended);

    let reader = site.signed_in("reader").await;
    let token = site.create(&reader, "laptop", &[READS]).await.id;
    world.sql("UPDATE patgate.policy SET tokens_per_user = 1").await;
    fails(it.rotate_token(&reader, token, None, HOUR).await, too_many);
    world.sql("UPDATE patgate.policy SET tokens_per_user = 2").await;
    let state = format!(
        "SELECT string_agg(p::text || coalesce(s::text, ''), ' ' ORDER BY p.id)
         FROM patgate.pats p LEFT JOIN patgate.pat_scopes s ON s.pat_id = p.id
         WHERE p.user_id = '{}'",
        world.id("reader")
    );
    let before: String = value(&world, &state).await;
    let taken = "DELETE FROM patgate.role_members m USING patgate.users u
                 WHERE u.id = m.user_id AND u.name = 'reader'";
    world.sql(taken).await;
    fails(it.rotate_token(&reader, token, None, HOUR).await, not_permitted);
    // Over SQL, with a token that is none, and a name that would be another's.
    let call = |digest: &str, overlap: &str| {
        format!(
            "SELECT patgate.web_rotate_token({}, NULL, NULL, '{token}', NULL, gen_random_uuid(),
                 {digest}, 'k1', {overlap})",
            literal(&reader)
        )
    };
    assert_eq!(site.code(&call("sha256('x')", "1")).await, refused("PW002"));
    site.grant("acme", "llm_read", "reader").await;
    for (digest, overlap) in
        [("sha256('x')", "NULL"), ("sha256('x')", "-1"), ("NULL", "1"), ("'short'", "1")]
    {
        assert_eq!(site.code(&call(digest, overlap)).await, refused("PW008"), "{digest} {overlap}");
    }
    assert_eq!(value::<String>(&world, &state).await, before);
    let text = token.to_string();
    let taken = format!("laptop (replaced {})", &text[text.len() - 12..]);
    let other = site.create(&reader, &taken, &[]).await.id;
    world.sql("UPDATE patgate.policy SET tokens_per_user = 9").await;
    fails(it.rotate_token(&reader, token, None, HOUR).await, exists);
    let _ = it.delete_token(&reader, other, None).await.unwrap();
    let (plain, ..) = it.rotate_token(&reader, token, None, HOUR).await.unwrap().value;
    suite.minted.lock().unwrap().push(plain.expose().to_owned());
    // A platform administrator's token has scopes by the password; without it, it is not rotated.
    let own = site.create(&root, "own", &[READS]).await.id;
    it.lower(&root).await.unwrap();
    fails(it.rotate_token(&root, own, None, HOUR).await, not_permitted);
}
