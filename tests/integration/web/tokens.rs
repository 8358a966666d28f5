//! What users do with their own tokens, and with nobody else's.

use std::sync::Arc;

use patgate::{
    admin::web::{
        Caller, Creation, GrantableDomain, History, NewOwnToken, ScopeRemoval, TokenQuery,
        TokenState,
    },
    token::TokenId,
};
use patgate_testing::eventually;
use uuid::Uuid;

use super::{
    Site, changed, exists, fails, hex, invalid, key_reused, literal, needs_elevation, new_token,
    not_found, not_permitted, parsed, refused, token_ended, too_many,
};
use crate::support::{
    Suite,
    cli::{answer, ask},
    value,
};

const READS: &str = "acme:models:*:llm_read";

/// A token from self-service works until it is revoked, with the secret that it got last.
pub(crate) async fn a_token_works_as_any_other(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let replica = world.serve(&[]).await;
    let ann = site.signed_in("ann").await;
    let first = site.create(&ann, "laptop", &[READS]).await;
    assert_eq!(ask(&replica, &first, "acme").await, answer(200, "ok"));

    let reset = site.service.reset_token(&ann, first.id, None, None).await.unwrap();
    let (plain, token) = reset.value;
    let second = crate::support::Token { id: first.id, text: plain.expose().to_owned() };
    suite.minted.lock().unwrap().push(second.text.clone());
    assert_eq!((token.id, &*token.status.to_string()), (first.id.0, "live"));
    let ok = answer(200, "ok");
    eventually("the new secret", async || ask(&replica, &second, "acme").await == ok).await;
    assert_eq!(ask(&replica, &first, "acme").await.0, 401);

    let revoked = site.service.revoke_token(&ann, first.id).await.unwrap();
    eventually("all replicas", async || {
        let replicas = site.service.applied(&ann, &revoked.committed).await.unwrap();
        (replicas.missing, replicas.applied) == (0, 1)
    })
    .await;
    assert_eq!(ask(&replica, &second, "acme").await, answer(401, "token_revoked"));
    // Revoking again changes nothing, and a revoked or expired token gets no new secret.
    let again = site.service.revoke_token(&ann, first.id).await.unwrap();
    assert_eq!(again.value.revoked_at, revoked.value.revoked_at);
    let lines = "SELECT count(*) FROM patgate.audit_log WHERE action = 'token.revoke'";
    assert_eq!(value::<i64>(&world, lines).await, 1);
    fails(site.service.reset_token(&ann, first.id, None, None).await, token_ended);
    let expired = world.token_for("ann", "-1 minute", &[]).await;
    fails(site.service.reset_token(&ann, expired.id, None, None).await, token_ended);
}

pub(crate) async fn tokens_are_listed_in_parts(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    world.token_for("bob", "1 hour", &[]).await;
    world.token_for("ann", "-1 minute", &[]).await;
    for at in 0..7 {
        let token = site.create(&ann, &format!("Laptop {at}"), &[READS]).await;
        if at % 3 == 0 {
            let _revoked = site.service.revoke_token(&ann, token.id).await.unwrap();
        }
    }
    let list = async |name: Option<&str>, state, offset, limit| {
        let name = name.map(str::to_owned);
        let query = TokenQuery { of_all_users: false, name, state, offset, limit };
        let page = site.service.tokens(&ann, &query).await.unwrap();
        (page.total, page.tokens.into_iter().map(|token| token.name).collect::<Vec<_>>())
    };
    assert_eq!(
        list(Some("LAPTOP"), None, 0, 2).await,
        (7, vec!["Laptop 0".into(), "Laptop 1".into()])
    );
    assert_eq!(list(Some("laptop"), None, 6, 5).await, (7, vec!["Laptop 6".into()]));
    assert_eq!(list(Some("laptop 3"), None, 0, 5).await, (1, vec!["Laptop 3".into()]));
    assert_eq!(list(Some("%"), None, 0, 5).await, (0, vec![]));
    for (state, total) in
        [(TokenState::Revoked, 3), (TokenState::Expired, 1), (TokenState::Live, 4)]
    {
        let (found, names) = list(None, Some(state), 0, 100).await;
        assert_eq!((found, names.len()), (total, total as usize), "{state}");
    }
    assert_eq!(list(None, None, 8, 0).await, (8, vec![]));
    // Those of all users are for platform administrators.
    let all = TokenQuery { of_all_users: true, name: None, state: None, offset: 0, limit: 100 };
    fails(site.service.tokens(&ann, &all).await, not_permitted);
    let root = site.signed_in("root").await;
    fails(site.service.tokens(&root, &all).await, needs_elevation);
    let root = site.elevated().await;
    assert_eq!(site.service.tokens(&root, &all).await.unwrap().total, 9);
}

