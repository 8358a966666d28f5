//! Lists of models: for a token or a domain that is limited to some models, patgate answers them
//! itself, with the models that the token may use.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use patgate_testing::{
    access_log, eventually,
    http::{self, Over, Reply, Sent},
    openai::openai,
    shipped::configuration,
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Scope, Suite, Token, World,
    cli::Cli,
    decision_log::{ALL, decisions, file, logging},
    domains::add_domain,
    envoy::{Gateway, envoy_patch, patient},
};

const CHAT: &str = "llm_chat_completions";
const READ: &str = "llm_read";
const EMBED: &str = "llm_embeddings";

/// Who answers a request for models, and with what.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AnsweredBy {
    /// The backend, with its own list.
    Backend,
    /// patgate, with these models.
    Patgate(&'static [&'static str]),
    /// The request is refused.
    Refused(u16, &'static str),
}

/// `wild` lists only a pattern, `mixed` a name and a pattern. Ann is an administrator of both. Of
/// the roles in `acme`, `reader` may read and chat.
async fn populate(world: &World<'_>) {
    let acme = world.id("acme");
    for (slug, id, models) in [
        ("wild", "00000000-0000-7000-8000-0000000000a1", &["qwen*"][..]),
        ("mixed", "00000000-0000-7000-8000-0000000000a2", &["qwen*", "org/m-7b"]),
    ] {
        add_domain(world, id, slug, "model-acme", false).await;
        for model in models {
            world
                .sql(&format!(
                    "INSERT INTO patgate.domain_models VALUES ('{id}', '{model}', 'model-beta')"
                ))
                .await;
        }
    }
    world
        .sql(&format!(
            "INSERT INTO patgate.role_operations
                 SELECT id, '{CHAT}' FROM patgate.roles
                 WHERE domain_id = '{acme}' AND name = 'reader'"
        ))
        .await;
}

/// The domain by the slug that `World::token` knows, or by its id.
fn domain(slug: &str) -> &str {
    match slug {
        "wild" => "00000000-0000-7000-8000-0000000000a1",
        "mixed" => "00000000-0000-7000-8000-0000000000a2",
        slug => slug,
    }
}

async fn token(
    world: &World<'_>,
    owner: &str,
    slug: &str,
    scopes: &[(&'static str, &'static str)],
) -> Token {
    let scopes: Vec<Scope<'_>> = scopes
        .iter()
        .map(|(model, operation)| (domain(slug), "models", *model, *operation))
        .collect();
    world.token_for(owner, "1 hour", &scopes).await
}

async fn get(port: u16, path: &str, token: &Token) -> Reply {
    http::send(port, "GET", path, &[("authorization", &token.bearer())], "").await
}

/// In the form of the API, with headers that forbid caching.
fn answered(reply: &Reply, expected: &Value, name: &str) {
    assert_eq!((reply.status, reply.json()), (200, expected.clone()), "{name}: {reply:?}");
    assert_eq!(reply.header("x-backend"), None, "{name}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{name}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{name}");
    let length = reply.body.len().to_string();
    assert_eq!(reply.header("content-length"), Some(&*length), "{name}");
    assert!(reply.header("x-request-id").is_some(), "{name}: {reply:?}");
}

fn openai_list(names: &[&str]) -> Value {
    let data: Vec<_> = names.iter().map(|id| json!({ "id": id, "object": "model" })).collect();
    json!({ "object": "list", "data": data })
}

fn ollama_list(names: &[&str]) -> Value {
    let models: Vec<_> = names.iter().map(|name| json!({ "name": name, "model": name })).collect();
    json!({ "models": models })
}

