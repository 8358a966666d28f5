//! Why a request is refused: in the words of `patgate check`, for the owner of the token alone.

use std::sync::Arc;

use patgate::{
    admin::web::{AskedRequest, Caller},
    api::{Apis, TableSource},
    explain::Verdict,
    token::TokenId,
};
use patgate_testing::http;
use serde_json::Value;
use uuid::Uuid;

use super::{Site, fails, not_found, service_of};
use crate::support::{Suite, World, cli::Cli};

fn asked(request: &str, model: Option<&str>) -> AskedRequest {
    let (method, path) = request.split_once(' ').unwrap();
    let [method, path] = [method, path].map(str::to_owned);
    AskedRequest { method, path, host: String::new(), model: model.map(str::to_owned) }
}

/// What `patgate check` says, without what it says about backends and about what it has asked.
fn by_command(cli: &Cli<'_>, id: TokenId, asked: &AskedRequest) -> Value {
    let AskedRequest { method, path, model, .. } = asked;
    let mut command = format!("check --pat-id {id} --method {method} --path {path} --output json");
    if let Some(model) = model {
        command = format!("{command} --model {model}");
    }
    let ran = cli.run(&command);
    let mut said: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    for member in ["upstream", "backend_credential", "rollout", "tier", "redis"] {
        said.as_object_mut().unwrap().remove(member);
    }
    said
}

async fn why(site: &Site<'_, '_>, caller: &Caller, id: TokenId, asked: &AskedRequest) -> Verdict {
    site.service.why(caller, id, asked).await.unwrap_or_else(|error| panic!("{error}: {asked:?}"))
}

fn last(verdict: &Verdict) -> (&str, &str) {
    let step = verdict.explanation.steps.last().unwrap();
    (step.step, &step.detail)
}

/// A scope that makes a decision depend on one model.
async fn narrow(world: &World<'_>) -> TokenId {
    let scopes = [
        ("acme", "models", "org/m", "llm_chat_completions"),
        ("acme", "models", "*", "llm_read"),
        ("picky", "models", "*", "llm_chat_completions"),
        ("closed", "models", "*", "llm_read"),
    ];
    world.token_for("ann", "1 hour", &scopes).await.id
}

pub(crate) async fn an_own_token_is_explained_as_by_the_command(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world).with("redis.url", "");
    let ann = site.signed_in("ann").await;
    let live = narrow(&world).await;
    let bare = world.token_for("ann", "1 hour", &[]).await.id;
    let expired = world.token_for("ann", "-1 minute", &[]).await.id;
    let revoked = world.token_for("ann", "1 hour", &[]).await.id;
    cli.ok(&format!("token revoke {revoked}"));
    let by_id = format!("GET /proxy/{}/v1/models", world.id("acme"));
    let chat = "POST /proxy/acme/v1/chat/completions";
    let picky = "POST /proxy/picky/v1/chat/completions";
    let mut codes = Vec::new();
    for (id, request, model) in [
        (live, chat, Some("org/m")),
        (live, chat, Some("other")),
        (live, "GET /proxy/acme/v1/models", None),
        (live, "GET /proxy/picky/v1/models", None),
        (live, "POST /proxy/acme/v1/embeddings", Some("org/m")),
        (live, picky, Some("org/listed")),
        (live, picky, Some("unlisted")),
        (live, "GET /proxy/closed/v1/models", None),
        (live, &by_id, None),
        (live, "GET /proxy/acme/v1/models?key=secret", None),
        (live, "GET /proxy/acme/v1/models/", None),
        (live, "DELETE /proxy/acme/v1/models", None),
        (live, "GET /nowhere", None),
        (live, "GET /proxy/NO_SLUG/v1/models", None),
        (live, "POST /proxy/acme/v1/audio/transcriptions", Some("org/m")),
        (bare, chat, Some("org/m")),
        (expired, chat, None),
        (revoked, chat, None),
    ] {
        let asked = asked(request, model);
        let verdict = why(&site, &ann, id, &asked).await;
        let said = serde_json::to_value(&verdict).unwrap();
        assert_eq!(said, by_command(&cli, id, &asked), "{request} {model:?}");
        codes.push(verdict.code);
    }
    // The requests above are answered in every way.
    for code in ["ok", "permission_denied", "not_found", "token_expired", "token_revoked"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    // The secret of a query is not repeated.
    let query = why(&site, &ann, live, &asked("GET /proxy/acme/v1/models?key=secret", None)).await;
    assert!(!format!("{query:?}").contains("secret"), "{query:?}");

    // A platform administrator's token may do what its scopes say, with or without the password.
    let root = site.signed_in("root").await;
    let own = world.token_for("root", "1 hour", &[("picky", "models", "*", "llm_read")]).await.id;
    let lists = asked("GET /proxy/picky/v1/models", None);
    let said = serde_json::to_value(why(&site, &root, own, &lists).await).unwrap();
    assert_eq!(said, by_command(&cli, own, &lists));
}

