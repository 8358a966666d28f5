//! Administration over HTTP, and that nobody comes to it who may not.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    AdminSite, Client, credentials,
    guards::{is, password},
};
use crate::support::{
    Suite, Token, World,
    cli::{Cli, answer, get},
    value,
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Who is permitted a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    /// A platform administrator who has proven the password.
    Administrators,
    /// Those who govern the domain `acme`, and these administrators.
    Governors,
}

/// All requests of administration, each of which this world would grant.
fn requests(world: &World<'_>) -> Vec<(Of, &'static str, String, Value)> {
    use Of::{Administrators, Governors};
    let user = format!("/api/users/{}", world.id("bob"));
    let user = |part: &str| format!("{user}{part}");
    let domain = |part: &str| format!("/api/domains/acme{part}");
    let backend = |name: &str| format!("/api/backends/{name}");
    let backends = json!({ "name": "vllm", "url": "http://h", "kind": "vllm" });
    let domains = json!({ "slug": "shop", "name": "Shop", "upstream": "model-acme",
                          "all_models": true });
    let model = json!({ "model": "m", "upstream": "model-acme" });
    vec![
        (Administrators, "GET", "/api/users".into(), Value::Null),
        (
            Administrators,
            "POST",
            "/api/users".into(),
            json!({ "email": "z@a.example", "name": "Z" }),
        ),
        (Administrators, "PATCH", user(""), json!({ "platform_admin": true })),
        (Administrators, "PATCH", user(""), json!({ "enabled": false })),
        (Administrators, "DELETE", user(""), Value::Null),
        (Administrators, "POST", user("/invitation"), json!({})),
        (Administrators, "GET", "/api/domains".into(), Value::Null),
        (Administrators, "POST", "/api/domains".into(), domains),
        (Administrators, "GET", domain(""), Value::Null),
        (Administrators, "PATCH", domain(""), json!({ "mode": "shadow" })),
        (Administrators, "DELETE", domain(""), Value::Null),
        (Administrators, "PATCH", domain("/models/set"), model),
        (Administrators, "PATCH", domain("/models/unset"), json!({ "model": "m" })),
        (Administrators, "GET", "/api/backends".into(), Value::Null),
        (Administrators, "POST", "/api/backends".into(), backends),
        (Administrators, "GET", backend("model-acme"), Value::Null),
        (Administrators, "PATCH", backend("model-acme"), json!({ "kind": "ollama" })),
        (Administrators, "DELETE", backend("spare"), Value::Null),
        (Administrators, "GET", "/api/audit?everything=true".into(), Value::Null),
        (Administrators, "GET", "/api/pats?of_all_users=true".into(), Value::Null),
        (Governors, "GET", domain("/roles"), Value::Null),
        (Governors, "POST", domain("/roles"), json!({ "name": "new", "operations": [] })),
        (Governors, "GET", domain("/roles/admin"), Value::Null),
        (Governors, "PATCH", domain("/roles/admin"), json!({ "revoke": ["llm_read"] })),
        (Governors, "DELETE", domain("/roles/admin"), Value::Null),
        (Governors, "PUT", domain("/roles/admin/members/bob@example.com"), Value::Null),
        (Governors, "DELETE", domain("/roles/admin/members/ann@example.com"), Value::Null),
    ]
}

/// A backend that could be deleted.
async fn spare(world: &World<'_>) {
    let backend =
        "INSERT INTO patgate.backends (name, url, kind) VALUES ('spare', 'http://h', 'vllm')";
    world.sql(backend).await;
}

/// Everything that these requests could change.
async fn state(world: &World<'_>) -> String {
    let all = "SELECT md5(string_agg(x, '' ORDER BY x)) FROM (
         SELECT u::text FROM patgate.users u
         UNION ALL SELECT d::text FROM patgate.domains d
         UNION ALL SELECT m::text FROM patgate.domain_models m
         UNION ALL SELECT r::text FROM patgate.roles r
         UNION ALL SELECT o::text FROM patgate.role_operations o
         UNION ALL SELECT m::text FROM patgate.role_members m
         UNION ALL SELECT i::text FROM patgate.invitations i
         UNION ALL SELECT b::text FROM patgate.backends b) AS s (x)";
    value(world, all).await
}