/// Every call that names a token, with the id of another user's, of a canary's, and of none.
pub(crate) async fn another_users_token_does_not_exist(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let root = site.signed_in("root").await;
    let bobs = world.token_for("bob", "1 hour", &[("beta", "models", "*", "llm_read")]).await.id;
    let canary = TokenId(Uuid::new_v4());
    world.sql(&format!("SELECT patgate.flip_canary('{canary}', '1 hour')")).await;
    let none = TokenId(Uuid::new_v4());
    let before = "SELECT string_agg(p::text || s::text, ' ' ORDER BY p.id)
                  FROM patgate.pats p LEFT JOIN patgate.pat_scopes s ON s.pat_id = p.id";
    let untouched: String = value(&world, before).await;
    let name = "mine".parse().unwrap();
    for caller in [&ann, &root] {
        for id in [bobs, canary, none] {
            let it = &site.service;
            fails(it.token(caller, id).await, not_found);
            fails(it.update_token(caller, id, None, Some(&name), None).await, not_found);
            fails(it.reset_token(caller, id, None, None).await, not_found);
            fails(it.revoke_token(caller, id).await, not_found);
            fails(it.delete_token(caller, id, None).await, not_found);
            fails(it.add_scopes(caller, id, None, &[]).await, not_found);
            for removal in [ScopeRemoval::All, ScopeRemoval::Ids(vec![Uuid::new_v4()])] {
                fails(it.remove_scopes(caller, id, None, &removal).await, not_found);
            }
        }
    }
    assert_eq!(value::<String>(&world, before).await, untouched);
    // With the password proven, a platform administrator sees, revokes and deletes others' tokens, and
    // does nothing else with them; a canary is nobody's.
    let root = site.elevated().await;
    let it = &site.service;
    assert_eq!(it.token(&root, bobs).await.unwrap().owner, "bob@example.com");
    fails(it.reset_token(&root, bobs, None, None).await, not_found);
    fails(it.add_scopes(&root, bobs, None, &parsed(&[READS])).await, not_found);
    fails(it.update_token(&root, bobs, None, Some(&name), None).await, not_found);
    for id in [canary, none] {
        fails(it.token(&root, id).await, not_found);
        fails(it.revoke_token(&root, id).await, not_found);
        fails(it.delete_token(&root, id, None).await, not_found);
    }
    assert!(it.revoke_token(&root, bobs).await.unwrap().value.revoked_at.is_some());
    let _deleted = it.delete_token(&root, bobs, None).await.unwrap();
}

/// No way to a scope leads beyond what the caller may do, and it is not said which domains exist.
pub(crate) async fn a_token_is_granted_no_more_than_its_owner_may(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let reader = site.signed_in("reader").await;
    let token = site.create(&reader, "laptop", &[READS]).await.id;
    let beta = format!("{}:models:*:llm_read", world.id("beta"));
    for scope in [
        "acme:models:*:llm_create",
        "acme:domains:*:manage_role",
        "acme:models:*:llm_read,llm_create",
        "acme:domains:*:llm_chat_completions",
        "beta:models:*:llm_read",
        &beta,
        "picky:models:org/listed:llm_read",
        "nowhere:models:*:llm_read",
        "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee:models:*:llm_read",
    ] {
        let new = new_token("more", &[READS, scope]);
        fails(site.service.create_token(&reader, &new).await, not_permitted);
        let added = site.service.add_scopes(&reader, token, None, &parsed(&[READS, scope])).await;
        fails(added, not_permitted);
        // The answer is the same for a domain that does not exist.
        let error = site.service.create_token(&reader, &new).await.unwrap_err().to_string();
        assert!(error.ends_with("you may not do that yourself"), "{error}");
    }
    let kept = site.service.token(&reader, token).await.unwrap();
    assert_eq!(kept.scopes.len(), 1);
    let count = "SELECT count(*) FROM patgate.pats";
    assert_eq!(value::<i64>(&world, count).await, 1);
    // Their own domain by its id, and their own operation on everything in it.
    let acme = world.id("acme");
    let own = [format!("{acme}:models:m:llm_read"), format!("acme:domains:{acme}:llm_read")];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let now = site.service.add_scopes(&reader, token, None, &parsed(&own)).await.unwrap();
    assert_eq!(now.value.scopes.len(), 3);

    // A new secret is a new grant.
    world
        .sql(
            "DELETE FROM patgate.role_members m USING patgate.users u
               WHERE u.id = m.user_id AND u.name = 'reader'",
        )
        .await;
    fails(site.service.reset_token(&reader, token, None, None).await, not_permitted);
    let left = site.service.token(&reader, token).await.unwrap();
    assert!(left.scopes.iter().all(|scope| !scope.permitted));
    let _none = site.service.remove_scopes(&reader, token, None, &ScopeRemoval::All).await.unwrap();
    let (plain, _) = site.service.reset_token(&reader, token, None, None).await.unwrap().value;
    suite.minted.lock().unwrap().push(plain.expose().to_owned());
}

