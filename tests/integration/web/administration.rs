//! What platform administrators do, and that nobody else does.

use std::{sync::Arc, time::Duration};

use patgate::admin::{
    BackendChanges, BackendKind, NewModels, NewUser,
    web::{Caller, DomainEdit, NewSelfServiceDomain, Origin, UserEdit},
};

use super::{
    Site, exists, fails, invalid, literal, needs_elevation, not_found, not_signed_in, refused,
};
use crate::support::{
    Suite,
    cli::{answer, ask, get},
    value,
};

/// An administrator sets up a domain and a member, whose token then works.
pub(crate) async fn a_domain_is_set_up(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let replica = world.serve(&[]).await;
    let it = &site.service;
    let root = site.elevated().await;
    let backend = "vllm".parse().unwrap();
    let url = "http://127.0.0.1:9".parse().unwrap();
    let _ = it.create_backend(&root, &backend, &url, BackendKind::Vllm).await.unwrap();
    fails(it.create_backend(&root, &backend, &url, BackendKind::Vllm).await, exists);
    let changes = BackendChanges { url: None, kind: Some(BackendKind::Openai) };
    let _ = it.update_backend(&root, &backend, &changes).await.unwrap();
    fails(it.update_backend(&root, &"none".parse().unwrap(), &changes).await, not_found);
    let new = NewSelfServiceDomain {
        slug: "shop".parse().unwrap(),
        name: "Shop".parse().unwrap(),
        upstream: backend.clone(),
        models: NewModels::Listed(vec!["m".parse().unwrap()]),
    };
    let id = it.create_domain(&root, &new).await.unwrap().value;
    fails(it.create_domain(&root, &new).await, exists);
    let shop = patgate::domain::DomainRef::parse("shop").unwrap();
    let other = "model-acme".parse().unwrap();
    let model = "n*".parse().unwrap();
    let _ = it.set_model(&root, &shop, &model, Some(&other)).await.unwrap();
    let listed = it.domains(&root).await.unwrap();
    let shown = listed.iter().find(|domain| domain.id == id).unwrap();
    assert_eq!((shown.models.len(), shown.all_models, &*shown.mode), (2, false, "enforce"));
    let _ = it.set_model(&root, &shop, &model, None).await.unwrap();
    fails(it.set_model(&root, &shop, &model, None).await, not_found);
    fails(it.set_model(&root, &shop, &model, Some(&"none".parse().unwrap())).await, not_found);
    fails(it.delete_backend(&root, &backend).await, invalid);

    let user = NewUser {
        email: "Zoe@example.com".parse().unwrap(),
        name: "Zoe".parse().unwrap(),
        platform_admin: false,
    };
    let _ = it.create_user(&root, &user).await.unwrap();
    fails(it.create_user(&root, &user).await, exists);
    let zoe = "zoe@example.com".parse().unwrap();
    let _ = it.add_member(&root, &shop, &"admin".parse().unwrap(), &zoe).await.unwrap();
    let invited = it.invite(&root, &zoe, Duration::from_secs(3600)).await.unwrap().value;
    assert_eq!(invited.email, "zoe@example.com");
    let password = "a password that is long".parse().unwrap();
    it.accept_invitation(&Origin::default(), &invited.secret, &password).await.unwrap();
    let session = site.sign_in("zoe", &password).await.unwrap();
    let token = site.create(&session, "laptop", &["shop:models:*:llm_read"]).await;
    let ok = answer(200, "ok");
    assert_eq!(get(&replica, &token, "/proxy/shop/v1/models/m").await, ok);
    let page = it.users(&root, Some("ZOE"), 0, 10).await.unwrap();
    assert_eq!((page.total, page.users[0].live_tokens, page.users[0].has_password), (1, 1, true));

    let edit = DomainEdit { all_models: true, ..DomainEdit::default() };
    let _ = it.update_domain(&root, &shop, &edit).await.unwrap();
    let edit = DomainEdit {
        slug: Some("store".parse().unwrap()),
        enabled: Some(false),
        upstream: Some(other.clone()),
        ..DomainEdit::default()
    };
    let _ = it.update_domain(&root, &shop, &edit).await.unwrap();
    let taken = DomainEdit { slug: Some("acme".parse().unwrap()), ..DomainEdit::default() };
    let store = patgate::domain::DomainRef::parse("store").unwrap();
    fails(it.update_domain(&root, &store, &taken).await, exists);
    let edit = DomainEdit { enabled: Some(true), ..DomainEdit::default() };
    let _ = it.update_domain(&root, &store, &edit).await.unwrap();
    patgate_testing::eventually("its new name", async || {
        ask(&replica, &token, "store").await == ok
    })
    .await;
    let _ = it.delete_backend(&root, &backend).await.unwrap();
    let _ = it.delete_domain(&root, &store).await.unwrap();
    fails(it.delete_domain(&root, &store).await, not_found);
    let _ = it.delete_user(&root, &zoe).await.unwrap();
    fails(it.session(&session).await, not_signed_in);
    patgate_testing::eventually("the deletion", async || {
        ask(&replica, &token, "store").await.0 == 401
    })
    .await;
    // Each change has its line.
    let lines = "SELECT count(DISTINCT action) FROM patgate.audit_log
                 WHERE actor = 'web:root@example.com'";
    assert_eq!(value::<i64>(&world, lines).await, 15);
}

