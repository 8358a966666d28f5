//! Which clusters are those of patgate's backends.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Asked, View};
use crate::{
    authorizer::Authorizers,
    model::{Proxy, Target},
    value::Read,
};

/// The clusters to which routes behind patgate lead. A route by header leads to every cluster that is
/// nothing else, except those that the guard keeps for its exceptions.
pub(super) fn find<'p>(
    proxy: &'p Proxy,
    authorizers: &Authorizers,
    views: &[View<'p>],
    services: &BTreeSet<&'p str>,
) -> BTreeSet<&'p str> {
    let mut found = BTreeSet::new();
    let mut by_header = Vec::new();
    for view in views.iter().filter(|view| !view.askers.is_empty()) {
        let mut chosen = false;
        for (host, route) in view.routes() {
            match &route.target {
                Target::Clusters(clusters) => {
                    let unasked = matches!(view.asked(host, route, None), Asked::Never(_));
                    let names = clusters.iter().map(|(name, _)| name.as_str());
                    found.extend(names.filter(|name| !(unasked && view.sets_apart(name))));
                }
                Target::Header(_) => chosen = true,
                _ => {}
            }
        }
        if chosen {
            by_header.push(view);
        }
    }
    if !by_header.is_empty() {
        let names = proxy.clusters.values().map(|cluster| cluster.name.as_str());
        found.extend(names.filter(|name| {
            !services.contains(name)
                && !authorizers.services.contains_key(*name)
                && !by_header.iter().all(|view| view.sets_apart(name))
        }));
    }
    found
}

/// The clusters that Envoy itself calls: for logs, traces, rate limits, control planes.
pub(super) fn services(proxy: &Proxy) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    collect_services(&proxy.bootstrap, &mut found);
    for listener in &proxy.listeners {
        collect_services(&listener.config, &mut found);
    }
    found
}

fn collect_services<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("cluster_name" | "clusterName", Value::String(name)) => {
                        found.insert(name);
                    }
                    ("http_uri" | "httpUri" | "server_uri" | "serverUri", value) => {
                        found.extend(value.text("cluster"))
                    }
                    // What clusters say of themselves.
                    ("clusters" | "load_assignment" | "loadAssignment", _) => {}
                    ("route_config" | "routeConfig", _) => {}
                    _ => collect_services(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_services(item, found)),
        _ => {}
    }
}
