//! Asks a replica, with or without Envoy in between.

use std::{collections::HashMap, net::SocketAddr};

use envoy_types::pb::{
    envoy::service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
    google::protobuf::value::Kind,
};
use patgate_testing::{http, stack::Server};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    Suite,
    envoy::{envoy, patient},
};

pub(crate) struct Replica {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    client: AuthorizationClient<Channel>,
    _stop: Option<DropGuard>,
}

impl Replica {
    /// A replica that runs elsewhere.
    pub(crate) fn at(grpc: SocketAddr, http: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        Self { grpc, http, client: AuthorizationClient::new(channel), _stop: None }
    }

    /// The same, for a replica in this process that ends when the last handle is dropped.
    pub(super) fn ended_by(self, stop: CancellationToken) -> Self {
        Self { _stop: Some(stop.drop_guard()), ..self }
    }

    /// Returns the answer to a request, as Envoy would read it.
    pub(crate) async fn check(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> CheckResponse {
        self.check_at("gateway", method, path, headers).await
    }

    /// The same for another host.
    pub(crate) async fn check_at(
        &self,
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> CheckResponse {
        let mut request = request(method, path, headers);
        http_of(&mut request).host = host.to_owned();
        self.raw(request).await
    }

    pub(crate) async fn raw(&self, request: CheckRequest) -> CheckResponse {
        self.client.clone().check(request).await.unwrap().into_inner()
    }

    /// The same as a gateway that asks in steps.
    pub(crate) async fn raw_in(&self, step: &str, request: CheckRequest) -> CheckResponse {
        self.raw_with(&[("patgate-step", step)], request).await
    }

    /// The same with metadata of the call, each name as often as it is given.
    pub(crate) async fn raw_with(
        &self,
        metadata: &[(&'static str, &str)],
        request: CheckRequest,
    ) -> CheckResponse {
        let mut request = tonic::Request::new(request);
        for (name, value) in metadata {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        self.client.clone().check(request).await.unwrap().into_inner()
    }

    /// Returns the value of one line of the metrics page; 0 if the line is missing.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        self.gauge(line).await as u64
    }

    pub(crate) async fn gauge(&self, line: &str) -> f64 {
        self.page().await.value(line)
    }

    /// The number of decisions, of any outcome.
    pub(crate) async fn decisions(&self) -> u64 {
        let page = self.page().await.0;
        let lines = page.lines().filter(|line| line.starts_with("patgate_decisions_total{"));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// All metrics as of one moment.
    pub(crate) async fn page(&self) -> Page {
        Page(http::send(self.http.port(), "GET", "/metrics", &[], "").await.body)
    }

    /// Envoy in front of this replica and the model backends. As shipped, with longer timeouts.
    pub(crate) fn envoy(&self, suite: &Suite) -> Server {
        self.envoy_with(suite, patient("60s", "60s"))
    }

    /// The same with other settings of its ext_authz filter.
    pub(crate) fn envoy_with(&self, suite: &Suite, ext_authz: Value) -> Server {
        envoy(suite, &[self.grpc], ext_authz)
    }
}

/// A page of metrics.
pub(crate) struct Page(String);

impl Page {
    /// Returns the value of one line; 0 if the line is missing.
    pub(crate) fn value(&self, line: &str) -> f64 {
        let mut lines = self.0.lines();
        let value = lines.find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// Makes a check about a request, as Envoy would.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
    // Envoy joins the values of a repeated header.
    let mut joined: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        joined
            .entry(name.to_ascii_lowercase())
            .and_modify(|known| known.push_str(&format!(",{value}")))
            .or_insert_with(|| (*value).to_owned());
    }
    let http = HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: joined,
        ..Default::default()
    };
    let request = Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext { request: Some(request), ..Default::default() };
    CheckRequest { attributes: Some(attributes) }
}

/// The HTTP request in a check.
pub(crate) fn http_of(request: &mut CheckRequest) -> &mut HttpRequest {
    request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

/// The HTTP status and code of an answer: `(200, "ok")` for an allow.
pub(crate) fn outcome(response: &CheckResponse) -> (u16, String) {
    let code = response.status.as_ref().map_or(0, |status| status.code);
    match response.http_response.as_ref().expect("an answer that says allow or deny") {
        HttpResponse::OkResponse(_) => {
            assert_eq!(code, 0, "an allow with a non-OK status");
            (200, "ok".to_owned())
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(code, 0, "Envoy takes a denial with an OK status for an ALLOW");
            let body: Value = serde_json::from_str(&denied.body).unwrap();
            let status = denied.status.as_ref().unwrap().code;
            if status == 200 {
                // An answer of patgate's own, instead of a backend's.
                assert!(body.get("error").is_none(), "{body}");
                return (200, "answered".to_owned());
            }
            // Some forms of an error have no member for the code.
            let metadata = response.dynamic_metadata.as_ref().expect("metadata with a code");
            let Some(Kind::StringValue(code)) = &metadata.fields["code"].kind else {
                panic!("no code in {metadata:?}");
            };
            if let Some(told) = body.pointer("/error/code") {
                assert_eq!(told, &**code, "{body}");
            }
            (u16::try_from(status).unwrap(), code.clone())
        }
        HttpResponse::ErrorResponse(_) => {
            panic!("an error response is an ALLOW under failure_mode_allow")
        }
    }
}

pub(crate) async fn lookups(replica: &Replica, kind: &str, tier: &str, result: &str) -> u64 {
    let labels = format!("kind=\"{kind}\",tier=\"{tier}\",result=\"{result}\"");
    replica.metric(&format!("patgate_lookups_total{{{labels}}}")).await
}

pub(crate) async fn health(at: SocketAddr) -> i32 {
    let channel = Channel::from_shared(format!("http://{at}")).unwrap();
    let service = "envoy.service.auth.v3.Authorization".to_owned();
    let mut client = HealthClient::new(channel.connect_lazy());
    client.check(HealthCheckRequest { service }).await.unwrap().into_inner().status
}