/// What the shipped Envoy makes of a path before it asks is explained, and answered as the gateway does.
pub(crate) async fn a_path_is_explained_as_the_gateway_takes_it(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world).with("redis.url", "");
    let ann = site.signed_in("ann").await;
    let token = world.token_for("ann", "1 hour", &[("acme", "models", "*", "llm_read")]).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let mut steps = Vec::new();
    for path in [
        "/proxy/acme/v1/models",
        "/proxy/acme//v1/models",
        "//proxy/acme/v1/models",
        "/proxy/acme/v1/../v1/models",
        "/proxy/beta/../acme/v1/models",
        "/proxy/acme/../beta/v1/models",
        "/proxy/acme/v1/./models",
        "/proxy/acme/v1/%2e%2E/v1/models",
        "/proxy/acme/v1/x//../models",
        "/proxy/%61cme/v1/models",
        "/proxy/acme\\v1/models",
        "/../proxy/acme/v1/models?a=//%2F",
        "/proxy/acme/v1/models/",
        "/proxy/acme/v1/models/.",
        "/proxy/acme/v1/models/..",
        "/proxy/acme;a/v1/models",
        "/proxy/acme/v1/mod%ZZels",
        "/proxy/acme/v1/models%20",
        "/proxy/acme/v1/%252e/models",
        "/proxy/acme/v1%2Fmodels",
        "/proxy/acme/v1%2fmodels",
        "/proxy/acme/v1%5cmodels",
        "/proxy/acme/v1/models%00",
        "/proxy/acme/v1/models#x",
    ] {
        let reply =
            http::send(envoy.port, "GET", path, &[("authorization", &token.bearer())], "").await;
        let verdict = why(&site, &ann, token.id, &asked(&format!("GET {path}"), None)).await;
        let code = if reply.status == 200 { "ok".to_owned() } else { reply.code() };
        assert_eq!((verdict.status, verdict.code), (reply.status, &*code), "{path}: {verdict:?}");
        let first = &verdict.explanation.steps[0];
        steps.push((first.step, first.passed));
    }
    for seen in [("path", true), ("path", false), ("gateway", true), ("gateway", false)] {
        assert!(steps.contains(&seen), "{seen:?}: {steps:?}");
    }
    let slashes = why(&site, &ann, token.id, &asked("GET /proxy/acme//v1/models?a", None)).await;
    let said = &slashes.explanation.steps[0].detail;
    assert!(said.ends_with("then it asks about `/proxy/acme/v1/models`"), "{said}");
    // The command is asked what Envoy would send. It says what the shipped one makes of the path.
    for (path, expected) in [
        ("/proxy/acme//v1/models", "give the path after that, `/proxy/acme/v1/models`"),
        ("/proxy/acme/v1%2Fmodels", "with 400 and `path_not_accepted`, and does not ask"),
    ] {
        let said = by_command(&cli, token.id, &asked(&format!("GET {path}"), None));
        let nearest = said["nearest"].as_str().unwrap_or_default();
        assert!(said["code"] == "bad_request" && nearest.ends_with(expected), "{said}");
    }
    // Another user's token stays unknown, whatever the path.
    let bob = site.signed_in("bob").await;
    for path in ["/proxy/acme//v1/models", "/proxy/acme/v1%2Fmodels"] {
        let asked = asked(&format!("GET {path}"), None);
        fails(site.service.why(&bob, token.id, &asked).await, not_found);
    }
}

/// An empty field is not an error of the gateway.
pub(crate) async fn a_model_that_was_not_named_is_asked_for(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let id = narrow(&world).await;
    let chat = "POST /proxy/acme/v1/chat/completions";
    let verdict = why(&site, &ann, id, &asked(chat, None)).await;
    let said = verdict.message.as_deref().unwrap_or_default();
    assert!(said.starts_with("No model was named: enter the one that the client sends."), "{said}");
    assert!(!format!("{verdict:?}").contains("with_request_body"), "{verdict:?}");
}