/// The list, in each API's form, over each protocol.
pub(crate) async fn the_list_is_what_the_token_may_use(suite: Arc<Suite>) {
    let world = suite.world().await;
    populate(&world).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let revoked = token(&world, "ann", "acme", &[("a", READ), ("a", CHAT)]).await;
    world
        .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", revoked.id))
        .await;
    let all = [("*", READ), ("*", CHAT)];
    let some = [("b", READ), ("b", CHAT), ("a", CHAT), ("a", EMBED), ("r", READ)];
    let mut asked = 0;
    for (name, owner, slug, scopes, expected) in [
        ("unlimited", "ann", "acme", &all[..], AnsweredBy::Backend),
        ("who only reads, reads all", "ann", "acme", &all[..1], AnsweredBy::Backend),
        ("limited by its scopes", "ann", "acme", &some, AnsweredBy::Patgate(&["a", "b"])),
        (
            "reads all, uses some",
            "ann",
            "acme",
            &[("*", READ), ("org/m-7b", CHAT)],
            AnsweredBy::Patgate(&["org/m-7b"]),
        ),
        (
            "limited by its domain",
            "ann",
            "picky",
            &all,
            AnsweredBy::Patgate(&["org/listed", "other"]),
        ),
        (
            "limited by both",
            "ann",
            "picky",
            &[("*", READ), ("other", CHAT), ("elsewhere", CHAT)],
            AnsweredBy::Patgate(&["other"]),
        ),
        (
            "limited by its owner's role",
            "reader",
            "acme",
            &[("*", READ), ("a", CHAT), ("b", EMBED)],
            AnsweredBy::Patgate(&["a"]),
        ),
        ("a pattern has no name", "ann", "wild", &all, AnsweredBy::Patgate(&[])),
        (
            "a name that a pattern covers",
            "ann",
            "wild",
            &[("*", READ), ("qwen2.5-7b", CHAT), ("other", CHAT)],
            AnsweredBy::Patgate(&["qwen2.5-7b"]),
        ),
        ("a name beside a pattern", "ann", "mixed", &all, AnsweredBy::Patgate(&["org/m-7b"])),
        (
            "may not read",
            "ann",
            "acme",
            &[("a", CHAT)],
            AnsweredBy::Refused(403, "permission_denied"),
        ),
        ("in another domain", "ann", "beta", &all, AnsweredBy::Refused(403, "permission_denied")),
    ] {
        let token = token(&world, owner, slug, scopes).await;
        for (path, form) in [
            ("v1/models", openai_list as fn(&[&str]) -> Value),
            ("api/tags", ollama_list),
            ("api/ps", |_| ollama_list(&[])),
        ] {
            let name = format!("{name}, {path}");
            let path = format!("/proxy/{slug}/{path}");
            let bearer = token.bearer();
            let headers = [("authorization", bearer.as_str())];
            let sent = Sent { method: "GET", target: &path, headers: &headers, ..Sent::default() };
            for over in Over::that_carry(sent) {
                let reply = over.try_send(envoy.port, sent).await.unwrap();
                match expected {
                    AnsweredBy::Backend => {
                        assert!(reply.header("x-backend").is_some(), "{name}: {reply:?}")
                    }
                    AnsweredBy::Patgate(names) => answered(&reply, &form(names), &name),
                    AnsweredBy::Refused(status, code) => {
                        // Ollama's form has only a text.
                        let is_text = path.contains("/api/") && reply.json()["error"].is_string();
                        let told = if is_text { code } else { &*reply.code() };
                        assert_eq!((reply.status, told), (status, code), "{name}: {reply:?}");
                    }
                }
                asked += 1;
            }
        }
    }
    assert!(asked >= 2 * 12 * 3, "{asked}");
    let reply = get(envoy.port, "/proxy/acme/v1/models", &revoked).await;
    assert_eq!((reply.status, &*reply.code()), (401, "token_revoked"));
    // The query changes nothing.
    let token = token(&world, "ann", "acme", &some).await;
    let reply = get(envoy.port, "/proxy/acme/v1/models?limit=1&model=x", &token).await;
    answered(&reply, &openai_list(&["a", "b"]), "a query");
}