/// A platform administrator grants by their roles, until they have proven the password again.
pub(crate) async fn a_platform_administrator_grants_by_the_password(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let password = site.account("root").await;
    let root = site.sign_in("root", &password).await.unwrap();
    let new = new_token("all", &["acme:models:*:llm_create"]);
    fails(site.service.create_token(&root, &new).await, not_permitted);
    let slugs = async |caller: &Caller| -> Vec<String> {
        let domains: Vec<GrantableDomain> = site.service.grantable(caller).await.unwrap();
        domains.into_iter().map(|domain| domain.slug).collect()
    };
    assert!(slugs(&root).await.is_empty());
    site.service.elevate(&root, &password).await.unwrap();
    assert_eq!(slugs(&root).await, ["acme", "beta", "closed", "picky"]);
    let token = site.create(&root, "all", &["acme:models:*:llm_create"]).await.id;
    site.service.lower(&root).await.unwrap();
    // The token has what it was granted, and no session without the password renews that.
    fails(site.service.reset_token(&root, token, None, None).await, not_permitted);
    let ann = site.signed_in("ann").await;
    let domains = site.service.grantable(&ann).await.unwrap();
    assert_eq!(slugs(&ann).await, ["acme", "closed", "picky"]);
    assert_eq!((domains[0].all_models, domains[0].operations.len()), (true, 27));
    assert_eq!(domains[2].models, ["org/listed", "other"]);
}

pub(crate) async fn a_version_guards_a_change(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let it = &site.service;
    let id = site.create(&ann, "laptop", &[READS]).await.id;
    let other = site.create(&ann, "other", &[]).await.id;
    let version = async || it.token(&ann, id).await.unwrap().version;
    let first = version().await;
    world.sql("INSERT INTO patgate.pat_uses SELECT id, now() FROM patgate.pats").await;
    assert_eq!(version().await, first, "a use is no change");

    // Whatever changes the token changes the version, by whichever means.
    let mut seen = vec![first];
    let name = "renamed".parse().unwrap();
    let description = "for tests".parse().unwrap();
    let _ =
        it.update_token(&ann, id, Some(&seen[0]), Some(&name), Some(&description)).await.unwrap();
    seen.push(version().await);
    let more = parsed(&["acme:models:*:llm_create"]);
    let _ = it.add_scopes(&ann, id, Some(&seen[1]), &more).await.unwrap();
    seen.push(version().await);
    let removal = ScopeRemoval::Scopes(more.clone());
    let _ = it.remove_scopes(&ann, id, Some(&seen[2]), &removal).await.unwrap();
    // It is what it was.
    assert_eq!(version().await, seen[1]);
    let reset = it.reset_token(&ann, id, Some(&seen[1]), None).await.unwrap();
    suite.minted.lock().unwrap().push(reset.value.0.expose().to_owned());
    seen.push(version().await);
    world.sql("UPDATE patgate.pats SET expires_at = expires_at - interval '1 second'").await;
    seen.push(version().await);
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 5, "{seen:?}");

    let old = Some(&*seen[0]);
    fails(it.update_token(&ann, id, old, Some(&name), None).await, changed);
    fails(it.add_scopes(&ann, id, old, &more).await, changed);
    fails(it.remove_scopes(&ann, id, old, &ScopeRemoval::All).await, changed);
    fails(it.reset_token(&ann, id, old, None).await, changed);
    fails(it.delete_token(&ann, id, old).await, changed);
    fails(it.update_token(&ann, other, None, Some(&name), None).await, exists);
    fails(it.create_token(&ann, &new_token("renamed", &[])).await, exists);
    let _ = it.delete_token(&ann, id, Some(&seen[4])).await.unwrap();
    fails(it.token(&ann, id).await, not_found);
}

