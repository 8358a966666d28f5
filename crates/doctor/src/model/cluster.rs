//! Clusters, and where they lead.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde_json::Value;

use crate::value::Read;

/// An address, as a configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Socket {
        host: String,
        port: u64,
    },
    Pipe(String),
    /// A listener of the same Envoy.
    Internal(String),
    Unknown,
}

impl Address {
    pub(crate) fn read(address: &Value) -> Self {
        if let Some(path) = address.text("pipe/path") {
            return Self::Pipe(path.to_owned());
        }
        if let Some(host) = address.text("socket_address/address") {
            // A port 0 is left out of a dump.
            let port = address.number("socket_address/port_value").unwrap_or_default();
            return Self::Socket { host: host.to_owned(), port };
        }
        match address.text("envoy_internal_address/server_listener_name") {
            Some(name) => Self::Internal(name.to_owned()),
            None => Self::Unknown,
        }
    }

    /// Whether what listens there can be reached at every address of this machine.
    pub(crate) fn is_everywhere(&self) -> bool {
        let host = match self {
            Self::Socket { host, .. } => host.parse::<IpAddr>(),
            _ => return false,
        };
        host.is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether what is sent there stays on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Socket { host, .. } => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
            Self::Pipe(_) | Self::Internal(_) => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { host, port } if host.contains(':') => {
                write!(formatter, "[{host}]:{port}")
            }
            Self::Socket { host, port } => write!(formatter, "{host}:{port}"),
            Self::Pipe(path) => write!(formatter, "unix:{path}"),
            Self::Internal(name) => write!(formatter, "internal:{name}"),
            Self::Unknown => formatter.write_str("an unknown address"),
        }
    }
}

/// How a cluster's connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    None,
    Unverified,
    Verified,
}

pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) addresses: Vec<Address>,
    pub(crate) tls: Tls,
    /// Whether health checks send a name that each endpoint has for them.
    pub(crate) checked_by_name: bool,
}

impl Cluster {
    pub(super) fn read(config: &Value, endpoints: &BTreeMap<String, Value>) -> Self {
        let name = config.text("name").unwrap_or_default().to_owned();
        let service = config.text("eds_cluster_config/service_name").unwrap_or(&name);
        let assigned = if config.has("load_assignment") {
            Some(config.at("load_assignment"))
        } else {
            endpoints.get(service)
        };
        let groups = assigned.map_or(&[][..], |assigned| assigned.list("endpoints"));
        let all = groups.iter().flat_map(|group| group.list("lb_endpoints"));
        let addresses: Vec<_> =
            all.clone().map(|endpoint| Address::read(endpoint.at("endpoint/address"))).collect();
        let mut names = all.map(|endpoint| endpoint.text("endpoint/health_check_config/hostname"));
        let checked_by_name =
            !addresses.is_empty() && names.all(|name| name.is_some_and(|name| !name.is_empty()));
        Self { tls: tls(config), addresses, checked_by_name, name, config: config.clone() }
    }

    /// The way in which its addresses are found, such as `EDS`.
    pub(crate) fn discovery(&self) -> &str {
        let custom = self.config.at("cluster_type");
        let single = custom.is_on("typed_config/all_addresses_in_single_endpoint");
        match custom.text("name") {
            None => self.config.text("type").unwrap_or("STATIC"),
            Some("envoy.cluster.dns") if single => "LOGICAL_DNS",
            Some("envoy.cluster.dns" | "envoy.cluster.strict_dns") => "STRICT_DNS",
            Some("envoy.cluster.logical_dns") => "LOGICAL_DNS",
            Some("envoy.cluster.eds") => "EDS",
            Some("envoy.cluster.original_dst") => "ORIGINAL_DST",
            Some("envoy.cluster.static") => "STATIC",
            Some(other) => other,
        }
    }

    /// Whether several servers are behind it, as far as can be known.
    pub(crate) fn has_several(&self) -> bool {
        self.addresses.len() > 1 || matches!(self.discovery(), "STRICT_DNS" | "LOGICAL_DNS")
    }

    /// Addresses to which it sends in the clear.
    pub(crate) fn in_the_clear(&self) -> impl Iterator<Item = &Address> {
        let plain = self.tls == Tls::None;
        self.addresses.iter().filter(move |address| plain && !address.is_local())
    }

    /// Whether a limit of its circuit breakers is above what Envoy has by default.
    pub(crate) fn limit(&self, field: &str) -> Option<u64> {
        let of_default = |limits: &&Value| limits.text("priority").is_none_or(|it| it == "DEFAULT");
        self.config.list("circuit_breakers/thresholds").iter().find(of_default)?.number(field)
    }

    /// Its options for all versions of HTTP.
    pub(crate) fn http_options(&self) -> &Value {
        const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        self.config.at("typed_extension_protocol_options").entry(OPTIONS)
    }

    /// Its settings of HTTP/2, if it speaks that.
    pub(crate) fn http2(&self) -> Option<&Value> {
        let options = self.http_options();
        let explicit = options.at("explicit_http_config/http2_protocol_options");
        let auto = options.at("auto_config/http2_protocol_options");
        let downstream = options.at("use_downstream_protocol_config/http2_protocol_options");
        let old = self.config.at("http2_protocol_options");
        [explicit, auto, downstream, old].into_iter().find(|options| options.is_object())
    }
}

fn tls(config: &Value) -> Tls {
    let matches =
        config.list("transport_socket_matches").iter().map(|one| one.at("transport_socket"));
    let sockets = matches.chain(Some(config.at("transport_socket")));
    let kinds = sockets.map(of_socket);
    // A cluster that chooses by endpoint speaks TLS where it can.
    kinds.max_by_key(|tls| *tls as u8).unwrap_or(Tls::None)
}

fn of_socket(socket: &Value) -> Tls {
    let config = socket.at("typed_config");
    match config.type_name() {
        "UpstreamTlsContext" => {
            let context = config.at("common_tls_context");
            let inline = |context: &Value| {
                context.has("trusted_ca")
                    || context.has("system_root_certs")
                    || context.has("custom_validator_config")
                    || context.has("ca_certificate_provider_instance")
            };
            let verified = inline(context.at("validation_context"))
                || inline(context.at("combined_validation_context/default_validation_context"))
                || context.has("validation_context_sds_secret_config")
                || context.has("combined_validation_context/validation_context_sds_secret_config");
            if verified { Tls::Verified } else { Tls::Unverified }
        }
        "" | "RawBuffer" => Tls::None,
        // These wrap another one.
        "ProxyProtocolUpstreamTransport" | "TcpStatsConfig" => {
            of_socket(config.at("transport_socket"))
        }
        // Others protect in their own way, such as the tunnels of a mesh.
        _ => Tls::Verified,
    }
}
