//! The guard refuses each error around an exception. Each is tried without the guard, too, so that
//! it is the guard that refuses.

use std::sync::Arc;

use patgate_testing::{
    eventually,
    http::{Over, Sent},
    shipped::{EXT_AUTHZ, GUARD, find, routes, unguard},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Beside, Change, JWT, LOGIN, MODELS, ORDERS};
use crate::support::{Suite, cli::Cli, envoy::refused_as_an_outage};

fn off() -> Value {
    json!({ EXT_AUTHZ: {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "disabled": true,
    } })
}

fn route<'v>(manager: &'v mut Value, name: &str) -> &'v mut Value {
    find(&mut manager["route_config"]["virtual_hosts"][0]["routes"], name)
}

fn add_route(manager: &mut Value, matched: &Value, cluster: &str) {
    let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    let route = json!({
        "match": matched, "route": { "cluster": cluster }, "typed_per_filter_config": off(),
    });
    routes.as_array_mut().unwrap().insert(0, route);
}

/// Adds a script right before the guard, or before ext_authz.
pub(super) fn script(manager: &mut Value, before: &str, code: &str) {
    let filters = manager["http_filters"].as_array_mut().unwrap();
    // Without a guard, before the router.
    let at = filters.iter().position(|filter| filter["name"] == before);
    let at = at.unwrap_or(filters.len() - 1);
    filters.insert(
        at,
        json!({ "name": "script", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": { "inline_string": code },
        // Otherwise each change of a header does it.
        "clear_route_cache": false,
    } }),
    );
}

fn jwt_settings(manager: &mut Value, settings: &Value) {
    route(manager, "orders")["typed_per_filter_config"][JWT] = settings.clone();
}

/// What is wrong, a request, and where it ends without the guard.
struct Fault {
    name: &'static str,
    change: fn(&mut Value),
    method: &'static str,
    target: &'static str,
    without: &'static str,
}

const FAULTS: [Fault; 11] = [
    Fault {
        name: "a route is off that no exception names",
        change: |manager| add_route(manager, &json!({ "path": "/metrics" }), "login"),
        method: "GET",
        target: "/metrics",
        without: "login",
    },
    Fault {
        name: "a route at the path of an exception leads to a model",
        change: |manager| route(manager, "login")["route"]["cluster"] = json!("model-acme"),
        method: "GET",
        target: LOGIN,
        without: "model-acme",
    },
    Fault {
        name: "a route at the path of an exception leads to the cluster of another one",
        change: |manager| route(manager, "login")["route"]["cluster"] = json!("orders"),
        method: "GET",
        target: LOGIN,
        without: "orders",
    },
    Fault {
        name: "a route below the path of an exception leads to a model",
        change: |manager| {
            let requires = route(manager, "orders")["typed_per_filter_config"].clone();
            add_route(manager, &json!({ "prefix": "/orders/v1" }), "model-acme");
            routes(manager).next().unwrap()["typed_per_filter_config"] = requires;
        },
        method: "GET",
        target: "/orders/v1/models",
        without: "model-acme",
    },
    Fault {
        name: "the route is wider than its exception",
        change: |manager| route(manager, "login")["match"] = json!({ "prefix": "/log" }),
        method: "GET",
        target: "/logs",
        without: "login",
    },
    Fault {
        name: "the route is for more methods than its exception",
        change: |manager| route(manager, "login")["match"] = json!({ "path": LOGIN }),
        method: "DELETE",
        target: LOGIN,
        without: "login",
    },
    Fault {
        name: "the whole virtual host is off, and leads to a model",
        change: |manager| {
            for route in routes(manager) {
                if let Some(to) = route.get_mut("route").and_then(Value::as_object_mut)
                    && to.remove("cluster_header").is_some()
                {
                    to.insert("cluster".to_owned(), json!("model-acme"));
                }
            }
            manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"][EXT_AUTHZ] =
                off()[EXT_AUTHZ].clone();
        },
        method: "GET",
        target: MODELS,
        without: "model-acme",
    },
    Fault {
        name: "jwt_authn is off on the route",
        change: |manager| {
            jwt_settings(
                manager,
                &json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
                    "disabled": true,
                }),
            );
        },
        method: "GET",
        target: ORDERS,
        without: "orders",
    },
    Fault {
        name: "jwt_authn is gone",
        change: |manager| {
            route(manager, "orders")["typed_per_filter_config"]
                .as_object_mut()
                .unwrap()
                .remove(JWT);
            let filters = manager["http_filters"].as_array_mut().unwrap();
            filters.retain(|filter| filter["name"] != JWT);
        },
        method: "GET",
        target: ORDERS,
        without: "orders",
    },
    Fault {
        name: "the request becomes another one, and its route is chosen again",
        change: |manager| {
            add_route(manager, &json!({ "prefix": "/hidden" }), "model-acme");
            script(
                manager,
                GUARD,
                "function envoy_on_request(handle)
              handle:headers():replace(':path', '/hidden/v1/models')
              handle:clearRouteCache()
            end",
            );
        },
        method: "GET",
        target: LOGIN,
        without: "model-acme",
    },
    Fault {
        name: "the request becomes one for an exception, and its route stays",
        change: |manager| {
            add_route(manager, &json!({ "prefix": "/hidden" }), "model-acme");
            script(
                manager,
                GUARD,
                "function envoy_on_request(handle)
              handle:headers():replace(':path', '/login')
            end",
            );
        },
        method: "GET",
        target: "/hidden",
        without: "model-acme",
    },
];

