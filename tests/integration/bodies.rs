//! The table of bodies: the model that patgate reads from each, or why there is none. patgate must
//! read what a backend reads, so the same bodies are given to readers that backends use.

mod compressed;
pub(crate) mod explained;
mod oddities;
mod table;

use std::{env, process::Command, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use envoy_types::pb::{
    envoy::service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Request},
        check_response::HttpResponse,
    },
    google::protobuf::value::Kind,
};
use patgate_testing::{
    http::{Over, Sent},
    script::answer_of,
    stack::project,
};
use serde_json::{Map, Value, json};

use self::table::{CHAT, Case, SHOWN, cases};
use crate::support::{
    self, Replica, Suite, Token, World,
    envoy::{envoy_patch, patient},
    http_of,
};

/// Makes a token for these models only, with the operations of calls about them.
async fn limited(world: &World<'_>) -> Token {
    let models = ["m", "org/m-7b", "𝔪", "é"];
    let operations = ["llm_chat_completions", "llm_transcription", "llm_create", "llm_read"];
    let scopes: Vec<_> = models
        .iter()
        .flat_map(|model| operations.map(|operation| ("acme", "models", *model, operation)))
        .collect();
    world.token(&scopes).await
}

/// Returns the model that an answer permits, or its message.
fn outcome(response: CheckResponse) -> Result<String, String> {
    let (status, code) = support::outcome(&response);
    match response.http_response.unwrap() {
        HttpResponse::OkResponse(ok) => {
            let headers = ok.headers.into_iter().filter_map(|option| option.header);
            let mut model = headers.filter(|h| h.key == "x-auth-model").map(|h| h.value);
            Ok(model.next_back().unwrap_or_default())
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_eq!(status, status_of(&code), "{}", denied.body);
            Err(message(&serde_json::from_str(&denied.body).unwrap()))
        }
        HttpResponse::ErrorResponse(_) => panic!("an error response"),
    }
}

/// Returns the status for the code of a refused body. 403 is only for missing permission.
fn status_of(code: &str) -> u16 {
    match code {
        "permission_denied" => 403,
        "invalid_body" | "invalid_query" => 400,
        "body_too_large" => 413,
        "unsupported_media_type" => 415,
        code => panic!("{code} is no code of these"),
    }
}

/// Returns the text of an error in the form of OpenAI, Anthropic or Ollama; only the first has a
/// code.
fn message(body: &Value) -> String {
    if let Some(code) = body.pointer("/error/code") {
        status_of(code.as_str().unwrap());
    }
    let text = ["/error/message", "/error"].iter().find_map(|at| body.pointer(at)?.as_str());
    text.unwrap_or_else(|| panic!("no message in {body}")).to_owned()
}

/// Asks like an Envoy that is configured to show bodies.
async fn ask(replica: &Replica, bearer: &str, case: &Case) -> Result<String, String> {
    outcome(answer(replica, bearer, case).await)
}

async fn answer(replica: &Replica, bearer: &str, case: &Case) -> CheckResponse {
    replica.raw(request(bearer, case)).await
}

/// Returns a request for every body of the table, for tests that do not need its answer.
pub(crate) async fn requests(world: &World<'_>) -> Vec<CheckRequest> {
    let bearer = limited(world).await.bearer();
    cases().iter().map(|case| request(&bearer, case)).collect()
}

