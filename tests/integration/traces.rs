//! Traces: what a real receiver gets of them, from patgate alone and through a real Envoy.

mod losses;
mod sent;

pub(crate) use losses::a_receiver_that_is_down_or_silent_costs_only_spans;
pub(crate) use sent::{a_receiver_is_verified, headers_are_sent_to_the_receiver};

use std::{collections::BTreeMap, fs, pin::pin, sync::Arc};

use futures_util::{future::join, poll};
use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
    shipped::manager,
    stack::project,
};
use serde_json::{Value, json};

use crate::support::{
    Replica, Suite, Token,
    envoy::{Gateway, envoy_patch, patient},
    fleet::MODELS,
    outcome,
    receiver::{Receiver, Span},
    request,
    tokens::reader,
};

const CHECK: &str = "envoy.service.auth.v3.Authorization/Check";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

/// Asks as Envoy does in a trace.
async fn ask(replica: &Replica, token: &Token, traceparent: &str) -> u16 {
    let bearer = token.bearer();
    let request = request("GET", MODELS, &[("authorization", &bearer)]);
    outcome(&replica.raw_with(&[("traceparent", traceparent)], request).await).0
}

/// Returns the children of a span, by name.
fn children<'s>(spans: &'s [Span], of: &Span) -> Vec<&'s Span> {
    let mut children: Vec<_> = spans.iter().filter(|span| span.parent == of.id).collect();
    children.sort_by(|a, b| a.name.cmp(&b.name));
    children
}

fn names<'s>(spans: &[&'s Span]) -> Vec<&'s str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn check_of(spans: &[Span]) -> Option<&Span> {
    spans.iter().find(|span| span.name == CHECK)
}

/// Two traces and none, with and without a lookup.
pub(crate) async fn only_what_envoy_records_has_a_span(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    let world = suite.world().await;
    let token = reader(&world).await;
    let replica = world.serve(&[&receiver.settings()]).await;
    let sampled = traceparent(TRACE, "01");
    let other = traceparent(OTHER, "01");

    // The client's own header is not the gateway's.
    let bearer = token.bearer();
    let headers = [("authorization", &*bearer), ("traceparent", &*other)];
    assert_eq!(outcome(&replica.raw(request("GET", MODELS, &headers)).await).0, 200);
    assert_eq!(ask(&replica, &token, &traceparent(OTHER, "00")).await, 200);
    assert_eq!(ask(&replica, &token, &other.to_uppercase()).await, 200);
    assert_eq!(ask(&replica, &token, &sampled).await, 200);
    let spans = receiver.trace(TRACE, |spans| check_of(spans).is_some()).await;
    let [span] = &spans[..] else { panic!("an answer from memory has one span: {spans:#?}") };
    assert_eq!((&*span.parent, &*span.kind), (PARENT, "SPAN_KIND_SERVER"));
    for attribute in [
        "rpc.system.name=Str(grpc)",
        "rpc.method=Str(envoy.service.auth.v3.Authorization/Check)",
        "rpc.response.status_code=Str(OK)",
        "patgate.outcome=Str(allow)",
        "patgate.code=Str(ok)",
        "patgate.enforced=Bool(true)",
        "patgate.tier=Str(memory)",
        "patgate.operation=Str(llm_read)",
    ] {
        assert!(span.has(attribute), "{attribute}: {span:#?}");
    }
    assert!(span.is_of_patgate(), "{span:#?}");

    // A denial, with the lookups that it took.
    let unknown = world.unknown(patgate::token::TokenId(uuid::Uuid::now_v7()));
    assert_eq!(ask(&replica, &unknown, &other).await, 401);
    let spans = receiver.trace(OTHER, |spans| check_of(spans).is_some()).await;
    let check = check_of(&spans).unwrap();
    assert_eq!(names(&children(&spans, check)), ["MGET", "SELECT patgate.pats"]);
    assert!(check.has("patgate.code=Str(invalid_token)"), "{check:#?}");
    assert!(check.has("patgate.tier=Str(postgres)"), "{check:#?}");
    for (span, attribute) in children(&spans, check)
        .into_iter()
        .zip(["db.system.name=Str(redis)", "db.system.name=Str(postgresql)"])
    {
        assert!(span.has(attribute) && span.kind == "SPAN_KIND_CLIENT", "{span:#?}");
        assert!(span.has("patgate.lookup.kind=Str(principal)"), "{span:#?}");
        assert!(span.has("server.address=Str(127.0.0.1)"), "{span:#?}");
    }
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(receiver.spans().iter().filter(|span| span.is_of_patgate()).count(), 4);
    let exported = async || replica.metric("patgate_spans_total{result=\"exported\"}").await == 4;
    eventually("spans to be counted", exported).await;
}