/// A model on the list is found; a model that may be read but not used is asked of the backend; any
/// other is refused.
pub(crate) async fn one_model_is_answered_as_the_list_shows_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    populate(&world).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let all = [("*", READ), ("*", CHAT)];
    for (slug, scopes, model, expected) in [
        ("acme", &all[..], "a", AnsweredBy::Backend),
        ("acme", &[("a/b", READ), ("a/b", CHAT)], "a/b", AnsweredBy::Patgate(&["a/b"])),
        ("acme", &[("a", READ), ("a", CHAT)], "b", AnsweredBy::Refused(403, "permission_denied")),
        ("acme", &[("a", READ)], "a", AnsweredBy::Backend),
        ("picky", &all, "org/listed", AnsweredBy::Patgate(&["org/listed"])),
        ("picky", &all, "unlisted", AnsweredBy::Refused(403, "permission_denied")),
        ("wild", &all, "qwen2.5-7b", AnsweredBy::Backend),
        ("wild", &all, "other", AnsweredBy::Refused(403, "permission_denied")),
    ] {
        let token = token(&world, "ann", slug, scopes).await;
        let path = format!("/proxy/{slug}/v1/models/{model}");
        let reply = get(envoy.port, &path, &token).await;
        match expected {
            AnsweredBy::Backend => {
                let backend = if slug == "wild" { "model-beta" } else { "model-acme" };
                assert_eq!(reply.header("x-backend"), Some(backend), "{path}");
            }
            AnsweredBy::Patgate(_) => {
                answered(&reply, &json!({ "id": model, "object": "model" }), &path);
            }
            AnsweredBy::Refused(status, code) => {
                assert_eq!((reply.status, &*reply.code()), (status, code), "{path}");
            }
        }
    }
}

/// The output of the official client.
pub(crate) async fn openai_lists_what_it_may_use(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let scopes = [("m-7b", READ), ("m-7b", CHAT), ("org/x", CHAT)];
    let token = token(&world, "ann", "acme", &scopes).await;
    let calls = [("list", ""), ("retrieve", "m-7b"), ("retrieve", "m-8b")];
    let mut results = openai(envoy.port, &token.text, &calls).await;
    let refused = results.pop().unwrap();
    assert_eq!(results, [json!({ "models": ["m-7b", "org/x"] }), json!({ "model": "m-7b" })]);
    assert_eq!(
        (&refused["error"], &refused["status"]),
        (&json!("PermissionDeniedError"), &json!(403))
    );
}

