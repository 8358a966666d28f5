//! The global filter, set up as envoy/README.md says, and what it sends to a rate limit service.
//!
//! The real service, which counts over all proxies, is not available here. A substitute speaks its
//! protocol, and counts by the configuration on the same page.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex},
};

use envoy_types::pb::envoy::{
    extensions::common::ratelimit::v3::RateLimitDescriptor,
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_response::Code,
        rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
    },
};
use patgate_testing::stack::{Server, project};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, async_trait,
    transport::{Server as Grpc, server::TcpIncoming},
};

use super::{MODELS, READ, get, shipped};
use crate::support::{
    Suite, Token,
    envoy::{envoy_patch, patient},
};

/// The entries of one descriptor: keys and values.
type Entries = Vec<(String, String)>;

#[derive(Deserialize)]
struct Configuration {
    domain: String,
    descriptors: Vec<LimitNode>,
}

#[derive(Deserialize)]
struct LimitNode {
    key: String,
    value: Option<String>,
    rate_limit: Option<Limit>,
    #[serde(default)]
    descriptors: Vec<LimitNode>,
}

#[derive(Deserialize)]
struct Limit {
    unit: String,
    requests_per_unit: u32,
}

struct Counter {
    configuration: Configuration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: HashMap<Entries, u32>,
    /// The descriptors of each request, in order.
    told: Vec<Vec<Entries>>,
    away: bool,
}

struct CountingService(Arc<Counter>);

/// Returns the limit for exactly these entries; a key without a value matches every value.
fn limit<'a>(nodes: &'a [LimitNode], entries: &[(String, String)]) -> Option<&'a Limit> {
    let ((key, value), rest) = entries.split_first()?;
    let fits =
        |node: &&LimitNode| node.key == *key && node.value.as_ref().is_none_or(|v| v == value);
    let node = nodes.iter().find(fits)?;
    if rest.is_empty() { node.rate_limit.as_ref() } else { limit(&node.descriptors, rest) }
}

fn entries(descriptor: &RateLimitDescriptor) -> Entries {
    let entry = descriptor.entries.iter();
    entry.map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

#[async_trait]
impl RateLimitService for CountingService {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.domain, self.0.configuration.domain);
        let told: Vec<Entries> = request.descriptors.iter().map(entries).collect();
        let mut state = self.0.state.lock().unwrap();
        if state.away {
            return Err(Status::unavailable("away"));
        }
        let mut code = Code::Ok;
        for descriptor in &told {
            if let Some(limit) = limit(&self.0.configuration.descriptors, descriptor) {
                assert_eq!(limit.unit, "minute");
                let count = state.counts.entry(descriptor.clone()).or_default();
                *count += 1;
                if *count > limit.requests_per_unit {
                    code = Code::OverLimit;
                }
            }
        }
        state.told.push(told);
        Ok(Response::new(RateLimitResponse { overall_code: code.into(), ..Default::default() }))
    }
}

impl Counter {
    /// Returns the descriptors since the last call.
    fn told(&self) -> Vec<Vec<Entries>> {
        std::mem::take(&mut self.state.lock().unwrap().told)
    }
}

/// Returns the first blocks of YAML in envoy/README.md's section: filter, cluster, service.
fn documented() -> [String; 3] {
    let readme = fs::read_to_string(project("envoy/README.md")).unwrap();
    let section = readme.split_once("## Rate limits").unwrap().1.split_once("\n## ").unwrap().0;
    let blocks = section.split("```yaml\n").skip(1).take(3);
    let blocks: Vec<_> =
        blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect();
    blocks.try_into().unwrap()
}