/// The lookup is in the trace of the check that came first, and the other check links to that.
pub(crate) async fn a_shared_lookup_is_in_one_trace(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    let world = suite.world().await;
    let token = reader(&world).await;
    let proxy = Proxy::to(suite.valkey.port).await;
    let redis = world.redis_url.replace(&suite.valkey.port.to_string(), &proxy.port.to_string());
    let redis = format!("redis.url={redis}");
    let replica = world.serve(&[&receiver.settings(), &redis]).await;
    // The domain is known, and both checks wait for the token.
    let another = reader(&world).await;
    assert_eq!(ask(&replica, &another, &traceparent(TRACE, "00")).await, 200);
    proxy.set(Mode::BlackHole);
    let [one, two] = [TRACE, OTHER].map(|trace| traceparent(trace, "01"));
    let mut first = pin!(ask(&replica, &token, &one));
    let mut second = pin!(ask(&replica, &token, &two));
    for waiting in [&mut first, &mut second] {
        assert!(poll!(waiting).is_pending());
        // A later call on the same connection is answered, so the earlier one waits by now.
        assert_eq!(ask(&replica, &another, &traceparent(TRACE, "00")).await, 200);
    }
    proxy.set(Mode::Pass);
    assert_eq!(join(first, second).await, (200, 200));
    let done = |spans: &[Span]| check_of(spans).is_some();
    let one = receiver.trace(TRACE, done).await;
    let two = receiver.trace(OTHER, done).await;
    let check = check_of(&one).unwrap();
    assert_eq!(names(&children(&one, check)), ["MGET", "SELECT patgate.pats"], "{one:#?}");
    assert_eq!(two.len(), 1, "{two:#?}");
    let links = &check_of(&two).unwrap().links;
    assert_eq!(links, std::slice::from_ref(&check.id), "{two:#?}");
}

/// What patgate cannot decide is an error of its span, and what Postgres did not answer is one of
/// the lookup's span, which ends after the check.
pub(crate) async fn an_outage_is_an_error_in_the_trace(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    let world = suite.world().await;
    let token = reader(&world).await;
    let proxy = Proxy::to(suite.postgres.port).await;
    let settings = [
        &*receiver.settings(),
        &format!("postgres.url={}", world.url("server", proxy.port)),
        "deadline=200ms",
        "postgres.query_timeout=1s",
    ];
    let replica = world.serve(&settings).await;
    proxy.set(Mode::BlackHole);
    assert_eq!(ask(&replica, &token, &traceparent(TRACE, "01")).await, 503);
    let both = |spans: &[Span]| spans.iter().any(|span| span.name.starts_with("SELECT"));
    let spans = receiver.trace(TRACE, |spans| both(spans) && check_of(spans).is_some()).await;
    let check = check_of(&spans).unwrap();
    assert_eq!(names(&children(&spans, check)), ["MGET", "SELECT patgate.pats"], "{spans:#?}");
    for span in [check, children(&spans, check)[1]] {
        assert!(span.has("error.type=Str(unavailable)"), "{span:#?}");
        assert!(span.status.ends_with("ERROR"), "{span:#?}");
    }
    assert!(check.has("rpc.response.status_code=Str(OK)"), "{check:#?}");
}