/// It is a decision of its own kind in logs, metrics and metadata, and a use of the token.
pub(crate) async fn a_list_is_distinguished_from_an_allow_and_a_denial(suite: Arc<Suite>) {
    let world = suite.world().await;
    let log = file(&world, "lists");
    let replica = logging(&world, &log, &ALL).await;
    let envoy = replica.envoy(&suite);
    let token = token(&world, "ann", "acme", &[("m", READ), ("m", CHAT)]).await;
    let reply = get(envoy.port, "/proxy/acme/v1/models/m", &token).await;
    let line = access_log::line(&envoy, &reply).await;
    let acme = world.id("acme").to_string();
    for (name, value) in [
        ("response_code", json!(200)),
        ("response_code_details", json!("ext_authz_denied")),
        ("upstream_cluster", json!(null)),
        ("outcome", json!("answered")),
        ("code", json!("ok")),
        ("enforced", json!(null)),
        ("operation", json!(READ)),
        ("model", json!("m")),
        ("domain_id", json!(acme)),
        ("domain_slug", json!("acme")),
        ("pat_id", json!(token.id.to_string())),
        ("user_id", json!(world.id("ann").to_string())),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    let decided = decisions(&log, 1).await.remove(0);
    for (name, value) in [
        ("outcome", json!("answered")),
        ("code", json!("ok")),
        ("status", json!(200)),
        ("enforced", json!(true)),
        ("mode", json!("enforce")),
        ("operation", json!(READ)),
        ("model", json!("m")),
        ("domain_id", json!(acme)),
        ("domain", json!("acme")),
        ("pat_id", json!(token.id.to_string())),
        ("upstream", json!(null)),
    ] {
        assert_eq!(decided[name], value, "{name}: {decided}");
    }
    let count = async |outcome: &str| {
        let labels = format!(r#"outcome="{outcome}",code="ok",enforced="true""#);
        replica.metric(&format!("patgate_decisions_total{{{labels}}}")).await
    };
    assert_eq!((count("answered").await, count("allow").await), (1, 0));
    eventually("its use to be written", async || {
        replica.metric("patgate_last_used_writes_total{result=\"written\"}").await == 1
    })
    .await;
    // `patgate check` also reports that patgate answers the list itself.
    let told = Cli::of(&world).feed(
        &format!("check --method GET --path /proxy/acme/v1/models --server {}", replica.grpc),
        &token.text,
    );
    assert_eq!(told.code, 0, "{told:?}");
    for line in [
        "answer: 200 ok, by patgate itself",
        "by patgate, instead of a backend, because the token's scopes name particular models",
        "permitted for more than llm_read: `m`",
        "200 ok, by itself, the same",
    ] {
        assert!(told.stdout.contains(line), "{line}: {}", told.stdout);
    }
}

/// Returns whether a request that is let through has an identity.
fn identity(response: &CheckResponse) -> Option<bool> {
    match response.http_response.as_ref()? {
        HttpResponse::OkResponse(ok) => Some(!ok.headers.is_empty()),
        _ => None,
    }
}

/// Before enforcing, nothing changes for clients: a caller that may read the whole list reads it,
/// with an identity; a refused one passes without.
pub(crate) async fn a_rollout_answers_no_lists(suite: Arc<Suite>) {
    let world = suite.world().await;
    let shadow = Rollout { replica: world.serve(&["mode=shadow"]).await, mode: "shadow" };
    let per_domain = world.serve(&["mode=per-domain"]).await;
    let of_domain = token(&world, "ann", "picky", &[("*", READ), ("*", CHAT)]).await;
    let of_scopes = token(&world, "ann", "acme", &[("m", READ), ("m", CHAT)]).await;
    let lists =
        [("/proxy/picky/v1/models", &of_domain, true), ("/proxy/acme/api/tags", &of_scopes, false)];
    for (path, token, as_somebody) in lists {
        shadow.passes(path, token, as_somebody).await;
        let enforced = per_domain.check("GET", path, &[("authorization", &token.bearer())]).await;
        assert_eq!(identity(&enforced), None, "{path}");
    }
    let envoy = shadow.replica.envoy(&suite);
    let reply = get(envoy.port, "/proxy/picky/v1/models", &of_domain).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
    assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()]);
    assert_eq!(reply.seen("authorization"), <[&str; 0]>::default());
    let line = access_log::line(&envoy, &reply).await;
    assert_eq!((&line["outcome"], &line["enforced"]), (&json!("answered"), &json!("false")));
    drop(per_domain);

    world.sql("UPDATE patgate.domains SET mode = 'shadow'").await;
    let per_domain = Rollout { replica: world.serve(&["mode=per-domain"]).await, mode: "shadow" };
    for (path, token, as_somebody) in lists {
        per_domain.passes(path, token, as_somebody).await;
    }
    world.sql("UPDATE patgate.domains SET mode = 'enforce', enforced_share = 0").await;
    let ramp = Rollout { replica: world.serve(&["mode=per-domain"]).await, mode: "ramp" };
    for (path, token, as_somebody) in lists {
        ramp.passes(path, token, as_somebody).await;
    }
    let told = Cli::of(&world).feed(
        &format!("check --method GET --path {} --server {}", lists[0].0, ramp.replica.grpc),
        &of_domain.text,
    );
    assert_eq!(told.code, 0, "{told:?}");
    let line = "200, sends on what it would answer itself (mode ramp), otherwise the same";
    assert!(told.stdout.contains(line), "{}", told.stdout);
}

struct Rollout {
    replica: Replica,
    mode: &'static str,
}

