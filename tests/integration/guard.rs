//! The guard before Envoy's router: a request that patgate has not let through reaches no backend,
//! however it passed ext_authz. Each listener is the shipped configuration with one change.

pub(crate) mod local_replies;
pub(crate) mod words;

use std::{collections::BTreeMap, sync::Arc};

use patgate_testing::{
    http,
    shipped::{
        EXT_AUTHZ, GUARD, WITH_BODY, authorizers, configuration, ext_authz, fail_open, find,
        fix_the_routes, manager, routes, shipped, switch_off_on_the_routes, unguard,
    },
};
use serde_json::{Value, json};

use crate::support::{
    Scope, Suite,
    envoy::{Gateway, add_nobody, envoy_patch, patient, refused_as_an_outage},
};

const MODELS: &str = "/proxy/acme/v1/models";
const READ: Scope<'static> = ("acme", "models", "*", "llm_read");

/// A change of a connection manager.
type ConfigChange = fn(&mut Value);

/// What can keep a request from patgate, or the answer from Envoy.
const LOSSES: [(&str, ConfigChange); 3] = [
    ("patgate dead, and failures allowed", |manager| {
        authorizers(manager).for_each(fail_open);
    }),
    ("ext_authz off on the routes", |manager| {
        switch_off_on_the_routes(manager, &[EXT_AUTHZ, WITH_BODY]);
    }),
    ("ext_authz gone", |manager| {
        let filters = manager["http_filters"].as_array_mut().unwrap();
        filters.retain(|filter| filter["name"] != EXT_AUTHZ && filter["name"] != WITH_BODY);
    }),
];

/// As a team's policy is often written: an RBACPerRoute, here an empty one, under the name that
/// control planes use for the filter.
fn rbac_on_the_routes(manager: &mut Value) {
    for route in routes(manager) {
        route["typed_per_filter_config"]["envoy.filters.http.rbac"] = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        });
    }
}

fn generate_the_name(manager: &mut Value) {
    find(&mut manager["http_filters"], GUARD)["name"] = json!("envoy.filters.http.rbac");
}

/// The shipped listener and, for each change, one with the guard and one without.
struct Variations {
    shipped: Value,
    listeners: BTreeMap<String, Value>,
}

impl Variations {
    fn add(&mut self, name: &str, changes: &[&dyn Fn(&mut Value)]) {
        let mut listener = self.shipped.clone();
        changes.iter().for_each(|change| change(manager(&mut listener)));
        self.listeners.insert(name.to_owned(), listener);
    }
}

/// Each on a route that patgate's header chooses, and on one that leads to a backend anyway.
pub(crate) async fn what_patgate_did_not_let_through_reaches_no_backend(suite: Arc<Suite>) {
    for file in ["envoy.yaml", "single-step.yaml"] {
        no_loss_reaches_a_backend(&suite, configuration(file)).await;
    }
}