/// The functions of administrators, each with values that a domain of the world permits.
fn administers(caller: &Caller, world: &crate::support::World<'_>) -> Vec<String> {
    let proof = literal(caller);
    let from = format!("{proof}, NULL, NULL");
    let ann = world.id("ann");
    vec![
        format!("web_users({proof}, NULL, 0, 10)"),
        format!("web_create_user({from}, 'zoe@example.com', 'Zoe', true)"),
        format!("web_update_user({from}, '{ann}', true, true)"),
        format!("web_delete_user({from}, '{ann}')"),
        format!("web_invite({from}, '{ann}', sha256('x'), 1000000000)"),
        format!("web_domains({proof})"),
        format!("web_create_domain({from}, 'shop', 'Shop', 'model-acme', NULL)"),
        format!("web_update_domain({from}, 'acme', NULL, NULL, NULL, 'shadow', NULL, NULL)"),
        format!("web_delete_domain({from}, 'acme')"),
        format!("web_set_model({from}, 'acme', 'm', 'model-acme')"),
        format!("web_backends({proof})"),
        format!("web_set_backend({from}, true, 'vllm', 'http://h', 'vllm')"),
        format!("web_delete_backend({from}, 'model-beta')"),
        format!("web_tokens({proof}, true, NULL, NULL, 0, 10)"),
        format!("web_audit_log({proof}, true, NULL, NULL, NULL, NULL, 10)"),
    ]
}

/// Whatever the roles of a user are, and whoever a session belongs to, without the password that was
/// proven lately nobody administers.
pub(crate) async fn nobody_else_administers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let root = site.signed_in("root").await;
    let state = "SELECT md5(string_agg(x, '' ORDER BY x)) FROM (
         SELECT u::text FROM patgate.users u WHERE u.name <> 'root'
         UNION ALL SELECT d::text FROM patgate.domains d
         UNION ALL SELECT b::text FROM patgate.backends b) AS s (x)";
    let before: String = value(&world, state).await;
    for (caller, code) in [(&ann, "PW002"), (&root, "PW009")] {
        for call in administers(caller, &world) {
            assert_eq!(site.code(&format!("SELECT patgate.{call}")).await, refused(code), "{call}");
        }
    }
    assert_eq!(value::<String>(&world, state).await, before);
    // Every function of that migration is tried.
    let known = include_str!("../../../deploy/migrations/0020_self_service_administration.sql");
    let (_, granted) = known.rsplit_once("GRANT EXECUTE ON FUNCTION").unwrap();
    let (granted, _) = granted.split_once("TO patgate_web").unwrap();
    for function in granted.split("patgate.").skip(1) {
        let name = function.trim().trim_end_matches(',');
        let call = format!("{name}(");
        assert!(administers(&ann, &world).iter().any(|it| it.starts_with(&call)), "{name}");
    }
}

/// An administrator cannot lock themselves out, or act on the owner of the canaries.
pub(crate) async fn an_administrator_stays_one(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let it = &site.service;
    let root = site.elevated().await;
    let me = "root@example.com".parse().unwrap();
    let disable = UserEdit { enabled: Some(false), platform_admin: None };
    let demote = UserEdit { enabled: None, platform_admin: Some(false) };
    for edit in [disable, demote] {
        fails(it.update_user(&root, &me, edit).await, invalid);
    }
    fails(it.delete_user(&root, &me).await, invalid);
    world.sql("SELECT patgate.flip_canary(gen_random_uuid(), '1 hour')").await;
    let keeper = "revocation-canary@patgate.invalid".parse().unwrap();
    fails(it.update_user(&root, &keeper, demote).await, not_found);
    fails(it.delete_user(&root, &keeper).await, not_found);
    fails(it.invite(&root, &keeper, Duration::from_secs(60)).await, not_found);
    let users = it.users(&root, None, 0, 100).await.unwrap();
    assert!(users.users.iter().all(|user| !user.email.contains("canary")));
    // Two administrators: the second one's rights end with the first one's word, at once.
    let edit = UserEdit { enabled: None, platform_admin: Some(true) };
    let ann_ref = "ann@example.com".parse().unwrap();
    let _ = it.update_user(&root, &ann_ref, edit).await.unwrap();
    let password = site.account("ann").await;
    let ann = site.sign_in("ann", &password).await.unwrap();
    fails(it.users(&ann, None, 0, 1).await, needs_elevation);
    it.elevate(&ann, &password).await.unwrap();
    it.users(&ann, None, 0, 1).await.unwrap();
    let _ = it.update_user(&root, &ann_ref, demote).await.unwrap();
    fails(it.users(&ann, None, 0, 1).await, super::not_permitted);
}
