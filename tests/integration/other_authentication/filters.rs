//! What other filters see and can change, by where they stand: the table in envoy/README.md.

use std::{fs, sync::Arc};

use patgate_testing::{
    eventually,
    shipped::{EXT_AUTHZ, GUARD, WITH_BODY, find, unguard},
};
use serde_json::{Value, json};

use super::{Beside, Change, JWT, LOGIN, MODELS, ORDERS, guarded::script};
use crate::support::{Suite, cli::Cli, credentials::give, envoy::refused_as_an_outage};

/// Tells the backend in a header what the filter has seen.
const SHOW: &str = "function envoy_on_request(handle)
  local seen = {}
  for _, name in ipairs({'authorization', 'x-user-id', 'x-upstream-cluster'}) do
    seen[#seen + 1] = handle:headers():get(name) or 'nil'
  end
  handle:headers():replace('x-seen', table.concat(seen, ' | '))
end";

fn moved(manager: &mut Value, name: &str, before: &str) {
    let filters = manager["http_filters"].as_array_mut().unwrap();
    let at = filters.iter().position(|filter| filter["name"] == name).unwrap();
    let filter = filters.remove(at);
    let at = filters.iter().position(|filter| filter["name"] == before).unwrap();
    filters.insert(at, filter);
}

pub(crate) async fn a_filter_sees_what_patgate_has_added(suite: Arc<Suite>) {
    let world = suite.world().await;
    let key = give(&Cli::of(&world), &suite, "model-acme");
    let before: Change<'_> = &|manager| script(manager, EXT_AUTHZ, SHOW);
    let between: Change<'_> = &|manager| script(manager, GUARD, SHOW);
    // A log is written at the end, with the headers as they are then.
    let log: Change<'_> = &|manager| {
        let format = &mut manager["access_log"][0]["typed_config"]["log_format"]["json_format"];
        format["credential"] = json!("%REQ(AUTHORIZATION):14%");
        format["user_header"] = json!("%REQ(X-USER-ID)%");
    };
    let site =
        Beside::start(&world, &[("before", &[before]), ("between", &[between]), ("log", &[log])])
            .await;
    let headers = [("authorization", &*site.pat), ("x-user-id", "root")];
    let seen = async |on: &str| {
        let reply = site.get(on, MODELS, &headers).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{on}");
        reply.seen("x-seen").pop()
    };
    let ann = world.id("ann").to_string();
    // Before: the client's token, and nothing of patgate's, as the client's copies are gone.
    assert_eq!(seen("before").await, Some(format!("{} | nil | nil", site.pat)));
    assert_eq!(seen("between").await, Some(format!("{key} | {ann} | model-acme")));
    assert_eq!(seen("log").await, None);
    let lines = || fs::read_to_string(site.gateway.access_log()).unwrap();
    eventually("a line in the log", async || lines().contains("user_header")).await;
    let lines = lines();
    let line = lines.lines().find(|line| line.contains("user_header")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["user_header"], ann);
    assert_eq!(line["credential"], key[..14]);
}