/// The shipped file with this filter instead of the local one, this cluster, and a descriptor of a
/// header.
fn configuration(filter: &str, cluster: &str) -> String {
    let indent = |text: &str, by: &str| -> String {
        text.lines().map(|line| format!("{by}{line}\n")).collect()
    };
    let shipped = shipped();
    let filters = " ".repeat(18);
    let local = format!("{filters}- name: envoy.filters.http.local_ratelimit");
    let (before, rest) = shipped.split_once(&local).unwrap();
    let (_, after) = rest.split_once(&format!("{filters}# end of rate limits")).unwrap();
    let filter = indent(filter, &filters);
    let text = format!("{before}{filter}{after}\n{}", indent(cluster, "    "));
    let limits = format!("\n{}rate_limits:\n", " ".repeat(22));
    let (before, after) = text.split_once(&limits).unwrap();
    let by_header = "- actions: [request_headers: { header_name: x-pat-id, descriptor_key: pat }]";
    format!("{before}{limits}{}{by_header}\n{after}", " ".repeat(24))
}

/// Raises the timeout for a busy test machine, because a request that is not counted in time
/// passes.
fn unhurried(block: &str, hurried: &str) -> String {
    let (key, _) = hurried.split_once(':').unwrap();
    let patient = block.replace(hurried, &format!("{key}: 10s"));
    assert_ne!(patient, block, "{hurried} is no longer documented");
    patient
}

async fn envoy(suite: &Suite, replica: std::net::SocketAddr, service: &str) -> Server {
    let [filter, cluster, _] = documented();
    let filter = unhurried(&filter, "timeout: 0.05s");
    let cluster = unhurried(&cluster, "connect_timeout: 0.1s");
    let mut patch = envoy_patch(suite, &[replica], patient("10s", "10s"));
    patch["clusters"]["_ratelimit"] = json!(service);
    let text = configuration(&filter, &cluster);
    suite.stack.start("envoy", json!({ "config_yaml": text, "patch": patch }))
}

pub(crate) async fn the_global_filter_tells_a_service_the_same_descriptors(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let configuration: Configuration = serde_saphyr::from_str(&documented()[2]).unwrap();
    let counter = Arc::new(Counter { configuration, state: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().to_string();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = RateLimitServiceServer::new(CountingService(Arc::clone(&counter)));
    tokio::spawn(Grpc::builder().add_service(server).serve_with_incoming(incoming));
    let envoy = envoy(&suite, replica.grpc, &service).await;

    let token = world.token(&[READ]).await;
    let owner: String =
        sqlx::query_scalar("SELECT user_id::text FROM patgate.pats WHERE id = $1::uuid")
            .bind(token.id.to_string())
            .fetch_one(&world.postgres)
            .await
            .unwrap();
    let told = |token: &Token, model: Option<&str>| {
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let id = entry("token", &token.id.to_string());
        let mut all = vec![
            vec![entry("pat", &token.id.to_string())],
            vec![id.clone()],
            vec![entry("user", &owner)],
            vec![entry("domain", "acme")],
        ];
        all.extend(model.map(|model| vec![id, entry("model", model)]));
        vec![all]
    };
    // A request that patgate refuses is not counted: the service is not even asked.
    assert_eq!(get(&envoy, &token, "/proxy/beta/v1/models").await.status, 403);
    assert_eq!(get(&envoy, &token, "/proxy/acme/v1/nothing").await.status, 404);
    assert_eq!(counter.told(), Vec::<Vec<Entries>>::new());
    assert_eq!(get(&envoy, &token, MODELS).await.status, 200);
    assert_eq!(counter.told(), told(&token, None));

    let dear = format!("{MODELS}/org/m-7b");
    for _ in 0..60 {
        assert_eq!(get(&envoy, &token, &dear).await.status, 200);
        assert_eq!(counter.told(), told(&token, Some("org/m-7b")));
    }
    let reply = get(&envoy, &token, &dear).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("60")));
    assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded", "{reply:?}");
    assert_eq!(get(&envoy, &token, &format!("{MODELS}/org/other")).await.status, 200);
    let another = world.token(&[READ]).await;
    assert_eq!(get(&envoy, &another, &dear).await.status, 200);

    // An outage of the service stops no request.
    counter.state.lock().unwrap().away = true;
    assert_eq!(get(&envoy, &token, &dear).await.status, 200);
}
