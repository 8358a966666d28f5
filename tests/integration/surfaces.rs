//! The shipped tables side by side: the requests in the documents of each API, each answered in the
//! API's own form; and tables that change while requests are answered.

mod documents;
mod entities;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, check_response::HttpResponse};
use patgate_testing::{
    eventually,
    http::{self, Over, Reply, Sent},
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Suite, World,
    cli::Cli,
    error_form::ErrorForm,
    explained::{self, Question},
    http_of, outcome, process, request,
    tables::{CLOUD, open, open_aigne, tables},
};

pub(crate) use self::entities::every_type_of_entity_has_rules_and_scopes;

const HUB: &str = "hub.example.com";
/// As in the document of the API.
const CHAT: &str = r#"{"model":"openai/gpt-3.5-turbo","messages":[{"role":"user","content":"Hello, AIGNE Hub!"}]}"#;

#[derive(Clone, Debug, PartialEq)]
enum ExpectedAnswer {
    /// The request passes with this operation, and the model if it is known.
    Passes(String),
    /// Status, form, and a part of the message.
    Refused(u16, ErrorForm, &'static str),
}

struct Case {
    host: &'static str,
    method: &'static str,
    path: String,
    authorization: Option<String>,
    /// JSON, with its content type.
    body: Option<&'static str>,
    expected: ExpectedAnswer,
}

fn case(
    host: &'static str,
    request: &'static str,
    authorization: impl Into<Option<String>>,
    expected: ExpectedAnswer,
) -> Case {
    let (method, path) = request.split_once(' ').unwrap();
    let path = path.to_owned();
    let authorization = authorization.into();
    Case { host, method, path, authorization, body: None, expected }
}

/// Every request of the table and of the documents, for tests that do not need its answer.
pub(crate) async fn requests(world: &World<'_>) -> Vec<CheckRequest> {
    documented(world).await.iter().map(Case::request).collect()
}

async fn cases(world: &World<'_>, aigne: &str) -> Vec<Case> {
    let scopes = [
        ("acme", "models", "*", "llm_read"),
        ("acme", "deployments", "*", "read"),
        ("acme", "deployments", "7", "update"),
        ("acme", "reports", "*", "create"),
        ("acme", "reports", "7", "update"),
        ("acme", "reports", "7", "delete"),
        ("acme", "scim", "*", "read"),
        ("acme", "scim", "*", "create"),
        ("acme", "scim", "2", "update"),
        ("acme", "scim", "2", "delete"),
        (aigne, "models", "*", "llm_chat_completions"),
    ];
    let token = world.token(&scopes).await;
    let good = token.bearer();
    let key = format!("Api-Key {}", token.text);
    let expired = world.token_for("ann", "-1 hour", &scopes).await;
    let revoked = world.token(&scopes).await;
    let id = revoked.id;
    world.sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{id}'")).await;
    let passes = |operation: &str| ExpectedAnswer::Passes(operation.to_owned());
    let good = || good.clone();

    let mut cases = vec![
        // Cube AI: for any host.
        case(CLOUD, "GET /proxy/acme/v1/models", good(), passes("llm_read")),
        case("gateway:8080", "GET /proxy/acme/v1/models", good(), passes("llm_read")),
        case(HUB, "POST /proxy/acme/v1/embeddings", good(), denied(403, ErrorForm::Openai)),
        // The root, as sent by clients that join their base URL and `/`, and by others.
        case(HUB, "GET /proxy/acme/", good(), passes("llm_read")),
        case(HUB, "GET /proxy/acme", good(), passes("llm_read")),
        // Two hosts, joined.
        case(
            "gateway,other",
            "GET /proxy/acme/v1/models",
            good(),
            ExpectedAnswer::Refused(400, ErrorForm::Openai, "more than one value"),
        ),
        case(HUB, "GET /proxy/acme/v1/models", key.clone(), other_scheme(ErrorForm::Openai)),
        // Cube Cloud.
        case(CLOUD, "GET /api/v1/deployments", good(), passes("read")),
        case("ACME.CubeCloud.Dev:443", "GET /api/v1/deployments", good(), passes("read")),
        case(CLOUD, "PATCH /api/v1/deployments/7", good(), passes("update")),
        case(CLOUD, "PATCH /api/v1/deployments/8", good(), denied(403, ErrorForm::Problem)),
        case(CLOUD, "DELETE /api/v1/deployments/7", good(), denied(403, ErrorForm::Problem)),
        case(CLOUD, "POST /api/v1/reports", good(), passes("create")),
        case(CLOUD, "PUT /api/v1/reports/7", good(), passes("update")),
        case(CLOUD, "DELETE /api/v1/reports/7", good(), passes("delete")),
        case(CLOUD, "DELETE /api/v1/reports/8", good(), denied(403, ErrorForm::Problem)),
        case(CLOUD, "GET /api/v1/workbooks", good(), denied(403, ErrorForm::Problem)),
        case(CLOUD, "GET /api/v1/nothing", good(), no_rule(ErrorForm::Problem)),
        case(CLOUD, "GET /api/v1/deployments/", good(), bad(ErrorForm::Problem)),
        // Its documents permit this scheme only for SCIM.
        case(CLOUD, "GET /api/v1/deployments", key.clone(), other_scheme(ErrorForm::Problem)),
        case(
            "beta.cubecloud.dev",
            "GET /api/v1/deployments",
            good(),
            denied(403, ErrorForm::Problem),
        ),
        // SCIM.
        case(CLOUD, "GET /api/scim/v2/Users?count=100&startIndex=1", good(), passes("read")),
        case(CLOUD, "GET /api/scim/v2/Users?count=100&startIndex=1", key.clone(), passes("read")),
        case(
            CLOUD,
            "GET /api/scim/v2/Users",
            key.to_lowercase().replace(&token.text.to_lowercase(), &token.text),
            passes("read"),
        ),
        case(CLOUD, "GET /api/scim/v2/Users", key.replace(' ', "  "), blank(ErrorForm::Scim)),
        case(
            CLOUD,
            "GET /api/scim/v2/Users",
            key.replace("Api-Key", "ApiKey"),
            other_scheme(ErrorForm::Scim),
        ),
        case(CLOUD, "POST /api/scim/v2/Groups", good(), passes("create")),
        case(CLOUD, "POST /api/scim/v2/Users/.search", good(), passes("read")),
        case(CLOUD, "PUT /api/scim/v2/Users/2", good(), passes("update")),
        case(CLOUD, "PATCH /api/scim/v2/Groups/2", good(), passes("update")),
        case(CLOUD, "DELETE /api/scim/v2/Users/2", key.clone(), passes("delete")),
        case(CLOUD, "DELETE /api/scim/v2/Users/1", good(), denied(403, ErrorForm::Scim)),
        case(CLOUD, "PUT /api/scim/v2/Users/1", good(), denied(403, ErrorForm::Scim)),
        case(CLOUD, "POST /api/scim/v2/Bulk", good(), no_rule(ErrorForm::Scim)),
        case(CLOUD, "GET /api/scim/v2/Users/a%2520b", good(), bad(ErrorForm::Scim)),
        case(
            CLOUD,
            "GET /api/scim/v2/Users",
            format!("{key},{key}"),
            ExpectedAnswer::Refused(400, ErrorForm::Scim, "more than one value"),
        ),
        // AIGNE Hub.
        case(HUB, "POST /api/v2/chat/completions", good(), passes("llm_chat_completions")),
        case(HUB, "POST /api/v2/embeddings", good(), denied(401, ErrorForm::Aigne)),
        case(HUB, "POST /api/v2/nothing", good(), no_rule(ErrorForm::Aigne)),
        case(HUB, "POST /api/v2/chat/completions;x", good(), bad(ErrorForm::Aigne)),
        case(HUB, "POST /api/v2/chat/completions", key.clone(), other_scheme(ErrorForm::Aigne)),
        // The other APIs that Cube AI serves have their own forms of errors.
        case(HUB, "POST /proxy/acme/api/nothing", good(), no_rule(ErrorForm::Ollama)),
        case(HUB, "GET /proxy/acme/api/tags;x", good(), bad(ErrorForm::Ollama)),
        case(HUB, "POST /proxy/beta/api/chat", good(), denied(403, ErrorForm::Ollama)),
        case(HUB, "POST /proxy/beta/v1/messages", good(), denied(403, ErrorForm::Anthropic)),
        case(HUB, "POST /proxy/acme/v1/messages/x", good(), no_rule(ErrorForm::Anthropic)),
        case(HUB, "POST /proxy/acme/v1/messages/", good(), bad(ErrorForm::Anthropic)),
        // The same holds for paths without the mount, which belong to no API.
        case(HUB, "POST /v1/messages", good(), no_rule(ErrorForm::Anthropic)),
        case(HUB, "GET /api/tags", good(), no_rule(ErrorForm::Ollama)),
        // Hosts that differ slightly from the configured ones.
        case("cubecloud.dev", "GET /api/v1/deployments", good(), no_rule(ErrorForm::Ollama)),
        case("a.acme.cubecloud.dev", "GET /api/v1/deployments", good(), no_rule(ErrorForm::Ollama)),
        case("acme.cubecloud.dev.", "GET /api/v1/deployments", good(), no_rule(ErrorForm::Ollama)),
        case(
            "acme.cubecloud.dev.evil.example",
            "GET /api/v1/deployments",
            good(),
            no_rule(ErrorForm::Ollama),
        ),
        case(HUB, "GET /nowhere", good(), no_rule(ErrorForm::Openai)),
    ];
    for (host, request, form) in SURFACES {
        let refused = |part| ExpectedAnswer::Refused(401, form, part);
        cases.extend([
            case(host, request, None, refused("No access token was sent")),
            case(host, request, "Bearer nonsense".to_owned(), invalid(form)),
            case(host, request, expired.bearer(), refused("expired")),
            case(host, request, revoked.bearer(), refused("revoked")),
        ]);
    }
    cases
}

/// One request to each, for behaviour that all share.
const SURFACES: [(&str, &str, ErrorForm); 6] = [
    ("gateway", "GET /proxy/acme/v1/models", ErrorForm::Openai),
    ("gateway", "POST /proxy/acme/api/chat", ErrorForm::Ollama),
    ("gateway", "POST /proxy/acme/v1/messages", ErrorForm::Anthropic),
    (CLOUD, "GET /api/v1/deployments", ErrorForm::Problem),
    (CLOUD, "GET /api/scim/v2/Users", ErrorForm::Scim),
    (HUB, "POST /api/v2/chat/completions", ErrorForm::Aigne),
];

fn denied(status: u16, form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(status, form, "does not permit `")
}

fn no_rule(form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(404, form, "is not served here")
}

fn invalid(form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(401, form, "is not valid")
}

fn other_scheme(form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(401, form, "scheme")
}

fn blank(form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(401, form, "blank")
}

fn bad(form: ErrorForm) -> ExpectedAnswer {
    ExpectedAnswer::Refused(400, form, "not in canonical form")
}

/// Returns the message of a refusal, and checks every part of its form.
fn message(
    form: ErrorForm,
    status: u16,
    header: impl Fn(&str) -> Option<String>,
    body: &Value,
) -> String {
    let phrase = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    let challenge = header("www-authenticate");
    if status == 401 {
        let challenge = challenge.unwrap();
        assert!(challenge.starts_with(r#"Bearer realm="patgate""#), "{challenge}");
        let key = challenge.ends_with(r#", Api-Key realm="patgate""#);
        assert_eq!(key, form == ErrorForm::Scim, "{challenge}");
    }
    assert_eq!(header("retry-after").is_some(), status == 503);
    let (media_type, text, whole) = match form {
        ErrorForm::Openai => ("application/json", &body["error"]["message"], None),
        ErrorForm::Ollama => {
            let text = &body["error"];
            ("application/json", text, Some(json!({ "error": text })))
        }
        ErrorForm::Anthropic => {
            let id = header("x-request-id");
            assert!(id.is_some() && header("request-id") == id, "{body}");
            let kind = match status {
                400 => "invalid_request_error",
                401 => "authentication_error",
                403 => "permission_error",
                404 => "not_found_error",
                _ => "api_error",
            };
            let text = &body["error"]["message"];
            let error = json!({ "type": kind, "message": text });
            let whole = json!({ "type": "error", "error": error, "request_id": id });
            ("application/json", text, Some(whole))
        }
        ErrorForm::Aigne => {
            let text = &body["message"];
            ("application/json", text, Some(json!({ "error": phrase, "message": text })))
        }
        ErrorForm::Scim => {
            let text = &body["detail"];
            let schema = "urn:ietf:params:scim:api:messages:2.0:Error";
            let whole =
                json!({ "schemas": [schema], "status": status.to_string(), "detail": text });
            ("application/scim+json", text, Some(whole))
        }
        ErrorForm::Problem => {
            let text = &body["detail"];
            let code = &body["code"];
            let whole = json!({ "type": "about:blank", "title": phrase, "status": status, "detail": text, "code": code });
            ("application/problem+json", text, Some(whole))
        }
    };
    assert_eq!(header("content-type").as_deref(), Some(media_type), "{body}");
    assert!(whole.is_none_or(|whole| whole == *body), "{body}");
    text.as_str().unwrap_or_else(|| panic!("no message in {body}")).to_owned()
}

fn passed(operation: &str, model: &str) -> String {
    format!("{operation} {model}").trim_end().to_owned()
}

impl Case {
    fn headers(&self) -> Vec<(&str, &str)> {
        let authorization = self.authorization.iter().map(|value| ("authorization", &**value));
        authorization.chain(self.body.map(|_| ("content-type", "application/json"))).collect()
    }

    /// Panics unless the answer is the expected one in every part.
    fn judge(
        &self,
        status: u16,
        passed: Option<String>,
        header: impl Fn(&str) -> Option<String>,
        body: &Value,
    ) {
        let name = format!("{} {} {} {:?}", self.host, self.method, self.path, self.expected);
        match (&self.expected, passed) {
            (ExpectedAnswer::Passes(operation), Some(passed)) => {
                assert_eq!(passed, *operation, "{name}")
            }
            (ExpectedAnswer::Refused(expected, form, part), None) => {
                assert_eq!(status, *expected, "{name}: {body}");
                let message = message(*form, status, header, body);
                assert!(message.contains(part), "{name}: {message}");
            }
            (_, passed) => panic!("{name}: {status} {passed:?} {body}"),
        }
    }

    /// Asks like an Envoy that is configured to show bodies.
    fn request(&self) -> CheckRequest {
        let mut headers = self.headers();
        let body = self.body.unwrap_or_default();
        let length = body.len().to_string();
        if !body.is_empty() {
            headers.extend([("content-length", &*length), ("x-envoy-auth-partial-body", "false")]);
        }
        let mut request = request(self.method, &self.path, &headers);
        let http = http_of(&mut request);
        (http.host, http.raw_body) = (self.host.to_owned(), body.into());
        request
    }

    async fn over_grpc(&self, replica: &Replica) {
        let answer = replica.raw(self.request()).await;
        let find = |options: &[envoy_types::pb::envoy::config::core::v3::HeaderValueOption],
                    name: &str| {
            let headers = options.iter().filter_map(|option| option.header.clone());
            headers.filter(|header| header.key == name).map(|header| header.value).next()
        };
        match answer.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => {
                let find = |name| find(&ok.headers, name).unwrap_or_default();
                let passed = passed(&find("x-auth-operation"), &find("x-auth-model"));
                self.judge(200, Some(passed), |_| None, &Value::Null);
            }
            HttpResponse::DeniedResponse(denied) => {
                assert_ne!(answer.status.unwrap().code, 0);
                let status = u16::try_from(denied.status.as_ref().unwrap().code).unwrap();
                let body = serde_json::from_str(&denied.body).unwrap();
                self.judge(status, None, |name| find(&denied.headers, name), &body);
            }
            HttpResponse::ErrorResponse(_) => panic!("an error response"),
        }
    }

    async fn through_envoy(&self, port: u16) {
        let body = self.body.unwrap_or(if self.method == "GET" { "" } else { CHAT });
        let headers = [&self.headers()[..], &[("host", self.host)]].concat();
        let method = self.method;
        let target = &*self.path;
        let headers = &headers[..];
        let sent = Sent { method, target, headers, body: body.as_bytes(), ..Sent::default() };
        for over in Over::that_carry(sent) {
            self.compare(&over.send(port, sent).await);
        }
    }

    fn compare(&self, reply: &Reply) {
        let seen = |name| reply.seen(name).concat();
        let passed = reply
            .header("x-backend")
            .map(|_| passed(&seen("x-auth-operation"), &seen("x-auth-model")));
        if passed.is_some() {
            // Only a path behind the gateway's own prefix loses the prefix.
            let path = match self.path.strip_prefix("/proxy/") {
                None => self.path.clone(),
                Some(below) => {
                    format!("/{}", below.split_once('/').map_or("", |(_, path)| path))
                }
            };
            assert_eq!((reply.status, &reply.json()["seen"]["path"]), (200, &json!(path)));
            assert_eq!(reply.seen("authorization").len(), 0);
        }
        let header = |name: &str| reply.header(name).map(str::to_owned);
        self.judge(reply.status, passed, header, &reply.json());
    }
}

/// Cases with unused tokens, which cannot be looked up now.
async fn outage(world: &World<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (host, request, form) in SURFACES {
        let cold = world.token(&[]).await.bearer();
        let refused = ExpectedAnswer::Refused(503, form, "temporarily unavailable");
        cases.push(case(host, request, cold, refused));
    }
    world.sql("ALTER TABLE patgate.pats RENAME TO lost").await;
    cases
}

/// All cases from the documents of the APIs.
async fn documented(world: &World<'_>) -> Vec<Case> {
    let aigne = open_aigne(world).await;
    let mut cases = cases(world, &aigne).await;
    let platform = open(world, "platform").await;
    cases.extend(documents::cases(world, &aigne, &platform).await);
    cases
}

pub(crate) async fn side_by_side_over_grpc(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cases = documented(&world).await;
    let replica = world.serve(&[&tables(&suite)]).await;
    for case in &cases {
        case.over_grpc(&replica).await;
    }
    for case in &outage(&world).await {
        case.over_grpc(&replica).await;
    }
}

pub(crate) async fn side_by_side_through_envoy(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cases = documented(&world).await;
    let replica = world.serve(&[&tables(&suite)]).await;
    let envoy = replica.envoy(&suite);
    for case in &cases {
        case.through_envoy(envoy.port).await;
    }
    // The host that counts is the one by which Envoy routes.
    let wandering = world.token(&[]).await.bearer();
    let headers = [("authorization", wandering.as_str())];
    let target = format!("http://{CLOUD}/api/scim/v2/Users");
    let reply = http::send_to(HUB, envoy.port, "GET", &target, &headers, "").await;
    assert_eq!(reply.header("content-type"), Some("application/scim+json"), "{reply:?}");
    for case in &outage(&world).await {
        case.through_envoy(envoy.port).await;
    }
}

/// A table with a rule for reading models under a mount of this name.
fn table(name: &str) -> String {
    format!(
        "name: {name}\nmount: /{name}/{{domain}}\nerrors: openai\nrules:\n\
         - {{ methods: [GET], path: /models, operation: llm_read, entity: models }}\n"
    )
}

pub(crate) async fn changed_tables_are_taken_up_and_no_request_is_lost(suite: Arc<Suite>) {
    let world = suite.world().await;
    let bearer = world.token(&[("acme", "models", "*", "llm_read")]).await.bearer();
    let dir = suite.dir.path().join(format!("{}.apis", world.database));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("one.yaml"), table("one")).unwrap();
    let replica = world.serve(&[&format!("apis={}", dir.display())]).await;
    let ask = async |path: &str| {
        outcome(&replica.check("GET", path, &[("authorization", &bearer)]).await).0
    };
    let reloads = async |result: &str| {
        replica.metric(&format!("patgate_api_reloads_total{{result=\"{result}\"}}")).await
    };
    assert_eq!((ask("/one/acme/models").await, ask("/two/acme/models").await), (200, 404));

    let done = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let requests = async {
        while !done.load(Relaxed) {
            assert_eq!(ask("/one/acme/models").await, 200);
            asked.fetch_add(1, Relaxed);
        }
    };
    let changes = async {
        // Refused while it has an error, and reported once.
        fs::write(dir.join("two.yaml"), table("two").replace("GET", "GTE")).unwrap();
        eventually("the error to be counted", async || reloads("refused").await == 1).await;
        // Three more reads.
        let before = asked.load(Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(asked.load(Relaxed) > before, "nothing was asked meanwhile");
        assert_eq!((reloads("refused").await, ask("/two/acme/models").await), (1, 404));
        fs::write(dir.join("two.yaml"), table("two")).unwrap();
        eventually("the table to be used", async || ask("/two/acme/models").await == 200).await;
        // A contradiction between files, and a missing file.
        fs::write(dir.join("three.yaml"), table("one")).unwrap();
        eventually("the second error", async || reloads("refused").await == 2).await;
        fs::remove_file(dir.join("three.yaml")).unwrap();
        eventually("the tables without it", async || reloads("ok").await == 2).await;
        fs::remove_file(dir.join("two.yaml")).unwrap();
        eventually("the table to be gone", async || ask("/two/acme/models").await == 404).await;
        // A file that other users could have written is not used.
        let one = dir.join("one.yaml");
        fs::write(&one, table("two")).unwrap();
        fs::set_permissions(&one, fs::Permissions::from_mode(0o646)).unwrap();
        eventually("the file to be refused", async || reloads("refused").await == 3).await;
        assert_eq!(ask("/two/acme/models").await, 404);
        done.store(true, Relaxed);
    };
    futures_util::future::join(requests, changes).await;
    // A reload is counted a moment after it takes effect.
    eventually("the last one to be counted", async || reloads("ok").await >= 3).await;
    assert_eq!((reloads("ok").await, reloads("refused").await), (3, 3));
}

pub(crate) async fn a_hangup_reads_the_tables_again(suite: Arc<Suite>) {
    let world = suite.world().await;
    let file = suite.dir.path().join(format!("{}.api.yaml", world.database));
    fs::write(&file, table("one")).unwrap();
    let setting = format!("apis={}", file.display());
    let process = process::serve(&world, &[&setting]).await.server;
    let log = || fs::read_to_string(&process.log).unwrap_or_default();
    // Nothing has changed: without the signal, nothing would be reloaded.
    suite.stack.signal(&process, "HUP");
    eventually("the tables to be read", async || log().contains("API tables reloaded")).await;
    fs::write(&file, "name: one\n").unwrap();
    suite.stack.signal(&process, "HUP");
    eventually("the mistake to be told", async || log().contains(":1: `rules` is missing")).await;
    suite.stack.signal(&process, "TERM");
    assert_eq!(suite.stack.exit_code(&process).await, 0);
}

pub(crate) async fn mistakes_in_tables_are_told_before_serving(suite: Arc<Suite>) {
    let world = suite.world().await;
    let file = suite.dir.path().join(format!("{}.bad.yaml", world.database));
    fs::write(&file, table("one").replace("models }", "scim }")).unwrap();
    let path = file.display().to_string();
    let cli = Cli::of(&world);
    let mistake = "5: rule `GET /models`: `llm_read` is not an operation of `scim`";
    cli.refused(&format!("api check {path}"), 2, mistake);
    let bad = cli.with("apis", &path);
    bad.refused("config check", 2, mistake);
    bad.refused("serve", 2, mistake);
    let listed = cli.ok(&format!("api check {}", suite.shipped_tables));
    assert!(listed.contains("aigne-hub") && listed.contains("scim"), "{listed}");
    let schema: Value = serde_json::from_str(&cli.ok("api schema")).unwrap();
    assert_eq!(schema["title"], "An API that patgate protects");
}

/// The command also uses the host, table, schemes and form of each.
pub(crate) async fn each_is_explained_as_it_answers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cases = documented(&world).await;
    let replica = world.serve(&[&tables(&suite)]).await;
    let shadow = world.serve(&[&tables(&suite), "mode=shadow"]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut questions = Vec::new();
    let mut bodies = 0;
    for case in &cases {
        let request = [case.host, case.method, &case.path];
        let live = replica.raw(case.request()).await;
        let softened = shadow.raw(case.request()).await;
        let file = case.body.map(|body| {
            bodies += 1;
            let file = folder.path().join(bodies.to_string());
            fs::write(&file, body).unwrap();
            file
        });
        let question = || {
            let authorization = case.authorization.as_deref();
            let question = Question::new(&request.join(" "), request, authorization, &live);
            match &file {
                Some(file) => question.body(file),
                None => question,
            }
        };
        questions.push(question().of(&replica));
        questions.push(question().of_another(&shadow, &softened));
    }
    assert!(cases.len() >= 65 && bodies >= 5, "the table has shrunk: {} {bodies}", cases.len());
    explained::ask(&Cli::of(&world).with("apis", &suite.shipped_tables), &questions);
}