/// Between ext_authz and the guard, a script can do all that patgate can.
pub(crate) async fn code_behind_ext_authz_is_as_trusted_as_patgate(suite: Arc<Suite>) {
    let world = suite.world().await;
    let key = give(&Cli::of(&world), &suite, "model-acme");
    let writes_the_word: Change<'_> = &|manager| {
        let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
        find(routes, "login")["route"]["cluster"] = json!("model-acme");
        script(manager, GUARD, "function envoy_on_request(handle)
          handle:streamInfo():dynamicMetadata():set('envoy.filters.http.ext_authz', 'guard', 'patgate')
        end");
    };
    let changes_the_path: Change<'_> = &|manager| {
        script(
            manager,
            GUARD,
            "function envoy_on_request(handle)
          handle:headers():replace(':path', '/proxy/acme/v1/other')
        end",
        );
    };
    let names_a_backend = "handle:headers():replace('x-upstream-cluster', 'model-beta')";
    let of_backend = format!("function envoy_on_request(handle) {names_a_backend} end");
    let chosen_again =
        format!("function envoy_on_request(handle) {names_a_backend} handle:clearRouteCache() end");
    let changes_the_backend: Change<'_> = &|manager| script(manager, GUARD, &of_backend);
    let chooses_again: Change<'_> = &|manager| script(manager, GUARD, &chosen_again);
    let names_a_user: Change<'_> = &|manager| {
        let filters = manager["http_filters"].as_array_mut().unwrap();
        let at = filters.iter().position(|filter| filter["name"] == GUARD).unwrap();
        filters.insert(at, json!({ "name": "names", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": { "request_mutations": [{ "append": {
                "header": { "key": "x-user-id", "value": "root" },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            } }] },
        } }));
    };
    // Before: patgate decides about what the filter has made of the request.
    let changed_before: Change<'_> = &|manager| {
        script(
            manager,
            EXT_AUTHZ,
            "function envoy_on_request(handle)
          handle:headers():replace(':path', '/proxy/beta/v1/models')
        end",
        );
    };
    let site = Beside::start(
        &world,
        &[
            ("word", &[writes_the_word]),
            ("path", &[changes_the_path]),
            ("backend", &[changes_the_backend]),
            ("again", &[chooses_again]),
            ("user", &[names_a_user]),
            ("before", &[changed_before]),
        ],
    )
    .await;
    let headers = [("authorization", &*site.pat)];
    assert_eq!(site.get("user", MODELS, &headers).await.seen("x-user-id"), ["root"]);
    let reply = site.get("word", LOGIN, &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
    let reply = site.get("path", MODELS, &headers).await;
    assert_eq!(reply.json()["seen"]["path"], "/v1/other", "{reply:?}");
    // The route stays that was chosen after patgate's answer, unless the filter clears it.
    let reply = site.get("backend", MODELS, &headers).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
    let reply = site.get("again", MODELS, &headers).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-beta")), "{reply:?}");
    assert_eq!(reply.seen("authorization"), [key], "the credential of another backend");
    let reply = site.get("before", MODELS, &headers).await;
    assert_eq!((reply.status, &*reply.code()), (403, "permission_denied"), "{reply:?}");
}

pub(crate) async fn other_authentication_belongs_behind_ext_authz(suite: Arc<Suite>) {
    let world = suite.world().await;
    let requires_everywhere: Change<'_> = &|manager| {
        let jwt = &mut find(&mut manager["http_filters"], JWT)["typed_config"];
        let rule = json!({ "match": { "prefix": "/" }, "requires": { "provider_name": "orders" } });
        jwt["rules"] = json!([rule]);
    };
    let jwt_first: Change<'_> = &|manager| moved(manager, JWT, EXT_AUTHZ);
    let cors_behind: Change<'_> = &|manager| moved(manager, "envoy.filters.http.cors", GUARD);
    let oauth2_everywhere: Change<'_> = &|manager| oauth2(manager, EXT_AUTHZ, false);
    let oauth2_on_a_route: Change<'_> = &|manager| oauth2(manager, GUARD, true);
    let unguarded: [Change<'_>; 2] = [oauth2_on_a_route, &unguard];
    let site = Beside::with(
        &world,
        &[],
        &[
            ("everywhere", &[requires_everywhere]),
            ("jwt first", &[jwt_first]),
            ("cors behind", &[cors_behind]),
            ("oauth2 everywhere", &[oauth2_everywhere]),
            ("oauth2 on a route", &[oauth2_on_a_route]),
            ("oauth2 on a route, unguarded", &unguarded),
        ],
        |config, _| {
            let secret = |name: &str| json!({ "name": name, "generic_secret": { "secret": { "inline_string": "of-a-test" } } });
            config["static_resources"]["secrets"] = json!([secret("token"), secret("hmac")]);
        },
    )
    .await;
    let headers = [("authorization", &*site.pat)];
    // A requirement for patgate's routes meets the backend's credential, or nothing.
    let reply = site.get("everywhere", MODELS, &headers).await;
    assert_eq!((reply.status, reply.header("x-backend")), (401, None), "{reply:?}");
    assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer realm="), "{reply:?}");
    // By itself, the order of the two does not matter for the guard.
    let jwt = site.jwt();
    let reply = site.get("jwt first", ORDERS, &[("authorization", &jwt)]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("orders")), "{reply:?}");
    assert_eq!(site.get("jwt first", ORDERS, &[]).await.status, 401);
    assert_eq!(site.get("jwt first", MODELS, &headers).await.status, 200);
    // A preflight has no token, so the filter for it must stand before.
    let preflight =
        [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let ask = async |on: &str| {
        let port = site.gateway.port(on);
        patgate_testing::http::send(port, "OPTIONS", MODELS, &preflight, "").await
    };
    assert_eq!(ask("shipped").await.status, 200);
    let reply = ask("cors behind").await;
    assert_eq!((reply.status, &*reply.code()), (403, "origin_not_allowed"), "{reply:?}");

    // A filter that sends everyone to a login page does it to clients with a token as well.
    let to_login = |reply: &patgate_testing::http::Reply| {
        let location = reply.header("location").unwrap_or_default();
        reply.status == 302 && location.starts_with("https://id.example.com/authorize")
    };
    let reply = site.get("oauth2 everywhere", MODELS, &headers).await;
    assert!(to_login(&reply), "{reply:?}");
    for on in ["oauth2 on a route", "oauth2 on a route, unguarded"] {
        let reply = site.get(on, LOGIN, &[]).await;
        assert!(to_login(&reply), "{on}: {reply:?}");
        let reply = site.get(on, MODELS, &headers).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{on}");
        assert_eq!(site.get(on, MODELS, &[]).await.status, 401, "{on}");
    }
}

