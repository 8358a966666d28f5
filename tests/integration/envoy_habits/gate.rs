//! One Envoy with the shipped listener and variations of it, one authorization server that answers
//! each request as its test says, and the model backends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use envoy_types::pb::{
    envoy::service::auth::v3::{
        CheckRequest, CheckResponse,
        attribute_context::HttpRequest,
        authorization_server::{Authorization, AuthorizationServer},
    },
    google::protobuf::{Struct, Value as Datum, value::Kind},
};
use patgate_testing::{
    http::{self, Over, Reply, Sent},
    shipped::{
        EXT_AUTHZ, GUARD, authorizers, configuration as file, ext_authz, find, manager, shipped,
    },
    stack::Server,
    wire::PATIENCE,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{
        OnceCell,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};
use tonic::{
    Code, Request, Response, Status, async_trait,
    transport::{Server as Grpc, server::TcpIncoming},
};

use super::answers::allow;
use crate::support::Suite;

/// As shipped, except that it has no guard before the router, that it also shows which test a
/// request belongs to, and that a check may take long: on a busy test machine, a late answer must
/// not cause a 503. The same holds for all that follow, unless they say otherwise.
pub(super) const SHIPPED: &str = "gateway";
/// The same for the configuration that asks once, with the body.
pub(super) const SINGLE_STEP: &str = "single-step";
/// As shipped, except that all headers are shown. So do all that follow.
pub(super) const CANDID: &str = "candid";
/// The same without the last route, which matches everything.
pub(super) const WITHOUT_LAST_ROUTE: &str = "without-last-route";
/// Envoy does not remove the client's copies of patgate's headers first, so that a request with
/// [`TO_ACME`] is on its way to a backend before the authorization server answers. All that follow
/// are this one with one change.
pub(super) const CREDULOUS: &str = "credulous";
/// The route is not chosen again after the answer.
pub(super) const STUCK: &str = "stuck";
/// Dynamic metadata chooses the backend: beta if `backend` names it, else acme.
pub(super) const BY_METADATA: &str = "by-metadata";
/// A failure is an allow.
pub(super) const OPEN: &str = "open";
/// Like the single step, except that the route and not the filter says that bodies are shown as
/// bytes.
pub(super) const TEXT_BODIES: &str = "text-bodies";
/// A try may take no longer than the longest pause, but there is time for all retries.
pub(super) const PATIENT: &str = "patient";
/// A check may take no longer than as shipped.
pub(super) const HURRIED: &str = "hurried";
/// The same, and a failure is an allow.
pub(super) const HURRIED_AND_OPEN: &str = "hurried-and-open";
/// As many checks at a time as Envoy sends by default. Requests may wait for long.
pub(super) const UNSAID: &str = "unsaid";
/// As many checks as shipped, and the same patience.
pub(super) const ROOMY: &str = "roomy";
/// No authorization server listens.
pub(super) const ALONE: &str = "alone";
/// No authorization server listens, and a failure is an allow.
pub(super) const ALONE_AND_OPEN: &str = "alone-and-open";

pub(super) const MODELS: &str = "/proxy/acme/v1/models";
pub(super) const TO_ACME: (&str, &str) = ("x-upstream-cluster", "model-acme");
pub(super) const TO_BETA: (&str, &str) = ("x-upstream-cluster", "model-beta");

/// Longer than any step takes on a busy machine.
const LONG: &str = "10s";

/// The header by which the authorization server knows the test of a request.
const CASE: &str = "x-case";

#[expect(clippy::large_enum_variant, reason = "one exists for each case, and most are this one")]
pub(super) enum GateAnswer {
    Says(CheckResponse),
    /// In two steps, the first answer asks for the body, and the second one is this.
    NeedsBody(Box<GateAnswer>),
    Fails(Code),
    Silence,
}

type Cases = Arc<Mutex<HashMap<String, (GateAnswer, UnboundedSender<HttpRequest>)>>>;

pub(super) struct Gate {
    cases: Cases,
    count: AtomicU32,
    pub(super) envoy: Server,
    /// The listener behind the cluster `model-stream`: the test that accepts a connection is the
    /// backend.
    pub(super) stream: TcpListener,
}

/// One gate for all tests: starting an Envoy takes longer than running any of them.
static GATE: OnceCell<Gate> = OnceCell::const_new();

pub(super) async fn gate(suite: &Suite) -> &'static Gate {
    GATE.get_or_init(|| Gate::build(suite)).await
}

