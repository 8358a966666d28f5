//! Which clusters that are no backends can a request reach: the admin interface, patgate itself, and the
//! services that Envoy calls?

use patgate_core::backend::{BackendName, ReservedNames};

use super::{Fix, Found, Place, Rule, Severity, everywhere};
use crate::{
    model::{Kind, Listener, Route, Target},
    value::Read,
    view::Context,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-ADMIN-REACH",
        severity: Severity::High,
        title: "a listener leads to more of the admin interface than its metrics",
        consequence: "Whoever reaches the listener reads secrets in the configuration, drains the proxy, or ends it.",
        fix: Fix {
            envoy: "let its only route match `path: /stats/prometheus` and the method GET, and rewrite nothing, as envoy/metrics.yaml does",
            gateway: None,
            istio: Some(
                "set METRICS_LOCALHOST_ACCESS_ONLY to \"true\" in proxyMetadata of the proxy, as deploy/istio/gateway-values.yaml does",
            ),
        },
        check: admin,
    },
    Rule {
        id: "PG-ROUTE-OWN",
        severity: Severity::Medium,
        title: "a backend could have the name of a cluster that is none",
        consequence: "Whoever may make backends leads requests with a good token there, by the header in which patgate names the backend.",
        fix: everywhere(
            "give the cluster a name that no backend can have, such as one that begins with `_`, and name it in patgate's setting routes.reserved until then",
        ),
        check: own,
    },
];

/// The only path of the admin interface that a listener may lead to.
const METRICS: &str = "/stats/prometheus";

fn admin(context: &Context<'_>, found: &mut Found) {
    // On loopback, the admin interface itself is no farther away.
    let is_open = |listener: &Listener| !context.is_for_this_machine(listener);
    for listener in context.proxy.listeners.iter().filter(|listener| is_open(listener)) {
        for chain in &listener.chains {
            let Kind::Tcp(clusters) = &chain.kind else { continue };
            for name in clusters.iter().filter(|name| context.is_admin(name)) {
                let place = Place {
                    listener: Some(listener.name.clone()),
                    chain: Some(chain.name.clone()),
                    ..Place::default()
                };
                found.add(place, format!("connections go to the cluster {name}"));
            }
        }
    }
    for view in context.views.iter().filter(|view| is_open(view.listener)) {
        for (host, route) in view.routes() {
            if let Some(name) = leads_to_admin(context, route)
                && let Some(why) = more_than_metrics(route)
            {
                let what = format!("the route leads to the cluster {name}, and {why}");
                found.add(Place::route(view, host, route), what);
            }
        }
    }
}

/// The name of a cluster at the admin interface to which a route leads.
fn leads_to_admin<'r>(context: &Context<'_>, route: &'r Route) -> Option<&'r str> {
    let Target::Clusters(clusters) = &route.target else { return None };
    clusters.iter().map(|(name, _)| name.as_str()).find(|name| context.is_admin(name))
}

/// Whether a route leads to the metrics of the admin interface, and to nothing else of it.
pub(crate) fn reads_metrics(context: &Context<'_>, route: &Route) -> bool {
    leads_to_admin(context, route).is_some() && more_than_metrics(route).is_none()
}

/// What of the admin interface a request on this route reaches besides the metrics.
fn more_than_metrics(route: &Route) -> Option<&'static str> {
    let matched = route.config.at("match");
    if matched.text("path") != Some(METRICS) || matched.flag("case_sensitive") == Some(false) {
        // Envoy's admin interface normalizes the path of a request, so `/stats/prometheus/../../quitquitquit`
        // is there `/quitquitquit`.
        return Some("its path is not exactly /stats/prometheus");
    }
    let only_get = matched.list("headers").iter().any(|matcher| {
        let exact = matcher.text("string_match/exact").or_else(|| matcher.text("exact_match"));
        matcher.text("name") == Some(":method")
            && exact == Some("GET")
            && !matcher.is_on("invert_match")
            && !matcher.is_on("string_match/ignore_case")
    });
    if !only_get {
        return Some("its method is not only GET");
    }
    let rewrites = ["prefix_rewrite", "regex_rewrite", "path_rewrite", "path_rewrite_policy"];
    let rewritten = rewrites.iter().any(|field| route.config.at("route").has(field));
    rewritten.then_some("it rewrites the path")
}

fn own(context: &Context<'_>, found: &mut Found) {
    let by_header = |(_, route): (_, &Route)| matches!(route.target, Target::Header(_));
    if !context.asking().any(|view| view.routes().any(by_header)) {
        return;
    }
    let reserved = ReservedNames::default();
    let patgates = context.authorizers.services.keys().map(String::as_str);
    let mut names: Vec<_> = patgates.chain(context.services.iter().copied()).collect();
    names.extend(context.admin.iter().copied());
    names.sort_unstable();
    names.dedup();
    for name in names {
        let is_possible = name.parse::<BackendName>().is_ok() && !reserved.holds(name);
        if is_possible && context.proxy.clusters.contains_key(name) {
            let severity = if context.is_admin(name) { Severity::High } else { Severity::Medium };
            let what = "a route takes its name from patgate's header";
            found.at(severity, Place::cluster(name), what);
        }
    }
}
