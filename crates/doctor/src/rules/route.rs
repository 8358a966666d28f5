//! Do requests go where patgate has said, and for how long?

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Found, Place, Rule, Severity, chain::is_connect, each, everywhere};
use crate::{
    guard::always,
    model::{Host, Route, Target},
    value::{Read, entries, unwrapped},
    view::{Asked, Context, View},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-ROUTE-CACHE",
        severity: Severity::High,
        title: "the route that was chosen before patgate's answer stays",
        consequence: "Envoy uses the route of the client's own headers, so a client can choose another tenant's backend.",
        fix: each(
            "set `clear_route_cache: true` in each filter that asks patgate",
            "set `recomputeRoute: true` in extAuth of the SecurityPolicy",
            "merge `clear_route_cache: true` into ext_authz with an EnvoyFilter: Istio accepts `clearRouteCache` in the provider and drops it",
        ),
        check: cache,
    },
    Rule {
        id: "PG-ROUTE-FIXED",
        severity: Severity::Medium,
        title: "a route leads to a cluster that patgate has not named",
        consequence: "The credential and the identity headers that patgate sets are for the cluster in its header, and go to another one.",
        fix: each(
            "choose the cluster by patgate's header, as the other routes do",
            "let the HTTPRoute match on patgate's header",
            "let the VirtualService match on patgate's header",
        ),
        check: fixed,
    },
    Rule {
        id: "PG-ROUTE-CLIENT",
        severity: Severity::High,
        title: "a header of the client chooses the cluster",
        consequence: "A client with any good token reaches every cluster of this Envoy, with the credential of another one.",
        fix: everywhere(
            "name patgate's header in cluster_header, with the prefix of its setting headers.prefix",
        ),
        check: client,
    },
    Rule {
        id: "PG-ROUTE-TIMEOUT",
        severity: Severity::Medium,
        title: "Envoy's default timeout of 15 s",
        consequence: "Envoy cuts streamed answers of models after 15 s.",
        fix: each(
            "set `timeout: 0s` on the route",
            "set `timeouts.request: 0s` in the HTTPRoute's rule",
            "leave `timeout` out of the VirtualService: its CRD refuses 0s, and Istio's default is without limit",
        ),
        check: timeout,
    },
    Rule {
        id: "PG-ROUTE-STREAM",
        severity: Severity::Low,
        title: "streams have no limit in time",
        consequence: "A stream that was allowed once goes on after its token is revoked.",
        fix: each(
            "set `max_stream_duration` on the route",
            "set `timeout.http.maxStreamDuration` in a BackendTrafficPolicy",
            "set max_stream_duration with an EnvoyFilter on the routes",
        ),
        check: stream,
    },
    Rule {
        id: "PG-ROUTE-MIRROR",
        severity: Severity::Medium,
        title: "requests are mirrored",
        consequence: "The mirror gets each request with the credential of another backend, and what the client sent.",
        fix: each(
            "remove request_mirror_policies from the route",
            "remove the filter RequestMirror from the HTTPRoute",
            "remove `mirror` and `mirrors` from the VirtualService",
        ),
        check: mirror,
    },
    Rule {
        id: "PG-ROUTE-NAME",
        severity: Severity::Medium,
        title: "settings for a filter that does not exist",
        consequence: "Envoy accepts settings under a name that no filter has, and they have no effect.",
        fix: everywhere(
            "use the name of the filter in http_filters as the key in typed_per_filter_config",
        ),
        check: name,
    },
];

fn cache(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        if !view.routes().any(|(_, route)| view.looks_at_answer(route)) {
            continue;
        }
        for asker in &view.askers {
            if !asker.filter.config.is_on("clear_route_cache") {
                let what = format!(
                    "routes depend on {}, and `clear_route_cache` is not set",
                    view.backend_header()
                );
                found.add(Place::asker(view, asker), what);
            }
        }
    }
}

fn fixed(context: &Context<'_>, found: &mut Found) {
    // patgate names a backend for the domain in the path, on whichever listener or host the request
    // came. So all chains count together: a team's listener may lead to its own backend only.
    let mut by_header = false;
    let mut unnamed = BTreeSet::new();
    for view in context.asking() {
        for (host, route) in view.routes() {
            by_header |= view.needs_answer(route)
                || matches!(&route.target, Target::Header(name) if view.is_own(name));
            if let Target::Clusters(clusters) = &route.target
                && !view.looks_at_answer(route)
                && !matches!(view.asked(host, route, None), Asked::Never(_))
                && !leads_nowhere(context, route)
            {
                unnamed.extend(clusters.iter().map(|(name, _)| name.as_str()));
            }
        }
    }
    // A gateway with one backend for everything needs no header.
    if unnamed.len() < 2 && !by_header {
        return;
    }
    for view in context.asking() {
        for (host, route) in view.routes() {
            let Target::Clusters(clusters) = &route.target else { continue };
            if refuses_named(view, host, route) {
                continue;
            }
            // Where nobody is asked, there is no identity either, which other rules report.
            let asked = !matches!(view.asked(host, route, None), Asked::Never(_));
            let leads = !is_connect(route) && !leads_nowhere(context, route);
            if asked && !view.looks_at_answer(route) && leads {
                let names: Vec<_> = clusters.iter().map(|(name, _)| name.as_str()).collect();
                let what = format!(
                    "it leads to {}, whatever {} says",
                    names.join(", "),
                    view.backend_header()
                );
                found.add(Place::route(view, host, route), what);
            }
        }
    }
}

