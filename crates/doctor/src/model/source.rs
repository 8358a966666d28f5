//! The parts of a bootstrap or of a dump, in one form.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Form, NotEnvoy, Unjudged, refused::Refused};
use crate::value::{Read, unwrapped};

/// A kind of resource that a control plane sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Listener,
    Cluster,
    RouteTable,
    Endpoints,
    Filter,
}

/// Listeners, clusters and what they refer to, wherever it stood.
pub(super) struct Source {
    pub(super) form: Form,
    pub(super) bootstrap: Value,
    pub(super) listeners: Vec<Value>,
    pub(super) clusters: Vec<Value>,
    /// Route tables that listeners refer to, by name.
    pub(super) tables: BTreeMap<String, Value>,
    /// Addresses that clusters refer to, by name.
    pub(super) endpoints: BTreeMap<String, Value>,
    /// Filters that listeners refer to, by name.
    pub(super) filters: BTreeMap<String, Value>,
    /// Whether all clusters are here, and not only those of a bootstrap.
    pub(super) whole_clusters: bool,
    pub(super) refused: Vec<Refused>,
    pub(super) unjudged: Vec<Unjudged>,
}

impl Source {
    pub(super) fn read(configuration: &Value) -> Result<Self, NotEnvoy> {
        if configuration.get("configs").is_some_and(Value::is_array) {
            return Ok(Self::of_dump(configuration.list("configs")));
        }
        let parts = ["static_resources", "dynamic_resources"];
        if parts.iter().any(|part| configuration.has(part)) {
            return Ok(Self::of_bootstrap(configuration));
        }
        Err(NotEnvoy)
    }

    fn new(form: Form, bootstrap: &Value) -> Self {
        Self {
            form,
            bootstrap: bootstrap.clone(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            tables: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            filters: BTreeMap::new(),
            whole_clusters: false,
            refused: Vec::new(),
            unjudged: Vec::new(),
        }
    }

    fn of_bootstrap(bootstrap: &Value) -> Self {
        let mut source = Self::new(Form::Bootstrap, bootstrap);
        source.listeners = bootstrap.list("static_resources/listeners").to_vec();
        source.clusters = bootstrap.list("static_resources/clusters").to_vec();
        source.whole_clusters = !bootstrap.has("dynamic_resources/cds_config");
        let dynamic = [("lds_config", "listeners"), ("cds_config", "clusters")];
        for (field, what) in dynamic {
            if bootstrap.has(&format!("dynamic_resources/{field}")) {
                source.unjudged(
                    "dynamic_resources",
                    format!(
                        "the {what} come from a control plane, and a bootstrap has none of them: \
                         read config_dump?include_eds of the admin interface"
                    ),
                );
            }
        }
        source
    }

    fn of_dump(configs: &[Value]) -> Self {
        let section =
            |name: &'static str| configs.iter().filter(move |part| part.type_name() == name);
        let bootstrap = section("BootstrapConfigDump").next().map(|part| part.at("bootstrap"));
        let mut source = Self::new(Form::Dump, bootstrap.unwrap_or(&Value::Null));
        for name in ["BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump"] {
            if section(name).next().is_none() {
                source.unjudged(
                    name,
                    "the dump has no such part: read it without `resource=`".into(),
                );
            }
        }
        for part in section("ListenersConfigDump") {
            source.listeners.extend(of(part, "static_listeners", "listener"));
            for dynamic in part.list("dynamic_listeners") {
                let name = dynamic.text("name").unwrap_or_default();
                if dynamic.has("warming_state") {
                    source.unjudged(
                        &format!("listener {name}"),
                        "a newer version waits for what it refers to, and is not judged".into(),
                    );
                }
                source.listeners.extend(
                    Some(unwrapped(dynamic.at("active_state/listener")))
                        .filter(|listener| !listener.is_null()),
                );
            }
        }
        for part in section("ClustersConfigDump") {
            source.clusters.extend(of(part, "static_clusters", "cluster"));
            source.clusters.extend(of(part, "dynamic_active_clusters", "cluster"));
            source.clusters.extend(of(part, "dynamic_warming_clusters", "cluster"));
        }
        for part in section("RoutesConfigDump") {
            for table in of(part, "dynamic_route_configs", "route_config") {
                source.tables.insert(table.text("name").unwrap_or_default().to_owned(), table);
            }
        }
        for part in section("EndpointsConfigDump") {
            for list in ["static_endpoint_configs", "dynamic_endpoint_configs"] {
                for endpoints in of(part, list, "endpoint_config") {
                    let name = endpoints.text("cluster_name").unwrap_or_default().to_owned();
                    source.endpoints.insert(name, endpoints);
                }
            }
        }
        for part in section("EcdsConfigDump") {
            for filter in of(part, "ecds_filters", "ecds_filter") {
                source.filters.insert(filter.text("name").unwrap_or_default().to_owned(), filter);
            }
        }
        source.whole_clusters = !source.clusters.is_empty();
        // The part, its list, what of an entry is in use.
        let updates = [
            ("ListenersConfigDump", "dynamic_listeners", "active_state", Section::Listener),
            ("ClustersConfigDump", "dynamic_active_clusters", "cluster", Section::Cluster),
            ("ClustersConfigDump", "dynamic_warming_clusters", "cluster", Section::Cluster),
            ("RoutesConfigDump", "dynamic_route_configs", "route_config", Section::RouteTable),
            (
                "EndpointsConfigDump",
                "dynamic_endpoint_configs",
                "endpoint_config",
                Section::Endpoints,
            ),
            ("EcdsConfigDump", "ecds_filters", "ecds_filter", Section::Filter),
        ];
        for (name, list, active, kind) in updates {
            for part in section(name) {
                let entries = part.list(list).iter();
                let refused = entries.filter_map(|one| Refused::read(kind, one, active));
                Refused::collect(&mut source.refused, refused);
            }
        }
        let refused = std::mem::take(&mut source.refused);
        let (unbound, refused): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(Refused::is_unbound);
        source.refused = refused;
        for one in unbound {
            source.unjudged(
                &format!("listener {}", one.name),
                format!("Envoy does not listen there: {}", one.reason),
            );
        }
        source
    }

    fn unjudged(&mut self, place: &str, reason: String) {
        self.unjudged.push(Unjudged { place: place.to_owned(), reason });
    }
}

fn of(part: &Value, list: &str, field: &str) -> Vec<Value> {
    let found = part.list(list).iter().map(|item| unwrapped(item.at(field)));
    found.filter(|value| !value.is_null()).collect()
}