/// Every route of the API, and every method, is permitted to somebody only.
pub(crate) async fn nobody_else_administers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let governs = "llm_read manage_role add_role_users remove_role_users view_role_users";
    site.site.grant("beta", governs, "reader").await;
    // A plain user without a role in acme, an administrator without the password, one who governs
    // another domain and only reads in this one.
    let plain = site.client("bob").await;
    let root = site.client("root").await;
    let reader = site.client("reader").await;
    let token = world.token(&[("acme", "domains", "*", "manage_role")]).await;
    let token = Client { site: &site, secret: token.text };
    spare(&world).await;
    let before = state(&world).await;
    for (of, method, path, body) in requests(&world) {
        let ask = async |client: &Client<'_>| client.json(method, &path, body.clone()).await;
        let case = format!("{method} {path}");
        let unproven = ask(&root).await;
        match of {
            Of::Administrators => {
                is(&ask(&plain).await, 403, "not-permitted");
                is(&ask(&reader).await, 403, "not-permitted");
                is(&unproven, 403, "needs-password");
            }
            Of::Governors => {
                // Whoever may do nothing in a domain does not learn whether it exists.
                let elsewhere = path.replace("acme", "nowhere");
                for client in [&plain, &root] {
                    let nobodys = client.json(method, &elsewhere, body.clone()).await;
                    let refused = ask(client).await;
                    is(&refused, 404, "not-found");
                    assert_eq!(refused.body, nobodys.body, "{case}");
                }
                is(&ask(&reader).await, 403, "not-permitted");
            }
        }
        is(&ask(&token).await, 401, "not-signed-in");
        is(&site.send(method, &path, &[JSON], &body.to_string()).await, 401, "not-signed-in");
        if method != "GET" {
            // With the cookie of an administrator, from another site.
            let cookie = format!("patgate-session={}", root.secret);
            let headers = [JSON, ("cookie", &*cookie), ("origin", "https://evil.example")];
            let forced = site.send(method, &path, &headers, &body.to_string()).await;
            is(&forced, 403, "foreign-origin");
        }
    }
    assert_eq!(state(&world).await, before);
}

/// What was asked for above is granted to those who may, so that the refusals are about who asks.
pub(crate) async fn those_who_may_administer(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let root = site.administrator().await;
    spare(&world).await;
    let (last, first): (Vec<_>, Vec<_>) = requests(&world)
        .into_iter()
        .partition(|(_, method, path, _)| *method == "DELETE" && !path.contains("members"));
    for (_, method, path, body) in first.into_iter().chain(last.into_iter().rev()) {
        let granted = root.json(method, &path, body).await;
        assert!((200..300).contains(&granted.status), "{method} {path}: {granted:?}");
        if granted.status == 201 {
            let at = granted.header("location").unwrap();
            assert!(at.starts_with("/api/"), "{at}");
        }
    }
}