/// Adds a login by OAuth2: for every request, or only on the route of the login page.
fn oauth2(manager: &mut Value, before: &str, one_route: bool) {
    let config = json!({
        "token_endpoint": { "cluster": "login", "uri": "https://id.example.com/token", "timeout": "3s" },
        "authorization_endpoint": "https://id.example.com/authorize",
        "redirect_uri": "https://gateway/login/callback",
        "redirect_path_matcher": { "path": { "exact": "/login/callback" } },
        "signout_path": { "path": { "exact": "/logout" } },
        "credentials": {
            "client_id": "gateway",
            "token_secret": { "name": "token" },
            "hmac_secret": { "name": "hmac" },
        },
    });
    let filter = json!({ "name": "oauth2", "disabled": one_route, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.oauth2.v3.OAuth2",
        "config": config,
    } });
    if one_route {
        let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
        find(routes, "login")["typed_per_filter_config"]["oauth2"] = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {},
        });
    }
    let filters = manager["http_filters"].as_array_mut().unwrap();
    let at = filters.iter().position(|filter| filter["name"] == before);
    filters.insert(at.unwrap_or(filters.len() - 1), filter);
}

/// Behind the guard, nothing refuses what a filter makes of a request.
pub(crate) async fn nothing_stands_behind_the_guard(suite: Arc<Suite>) {
    let world = suite.world().await;
    let hidden = |manager: &mut Value| {
        let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
        let mut route = routes[0].clone();
        route["name"] = json!("hidden");
        route["match"] = json!({ "prefix": "/hidden" });
        route["route"] = json!({ "cluster": "model-acme" });
        routes.insert(0, route);
    };
    const TO_HIDDEN: &str = "function envoy_on_request(handle)
      handle:headers():replace(':path', '/hidden/v1/models')
      handle:clearRouteCache()
    end";
    let before: Change<'_> = &|manager| script(manager, GUARD, TO_HIDDEN);
    let behind: Change<'_> = &|manager| script(manager, "envoy.filters.http.router", TO_HIDDEN);
    let site =
        Beside::start(&world, &[("before", &[&hidden, before]), ("behind", &[&hidden, behind])])
            .await;
    refused_as_an_outage(&site.get("before", LOGIN, &[]).await, "before");
    let reply = site.get("behind", LOGIN, &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("model-acme")), "{reply:?}");
    // The second ext_authz filter stays where it is: it never asks by itself.
    let reply = site.get("shipped", LOGIN, &[]).await;
    assert_eq!((reply.status, reply.header("x-backend")), (200, Some("login")), "{WITH_BODY}");
}