/// Neither the backend of a domain nor that of a table is named, and which exist is not said.
pub(crate) async fn no_backend_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let ann = site.signed_in("ann").await;
    let id = narrow(&world).await;
    let rule = |path: &str, backend: &str| {
        format!(
            "- {{ methods: [GET], path: {path}, operation: llm_read, entity: models, \
             upstream: {backend} }}\n"
        )
    };
    let rules = [rule("/own", "model-beta"), rule("/lost", "model-lost")].concat();
    let text = format!("name: own\nmount: /own/{{domain}}\nerrors: openai\nrules:\n{rules}");
    let table = TableSource { file: "own.yaml".to_owned(), text };
    let apis = Apis::compile(&[table]).unwrap_or_else(|errors| panic!("{errors}"));
    let service = service_of(&world, site.login.clone(), apis).await.unwrap();
    for path in ["/own/acme/own", "/own/acme/lost"] {
        let verdict = service.why(&ann, id, &asked(&format!("GET {path}"), None)).await.unwrap();
        assert_eq!((verdict.code, verdict.outcome), ("ok", "allow"), "{verdict:?}");
        let said = format!("{verdict:?}");
        for backend in ["model-acme", "model-beta", "model-lost"] {
            assert!(!said.contains(backend), "{said}");
        }
    }
    // Of these tables, and of no others.
    let chat = asked("POST /proxy/acme/v1/chat/completions", Some("org/m"));
    assert_eq!(service.why(&ann, id, &chat).await.unwrap().code, "not_found");
}

pub(crate) async fn another_users_token_is_not_explained(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let anns = narrow(&world).await;
    let canary = TokenId(Uuid::new_v4());
    world.sql(&format!("SELECT patgate.flip_canary('{canary}', '1 hour')")).await;
    let asked = asked("GET /proxy/acme/v1/models", None);
    let bob = site.signed_in("bob").await;
    let root = site.elevated().await;
    for caller in [&bob, &root] {
        for id in [anns, canary, TokenId(Uuid::new_v4())] {
            fails(site.service.why(caller, id, &asked).await, not_found);
        }
    }
    let bobs = world.token_for("bob", "1 hour", &[]).await.id;
    site.service.why(&bob, bobs, &asked).await.unwrap();
}

/// Whether a domain exists is said only to those who may do something in it, or whose token shows it.
pub(crate) async fn a_domain_without_a_right_is_none(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let reader = site.signed_in("reader").await;
    let token = site.create(&reader, "laptop", &["acme:models:*:llm_read"]).await.id;
    let unknown = Uuid::new_v4().to_string();
    let root = site.signed_in("root").await;
    let roots = world.token_for("root", "1 hour", &[("acme", "models", "*", "llm_read")]).await.id;
    for (caller, id) in [(&reader, token), (&root, roots)] {
        let said = async |domain: &str| {
            let request = asked(&format!("GET /proxy/{domain}/v1/models"), None);
            let verdict = why(&site, caller, id, &request).await;
            serde_json::to_string(&verdict).unwrap().replace(domain, "DOMAIN")
        };
        let none = said("nowhere").await;
        let expected =
            "domain `DOMAIN` does not exist, or neither you nor the token may do anything";
        assert!(none.contains(expected), "{none}");
        for hidden in ["beta", "picky", "closed", &unknown] {
            assert_eq!(said(hidden).await, none, "{hidden}");
        }
        for hidden in ["beta", "closed"] {
            assert_eq!(said(&world.id(hidden).to_string()).await, none, "{hidden}");
        }
    }
    // With a right in it, what is missing is named.
    site.grant("beta", "llm_read", "reader").await;
    let beta = asked("GET /proxy/beta/v1/models", None);
    let verdict = why(&site, &reader, token, &beta).await;
    assert_eq!(last(&verdict), ("domain", "no scope of the token names `beta`"));
    // Without one, a domain that a scope names is said to exist, whatever else it is.
    world
        .sql(
            "DELETE FROM patgate.role_members m USING patgate.users u
             WHERE u.id = m.user_id AND u.name = 'reader'",
        )
        .await;
    let acme = asked("GET /proxy/acme/v1/models", None);
    let lacks = why(&site, &reader, token, &acme).await;
    let expected = "the owner's roles in acme lack llm_read; they have none";
    assert_eq!((lacks.code, last(&lacks)), ("permission_denied", ("permission", expected)));
    world.sql("UPDATE patgate.domains SET enabled = false, all_models = false").await;
    assert_eq!(why(&site, &reader, token, &acme).await, lacks);
}