async fn no_loss_reaches_a_backend(suite: &Suite, mut config: Value) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let bearer = world.token(&[READ]).await.bearer();
    let good = [("authorization", bearer.as_str())];
    let mut patch = envoy_patch(suite, &[replica.grpc], patient("60s", "60s"));
    add_nobody(suite, &mut config, &mut patch);
    let shipped = config["static_resources"]["listeners"][0].clone();
    let mut all = Variations { shipped, listeners: BTreeMap::new() };
    all.add("shipped", &[]);
    all.add("fixed", &[&fix_the_routes]);
    for (loss, change) in LOSSES {
        all.add(&format!("{loss}; by header"), &[&change]);
        all.add(&format!("{loss}; by header, unguarded"), &[&change, &unguard]);
        all.add(&format!("{loss}; fixed"), &[&change, &fix_the_routes]);
        all.add(&format!("{loss}; fixed, unguarded"), &[&change, &fix_the_routes, &unguard]);
        // A route's RBACPerRoute replaces a guard of that name only.
        let changes: [&dyn Fn(&mut Value); 3] = [&change, &fix_the_routes, &rbac_on_the_routes];
        all.add(&format!("{loss}; fixed, rbac on the routes"), &changes);
        let changes = [&changes[..], &[&generate_the_name]].concat();
        all.add(&format!("{loss}; fixed, rbac on the routes, generated name"), &changes);
    }
    let names: Vec<_> = all.listeners.keys().cloned().collect();
    let gateway = Gateway::start(suite, config, all.listeners, patch);
    let served = async || gateway.stat("cluster.model-acme.upstream_rq_total").await;

    for name in ["shipped", "fixed"] {
        let before = served().await;
        let reply = gateway.get(name, &good).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{name}");
        assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()], "{name}");
        assert_eq!(served().await, before + 1);
        assert_eq!(gateway.get(name, &[]).await.status, 401, "{name}");
    }
    let mut open = 0;
    let mut closed = 0;
    for name in names.iter().filter(|name| name.contains(';')) {
        let before = served().await;
        for headers in [&[][..], &good] {
            let reply = gateway.get(name, headers).await;
            let unguarded = name.ends_with("unguarded") || name.ends_with("generated name");
            match (unguarded, name.contains("fixed")) {
                (false, _) => refused_as_an_outage(&reply, name),
                // Without patgate's header, the route leads nowhere.
                (true, false) => {
                    assert_eq!(reply.code(), "backend_unavailable", "{name}: {reply:?}")
                }
                // The case for which the guard exists: a request without identity, which a backend
                // serves.
                (true, true) => {
                    let to = reply.header("x-backend");
                    assert_eq!((reply.status, to), (200, Some("model-acme")), "{name}: {reply:?}");
                    assert!(reply.seen("x-user-id").is_empty(), "{name}: {reply:?}");
                    open += 1;
                    continue;
                }
            }
            closed += 1;
            assert_eq!(served().await, before, "{name}");
        }
    }
    assert_eq!((open, closed), (12, 24));
    let refused = gateway.stat("http.gateway.rbac.patgate_guard.denied").await;
    assert_eq!(refused, 18, "each refusal of the guard is counted");
}

/// Requests that need no backend are answered as before. Requests that patgate lets through
/// although it would deny them, because the denial is not enforced yet, pass.
pub(crate) async fn the_guard_leaves_alone_what_it_is_not_for(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[]).await;
    let shadow = world.serve(&["mode=shadow"]).await;
    let bearer = world.token(&[READ]).await.bearer();
    let good = [("authorization", bearer.as_str())];
    let mut config = shipped();
    let shipped = config["static_resources"]["listeners"][0].clone();
    let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
    let mut softening = clusters[0].clone();
    softening["name"] = json!("softening");
    clusters.push(softening);
    let mut all = Variations { shipped, listeners: BTreeMap::new() };
    let direct = |manager: &mut Value| {
        for route in routes(manager) {
            if route.as_object_mut().unwrap().remove("route").is_some() {
                let body = json!({ "inline_string": "direct" });
                route["direct_response"] = json!({ "status": 200, "body": body });
            }
        }
    };
    let soften = |manager: &mut Value| {
        let service = &mut ext_authz(manager)["grpc_service"];
        service["envoy_grpc"]["cluster_name"] = json!("softening");
    };
    all.add("shipped", &[]);
    all.add("direct", &[&direct]);
    all.add("direct, ext_authz gone", &[&direct, &LOSSES[2].1]);
    all.add("softening", &[&fix_the_routes, &soften]);
    let mut patch = envoy_patch(&suite, &[replica.grpc], patient("10s", "10s"));
    patch["clusters"]["softening"] = json!(shadow.grpc.to_string());
    let gateway = Gateway::start(&suite, config, all.listeners, patch);

    let preflight =
        [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let reply = http::send(gateway.port("shipped"), "OPTIONS", MODELS, &preflight, "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some(preflight[0].1), "{reply:?}");
    // Direct responses are the router's, so they come after the guard.
    let reply = gateway.get("direct", &good).await;
    assert_eq!((reply.status, &*reply.body), (200, "direct"));
    assert_eq!(gateway.get("direct", &[]).await.status, 401);
    refused_as_an_outage(&gateway.get("direct, ext_authz gone", &good).await, "direct");
    // While no denial is enforced, every request passes without an identity.
    let reply = gateway.get("softening", &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
    assert!(reply.seen("x-user-id").is_empty());
}
