//! The structure of a configuration: listeners, filter chains, filters, routes and clusters, with the
//! settings of each as a JSON value. Unknown fields stay in these values.

mod cluster;
mod listener;
mod refused;
mod route;
mod source;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::{
    cluster::{Address, Cluster, Tls},
    listener::{Chain, Http, HttpFilter, Kind, Listener},
    refused::Refused,
    route::{Host, Level, Route, Target},
    source::Section,
};
use crate::value::{Read, entries};

/// What has made a configuration, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// A file, or a control plane that leaves no traces.
    Envoy,
    /// Envoy Gateway.
    EnvoyGateway,
    /// Istio.
    Istio,
}

impl fmt::Display for Maker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Envoy => "Envoy",
            Self::EnvoyGateway => "Envoy Gateway",
            Self::Istio => "Istio",
        })
    }
}

/// How a configuration was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A bootstrap file.
    Bootstrap,
    /// A dump of the admin interface.
    Dump,
}

/// A value that is neither a bootstrap nor a dump.
#[derive(Debug, PartialEq, Eq)]
pub struct NotEnvoy;

impl fmt::Display for NotEnvoy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "neither a bootstrap of Envoy (with static_resources or dynamic_resources) nor a dump of \
             its admin interface (with configs); get one with `curl \
             http://127.0.0.1:9901/config_dump?include_eds`",
        )
    }
}

impl std::error::Error for NotEnvoy {}

/// Something that this program cannot judge, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unjudged {
    /// The part of the configuration.
    pub place: String,
    /// Why it cannot be judged, and what would help.
    pub reason: String,
}

/// The configuration of one Envoy.
pub struct Proxy {
    pub(crate) form: Form,
    pub(crate) maker: Maker,
    /// The version of Envoy; a bootstrap file has none.
    pub(crate) version: Option<[u64; 3]>,
    pub(crate) bootstrap: Value,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// Whether a cluster that is not among these does not exist.
    pub(crate) whole_clusters: bool,
    pub(crate) refused: Vec<Refused>,
    pub(crate) unjudged: Vec<Unjudged>,
}

impl Proxy {
    /// Reads a bootstrap or a dump.
    ///
    /// # Errors
    ///
    /// Returns [`NotEnvoy`] if the value is neither.
    pub fn read(configuration: &Value) -> Result<Self, NotEnvoy> {
        let source = source::Source::read(configuration)?;
        let mut unjudged = source.unjudged.clone();
        let listeners: Vec<_> = source
            .listeners
            .iter()
            .map(|listener| Listener::read(listener, &source, &mut unjudged))
            .collect();
        let clusters = source
            .clusters
            .iter()
            .map(|config| Cluster::read(config, &source.endpoints))
            .map(|cluster| (cluster.name.clone(), cluster))
            .collect();
        Ok(Self {
            form: source.form,
            maker: maker(&source),
            version: version(&source.bootstrap),
            bootstrap: source.bootstrap,
            listeners,
            clusters,
            whole_clusters: source.whole_clusters,
            refused: source.refused,
            unjudged,
        })
    }
}

fn maker(source: &source::Source) -> Maker {
    let node = source.bootstrap.at("node");
    if node.at("metadata").has("ISTIO_VERSION") {
        return Maker::Istio;
    }
    // Envoy Gateway marks hosts, routes and clusters, and some of its releases mark listeners.
    let by_gateway = |config: &Value| config.has("metadata/filter_metadata/envoy-gateway");
    let hosts = source.tables.values().flat_map(|table| table.list("virtual_hosts"));
    let marked = source.listeners.iter().chain(&source.clusters).chain(hosts).any(by_gateway);
    if marked { Maker::EnvoyGateway } else { Maker::Envoy }
}

fn version(bootstrap: &Value) -> Option<[u64; 3]> {
    let version = bootstrap.at("node/user_agent_build_version/version");
    // A number that is 0 is left out.
    let part = |field| version.number(field).unwrap_or_default();
    entries(version).next()?;
    Some([part("major_number"), part("minor_number"), part("patch")])
}
