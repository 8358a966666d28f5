//! Virtual hosts, routes, and the settings of filters on them.

use std::fmt;

use serde_json::Value;

use crate::value::{Read, unwrapped};

pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) domains: Vec<String>,
    pub(crate) config: Value,
    pub(crate) routes: Vec<Route>,
}

pub(crate) struct Route {
    /// Its name, or its position.
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) target: Target,
}

/// Where a route leads.
pub(crate) enum Target {
    /// One cluster, or several with weights, with the settings of each.
    Clusters(Vec<(String, Value)>),
    /// The cluster that this request header names.
    Header(String),
    /// Envoy answers itself.
    Answer(String),
    /// Something else, such as a cluster that a plugin chooses.
    Other(String),
}

/// Where a setting of a filter stands, from the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Weighted,
    Route,
    Host,
    Table,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Weighted => "the weighted cluster",
            Self::Route => "the route",
            Self::Host => "the virtual host",
            Self::Table => "the route table",
        })
    }
}

/// The settings of one filter on one route. The most specific level wins as a whole.
pub(crate) struct PerFilter {
    pub(crate) level: Level,
    pub(crate) disabled: bool,
    pub(crate) config: Value,
}

impl Route {
    /// The settings of a filter on this route, for the weighted cluster with these settings if one is
    /// given.
    pub(crate) fn per_filter(
        &self,
        filter: &str,
        host: &Host,
        table: &Value,
        weighted: Option<&Value>,
    ) -> Option<PerFilter> {
        let levels = [
            (Level::Weighted, weighted),
            (Level::Route, Some(&self.config)),
            (Level::Host, Some(&host.config)),
            (Level::Table, Some(table)),
        ];
        levels.into_iter().find_map(|(level, config)| {
            let found = config?.at("typed_per_filter_config").entry(filter);
            if found.is_null() {
                return None;
            }
            let found = unwrapped(found);
            if found.type_name() == "FilterConfig" && found.text("@type")?.contains(".route.") {
                let disabled = found.is_on("disabled");
                return Some(PerFilter { level, disabled, config: unwrapped(found.at("config")) });
            }
            Some(PerFilter { level, disabled: false, config: found })
        })
    }
}

pub(super) fn read_hosts(table: &Value, say: &mut impl FnMut(String)) -> Vec<Host> {
    let hosts = table.list("virtual_hosts").iter();
    hosts
        .map(|config| {
            let name = config.text("name").unwrap_or_default().to_owned();
            let domains = config.list("domains").iter().filter_map(Value::as_str);
            let mut routes: Vec<_> = config.list("routes").to_vec();
            if config.has("matcher") {
                say(format!(
                    "the virtual host {name} chooses its routes by a matcher: they are judged one by \
                     one, without the conditions of the matcher"
                ));
                collect_routes(config.at("matcher"), &mut routes);
            }
            Host {
                domains: domains.map(str::to_owned).collect(),
                routes: routes.iter().enumerate().map(|(at, route)| read_route(at, route)).collect(),
                config: config.clone(),
                name,
            }
        })
        .collect()
}

/// Collects the routes that stand somewhere in a matcher.
fn collect_routes(value: &Value, routes: &mut Vec<Value>) {
    if value.type_name() == "Route" && value.has("match") {
        routes.push(value.clone());
        return;
    }
    if let Some(items) = value.as_array() {
        items.iter().for_each(|item| collect_routes(item, routes));
    }
    if let Some(fields) = value.as_object() {
        fields.values().for_each(|item| collect_routes(item, routes));
    }
}

fn read_route(at: usize, config: &Value) -> Route {
    let name = config.text("name").filter(|name| !name.is_empty());
    let name = name.map_or_else(|| format!("{at}"), str::to_owned);
    Route { name, target: target(config), config: config.clone() }
}

fn target(config: &Value) -> Target {
    if config.has("direct_response") {
        let status = config.number("direct_response/status").unwrap_or_default();
        return Target::Answer(format!("Envoy answers {status}"));
    }
    if config.has("redirect") {
        return Target::Answer("Envoy redirects".to_owned());
    }
    if config.has("non_forwarding_action") {
        return Target::Answer("nothing is forwarded".to_owned());
    }
    let route = config.at("route");
    if let Some(header) = route.text("cluster_header") {
        return Target::Header(header.to_ascii_lowercase());
    }
    if let Some(cluster) = route.text("cluster") {
        return Target::Clusters(vec![(cluster.to_owned(), Value::Null)]);
    }
    let weighted = route.list("weighted_clusters/clusters");
    if !weighted.is_empty() {
        let named = weighted.iter().map(|one| {
            let header = one.text("cluster_header");
            let name = one
                .text("name")
                .map_or_else(|| format!("header {}", header.unwrap_or_default()), str::to_owned);
            (name, one.clone())
        });
        return Target::Clusters(named.collect());
    }
    Target::Other("a cluster that Envoy chooses in another way".to_owned())
}