/// Whether a filter refuses the requests for which patgate has named a backend: then a route for what
/// has none gets no credential.
fn refuses_named(view: &View<'_>, host: &Host, route: &Route) -> bool {
    let last = view.askers.iter().map(|asker| asker.at).max().unwrap_or_default();
    view.http.filters.iter().skip(last + 1).any(|filter| {
        let on = !filter.disabled
            && route.per_filter(&filter.name, host, &view.http.table_config, None).is_none();
        let rules = filter.config.at("rules");
        let named = |permission: &Value| {
            permission.text("header/name") == Some(view.backend_header().as_str())
                && permission.is_on("header/present_match")
                && !permission.is_on("header/invert_match")
        };
        on && filter.kind() == "RBAC"
            && rules.text("action") == Some("DENY")
            && entries(rules.at("policies")).any(|(_, policy)| {
                !policy.has("condition")
                    && !policy.has("checked_condition")
                    && policy.list("principals").iter().any(always)
                    && policy.list("permissions").iter().any(named)
            })
    })
}

fn client(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes() {
            if let Target::Header(name) = &route.target
                && !view.is_own(name)
            {
                found.add(Place::route(view, host, route), format!("`cluster_header: {name}`"));
            }
        }
    }
}

/// Routes on which a request can reach a backend after patgate's answer. A route that matches only as
/// long as patgate's header is missing, and is chosen by that header, leads nowhere.
fn leads(context: &Context<'_>, view: &View<'_>, route: &Route) -> bool {
    let absent = route.config.list("match/headers").iter().any(|matcher| {
        matcher.text("name").is_some_and(|name| view.is_own(name))
            && matcher.flag("present_match") == Some(false)
    });
    match &route.target {
        Target::Answer(_) => false,
        Target::Header(name) => !(absent && view.is_own(name)),
        Target::Clusters(_) | Target::Other(_) => {
            !is_connect(route) && !leads_nowhere(context, route)
        }
    }
}

/// Whether a route leads to a cluster that this Envoy does not have, and is answered with 503. Without
/// any cluster, the source does not say which there are.
fn leads_nowhere(context: &Context<'_>, route: &Route) -> bool {
    let Target::Clusters(clusters) = &route.target else { return false };
    let known = &context.proxy.clusters;
    // One that a header chooses has no name here.
    let missing = |name: &str| !name.starts_with("header ") && !known.contains_key(name);
    !known.is_empty() && clusters.iter().all(|(name, _)| missing(name))
}

fn timeout(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes().filter(|(_, route)| leads(context, view, route)) {
            if !route.config.has("route/timeout") {
                found.add(Place::route(view, host, route), "no `timeout`");
            }
        }
    }
}

fn stream(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let all = view.http.config.at("common_http_protocol_options");
        if all.seconds("max_stream_duration").is_some_and(|limit| limit > 0.0) {
            continue;
        }
        for (host, route) in view.routes().filter(|(_, route)| leads(context, view, route)) {
            let limit = route.config.seconds("route/max_stream_duration/max_stream_duration");
            // A timeout of the whole answer limits a stream as well.
            let whole = route.config.seconds("route/timeout").filter(|timeout| *timeout > 0.0);
            if limit.is_none_or(|limit| limit == 0.0) && whole.is_none() {
                found.add(Place::route(view, host, route), "no `max_stream_duration`");
            }
        }
    }
}

fn mirror(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes() {
            let own = route.config.list("route/request_mirror_policies").iter();
            let all = host.config.list("request_mirror_policies").iter();
            let shared = view.http.table_config.list("request_mirror_policies");
            for policy in own.chain(all).chain(shared) {
                let cluster = policy.text("cluster").or_else(|| policy.text("cluster_header"));
                let what = format!("a copy goes to {}", cluster.unwrap_or("another cluster"));
                found.add(Place::route(view, host, route), what);
            }
        }
    }
}

fn name(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        // Other chains may use the same table.
        let sharing = context.views.iter().filter(|other| {
            other.http.table == view.http.table && !other.http.table.is_empty()
                || std::ptr::eq(other.http, view.http)
        });
        let filters: Vec<_> = sharing.flat_map(|other| &other.http.filters).collect();
        let check = |config: &Value, place: Place, found: &mut Found| {
            for (name, settings) in entries(config.at("typed_per_filter_config")) {
                let kind = unwrapped(settings);
                let kind = kind.type_name();
                let matters = matches!(kind, "ExtAuthzPerRoute" | "RBACPerRoute");
                if matters && !filters.iter().any(|filter| filter.name == *name) {
                    found.add(
                        place.clone(),
                        format!("{kind} for {name}, which no filter is called"),
                    );
                }
            }
        };
        check(&view.http.table_config, Place::of(view), found);
        for host in &view.http.hosts {
            check(&host.config, Place::host(view, host), found);
            for route in &host.routes {
                check(&route.config, Place::route(view, host, route), found);
                if let Target::Clusters(clusters) = &route.target {
                    for (_, config) in clusters {
                        check(config, Place::route(view, host, route), found);
                    }
                }
            }
        }
    }
}
