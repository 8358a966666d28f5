//! What do filters between ext_authz and the router see, and what can they still change?

use serde_json::Value;

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{headers::CREDENTIALS, value::Read, view::Context};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-LEAK-FILTER",
        severity: Severity::Medium,
        title: "a filter behind ext_authz is shown the backend's credential",
        consequence: "It sees what patgate has added, the credential of the backend included, and can log it, send it elsewhere, or write the guard's word.",
        fix: each(
            "remove the filter from this chain, or put it on a listener of its own",
            "remove the EnvoyExtensionPolicy, or let it target another Gateway",
            "remove the EnvoyFilter or WasmPlugin from this gateway",
        ),
        check: leak,
    },
    Rule {
        id: "PG-LEAK-LIMIT",
        severity: Severity::High,
        title: "a rate limit is counted by a credential",
        consequence: "The rate limit service gets the credentials as descriptors.",
        fix: everywhere(
            "count by patgate's metadata, as envoy/rate-limits.yaml does, instead of by a header with a credential",
        ),
        check: limit,
    },
    Rule {
        id: "PG-GUARD-LAST",
        severity: Severity::Medium,
        title: "a filter behind the guard can change the request",
        consequence: "It changes path, headers or route after the guard has looked, and nothing refuses the result.",
        fix: everywhere("move the guard right before the router"),
        check: last,
    },
    Rule {
        id: "PG-ROUTE-REDIRECT",
        severity: Severity::Medium,
        title: "Envoy follows redirects of a backend itself",
        consequence: "The backend chooses the path of a second request, which carries what patgate has added to the first one.",
        fix: everywhere(
            "remove internal_redirect_policy from the route, so that the client gets the redirect",
        ),
        check: redirect,
    },
];

/// Filters that run code or send requests to another service.
const CODE: &[&str] = &["Lua", "ExternalProcessor", "Wasm", "Tap", "DynamicModuleFilter"];

/// Filters that can change the path, the headers or the route, besides those that run code.
const CHANGES: &[&str] = &[
    "HeaderMutation",
    "JwtAuthentication",
    "OAuth2",
    "GrpcJsonTranscoder",
    "Config",
    "JsonToMetadata",
    "ExtAuthz",
];

/// Whether a filter runs code. Of a filter in Go, only the package distinguishes the type.
fn is_code(config: &Value) -> bool {
    let golang = config.text("@type").is_some_and(|url| url.contains(".golang."));
    CODE.contains(&config.type_name()) || golang
}

fn leak(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some(first) = view.firsts().map(|asker| asker.at).min() else { continue };
        for filter in view.http.filters.iter().skip(first + 1) {
            let of_istio = filter.config.text("@type").is_some_and(|url| url.contains("istio."));
            if is_code(&filter.config) && !of_istio {
                let what = format!("a filter of type {}", filter.kind());
                found.add(Place::filter(view, &filter.name), what);
            }
        }
    }
}

fn limit(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let hosts = view.http.hosts.iter().map(|host| (Place::host(view, host), &host.config));
        let routes = view.routes();
        let routes = routes.map(|(host, route)| (Place::route(view, host, route), &route.config));
        for (place, config) in hosts.chain(routes) {
            let limits = config.list("rate_limits").iter().chain(config.list("route/rate_limits"));
            let actions = limits.flat_map(|limit| limit.list("actions"));
            let names = actions.filter_map(|action| action.text("request_headers/header_name"));
            let secret: Vec<_> = names
                .map(str::to_ascii_lowercase)
                .filter(|name| CREDENTIALS.contains(&name.as_str()))
                .collect();
            if !secret.is_empty() {
                found.add(place, format!("descriptors have {}", secret.join(", ")));
            }
        }
    }
}

fn last(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some((at, _)) = &view.guard else { continue };
        for filter in view.http.filters.iter().skip(at + 1) {
            let kind = filter.kind();
            let answers_only = kind == "HeaderMutation"
                && filter.config.list("mutations/request_mutations").is_empty();
            let asks = view.askers.iter().any(|asker| asker.filter.name == filter.name);
            let of_istio = filter.config.text("@type").is_some_and(|url| url.contains("istio."));
            let changes = is_code(&filter.config) || CHANGES.contains(&kind);
            if changes && !answers_only && !asks && !of_istio {
                let what = format!("a filter of type {kind} follows");
                found.add(Place::filter(view, &filter.name), what);
            }
        }
    }
}

fn redirect(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes() {
            if route.config.has("route/internal_redirect_policy")
                || route.config.has("route/internal_redirect_action")
            {
                let what = "`internal_redirect_policy` on the route";
                found.add(Place::route(view, host, route), what);
            }
        }
    }
}