/// The shipped configuration with the lines that switch tracing on, as envoy/README.md says.
fn traced(file: &str) -> Value {
    let readme = fs::read_to_string(project("envoy/README.md")).unwrap();
    assert!(readme.contains("sed 's/^#~//' envoy/envoy.yaml"), "the command is another one");
    let text = fs::read_to_string(project(&format!("envoy/{file}"))).unwrap();
    let lines = text.lines().map(|line| line.strip_prefix("#~").unwrap_or(line));
    serde_saphyr::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

/// From Envoy's request through its call to patgate to Redis and Postgres, in one trace; and a
/// client cannot have its request traced.
pub(crate) async fn through_envoy_a_trace_is_whole(suite: Arc<Suite>) {
    let Some(receiver) = Receiver::start(&suite) else { return };
    for file in ["envoy.yaml", "single-step.yaml", "rate-limits.yaml"] {
        let world = suite.world().await;
        let replica = world.serve(&[&receiver.settings()]).await;
        let config = traced(file);
        let mut listeners = BTreeMap::new();
        for (name, share) in [("all", 100), ("none", 0)] {
            let mut listener = config["static_resources"]["listeners"][0].clone();
            let sampling = &mut manager(&mut listener)["tracing"]["random_sampling"];
            assert_eq!(*sampling, json!({ "value": 1 }));
            *sampling = json!({ "value": share });
            listeners.insert(name.to_owned(), listener);
        }
        let mut patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
        patch["clusters"]["otlp"] = json!(format!("127.0.0.1:{}", receiver.port));
        let gateway = Gateway::start(&suite, config, listeners, patch);

        // What a client sends to be traced.
        let bearer = reader(&world).await.bearer();
        let forced = traceparent(TRACE, "01");
        let headers = [
            ("authorization", &*bearer),
            ("traceparent", &*forced),
            ("tracestate", "a=b"),
            ("x-client-trace-id", "1"),
            ("x-envoy-force-trace", "1"),
        ];
        let reply = gateway.get("none", &headers).await;
        assert_eq!(reply.status, 200, "{file}: {reply:?}");

        // A token that no cache knows.
        let bearer = reader(&world).await.bearer();
        let reply = gateway.get("all", &[("authorization", &bearer)]).await;
        assert_eq!(reply.status, 200, "{file}: {reply:?}");
        // Envoy tells the backend.
        let seen = reply.seen("traceparent");
        let trace = seen[0].split('-').nth(1).unwrap();
        let whole = |spans: &[Span]| {
            check_of(spans).is_some() && spans.iter().any(|span| span.parent.is_empty())
        };
        let spans = receiver.trace(trace, whole).await;
        let check = check_of(&spans).unwrap();
        assert_eq!(names(&children(&spans, check)), ["MGET", "SELECT patgate.pats"], "{spans:#?}");
        // Each span up to the first one has arrived.
        let mut way = vec![check];
        while let Some(parent) = spans.iter().find(|span| span.id == way[way.len() - 1].parent) {
            way.push(parent);
        }
        let root = way[way.len() - 1];
        assert!(root.parent.is_empty() && root.kind == "SPAN_KIND_SERVER", "{spans:#?}");
        assert!(root.has("service.name=Str(envoy)"), "{spans:#?}");
        assert!(way.len() > 2, "Envoy's call has a span of its own: {spans:#?}");

        let traced = receiver.spans();
        let forced = traced.iter().find(|span| span.trace == TRACE);
        assert!(forced.is_none(), "{file}: a client has its request traced: {forced:#?}");
        // Whatever Envoy made of what the client sent: the only traces are those of `all`.
        let ours = traced.iter().filter(|span| span.name == CHECK && span.is_of_patgate());
        let instance = |span: &Span| {
            span.attributes.iter().find(|known| known.starts_with("service.instance.id=")).cloned()
        };
        let ours = ours.filter(|span| instance(span) == instance(check)).count();
        assert_eq!(ours, 1, "{file}: {traced:#?}");
        drop(gateway);
    }
    let text = receiver.text();
    assert!(!text.contains("Bearer") && !text.contains("pat_"), "a token in a trace");
}

/// The exemplars of OpenMetrics name traces that Envoy records, whether or not patgate exports.
pub(crate) async fn exemplars_name_recorded_traces(suite: Arc<Suite>) {
    let world = suite.world().await;
    let token = reader(&world).await;
    let replica = world.serve(&[]).await;
    let page = async |accept: &str| {
        let headers = [("accept", accept)];
        http::send(replica.http.port(), "GET", "/metrics", &headers, "").await.body
    };
    let openmetrics = "application/openmetrics-text";
    assert_eq!(ask(&replica, &token, &traceparent(OTHER, "00")).await, 200);
    assert!(!page(openmetrics).await.contains(" # {"));
    assert_eq!(ask(&replica, &token, &traceparent(TRACE, "01")).await, 200);
    let shown = page(openmetrics).await;
    let exemplars: Vec<_> = shown.lines().filter(|line| line.contains(" # {")).collect();
    let [exemplar] = exemplars[..] else { panic!("one check was traced: {exemplars:?}") };
    assert!(exemplar.starts_with("patgate_check_duration_seconds_bucket{le=\""), "{exemplar}");
    assert!(exemplar.contains(&format!(" # {{trace_id=\"{TRACE}\"}} 0.")), "{exemplar}");
    assert!(!page("*/*").await.contains(TRACE));
}
