//! Whose word the guard accepts, and what happens to answers that are not the guard's. The
//! authorization service here is not patgate; it answers as each test says.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption},
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            authorization_server::{Authorization, AuthorizationServer},
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{Struct, Value as Datum, value::Kind},
        rpc::Status as RpcStatus,
    },
};
use patgate_testing::shipped::{GUARD, configuration, find, manager};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status, async_trait,
    transport::{Server as Grpc, server::TcpIncoming},
};

use super::{Gateway, MODELS, fix_the_routes};
use crate::support::{
    Suite,
    envoy::{envoy_patch, patient},
};

/// Answers what the client asks for in `authorization`, which Envoy shows to it.
struct ForeignAuthorizer;

#[async_trait]
impl Authorization for ForeignAuthorizer {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap();
        let asked = attributes.request.unwrap().http.unwrap().headers;
        let asked: Value = serde_json::from_str(&asked["authorization"]).unwrap();
        let response = match asked["deny"].as_i64() {
            Some(status) => deny(i32::try_from(status).unwrap()),
            None => allow(&asked["metadata"]),
        };
        Ok(Response::new(response))
    }
}

fn allow(metadata: &Value) -> CheckResponse {
    let datum = |value: &Value| match value {
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
        Value::String(value) => Kind::StringValue(value.clone()),
        other => panic!("{other}"),
    };
    let fields = metadata.as_object().unwrap().iter();
    let fields = fields.map(|(name, value)| (name.clone(), Datum { kind: Some(datum(value)) }));
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
        dynamic_metadata: Some(Struct { fields: fields.collect() }),
    }
}

/// A denial with a body, a media type and a header that no other component would send.
fn deny(status: i32) -> CheckResponse {
    let header = |key: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..Default::default()
        }),
        append_action: 2,
        ..Default::default()
    };
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: status }),
        headers: vec![header("content-type", "text/x-own"), header("retry-after", "77")],
        body: format!("own words of {status}"),
    };
    CheckResponse {
        status: Some(RpcStatus { code: Code::PermissionDenied as i32, ..Default::default() }),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
        ..Default::default()
    }
}

/// Starts an authorization service that answers as the client asks, and returns its address.
pub(super) async fn foreign() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = AuthorizationServer::new(ForeignAuthorizer);
    tokio::spawn(Grpc::builder().add_service(service).serve_with_incoming(incoming));
    address
}

async fn gateway(suite: &Suite, name: &str, change: impl Fn(&mut Value)) -> Gateway {
    let mut config = configuration(name);
    let mut listener = config["static_resources"]["listeners"][0].clone();
    fix_the_routes(manager(&mut listener));
    change(manager(&mut listener));
    let patch = envoy_patch(suite, &[foreign().await], patient("10s", "10s"));
    Gateway::start(suite, config.take(), BTreeMap::from([("fixed".to_owned(), listener)]), patch)
}

async fn is_let_through(gateway: &Gateway, metadata: Value) -> bool {
    let asked = json!({ "metadata": metadata }).to_string();
    let reply = gateway.get("fixed", &[("authorization", asked.as_str())]).await;
    match reply.header("x-backend") {
        Some(_) => assert_eq!(reply.status, 200, "{reply:?}"),
        // Also if there is an outcome, as there is if patgate's word is another one.
        None => super::refused_as_an_outage(&reply, &asked),
    }
    reply.status == 200
}

pub(crate) async fn the_guard_takes_no_other_services_word(suite: Arc<Suite>) {
    let shipped = gateway(&suite, "envoy.yaml", |_| {}).await;
    assert!(is_let_through(&shipped, json!({ "guard": "patgate" })).await);
    for metadata in [
        json!({}),
        json!({ "guard": true }),
        json!({ "guard": "true" }),
        json!({ "guard": 1 }),
        json!({ "guard": "" }),
        json!({ "guard": "Patgate" }),
        json!({ "guard": "patgate-2" }),
        json!({ "pass": true, "ok": "patgate", "outcome": "allow" }),
        json!({ "guard": "other", "outcome": "allow", "code": "ok" }),
        json!({ "guard": "other", "outcome": "deny", "enforced": "false" }),
    ] {
        assert!(!is_let_through(&shipped, metadata.clone()).await, "{metadata}");
    }
    // While patgate's word is being changed, the guard accepts two.
    let two = gateway(&suite, "envoy.yaml", |manager| {
        let guard = &mut find(&mut manager["http_filters"], GUARD)["typed_config"];
        let policy = &mut guard["rules"]["policies"]["let-through-by-patgate"];
        let principals = policy["principals"].as_array_mut().unwrap();
        let mut second = principals[0].clone();
        let word = &mut second["sourced_metadata"]["metadata_matcher"]["value"]["string_match"];
        word["exact"] = json!("gateway-7");
        principals.push(second);
    })
    .await;
    for (word, passes) in [("patgate", true), ("gateway-7", true), ("gateway-8", false)] {
        assert_eq!(is_let_through(&two, json!({ "guard": word })).await, passes, "{word}");
    }
}

/// Whatever status patgate answers with, Envoy does not replace its text.
pub(crate) async fn answers_of_authorization_pass_byte_for_byte(suite: Arc<Suite>) {
    for file in ["envoy.yaml", "rate-limits.yaml", "single-step.yaml"] {
        let gateway = gateway(&suite, file, |_| {}).await;
        for status in [200, 400, 401, 403, 404, 408, 413, 415, 426, 429, 431, 500, 503, 504, 507] {
            for path in [
                MODELS,
                "/proxy/acme/api/tags",
                "/proxy/acme/v1/messages",
                "/api/v2/x",
                "/api/scim/v2/Users",
                "/api/v1/x",
                "/elsewhere",
            ] {
                let asked = json!({ "deny": status }).to_string();
                let headers = [("authorization", asked.as_str())];
                let reply = gateway.get_at("fixed", path, &headers).await;
                assert_eq!(reply.status, status, "{file} {path}");
                assert_eq!(reply.body, format!("own words of {status}"), "{file} {path}");
                assert_eq!(reply.header("content-type"), Some("text/x-own"), "{file} {path}");
                assert_eq!(reply.header("retry-after"), Some("77"), "{file} {path}");
                assert_eq!(reply.header("cache-control"), None, "{file} {path}");
            }
        }
        const TOLD: &str = "Authorization is temporarily unavailable. Nothing is wrong with the \
                            request: retry.";
        // The guard's own text, in each style of errors.
        let asked = json!({ "metadata": {} }).to_string();
        for (path, media_type, member, told) in [
            (MODELS, "application/json", "/error/code", "unavailable"),
            ("/proxy/acme/api/tags", "application/json", "/error", TOLD),
            ("/proxy/acme/v1/messages", "application/json", "/error/message", TOLD),
            ("/api/v2/x", "application/json", "/error", "Service Unavailable"),
            ("/api/scim/v2/Users", "application/scim+json", "/status", "503"),
            ("/api/v1/x", "application/problem+json", "/code", "unavailable"),
            ("/users/x", "application/problem+json", "/code", "unavailable"),
            ("/elsewhere", "application/json", "/error/code", "unavailable"),
        ] {
            let headers = [("authorization", asked.as_str())];
            let reply = gateway.get_at("fixed", path, &headers).await;
            assert_eq!(reply.status, 503, "{file} {path}");
            assert_eq!(reply.header("content-type"), Some(media_type), "{file} {path}");
            assert_eq!(reply.json().pointer(member), Some(&json!(told)), "{file} {path}");
        }
    }
}