pub(crate) async fn each_error_around_an_exception_is_refused(suite: Arc<Suite>) {
    let world = suite.world().await;
    let unguarded: Vec<_> =
        FAULTS.iter().map(|fault| format!("{}, unguarded", fault.name)).collect();
    let changes: Vec<[Change<'_>; 2]> =
        FAULTS.iter().map(|fault| [&fault.change as Change<'_>, &unguard as Change<'_>]).collect();
    let mut variations: Vec<(&str, &[Change<'_>])> = Vec::new();
    for (number, fault) in FAULTS.iter().enumerate() {
        variations.push((fault.name, &changes[number][..1]));
        variations.push((&unguarded[number], &changes[number]));
    }
    let site = Beside::start(&world, &variations).await;
    let mut refused = 0;
    let jwt = site.jwt();
    let headers = [("authorization", &*jwt)];
    for (number, fault) in FAULTS.iter().enumerate() {
        let Fault { method, target, .. } = *fault;
        let sent = Sent { method, target, headers: &headers, ..Sent::default() };
        let reply = site.send(Over::Http1, fault.name, sent).await;
        refused_as_an_outage(&reply, fault.name);
        refused += 1;
        // The same request passes if there is no guard.
        let reply = site.send(Over::Http1, &unguarded[number], sent).await;
        let to = reply.header("x-backend");
        assert_eq!((reply.status, to), (200, Some(fault.without)), "{}: {reply:?}", fault.name);
    }
    assert_eq!(site.gateway.stat("http.gateway.rbac.patgate_guard.denied").await, refused);
}

/// Answers each request with a redirect.
async fn redirector(to: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let answer = format!(
                    "HTTP/1.1 302 Found\r\nlocation: http://gateway{to}\r\ncontent-length: 0\r\n\
                     connection: close\r\nx-backend: redirector\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    port
}

fn follow_redirects(manager: &mut Value) {
    for route in routes(manager) {
        if let Some(to) = route.get_mut("route") {
            to["internal_redirect_policy"] = json!({
                "max_internal_redirects": 3, "allow_cross_scheme_redirect": true,
            });
        }
    }
}

/// Envoy can follow a redirect of a backend itself, if a route says so, as none of the shipped ones
/// does.
pub(crate) async fn a_redirect_leads_from_neither_side_to_the_other(suite: Arc<Suite>) {
    let world = suite.world().await;
    let unguarded: [Change<'_>; 2] = [&follow_redirects, &unguard];
    let variations: [(&str, &[Change<'_>]); 2] =
        [("guarded", &[&follow_redirects]), ("unguarded", &unguarded)];

    // From the login page to a model: patgate is asked about the second request.
    let login = redirector(MODELS).await;
    let site = Beside::with(&world, &[], &variations, |_, patch| {
        patch["clusters"]["login"] = json!(format!("127.0.0.1:{login}"));
    })
    .await;
    for on in ["guarded", "unguarded"] {
        let reply = site.get(on, LOGIN, &[]).await;
        assert_eq!((reply.status, &*reply.code()), (401, "missing_credential"), "{on}: {reply:?}");
    }
    let reply = site.get("shipped", LOGIN, &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (302, Some("redirector")));

    // From a model to the API or the login page: the second request has what patgate has added.
    let model = redirector(LOGIN).await;
    let site = Beside::with(&world, &[], &variations, |_, patch| {
        patch["clusters"]["model-acme"] = json!(format!("127.0.0.1:{model}"));
    })
    .await;
    let headers = [("authorization", &*site.pat)];
    refused_as_an_outage(&site.get("guarded", MODELS, &headers).await, "guarded");
    let reply = site.get("unguarded", MODELS, &headers).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("login")), "{reply:?}");
    assert_eq!(reply.seen("x-user-id"), [world.id("ann").to_string()], "{reply:?}");
}

/// A backend of patgate that has the name of such a cluster is refused, and so gets no credential.
pub(crate) async fn patgate_names_no_cluster_of_an_exception(suite: Arc<Suite>) {
    let world = suite.world().await;
    let permit: Change<'_> = &|manager| {
        let guard = &mut find(&mut manager["http_filters"], GUARD)["typed_config"];
        let word = &mut guard["rules"]["policies"]["let-through-by-patgate"];
        word["permissions"] = json!([{ "any": true }]);
    };
    let site = Beside::start(&world, &[("permitted", &[permit])]).await;
    let headers = [("authorization", &*site.pat)];
    let get = async |on| site.get(on, MODELS, &headers).await;
    for on in ["shipped", "permitted"] {
        let reply = get(on).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{on}");
    }
    Cli::of(&world).ok("backend create orders --url http://127.0.0.1:1 --kind vllm");
    world.sql("UPDATE patgate.domains SET upstream = 'orders' WHERE slug = 'acme'").await;
    let is_there = async || get("permitted").await.header("x-backend") == Some("orders");
    eventually("the new backend", is_there).await;
    assert_eq!(get("permitted").await.seen("x-user-id"), [world.id("ann").to_string()]);
    refused_as_an_outage(&get("shipped").await, "orders");
}