/// Under its key, a request creates one token, whose secret is shown once.
pub(crate) async fn a_repeated_request_shows_no_secret(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let reader = site.signed_in("reader").await;
    let new = |name: &str| NewOwnToken {
        idempotency_key: Some("the key".to_owned()),
        ..new_token(name, &[READS])
    };
    let token = {
        let made = site.service.create_token(&ann, &new("laptop")).await.unwrap();
        site.plain(made.value)
    };
    for _ in 0..2 {
        let again = site.service.create_token(&ann, &new("laptop")).await.unwrap().value;
        assert!(matches!(again, Creation::Repeated { id, token: Some(_) } if id == token.id));
    }
    fails(site.service.create_token(&ann, &new("another")).await, key_reused);
    // Another user's keys are others.
    let made = site.service.create_token(&reader, &new("laptop")).await.unwrap();
    site.plain(made.value);
    // A deleted token does not come back under the key.
    let _ = site.service.delete_token(&ann, token.id, None).await.unwrap();
    let again = site.service.create_token(&ann, &new("laptop")).await.unwrap().value;
    assert!(matches!(again, Creation::Repeated { id, token: None } if id == token.id));
    // A day later, the key is free.
    world.sql("UPDATE patgate.creations SET at = at - interval '1 day'").await;
    let made = site.service.create_token(&ann, &new("laptop")).await.unwrap();
    site.plain(made.value);
    // A request that was refused leaves the key free.
    let refused_one = NewOwnToken {
        scopes: parsed(&["beta:models:*:llm_read"]),
        idempotency_key: Some("second".to_owned()),
        ..new_token("desk", &[])
    };
    fails(site.service.create_token(&ann, &refused_one).await, not_permitted);
    let permitted = NewOwnToken { scopes: parsed(&[READS]), ..refused_one };
    let made = site.service.create_token(&ann, &permitted).await.unwrap();
    site.plain(made.value);
}

/// What no honest process sends.
pub(crate) async fn what_is_malformed_creates_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let proof = literal(&ann);
    let create = |id: &str, digest: &str, scopes: &str| {
        format!(
            "SELECT patgate.web_create_token({proof}, NULL, NULL, {id}, 't', '', {digest}, 'k1',
                 NULL, NULL, {scopes}, NULL)"
        )
    };
    let random = "gen_random_uuid()";
    let scope = |parts: &str| format!("'[{{{parts}}}]'");
    let whole = "\"domain\":\"acme\",\"entity_type\":\"models\"";
    for (scopes, code) in [
        ("NULL".to_owned(), "PW008"),
        ("'{}'".to_owned(), "PW008"),
        ("'\"acme\"'".to_owned(), "PW008"),
        ("'[1]'".to_owned(), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\",\"operations\":\"llm_read\"")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\",\"operations\":[\"read\"]")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\",\"operations\":[\"*\"]")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\",\"operations\":[null]")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"qwen*\",\"operations\":[\"llm_read\"]")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"\",\"operations\":[\"llm_read\"]")), "PW008"),
        (scope(&format!("{whole},\"operations\":[\"llm_read\"]")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\"")), "PW008"),
        (scope(&format!("{whole},\"entity_id\":\"*\",\"operations\":[]")), "PW008"),
        (
            scope("\"entity_type\":\"models\",\"entity_id\":\"*\",\"operations\":[\"llm_read\"]"),
            "PW008",
        ),
        (
            scope(
                "\"domain\":\"acme\",\"entity_type\":\"domains\",\"entity_id\":\"beta\",
                 \"operations\":[\"read\"]",
            ),
            "PW008",
        ),
        (
            scope(&format!(
                "\"domain\":\"acme\",\"entity_type\":\"domains\",\"entity_id\":\"{}\",
                 \"operations\":[\"read\"]",
                world.id("beta")
            )),
            "PW008",
        ),
        (
            scope(
                "\"domain\":\"*\",\"entity_type\":\"models\",\"entity_id\":\"*\",
                 \"operations\":[\"llm_read\"]",
            ),
            "PW002",
        ),
    ] {
        let sql = create(random, "sha256('d')", &scopes);
        assert_eq!(site.code(&sql).await, refused(code), "{sql}");
    }
    for digest in ["NULL", "''::bytea", "sha512('d')"] {
        let sql = create(random, digest, "'[]'");
        assert_eq!(site.code(&sql).await, refused("PW008"), "{sql}");
    }
    // An id that another token has: nothing of that token changes.
    let bobs = world.token_for("bob", "1 hour", &[]).await.id;
    let sql = create(&format!("'{bobs}'"), "sha256('d')", "'[]'");
    assert_eq!(site.code(&sql).await, refused("PW005"));
    let owner = format!("SELECT user_id FROM patgate.pats WHERE id = '{bobs}'");
    assert_eq!(value::<Uuid>(&world, &owner).await, world.id("bob"));
    assert_eq!(value::<i64>(&world, "SELECT count(*) FROM patgate.pats").await, 1);

    // Limits on what one user may store.
    let many: Vec<String> = (0..501).map(|at| format!("acme:models:m{at}:llm_read")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    fails(site.service.create_token(&ann, &new_token("big", &many)).await, too_many);
    world.sql("UPDATE patgate.policy SET tokens_per_user = 2").await;
    site.create(&ann, "one", &[]).await;
    site.create(&ann, "two", &[]).await;
    fails(site.service.create_token(&ann, &new_token("three", &[])).await, too_many);
    let control = "SELECT patgate.web_update_token({}, NULL, NULL, (SELECT (patgate.web_tokens({},
        false, 'one', NULL, 0, 1) #>> '{tokens,0,id}')::uuid), NULL, E'a\\nb', NULL)";
    assert_eq!(site.code(&control.replace("{}", &proof)).await, refused("PW008"));
    let past = NewOwnToken {
        expiry: Some(patgate::admin::Expiry::At("2020-01-01T00:00:00Z".parse().unwrap())),
        ..new_token("past", &[])
    };
    world.sql("UPDATE patgate.policy SET tokens_per_user = 20").await;
    fails(site.service.create_token(&ann, &past).await, invalid);
}

