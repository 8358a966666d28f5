//! Listeners, their filter chains, and the HTTP filters in them.

use serde_json::Value;

use super::{
    Unjudged,
    cluster::Address,
    route::{Host, read_hosts},
    source::Source,
};
use crate::value::{Read, unwrapped};

pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) config: Value,
    pub(crate) chains: Vec<Chain>,
}

pub(crate) struct Chain {
    /// Its name, or its position.
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Http(Box<Http>),
    /// Connections go to these clusters, without a look at requests.
    Tcp(Vec<String>),
    /// Another protocol, by the type of its filter.
    Other(String),
}

pub(crate) struct Http {
    pub(crate) config: Value,
    pub(crate) filters: Vec<HttpFilter>,
    /// The name of its route table.
    pub(crate) table: String,
    pub(crate) table_config: Value,
    pub(crate) hosts: Vec<Host>,
}

pub(crate) struct HttpFilter {
    pub(crate) name: String,
    /// Whether only a route can switch it on.
    pub(crate) disabled: bool,
    pub(crate) config: Value,
}

impl HttpFilter {
    /// The last part of its type, such as `ExtAuthz`.
    pub(crate) fn kind(&self) -> &str {
        self.config.type_name()
    }
}

impl Listener {
    pub(super) fn read(config: &Value, source: &Source, unjudged: &mut Vec<Unjudged>) -> Self {
        let address = Address::read(config.at("address"));
        let name = config.text("name").map_or_else(|| address.to_string(), str::to_owned);
        let default = Some(config.at("default_filter_chain")).filter(|chain| !chain.is_null());
        let numbered = config.list("filter_chains").iter().enumerate();
        let numbered = numbered.map(|(at, chain)| (format!("{at}"), chain));
        let chains = numbered
            .chain(default.map(|chain| ("default".to_owned(), chain)))
            .map(|(position, chain)| {
                let chain_name = chain.text("name").filter(|name| !name.is_empty());
                let chain_name = chain_name.map_or(position, str::to_owned);
                let place = format!("listener {name}, chain {chain_name}");
                let kind = read_chain(chain, &place, source, unjudged);
                Chain { name: chain_name, config: chain.clone(), kind }
            })
            .collect();
        Self { name, address, config: config.clone(), chains }
    }

    /// All its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        let more = self.config.list("additional_addresses").iter();
        let more = more.map(|one| Address::read(one.at("address")));
        [self.address.clone()].into_iter().chain(more)
    }
}

fn read_chain(chain: &Value, place: &str, source: &Source, unjudged: &mut Vec<Unjudged>) -> Kind {
    // What comes before the last one inspects or refuses connections.
    let Some(last) = chain.list("filters").last() else {
        return Kind::Other("no filter".to_owned());
    };
    let config = unwrapped(last.at("typed_config"));
    match config.type_name() {
        "HttpConnectionManager" => Kind::Http(Box::new(read_http(config, place, source, unjudged))),
        "TcpProxy" => {
            let weighted = config.list("weighted_clusters/clusters").iter();
            let names = weighted.filter_map(|one| one.text("name")).chain(config.text("cluster"));
            Kind::Tcp(names.map(str::to_owned).collect())
        }
        other => {
            unjudged.push(Unjudged {
                place: place.to_owned(),
                reason: format!(
                    "this program does not know where the filter {other} sends requests"
                ),
            });
            Kind::Other(other.to_owned())
        }
    }
}

fn read_http(config: Value, place: &str, source: &Source, unjudged: &mut Vec<Unjudged>) -> Http {
    let mut say = |reason: String| unjudged.push(Unjudged { place: place.to_owned(), reason });
    let mut filters = Vec::new();
    for filter in config.list("http_filters") {
        let name = filter.text("name").unwrap_or_default().to_owned();
        let mut typed = unwrapped(filter.at("typed_config"));
        if typed.is_null() && filter.has("config_discovery") {
            match source.filters.get(&name) {
                Some(found) => typed = unwrapped(found.at("typed_config")),
                None if filter.has("config_discovery/default_config") => {
                    typed = unwrapped(filter.at("config_discovery/default_config"));
                    say(format!(
                        "the filter {name} comes from the control plane (ECDS), and only its default \
                         is here: read config_dump of the admin interface"
                    ));
                }
                None => say(format!(
                    "the filter {name} comes from the control plane (ECDS), and is not here: read \
                     config_dump of the admin interface"
                )),
            }
        }
        if matches!(typed.type_name(), "ExtensionWithMatcher" | "Composite") {
            say(format!(
                "the filter {name} chooses other filters by conditions, which this program does not \
                 evaluate"
            ));
        }
        filters.push(HttpFilter { disabled: filter.is_on("disabled"), config: typed, name });
    }
    let named = config.text("rds/route_config_name");
    let table = if config.has("route_config") {
        Some(config.at("route_config").clone())
    } else {
        named.and_then(|name| source.tables.get(name)).cloned()
    };
    if table.is_none() {
        say(match named {
            Some(name) => format!(
                "its routes come from the control plane (RDS, {name}), and are not here: read \
                 config_dump of the admin interface"
            ),
            None => {
                "it chooses its route table by request (scoped routes), which this program does \
                     not evaluate"
                    .to_owned()
            }
        });
    }
    let table_config = table.unwrap_or_default();
    if table_config.has("vhds") {
        say("its virtual hosts are loaded on demand (VHDS), and only those in use are here"
            .to_owned());
    }
    let hosts = read_hosts(&table_config, &mut say);
    let name = table_config.text("name").or(named).unwrap_or_default().to_owned();
    Http { filters, table: name, table_config, hosts, config }
}
