//! The caller's tokens over HTTP.

use std::sync::Arc;

use patgate::token::TokenId;
use patgate_testing::http::Reply;
use serde_json::{Value, json};

use super::{AdminSite, Client, guards::is};
use crate::support::{Replica, Suite, Token, World, fleet};

const MODELS: &str = "/proxy/acme/v1/models";

fn scope(domain: &str, operation: &str) -> Value {
    json!({ "domain": domain, "entity_type": "models", "entity_id": "*", "operation": operation })
}

/// The token that an answer shows.
fn minted(world: &World<'_>, reply: &Reply) -> Token {
    let pat = reply.json();
    let text = pat["secret"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned();
    world.suite.minted.lock().unwrap().push(text.clone());
    Token { id: TokenId(pat["id"].as_str().unwrap().parse().unwrap()), text }
}

async fn create(client: &Client<'_>, body: Value) -> Reply {
    client.json("POST", "/api/pats", body).await
}

async fn becomes(replica: &Replica, token: &Token, path: &str, status: u16) {
    patgate_testing::eventually("the replica knows", async || {
        fleet::answer(replica, token, path).await == status
    })
    .await;
}

pub(crate) async fn a_token_lives_over_http(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("ann").await;
    let replica = world.serve(&[]).await;

    let body = json!({ "name": "laptop", "description": "for my editor", "duration": "24h",
                       "scopes": [scope("acme", "llm_read")] });
    let created = create(&client, body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let token = minted(&world, &created);
    let path = format!("/api/pats/{}", token.id);
    assert_eq!(created.header("location"), Some(&*path));
    assert_eq!(fleet::answer(&replica, &token, MODELS).await, 200);

    // It is never shown again.
    for shown in [client.get(&path).await, client.get("/api/pats").await] {
        assert_eq!(shown.status, 200);
        assert!(!shown.body.contains(&token.text[20..]) && !shown.body.contains("secret"));
    }
    let listed = client.get("/api/pats?offset=0&limit=5&name=LAP&status=active").await.json();
    assert_eq!((&listed["total"], &listed["limit"]), (&1.into(), &5.into()));
    assert_eq!(listed["pats"][0]["scopes"][0]["domain"], "acme");

    let more = json!({ "scopes": [scope("picky", "llm_read")] });
    let widened = client.json("PATCH", &format!("{path}/scope/add"), more).await;
    assert_eq!(widened.json()["scopes"].as_array().unwrap().len(), 2, "{widened:?}");
    becomes(&replica, &token, "/proxy/picky/v1/models", 200).await;
    let scopes = client.get(&format!("{path}/scope?limit=1")).await.json();
    assert_eq!((&scopes["total"], scopes["scopes"].as_array().unwrap().len()), (&2.into(), 1));
    let one = json!({ "scopes": [scope("acme", "llm_read")] });
    let narrowed = client.json("PATCH", &format!("{path}/scope/remove"), one).await;
    assert_eq!(narrowed.status, 200, "{narrowed:?}");
    becomes(&replica, &token, MODELS, 403).await;

    let renamed = json!({ "name": "desktop" });
    let renamed = client.json("PATCH", &format!("{path}/name"), renamed).await;
    assert_eq!(renamed.json()["name"], "desktop");
    let text = json!({ "description": "" });
    let described = client.json("PATCH", &format!("{path}/description"), text).await;
    assert_eq!(described.json()["description"], "");

    let reset = client.json("PATCH", &format!("{path}/secret/reset"), json!({})).await;
    let second = minted(&world, &reset);
    assert_eq!(second.id, token.id);
    becomes(&replica, &second, "/proxy/picky/v1/models", 200).await;
    becomes(&replica, &token, "/proxy/picky/v1/models", 401).await;

    let at_version = [("if-match", "\"x\"")];
    let revoked = client.send("PATCH", &format!("{path}/secret/revoke"), &at_version, "").await;
    is(&revoked, 400, "invalid");
    let revoked = client.json("PATCH", &format!("{path}/secret/revoke"), Value::Null).await;
    assert_eq!(revoked.json()["revoked"], true, "{revoked:?}");
    becomes(&replica, &second, "/proxy/picky/v1/models", 401).await;
    let revived = client.json("PATCH", &format!("{path}/secret/reset"), json!({})).await;
    is(&revived, 409, "token-ended");
    assert_eq!(client.json("DELETE", &path, Value::Null).await.status, 204);
    is(&client.get(&path).await, 404, "not-found");
}

pub(crate) async fn a_request_creates_one_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("ann").await;
    let kind = ("content-type", "application/json");
    let key = ("idempotency-key", "one");
    let body = json!({ "name": "once", "duration": "1h" }).to_string();
    let first = client.send("POST", "/api/pats", &[kind, key], &body).await;
    let token = minted(&world, &first);
    let again = client.send("POST", "/api/pats", &[kind, key], &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert!(again.json()["secret"].is_null());
    let other = json!({ "name": "twice", "duration": "1h" }).to_string();
    let reused = client.send("POST", "/api/pats", &[kind, key], &other).await;
    is(&reused, 422, "idempotency-key-reused");
    is(&client.send("POST", "/api/pats", &[kind, key, key], &body).await, 400, "invalid");

    // Changes apply to the version that the client has seen.
    let path = format!("/api/pats/{}", token.id);
    let seen = client.get(&path).await.header("etag").unwrap().to_owned();
    let rename = async |tag: &str, name: &str| {
        let body = json!({ "name": name }).to_string();
        client.send("PATCH", &format!("{path}/name"), &[kind, ("if-match", tag)], &body).await
    };
    assert_eq!(rename(&seen, "second").await.status, 200);
    is(&rename(&seen, "third").await, 412, "changed");
    is(&rename("W/\"x\"", "third").await, 400, "invalid");
    let outdated = client.send("DELETE", &path, &[("if-match", &seen)], "").await;
    is(&outdated, 412, "changed");
    assert_eq!(client.get(&path).await.json()["name"], "second");
    assert_eq!(client.json("DELETE", &path, Value::Null).await.status, 204);
    let late = client.send("POST", "/api/pats", &[kind, key], &body).await;
    is(&late, 410, "deleted");
}

pub(crate) async fn another_users_token_does_not_exist(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let (ann, bob) = (site.client("ann").await, site.client("bob").await);
    let created = create(&ann, json!({ "name": "mine", "duration": "1h" })).await;
    let token = minted(&world, &created);
    let unknown = TokenId(uuid::Uuid::now_v7());
    for (method, part, body) in [
        ("GET", "", Value::Null),
        ("DELETE", "", Value::Null),
        ("PATCH", "/name", json!({ "name": "theirs" })),
        ("PATCH", "/description", json!({ "description": "x" })),
        ("PATCH", "/secret/reset", json!({})),
        ("PATCH", "/secret/revoke", Value::Null),
        ("GET", "/scope", Value::Null),
        ("DELETE", "/scope", Value::Null),
        ("PATCH", "/scope/add", json!({ "scopes": [scope("beta", "llm_read")] })),
        ("PATCH", "/scope/remove", json!({ "scopes": [scope("beta", "llm_read")] })),
    ] {
        let others = bob.json(method, &format!("/api/pats/{}{part}", token.id), body.clone()).await;
        is(&others, 404, "not-found");
        let nobodys = bob.json(method, &format!("/api/pats/{unknown}{part}"), body.clone()).await;
        let malformed = bob.json(method, &format!("/api/pats/x{part}"), body).await;
        assert_eq!((others.body, malformed.status), (nobodys.body, 404), "{method} {part}");
    }
    assert_eq!(bob.get("/api/pats").await.json()["total"], 0);
    assert_eq!(ann.get("/api/pats").await.json()["pats"][0]["name"], "mine");
}

pub(crate) async fn nobody_grants_what_they_may_not_do(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("reader").await;
    let new = |scopes: Value| json!({ "name": "wide", "duration": "1h", "scopes": scopes });
    for forbidden in [
        scope("acme", "llm_chat_completions"),
        scope("beta", "llm_read"),
        scope("nowhere", "llm_read"),
        json!({ "domain": "acme", "entity_type": "domains", "entity_id": "*",
                "operation": "manage_role" }),
    ] {
        is(&create(&client, new(json!([forbidden]))).await, 403, "not-permitted");
        let mixed = json!([scope("acme", "llm_read"), forbidden]);
        is(&create(&client, new(mixed)).await, 403, "not-permitted");
    }
    assert_eq!(client.get("/api/pats").await.json()["total"], 0);

    let created = create(&client, new(json!([scope("acme", "llm_read")]))).await;
    let path = format!("/api/pats/{}", minted(&world, &created).id);
    let more = json!({ "scopes": [scope("acme", "llm_chat_completions")] });
    let widened = client.json("PATCH", &format!("{path}/scope/add"), more).await;
    is(&widened, 403, "not-permitted");
    // A new secret is a new grant.
    let reader = world.id("reader");
    world.sql(&format!("DELETE FROM patgate.role_members WHERE user_id = '{reader}'")).await;
    let reset = client.json("PATCH", &format!("{path}/secret/reset"), json!({})).await;
    is(&reset, 403, "not-permitted");
    // An operator's limit holds here, too.
    world.sql("UPDATE patgate.policy SET token_default = '1 day', token_longest = '1 day'").await;
    let long = create(&client, json!({ "name": "long", "duration": "30d" })).await;
    is(&long, 422, "lifetime-too-long");
}

pub(crate) async fn what_is_malformed_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let client = site.client("ann").await;
    let kind = ("content-type", "application/json");
    let post = async |body: &str| client.send("POST", "/api/pats", &[kind], body).await;
    for (body, named) in [
        ("", "JSON object"),
        ("{", "EOF"),
        ("[\"a\"]", "JSON object"),
        ("{\"duration\":\"1h\"}", "`name`"),
        ("{\"name\":\"\"}", "`name`"),
        ("{\"name\":\"a\u{202e}b\"}", "`name`"),
        ("{\"name\":\"a\",\"name\":\"b\"}", "duplicate field `name`"),
        ("{\"name\":\"a\",\"admin\":true}", "`admin`"),
        ("{\"name\":\"a\",\"duration\":\"forever\"}", "`duration`"),
        ("{\"name\":\"a\",\"duration\":\"1h\",\"expires_at\":\"2030-01-31T00:00:00Z\"}", "exclude"),
        (
            "{\"name\":\"a\",\"scopes\":[{\"domain\":\"acme\",\"entity_type\":\"models\",\
           \"entity_id\":\"*\",\"operation\":\"fly\"}]}",
            "fly",
        ),
        (
            "{\"name\":\"a\",\"scopes\":[{\"domain\":\"acme\",\"entity_type\":\"models\",\
           \"operation\":\"llm_read\"}]}",
            "`entity_id`",
        ),
    ] {
        let reply = post(body).await;
        is(&reply, 400, "invalid");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{body}: {detail}");
    }
    is(
        &client.send("POST", "/api/pats", &[], "{\"name\":\"a\"}").await,
        415,
        "unsupported-media-type",
    );
    let form = ("content-type", "application/x-www-form-urlencoded");
    is(&client.send("POST", "/api/pats", &[form], "name=a").await, 415, "unsupported-media-type");
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    is(&post(&long).await, 413, "too-large");
    for query in ["limit=0", "limit=1001", "offset=-1", "status=alive", "colour=red", "limit=a"] {
        is(&client.get(&format!("/api/pats?{query}")).await, 400, "invalid");
    }
    let reply = client.json("PUT", "/api/pats", json!({})).await;
    is(&reply, 405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("GET,HEAD,POST"));
    assert_eq!(client.get("/api/pats").await.json()["total"], 0);
}