impl Gate {
    async fn build(suite: &Suite) -> Self {
        let cases = Cases::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authz = listener.local_addr().unwrap().to_string();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = AuthorizationServer::new(Script(Arc::clone(&cases)));
        let service = service.max_decoding_message_size(64 << 20);
        // As many as patgate accepts on a connection.
        let server = Grpc::builder().max_concurrent_streams(10_000).add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));

        let stream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clusters = json!({
            "patgate": authz,
            "patgate-unsaid": authz,
            "nobody": format!("unix:{}", suite.dir.path().join("nobody.sock").display()),
            "model-stream": stream.local_addr().unwrap().to_string(),
        });
        for (name, backend) in suite.backends.iter() {
            clusters[name] = json!(format!("127.0.0.1:{}", backend.port));
        }
        let start = json!({
            "config_yaml": configuration().to_string(),
            "patch": { "clusters": clusters, "tls": http::certify(suite.dir.path()) },
        });
        let envoy = suite.stack.start("envoy", start);
        Self { cases, count: AtomicU32::new(0), envoy, stream }
    }

    pub(super) fn port(&self, listener: &str) -> u16 {
        self.envoy.ports[listener]
    }

    /// Makes a case: requests that all get the same answer.
    pub(super) fn case(&self, answer: GateAnswer) -> Case<'_> {
        let key = self.count.fetch_add(1, Relaxed).to_string();
        let (report, checks) = unbounded_channel();
        self.cases.lock().unwrap().insert(key.clone(), (answer, report));
        Case { gate: self, key, checks }
    }

    /// Sends a request that would reach a backend if it were allowed, and returns the reply.
    pub(super) async fn ask(&self, listener: &str, answer: GateAnswer) -> Reply {
        self.case(answer).get(listener, MODELS, &[TO_ACME]).await
    }
}

pub(super) struct Case<'g> {
    gate: &'g Gate,
    key: String,
    checks: UnboundedReceiver<HttpRequest>,
}

impl Case<'_> {
    pub(super) async fn get(&self, on: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(on, "GET", target, headers).await
    }

    pub(super) async fn send(
        &self,
        listener: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        self.send_body(listener, method, target, headers, b"").await
    }

    pub(super) async fn send_body(
        &self,
        listener: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let headers = [headers, &[(CASE, &self.key)]].concat();
        http::send(self.gate.port(listener), method, target, &headers, body).await
    }

    /// Sends a request of this case in any way to Envoy.
    pub(super) async fn try_over(
        &self,
        over: Over,
        listener: &str,
        sent: Sent<'_>,
    ) -> Result<Reply, h2::Error> {
        let headers = [sent.headers, &[(CASE, &self.key)]].concat();
        over.try_send(self.gate.port(listener), Sent { headers: &headers, ..sent }).await
    }

    pub(super) async fn over(&self, over: Over, listener: &str, sent: Sent<'_>) -> Reply {
        let reply = self.try_over(over, listener, sent).await;
        reply.unwrap_or_else(|error| panic!("{over:?} {}: {error}", sent.target))
    }

    /// The header that assigns a handwritten request to this case.
    pub(super) fn header(&self) -> String {
        format!("{CASE}: {}\r\n", self.key)
    }

    /// Returns the checks so far. When Envoy has answered, all checks that led to the answer are
    /// among them.
    pub(super) fn checks(&mut self) -> Vec<HttpRequest> {
        std::iter::from_fn(|| self.checks.try_recv().ok()).collect()
    }

    pub(super) async fn next_check(&mut self) -> HttpRequest {
        timeout(PATIENCE, self.checks.recv()).await.expect("a check").unwrap()
    }
}

struct Script(Cases);

#[async_trait]
impl Authorization for Script {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let first = request.metadata().get("patgate-step").is_some_and(|step| step == "first");
        let attributes = request.into_inner().attributes.unwrap();
        let http = attributes.request.unwrap().http.unwrap();
        let key = http.headers.get(CASE).cloned().unwrap_or_default();
        {
            let cases = self.0.lock().unwrap();
            let (answer, report) = cases.get(&key).ok_or_else(|| Status::not_found(key))?;
            // A test that has ended no longer reads them.
            let _ = report.send(http);
            let answer = match answer {
                GateAnswer::NeedsBody(_) if first => return Ok(Response::new(needs_body())),
                GateAnswer::NeedsBody(second) => second,
                other => other,
            };
            match answer {
                GateAnswer::Says(response) => return Ok(Response::new(response.clone())),
                GateAnswer::Fails(code) => return Err(Status::new(*code, "as the test says")),
                GateAnswer::Silence => {}
                GateAnswer::NeedsBody(_) => return Err(Status::internal("asked for again")),
            }
        }
        std::future::pending().await
    }
}

/// Returns the settings with which the shipped listener asks patgate.
pub(super) fn authz_service(config: &mut Value) -> &mut Value {
    ext_authz(manager(&mut config["static_resources"]["listeners"][0]))
}

/// The answer of patgate to a request whose model it must read.
fn needs_body() -> CheckResponse {
    let needed = Datum { kind: Some(Kind::BoolValue(true)) };
    let fields = [("needs_body".to_owned(), needed)].into();
    CheckResponse { dynamic_metadata: Some(Struct { fields }), ..allow(&[], &[]) }
}