fn request(bearer: &str, case: &Case) -> CheckRequest {
    let shown = &case.body[..case.body.len().min(SHOWN)];
    let mut headers = vec![("authorization", bearer.to_owned())];
    headers.extend(case.headers.iter().map(|(name, value)| (*name, value.clone())));
    if !case.body.is_empty() {
        let partial = shown.len() < case.body.len();
        headers.push(("x-envoy-auth-partial-body", partial.to_string()));
    }
    if !case.chunked {
        headers.push(("content-length", case.body.len().to_string()));
    }
    let http = HttpRequest {
        method: "POST".to_owned(),
        path: case.path.to_owned(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        raw_body: shown.to_vec(),
        ..Default::default()
    };
    let request = Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext { request: Some(request), ..Default::default() };
    CheckRequest { attributes: Some(attributes) }
}

fn compare(wrong: &mut Vec<String>, case: &Case, got: &Result<String, String>) {
    let same = match (case.expected, got) {
        (Ok(expected), Ok(model)) => model == expected,
        (Err(expected), Err(message)) => message.contains(expected),
        _ => false,
    };
    if !same {
        wrong.push(format!("{}: expected {:?}, got {got:?}", case.name, case.expected));
    }
}

pub(crate) async fn the_model_is_read_or_the_call_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = limited(&world).await;
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        compare(&mut wrong, case, &ask(&replica, &token.bearer(), case).await);
    }
    assert!(cases.len() >= 200, "the table has shrunk to {} cases", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

pub(crate) async fn in_one_step_the_backend_reads_the_same_model(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = limited(&world).await;
    let patch = envoy_patch(&suite, &[replica.grpc], patient("60s", "60s"));
    let config = project("envoy/single-step.yaml");
    let envoy = suite.stack.start("envoy", json!({ "config": config, "patch": patch }));
    through(envoy.port, &token.bearer(), &cases()).await;
}

/// The same if patgate asks for the body first. Envoy shows much more then.
pub(crate) async fn in_two_steps_the_backend_reads_the_same_model(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let token = limited(&world).await;
    let envoy = replica.envoy(&suite);
    let cases: Vec<_> = cases().into_iter().filter(|case| case.body.len() < SHOWN).collect();
    through(envoy.port, &token.bearer(), &cases).await;
    let asked = replica.metric("patgate_bodies_asked_total").await;
    assert!(asked > 100, "{asked}");
    assert_eq!(replica.metric("patgate_bodies_awaited").await, 0);
}

async fn through(port: u16, bearer: &str, cases: &[Case]) {
    let mut wrong = Vec::new();
    for (over, case) in Over::ALL.into_iter().flat_map(|over| cases.iter().map(move |c| (over, c)))
    {
        let mut headers = vec![("authorization", bearer)];
        headers.extend(case.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let pieces = case.chunked.then_some(1000);
        let method = "POST";
        let target = case.path;
        let headers = headers.as_slice();
        let sent = Sent { method, target, headers, body: &case.body, pieces, unfinished: false };
        let reply = over.send(port, sent).await;
        let got = match reply.header("x-backend") {
            None => Err(message(&reply.json())),
            Some(backend) => {
                assert_eq!((reply.status, backend), (200, "model-acme"), "{over:?} {}", case.name);
                let seen = &reply.json()["seen"]["body"]["bytes"];
                assert_eq!(*seen, case.body.len(), "{over:?} {}", case.name);
                // The backend's own reading of the body. It does not decode.
                if case.path.starts_with(CHAT) {
                    let model =
                        if case.is_compressed() { "unknown" } else { case.expected.unwrap() };
                    assert_eq!(reply.json()["model"], model, "{}", case.name);
                }
                // The backend reads the bytes of a header as Latin-1.
                let seen = reply.seen("x-auth-model").concat().chars().map(|c| c as u8).collect();
                Ok(String::from_utf8(seen).unwrap())
            }
        };
        compare(&mut wrong, case, &got);
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// In two steps, each body gets the same decision as in one, in every mode. The first step either
/// decides the same, or asks for the body and gives nothing else.
pub(crate) async fn in_two_steps_each_is_decided_as_in_one(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = limited(&world).await.bearer();
    let cases = cases();
    for mode in ["mode=enforce", "mode=shadow"] {
        let replica = world.serve(&[mode, "token.denials_per_second=0"]).await;
        let mut asked = 0;
        for case in &cases {
            let mut whole = request(&bearer, case);
            let headers = &mut http_of(&mut whole).headers;
            headers.insert("x-request-id".to_owned(), "r-1".to_owned());
            let once = replica.raw(whole.clone()).await;
            let mut without = whole.clone();
            let http = http_of(&mut without);
            http.raw_body.clear();
            http.headers.remove("x-envoy-auth-partial-body");
            let first = replica.raw_in("first", without).await;
            let metadata = &first.dynamic_metadata.as_ref().unwrap().fields;
            if let Some(needed) = metadata.get("needs_body") {
                asked += 1;
                assert_eq!(needed.kind, Some(Kind::BoolValue(true)), "{}", case.name);
                assert_eq!(metadata.len(), 1, "{}: {metadata:?}", case.name);
                let Some(HttpResponse::OkResponse(ok)) = &first.http_response else { panic!() };
                assert!(ok.headers.is_empty() && ok.response_headers_to_add.is_empty());
                assert_eq!(ok.headers_to_remove.len(), 7, "{:?}", ok.headers_to_remove);
                assert!(!ok.headers_to_remove.contains(&"authorization".to_owned()));
                let second = replica.raw_in("second", whole).await;
                assert_eq!(second.http_response, once.http_response, "{mode} {}", case.name);
                assert_eq!(verdict(&second), verdict(&once), "{mode} {}", case.name);
            } else {
                assert_eq!(first.http_response, once.http_response, "{mode} {}", case.name);
                assert_eq!(verdict(&first), verdict(&once), "{mode} {}", case.name);
            }
        }
        println!("{mode}: asked for {asked} of {} bodies", cases.len());
        assert!(asked > 150, "{asked}");
        let page = replica.page().await;
        assert_eq!(page.value("patgate_bodies_asked_total"), f64::from(asked));
        assert_eq!(page.value("patgate_bodies_awaited"), 0.0);
    }
    // Any other value of the gateway's metadata is an error in its configuration: an outage, and no
    // allow.
    let replica = world.serve(&[]).await;
    for step in ["", "First", "third"] {
        let answer = replica.raw_in(step, request(&bearer, &cases[0])).await;
        let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!() };
        assert_eq!(denied.status.unwrap().code, 503, "{step}");
    }
}

/// Returns the metadata that do not change from one check to the next.
fn verdict(response: &CheckResponse) -> Vec<String> {
    let fields = &response.dynamic_metadata.as_ref().unwrap().fields;
    let names = ["outcome", "code", "enforced", "mode", "guard", "model", "pat_id", "operation"];
    names.map(|name| format!("{:?}", fields.get(name))).into()
}

/// If patgate reads a model from a body, every reader reads the same model or refuses the body; and
/// readers in Python and in Node both read it.
pub(crate) async fn no_reader_reads_another_model(_: Arc<Suite>) {
    let cases = cases();
    let python = readers(&project(".venv/bin/python"), "body_readers.py", &cases);
    let no_node = "no node on this machine: bodies were not given to its readers";
    let node = match Command::new("node").arg("--version").output() {
        Ok(_) => Some(readers("node", "body_readers.mjs", &cases)),
        Err(_) => {
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{no_node}");
            println!("skipped: {no_node}");
            None
        }
    };
    let mut agreed = 0;
    let mut differed = 0;
    for (index, case) in cases.iter().enumerate() {
        let mut seen = python[index].clone();
        seen.extend(node.as_ref().map(|node| node[index].clone()).unwrap_or_default());
        match case.expected {
            Ok(model) => {
                let needed = if case.kind() == "form" { "form_last" } else { "python" };
                let reads = |reader: &String| reader.ends_with(needed);
                assert!(seen.keys().any(reads), "{}: {needed} refuses it", case.name);
                let as_sent = seen.keys().any(|reader| reader == needed);
                assert_ne!(as_sent, case.is_compressed(), "{}: {needed}, as sent", case.name);
                // Node's own reader supports only quoted names, no escapes in them, and no NaN.
                let odd = ["odd ", "file: "].iter().any(|odd| case.name.starts_with(odd));
                let odd = odd || case.is_compressed();
                let reads = !case.name.ends_with("an unquoted name") && node.is_some();
                assert!(odd || seen.contains_key("node") == reads, "{}: node", case.name);
                assert!(seen.len() >= 5, "{}: only {:?} read it", case.name, seen.keys());
                for (reader, read) in seen {
                    assert_eq!(read, model, "{}: {reader}", case.name);
                    agreed += 1;
                }
            }
            // Some reader would have used a model that patgate may not permit.
            Err(_) => differed += usize::from(seen.values().any(Value::is_string)),
        }
    }
    println!("{agreed} readings agree; {differed} refused bodies are read by some");
    assert!(agreed > 150 && differed > 40, "{agreed} {differed}");
}

fn readers(program: &str, script: &str, cases: &[Case]) -> Vec<Map<String, Value>> {
    let bodies: Vec<_> = cases
        .iter()
        .map(|case| json!([case.kind(), case.headers, BASE64_STANDARD.encode(&case.body)]))
        .collect();
    let mut program = Command::new(program);
    program.arg(project(&format!("tests/clients/{script}")));
    answer_of(&mut program, &Value::from(bodies).to_string())
}

/// If nothing depends on the model, any body passes, and no model is named.
pub(crate) async fn where_no_model_matters_no_body_is_read(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    for entity_type in ["models", "domains"] {
        let operations = ["llm_chat_completions", "llm_transcription", "llm_create", "llm_read"];
        let scopes = operations.map(|operation| ("acme", entity_type, "*", operation));
        let bearer = world.token(&scopes).await.bearer();
        for case in cases() {
            assert_eq!(ask(&replica, &bearer, &case).await.as_deref(), Ok(""), "{}", case.name);
        }
    }
    // Without any scope for the operation, the answer says nothing about bodies.
    let other = world.token(&[("acme", "models", "m", "llm_delete")]).await.bearer();
    for case in cases() {
        let refused = ask(&replica, &other, &case).await.unwrap_err();
        assert!(refused.contains("does not permit `llm_"), "{}: {refused}", case.name);
    }
}

/// If patgate is configured to read every model, it treats a token for all models like one for
/// some: the model is known, or the call is refused.
pub(crate) async fn every_model_is_read_where_that_is_set(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&["model.read=always"]).await;
    let cases = cases();
    let mut wrong = Vec::new();
    for entity_type in ["models", "domains"] {
        let operations = ["llm_chat_completions", "llm_transcription", "llm_create", "llm_read"];
        let scopes = operations.map(|operation| ("acme", entity_type, "*", operation));
        let bearer = world.token(&scopes).await.bearer();
        for case in &cases {
            match ask(&replica, &bearer, case).await {
                // It is read, and the limited token is not for it.
                Ok(model) if case.expected == table::UNSCOPED => assert_ne!(model, ""),
                got => compare(&mut wrong, case, &got),
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// `Authorization`, a model, and the backend that the domain's list leads to.
type Listed = (String, &'static str, Option<&'static str>);

async fn listed(world: &World<'_>) -> Vec<Listed> {
    let picky = world.id("picky");
    world
        .sql(&format!(
            "INSERT INTO patgate.domain_models VALUES ('{picky}', 'qwen2.5-*', 'model-beta'),
                 ('{picky}', 'qwen2.5-7b', 'model-acme'), ('{picky}', 'any/*', 'model-acme')"
        ))
        .await;
    let chat = "llm_chat_completions";
    let every = world.token(&[("picky", "models", "*", chat)]).await.bearer();
    let some = world
        .token(&[("picky", "models", "other", chat), ("picky", "models", "unlisted", chat)])
        .await
        .bearer();
    // Not a pattern: it names a model of exactly this name.
    let literal = world.token(&[("picky", "models", "qwen2.5-*", chat)]).await.bearer();
    let every = || every.clone();
    let some = || some.clone();
    let literal = || literal.clone();
    vec![
        (every(), "org/listed", Some("model-beta")),
        (every(), "other", Some("model-acme")),
        (every(), "qwen2.5-7b", Some("model-acme")),
        (every(), "qwen2.5-72b", Some("model-beta")),
        (every(), "any/m", Some("model-acme")),
        (every(), "unlisted", None),
        (every(), "qwen2.5", None),
        (every(), "qwen2.5-7b/x", None),
        (every(), "any/m/x", None),
        (every(), "Other", None),
        // LiteLLM reads this as two models.
        (every(), "qwen2.5-72b,gpt-4o", None),
        (every(), "qwen2.5-72b, unlisted", None),
        (some(), "other", Some("model-acme")),
        // The scope permits it, but the list does not have it; and the reverse.
        (some(), "unlisted", None),
        (some(), "org/listed", None),
        (literal(), "qwen2.5-7b", None),
        (literal(), "qwen2.5-72b", None),
        (literal(), "qwen2.5-", None),
        (literal(), "qwen2.5-*", None),
    ]
}

/// A domain's list also decides whether a model is permitted, and which backend serves it.
pub(crate) async fn a_domains_list_of_models_decides(suite: Arc<Suite>) {
    let world = suite.world().await;
    let listed = listed(&world).await;
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let path = "/proxy/picky/v1/chat/completions";
    for (bearer, model, backend) in &listed {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = json!({ "messages": [], "model": model }).to_string();
        let headers = &headers[..];
        let body = body.as_bytes();
        let sent = Sent { method: "POST", target: path, headers, body, ..Sent::default() };
        for over in Over::ALL {
            let reply = over.send(envoy.port, sent).await;
            let status = if backend.is_some() { 200 } else { 403 };
            assert_eq!((reply.status, reply.header("x-backend")), (status, *backend), "{model}");
            if backend.is_some() {
                assert_eq!(reply.seen("x-auth-model"), [*model]);
            } else {
                let told = message(&reply.json());
                assert!(told.contains(&format!(" model `{model}` ")), "{told}");
                assert_eq!(reply.json()["error"]["param"], "model");
            }
        }
    }
    let every = listed[0].0.as_str();
    let headers = [("authorization", every), ("content-type", "application/json")];
    for over in Over::ALL {
        let reply = over.post(envoy.port, path, &headers, "{}").await;
        assert!(message(&reply.json()).contains("names no model"), "{}", reply.body);
        assert_eq!(reply.json()["error"]["param"], "model");
    }
}