impl Rollout {
    async fn passes(&self, path: &str, token: &Token, as_somebody: bool) {
        let bearer = token.bearer();
        let response = self.replica.check("GET", path, &[("authorization", &bearer)]).await;
        assert_eq!(identity(&response), Some(as_somebody), "{path} in {}", self.mode);
        let metadata = &response.dynamic_metadata.unwrap().fields;
        for (name, value) in
            [("outcome", "answered"), ("code", "ok"), ("enforced", "false"), ("mode", self.mode)]
        {
            let told = format!("{:?}", metadata[name].kind);
            assert!(told.contains(value), "{path} in {}: {name} is {told}", self.mode);
        }
    }
}

/// A list needs no body, passes the guard, is visible to browsers, and supports HEAD.
pub(crate) async fn envoy_sends_it_as_a_backends_answer(suite: Arc<Suite>) {
    let world = suite.world().await;
    let table = suite.dir.path().join("heads.yaml");
    fs::write(
        &table,
        "name: heads\nmount: /proxy/{domain}\nerrors: openai\nrules:\n  - { methods: [GET, HEAD], \
         path: /v1/models, operation: llm_read, entity: models, answer: openai-models }\n",
    )
    .unwrap();
    fs::set_permissions(&table, fs::Permissions::from_mode(0o644)).unwrap();
    let replica = world.serve(&[&format!("apis={}", table.display())]).await;
    let token = token(&world, "ann", "acme", &[("m", READ), ("m", CHAT)]).await;
    for name in ["envoy.yaml", "single-step.yaml", "rate-limits.yaml"] {
        let config = configuration(name);
        let listener = config["static_resources"]["listeners"][0].clone();
        let patch = envoy_patch(&suite, &[replica.grpc], patient("60s", "60s"));
        let listeners = BTreeMap::from([("shipped".to_owned(), listener)]);
        let gateway = Gateway::start(&suite, config, listeners, patch);
        let port = gateway.port("shipped");
        let bearer = token.bearer();
        let path = "/proxy/acme/v1/models";
        let origin = "https://app.example.com";
        let headers = [("authorization", bearer.as_str()), ("origin", origin)];
        let reply = http::send(port, "GET", path, &headers, "").await;
        answered(&reply, &openai_list(&["m"]), name);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "{name}");
        let head = http::send(port, "HEAD", path, &headers, "").await;
        assert_eq!((head.status, &*head.body), (200, ""), "{name}: {head:?}");
        for header in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(header), reply.header(header), "{name}: {head:?}");
        }
        assert_eq!(gateway.stat("http.gateway.rbac.patgate_guard.denied").await, 0, "{name}");
        // Envoy counts patgate's own answers among its denials.
        assert_eq!(gateway.stat("http.gateway.ext_authz.denied").await, 2, "{name}");
    }
    assert_eq!(replica.metric("patgate_bodies_asked_total").await, 0);
}

/// As many names as are shown, and more that are not. Nothing is cut on the way.
pub(crate) async fn a_long_list_arrives_whole(suite: Arc<Suite>) {
    const SHOWN: usize = 10_000;
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let token = token(&world, "ann", "acme", &[]).await;
    let acme = world.id("acme");
    world
        .sql(&format!(
            "INSERT INTO patgate.pat_scopes
                 SELECT gen_random_uuid(), '{}', '{acme}', 'models',
                        'org/model-' || to_char(n, 'FM000000'), operation
                 FROM generate_series(0, {SHOWN} + 9) AS n, unnest(ARRAY['{READ}', '{CHAT}']) AS operation",
            token.id
        ))
        .await;
    let names: Vec<String> = (0..SHOWN).map(|n| format!("org/model-{n:06}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str())];
    let sent = Sent {
        method: "GET",
        target: "/proxy/acme/v1/models",
        headers: &headers,
        ..Sent::default()
    };
    for over in Over::that_carry(sent) {
        let reply = over.try_send(envoy.port, sent).await.unwrap();
        answered(&reply, &openai_list(&names), &format!("{over:?}"));
    }
}