fn configuration() -> Value {
    let mut config = shipped();
    let resources = &mut config["static_resources"];
    let patgate = find(&mut resources["clusters"], "patgate");
    patgate["connect_timeout"] = json!(LONG);
    let mut nobody = patgate.clone();
    nobody["name"] = json!("nobody");
    let mut unsaid = patgate.clone();
    unsaid["name"] = json!("patgate-unsaid");
    unsaid.as_object_mut().unwrap().remove("circuit_breakers").unwrap();
    resources["clusters"].as_array_mut().unwrap().extend([nobody, unsaid]);

    let listeners = resources["listeners"].as_array_mut().unwrap();
    let shipped = ext_authz(manager(&mut listeners[0]))["grpc_service"].clone();
    let mut single = file("single-step.yaml")["static_resources"]["listeners"][0].take();
    single["name"] = json!(SINGLE_STEP);
    for listener in [&mut listeners[0], &mut single] {
        let manager = manager(listener);
        limit(manager, LONG, LONG);
        let filters = manager["http_filters"].as_array_mut().unwrap();
        // The guard would hide what is tested here. guard.rs tests it.
        filters.retain(|filter| filter["name"] != GUARD);
    }
    let mut candid = listeners[0].clone();
    for listener in [&mut listeners[0], &mut single] {
        for filter in authorizers(manager(listener)) {
            let shown = &mut filter["typed_config"]["allowed_headers"]["patterns"];
            shown.as_array_mut().unwrap().push(json!({ "exact": CASE }));
        }
    }
    let settings = ext_authz(manager(&mut candid)).as_object_mut().unwrap();
    settings.remove("allowed_headers").unwrap();
    let mut vary = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut listener = candid.clone();
        listener["name"] = json!(name);
        change(manager(&mut listener));
        listeners.push(listener);
    };
    let credulous = |manager: &mut Value| {
        let settings = manager.as_object_mut().unwrap();
        settings.remove("early_header_mutation_extensions").unwrap();
    };
    let open = |manager: &mut Value| ext_authz(manager)["failure_mode_allow"] = json!(true);
    let ask = |manager: &mut Value, cluster: &str| {
        ext_authz(manager)["grpc_service"]["envoy_grpc"]["cluster_name"] = json!(cluster);
    };
    let alone = |manager: &mut Value| ask(manager, "nobody");
    vary(CANDID, &|_| {});
    vary(CREDULOUS, &credulous);
    vary(STUCK, &|manager| {
        credulous(manager);
        ext_authz(manager)["clear_route_cache"] = json!(false);
    });
    vary(BY_METADATA, &|manager| {
        credulous(manager);
        let beta = json!({
            "filter": EXT_AUTHZ,
            "path": [{ "key": "backend" }],
            "value": { "string_match": { "exact": "beta" } },
        });
        manager["route_config"]["virtual_hosts"][0]["routes"] = json!([
            {
                "match": { "prefix": "/", "dynamic_metadata": [beta] },
                "route": { "cluster": "model-beta" },
            },
            { "match": { "prefix": "/" }, "route": { "cluster": "model-acme" } },
        ]);
    });
    let hurried = |manager: &mut Value| ext_authz(manager)["grpc_service"] = shipped.clone();
    vary(PATIENT, &|manager| {
        credulous(manager);
        limit(manager, "3s", "15s");
    });
    vary(HURRIED, &|manager| {
        credulous(manager);
        hurried(manager);
    });
    vary(HURRIED_AND_OPEN, &|manager| {
        credulous(manager);
        hurried(manager);
        open(manager);
    });
    vary(OPEN, &|manager| {
        credulous(manager);
        open(manager);
    });
    vary(ROOMY, &|manager| limit(manager, "60s", "60s"));
    vary(UNSAID, &|manager| {
        limit(manager, "60s", "60s");
        ask(manager, "patgate-unsaid");
    });
    vary(ALONE, &|manager| {
        credulous(manager);
        alone(manager);
    });
    vary(ALONE_AND_OPEN, &|manager| {
        credulous(manager);
        open(manager);
        alone(manager);
    });
    vary(WITHOUT_LAST_ROUTE, &|manager| {
        let host = &mut manager["route_config"]["virtual_hosts"][0];
        host["routes"].as_array_mut().unwrap().pop().unwrap();
    });
    let mut text_bodies = single.clone();
    text_bodies["name"] = json!(TEXT_BODIES);
    let manager = manager(&mut text_bodies);
    let filter = &mut ext_authz(manager)["with_request_body"];
    let packed = filter.as_object_mut().unwrap().remove("pack_as_bytes").unwrap();
    let host = &mut manager["route_config"]["virtual_hosts"][0];
    let route = find(&mut host["routes"], "model-in-body");
    let settings = &mut route["typed_per_filter_config"][EXT_AUTHZ]["check_settings"];
    settings["with_request_body"]["pack_as_bytes"] = packed;
    listeners.extend([single, text_bodies]);
    config
}

/// Limits the time of one try, and that of all together.
fn limit(manager: &mut Value, one: &str, all: &str) {
    let service = &mut ext_authz(manager)["grpc_service"];
    service["retry_policy"]["retry_back_off"]["max_interval"] = json!(one);
    service["timeout"] = json!(all);
}