/// Nothing that is shown of a token holds its digest, and a user sees only their own history.
pub(crate) async fn what_is_shown_holds_no_digest(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let bob = site.signed_in("bob").await;
    let token = site.create(&ann, "laptop", &[READS]).await.id;
    let _ = site.service.revoke_token(&ann, token).await.unwrap();
    let digest: Vec<u8> = value(&world, "SELECT digest FROM patgate.pats").await;
    let history = History { limit: 100, ..History::default() };
    let lines = site.service.history(&ann, &history).await.unwrap();
    let list = TokenQuery { of_all_users: false, name: None, state: None, offset: 0, limit: 10 };
    let shown = format!(
        "{:?} {:?} {lines:?}",
        site.service.token(&ann, token).await.unwrap(),
        site.service.tokens(&ann, &list).await.unwrap()
    );
    assert!(!shown.contains(&hex(&digest)));
    let actions: Vec<&str> = lines.iter().map(|line| &*line.action).collect();
    assert_eq!(actions, ["token.revoke", "token.create", "session.begin", "account.set_password"]);
    assert_eq!(lines[0].address.as_deref(), Some("192.0.2.7"));
    let others = site.service.history(&bob, &history).await.unwrap();
    assert!(others.iter().all(|line| line.actor == "web:bob@example.com"), "{others:?}");
    // Asking for another's token by name shows nothing of it.
    let about = History { object: Some(token.to_string()), limit: 10, ..History::default() };
    assert!(site.service.history(&bob, &about).await.unwrap().is_empty());
    fails(
        site.service.history(&bob, &History { everything: true, ..history.clone() }).await,
        not_permitted,
    );
    // Over SQL, "neither" is no way to all of it.
    let neither = format!(
        "SELECT patgate.web_audit_log({}, NULL, NULL, NULL, NULL, NULL, 10)",
        literal(&bob)
    );
    assert_eq!(site.code(&neither).await, refused("PW002"));
    let neither = format!(
        "SELECT 1 / jsonb_array_length(patgate.web_tokens({}, NULL, NULL, NULL, 0, 10) -> 'tokens')",
        literal(&bob)
    );
    assert_eq!(site.code(&neither).await, refused("22012"));
}

/// A list has the first scopes of each token, and says how many there are.
pub(crate) async fn a_list_holds_the_first_scopes(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let scopes: Vec<String> = (0..23).map(|n| format!("acme:models:m{n:02}:llm_read")).collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let wide = site.create(&ann, "wide", &scopes).await.id;
    site.create(&ann, "small", &scopes[..1]).await;
    let query = TokenQuery { of_all_users: false, name: None, state: None, offset: 0, limit: 1000 };
    let listed = site.service.tokens(&ann, &query).await.unwrap().tokens;
    let counts: Vec<_> =
        listed.iter().map(|token| (token.scopes_total, token.scopes.len())).collect();
    assert_eq!(counts, [(1, 1), (23, 20)]);
    let whole = site.service.token(&ann, wide).await.unwrap();
    assert_eq!((whole.scopes_total, whole.scopes.len()), (23, 23));
    assert_eq!(whole.version, listed[1].version);
    let first = |token: &patgate::admin::web::OwnToken| {
        token.scopes[..20].iter().map(|scope| scope.entity_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(first(&whole), first(&listed[1]));
}