/// An administrator sets up a domain with its backend, a governor and a member, whose token works.
pub(crate) async fn a_domain_is_set_up_over_http(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let replica = world.serve(&[]).await;
    let root = site.administrator().await;
    let ask = async |method: &str, path: &str, body: Value| root.json(method, path, body).await;

    let new = json!({ "name": "vllm", "url": "http://127.0.0.1:9", "kind": "vllm" });
    let created = ask("POST", "/api/backends", new.clone()).await;
    assert_eq!((created.status, created.json()), (201, new.clone()));
    assert_eq!(created.header("location"), Some("/api/backends/vllm"));
    is(&ask("POST", "/api/backends", new.clone()).await, 409, "exists");
    // The gateway has a cluster of its own under this name.
    let mut reserved = new;
    reserved["name"] = "patgate".into();
    is(&ask("POST", "/api/backends", reserved).await, 400, "invalid");
    let kind = json!({ "kind": "openai" });
    assert_eq!(ask("PATCH", "/api/backends/vllm", kind.clone()).await.status, 204);
    is(&ask("PATCH", "/api/backends/none", kind).await, 404, "not-found");
    let shown = root.get("/api/backends/vllm").await.json();
    assert_eq!((&shown["kind"], &shown["url"]), (&"openai".into(), &"http://127.0.0.1:9".into()));

    let new = json!({ "slug": "shop", "name": "Shop", "upstream": "vllm", "models": ["m"] });
    let created = ask("POST", "/api/domains", new.clone()).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/api/domains/shop")));
    let id = created.json()["id"].as_str().unwrap().to_owned();
    is(&ask("POST", "/api/domains", new).await, 409, "exists");
    let model = json!({ "model": "org/n*", "upstream": "model-acme" });
    assert_eq!(ask("PATCH", "/api/domains/shop/models/set", model).await.status, 204);
    let shown = root.get(&format!("/api/domains/{id}")).await.json();
    assert_eq!((&shown["slug"], shown["models"].as_array().unwrap().len()), (&"shop".into(), 2));
    assert_eq!((&shown["mode"], &shown["enforced_share"]), (&"enforce".into(), &100.into()));
    let model = json!({ "model": "org/n*" });
    assert_eq!(ask("PATCH", "/api/domains/shop/models/unset", model.clone()).await.status, 204);
    is(&ask("PATCH", "/api/domains/shop/models/unset", model).await, 404, "not-found");
    is(&ask("DELETE", "/api/backends/vllm", Value::Null).await, 400, "invalid");

    // A user, who is invited and governs the domain.
    let new = json!({ "email": "Zoe@example.com", "name": "Zoe" });
    let created = ask("POST", "/api/users", new.clone()).await;
    assert_eq!((created.status, &created.json()["email"]), (201, &"zoe@example.com".into()));
    assert_eq!(
        created.header("location"),
        Some(&*format!("/api/users/{}", created.json()["id"].as_str().unwrap()))
    );
    is(&ask("POST", "/api/users", new).await, 409, "exists");
    let zoe = "/api/users/zoe@example.com";
    let invited = ask("POST", &format!("{zoe}/invitation"), json!({ "duration": "1h" })).await;
    assert_eq!(invited.json()["link"], format!("{}/invitation", site.origin()));
    let code = invited.json()["code"].as_str().unwrap().to_owned();
    let chosen = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    world.suite.credentials.lock().unwrap().push(chosen.clone());
    let body = json!({ "code": code, "password": chosen }).to_string();
    assert_eq!(site.send("POST", "/api/invitation", &[JSON], &body).await.status, 200);
    let begun = site.send("POST", "/api/sessions", &[JSON], &credentials("zoe", &chosen)).await;
    let secret = begun.json()["secret"].as_str().unwrap().to_owned();
    let member = Client { site: &site, secret };
    assert_eq!(member.get("/api/grantable").await.json(), json!({ "domains": [] }));
    let role = "/api/domains/shop/roles/admin/members/zoe@example.com";
    assert_eq!(ask("PUT", role, Value::Null).await.status, 204);
    let grantable = member.get("/api/grantable").await.json();
    assert_eq!(grantable["domains"][0]["slug"], "shop");

    let scope = json!({ "domain": "shop", "entity_type": "models", "entity_id": "*",
                        "operation": "llm_read" });
    let new = json!({ "name": "laptop", "duration": "1h", "scopes": [scope] });
    let made = member.json("POST", "/api/pats", new).await.json();
    let text = made["secret"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    world.suite.minted.lock().unwrap().push(text.clone());
    let token =
        Token { id: patgate::token::TokenId(made["id"].as_str().unwrap().parse().unwrap()), text };
    let path = "/proxy/shop/v1/models/m";
    assert_eq!(get(&replica, &token, path).await, answer(200, "ok"));
    let listed = root.get("/api/users?name=ZOE&limit=1").await.json();
    assert_eq!((&listed["total"], &listed["users"][0]["live_tokens"]), (&1.into(), &1.into()));
    let all = root.get("/api/pats?of_all_users=true&name=lap").await.json();
    assert_eq!(all["pats"][0]["owner"], "zoe@example.com");

    let edit = json!({ "slug": "store", "enabled": false, "all_models": true });
    assert_eq!(ask("PATCH", "/api/domains/shop", edit).await.status, 204);
    is(&root.get("/api/domains/shop").await, 404, "not-found");
    let becomes = async |path: &str, status: u16| {
        patgate_testing::eventually("the replica knows", async || {
            crate::support::fleet::answer(&replica, &token, path).await == status
        })
        .await;
    };
    becomes("/proxy/store/v1/models/m", 403).await;
    let edit = json!({ "enabled": true });
    assert_eq!(ask("PATCH", "/api/domains/store", edit).await.status, 204);
    becomes("/proxy/store/v1/models/m", 200).await;
    assert_eq!(ask("PATCH", zoe, json!({ "enabled": false })).await.status, 204);
    is(&member.get("/api/session").await, 401, "not-signed-in");
    becomes("/proxy/store/v1/models/m", 401).await;
    assert_eq!(ask("DELETE", "/api/domains/store", Value::Null).await.status, 204);
    assert_eq!(ask("DELETE", "/api/backends/vllm", Value::Null).await.status, 204);
    assert_eq!(ask("DELETE", zoe, Value::Null).await.status, 204);
    is(&ask("DELETE", zoe, Value::Null).await, 404, "not-found");
}

/// Whoever governs the roles of a domain does it here as well, up to what they may do themselves.
pub(crate) async fn roles_are_governed_over_http(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let governs = "llm_read manage_role add_role_users remove_role_users view_role_users";
    site.site.grant("acme", governs, "reader").await;
    let reader = site.client("reader").await;
    let roles = "/api/domains/acme/roles";
    let new = json!({ "name": "small", "operations": ["llm_read"] });
    let created = reader.json("POST", roles, new.clone()).await;
    assert_eq!((created.status, created.json()), (201, new.clone()));
    assert_eq!(created.header("location"), Some("/api/domains/acme/roles/small"));
    is(&reader.json("POST", roles, new).await, 409, "exists");
    let small = format!("{roles}/small");
    let bob = format!("{small}/members/{}", world.id("bob"));
    assert_eq!(reader.json("PUT", &bob, Value::Null).await.status, 204);
    let more = json!({ "grant": ["manage_role"], "revoke": ["llm_read"] });
    assert_eq!(reader.json("PATCH", &small, more).await.status, 204);
    let shown = reader.get(&small).await.json();
    let expected = json!({ "name": "small", "operations": ["manage_role"],
                           "members": ["bob@example.com"] });
    assert_eq!(shown, expected);
    let beyond = json!({ "grant": ["llm_create"] });
    is(&reader.json("PATCH", &small, beyond).await, 403, "not-permitted");
    let own = format!("{roles}/admin/members/reader@example.com");
    is(&reader.json("PUT", &own, Value::Null).await, 403, "not-permitted");
    let listed = reader.get(&format!("{roles}?offset=1&limit=1")).await.json();
    assert!(listed["total"].as_u64().unwrap() >= 2, "{listed}");
    assert_eq!(listed["roles"].as_array().unwrap().len(), 1);
    assert_eq!(reader.json("DELETE", &bob, Value::Null).await.status, 204);
    is(&reader.json("DELETE", &bob, Value::Null).await, 404, "not-found");
    assert_eq!(reader.json("DELETE", &small, Value::Null).await.status, 204);
    is(&reader.get(&small).await, 404, "not-found");

    // The record of it, page by page.
    let root = site.administrator().await;
    let mut seen = Vec::new();
    let mut path =
        "/api/audit?everything=true&action=role&by=web:reader@example.com&limit=2".to_owned();
    let first = path.clone();
    loop {
        let page = root.get(&path).await.json();
        let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        seen.extend(entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("{first}&before={next}");
    }
    let expected = ["delete", "remove_member", "revoke", "grant", "add_member", "create"];
    assert_eq!(seen, expected.map(|word| format!("role.{word}")));
    // Others see what is about themselves only.
    let own = reader.get("/api/audit?action=session.begin").await.json();
    assert_eq!(own["entries"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!(reader.get("/api/audit?action=role").await.json()["entries"], json!([]));
}

/// No answer holds what a backend is given, or what a token or a session is proven with.
pub(crate) async fn no_answer_holds_a_secret(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let key = world.suite.provider_key();
    let set = Cli::of(&world).feed("backend credential set model-acme", &format!("{key}\n"));
    assert_eq!(set.code, 0, "{set:#?}");
    let password = password(&site, "ann").await;
    let ann = site.send("POST", "/api/sessions", &[JSON], &credentials("ann", &password)).await;
    let session = ann.json()["secret"].as_str().unwrap().to_owned();
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let root = site.administrator().await;
    for path in [
        "/api/users",
        "/api/domains",
        "/api/domains/acme",
        "/api/domains/acme/roles",
        "/api/backends",
        "/api/backends/model-acme",
        "/api/audit?everything=true&limit=1000",
        "/api/pats?of_all_users=true",
        &format!("/api/pats/{}", token.id),
        "/api/grantable",
    ] {
        let shown = root.get(path).await;
        assert_eq!(shown.status, 200, "{path}: {shown:?}");
        for hidden in [&key, &password, &session, &root.secret, &token.text] {
            assert!(!shown.body.contains(&**hidden), "{path}: {}", shown.body);
        }
    }
    let shown = root.get("/api/backends/model-acme").await.json();
    let members: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(members, ["created_at", "domains", "kind", "name", "url"]);
    // And it cannot be set.
    let body = json!({ "kind": "vllm", "credential": "x" });
    is(&root.json("PATCH", "/api/backends/model-acme", body).await, 400, "invalid");
}

/// What is malformed is named, and changes nothing.
pub(crate) async fn what_is_no_change_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let root = site.administrator().await;
    let before = state(&world).await;
    let domain = |more: Value| {
        let mut body = json!({ "slug": "shop", "name": "Shop", "upstream": "model-acme" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (method, path, body, named) in [
        ("POST", "/users", json!({ "email": "nobody", "name": "N" }), "`email`"),
        ("POST", "/users", json!({ "email": "a@b", "name": "" }), "`name`"),
        ("POST", "/users", json!({ "email": "a@b", "name": "A", "root": true }), "`root`"),
        ("PATCH", "/users/bob@example.com", json!({}), "`enabled`"),
        ("PATCH", "/users/bob@example.com", json!({ "enabled": null }), "null"),
        ("PATCH", "/users/root@example.com", json!({ "enabled": false }), "another platform"),
        ("DELETE", "/users/root@example.com", Value::Null, "another platform"),
        ("POST", "/users/bob@example.com/invitation", json!({ "duration": "8d" }), "`duration`"),
        ("POST", "/domains", domain(json!({})), "`models`"),
        ("POST", "/domains", domain(json!({ "all_models": true, "models": [] })), "`models`"),
        ("POST", "/domains", domain(json!({ "models": ["a**"] })), "`models`"),
        ("POST", "/domains", domain(json!({ "slug": "S", "models": [] })), "`slug`"),
        ("PATCH", "/domains/acme", json!({}), "`slug`"),
        ("PATCH", "/domains/acme", json!({ "all_models": false }), "`all_models`"),
        ("PATCH", "/domains/acme", json!({ "mode": "off" }), "`off`"),
        ("PATCH", "/domains/acme", json!({ "enforced_share": 101 }), "`enforced_share`"),
        ("PATCH", "/domains/acme/models/set", json!({ "model": "m" }), "`upstream`"),
        ("POST", "/domains/acme/roles", json!({ "name": "A", "operations": [] }), "`name`"),
        ("POST", "/domains/acme/roles", json!({ "name": "a", "operations": ["fly"] }), "`fly`"),
        ("PATCH", "/domains/acme/roles/admin", json!({}), "`grant`"),
        ("PATCH", "/domains/acme/roles/admin", json!({ "grant": [] }), "must not be empty"),
        ("POST", "/backends", json!({ "name": "a", "url": "h", "kind": "vllm" }), "`url`"),
        ("POST", "/backends", json!({ "name": "a", "url": "http://h", "kind": "x" }), "`kind`"),
        ("PATCH", "/backends/model-acme", json!({}), "`url`"),
        ("GET", "/audit?action=fly", Value::Null, "`action`"),
        ("GET", "/audit?before=0", Value::Null, "`before`"),
        ("GET", "/audit?everything=yes", Value::Null, "everything"),
        ("GET", "/users?offset=1&offset=2", Value::Null, "duplicate field `offset`"),
        ("GET", "/backends?colour=red", Value::Null, "`colour`"),
        ("GET", "/domains?limit=0", Value::Null, "`limit`"),
        ("GET", "/grantable?x=y", Value::Null, "no query"),
        ("POST", "/pats?x=y", json!({ "name": "a" }), "no query"),
        ("POST", "/sessions?x=y", json!({ "email": "a", "password": "b" }), "no query"),
        ("DELETE", "/session?x=y", Value::Null, "no query"),
    ] {
        let reply = root.json(method, &format!("/api{path}"), body).await;
        is(&reply, 400, "invalid");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{method} {path}: {detail}");
    }
    for path in ["/users/nobody", "/domains/ACME", "/backends/-", "/domains/acme/roles/A"] {
        let body = json!({ "enabled": true });
        let reply = root.json("PATCH", &format!("/api{path}"), body).await;
        is(&reply, 404, "not-found");
    }
    assert_eq!(state(&world).await, before);
}
