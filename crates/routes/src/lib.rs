//! What a gateway needs to reach each backend, as typed objects.
//!
//! [`Plan::of`] takes what the database says of backends, and the operator's [`Rules`]. It checks each
//! name and each address again, and keeps those that the rules admit; the others it lists with the
//! reason. A [`Target`] turns the plan into objects: clusters of a plain Envoy, or custom resources of
//! Envoy Gateway or Istio. The same plan makes the same bytes.
//!
//! There is no I/O here and no clock, and no text is pasted into another one: objects are structs, which
//! serde writes.

mod address;
mod envoy;
mod envoy_gateway;
mod host_rule;
mod istio;
mod names;
mod object;
mod rules;
mod yaml;

use std::{collections::BTreeMap, fmt};

pub use self::{
    address::{Address, AddressError, DnsName, Host},
    host_rule::HostRule,
    names::{Instance, InvalidInstance},
    object::{ANNOTATION, INSTALLATION, INSTANCE, Kind, MANAGED_BY, MANAGER, Object},
    rules::{InvalidRule, Network, Outside, Rules},
};
pub use patgate_core::backend::{BackendName, BackendNameError, ReservedNames};

/// What the names of objects in `deploy/envoy-gateway` and `deploy/istio` have behind `patgate-`. A
/// backend of such a name would compete with them: one of them closes the paths until patgate has named
/// a backend.
const SHIPPED: &[&str] = &[
    "answers",
    "authorizer",
    "connection",
    "everything-else",
    "guard",
    "not-found",
    "nowhere",
    "replies",
    "rewrite",
    "rewrite-azure",
    "rewrite-host",
    "unavailable",
    "undecided",
];

/// A backend, as the database describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Its API: `vllm`, `ollama` or `openai`.
    pub kind: String,
}

/// The API of a backend, which decides how its health is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// A vLLM server: `GET /health`.
    Vllm,
    /// An Ollama server: `GET /api/version`.
    Ollama,
    /// Any other server, of which no path is known that needs no credential.
    Openai,
}

/// A backend that the rules admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, which patgate sends in `x-upstream-cluster`.
    pub name: BackendName,
    /// Where it is.
    pub address: Address,
    /// Its API.
    pub api: Api,
}

/// A backend that gets no route. Requests for it are answered 503.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name in the database.
    pub name: String,
    /// Why it is refused.
    pub reason: Reason,
}

/// Why a backend gets no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Reason {
    #[error(transparent)]
    Name(#[from] BackendNameError),
    #[error("the name is reserved (routes.reserved): the gateway has a cluster of that name")]
    Reserved,
    #[error("the shipped manifests have objects of that name; choose another one")]
    Shipped,
    #[error("another backend has the same name")]
    Twice,
    #[error(transparent)]
    Url(#[from] AddressError),
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error("the kind must be `vllm`, `ollama` or `openai`")]
    Kind,
}

/// The backends of a gateway, by name, and those that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    backends: BTreeMap<BackendName, Backend>,
    refused: Vec<Refused>,
}

/// The gateway that the objects are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// A plain Envoy, whose routes choose a cluster by the header.
    Envoy,
    /// Envoy Gateway.
    EnvoyGateway,
    /// Istio.
    Istio,
}

/// The gateway, and what the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which gateway.
    pub gateway: Gateway,
    /// The namespace of the objects.
    pub namespace: String,
    /// The name of the `Gateway` in that namespace.
    pub gateway_name: String,
    /// The listeners of that `Gateway`, by name; empty means all. Istio has none.
    pub listeners: Vec<String>,
    /// What the objects belong to.
    pub instance: Instance,
    /// The identity of the installation whose database the backends come from.
    pub installation: String,
    /// The authorities of backends with TLS, in place of those of the system: for Envoy the path of a
    /// PEM file, for Envoy Gateway the name of a ConfigMap, for Istio that of a Secret.
    pub authorities: Option<String>,
}

impl Plan {
    /// Checks each backend.
    pub fn of(described: &[Described], rules: &Rules) -> Self {
        let mut plan = Self::default();
        for one in described {
            let admitted = Backend::admitted(one, rules).and_then(|backend| {
                if plan.backends.contains_key(&backend.name) {
                    return Err(Reason::Twice);
                }
                Ok(backend)
            });
            match admitted {
                Ok(backend) => drop(plan.backends.insert(backend.name.clone(), backend)),
                Err(reason) => plan.refused.push(Refused { name: one.name.clone(), reason }),
            }
        }
        plan.refused.sort_by(|one, other| one.name.cmp(&other.name));
        plan
    }

    /// Returns the backends that get a route, by name.
    pub fn backends(&self) -> impl ExactSizeIterator<Item = &Backend> {
        self.backends.values()
    }

    /// Returns the backends that get none, by name.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Returns whether no backend gets a route.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Returns the objects of a target in Kubernetes, by kind and name. A plain Envoy has none.
    pub fn objects(&self, target: &Target) -> Vec<Object> {
        let mut objects: Vec<Object> = self
            .backends()
            .flat_map(|backend| match target.gateway {
                Gateway::Envoy => Vec::new(),
                Gateway::EnvoyGateway => envoy_gateway::objects(backend, target),
                Gateway::Istio => istio::objects(backend, target),
            })
            .collect();
        // Those to which others refer come first.
        objects.sort_by(|one, other| {
            (one.kind.order(), one.name()).cmp(&(other.kind.order(), other.name()))
        });
        objects
    }

    /// Returns the text of a file: clusters for a plain Envoy, which watches it, or the objects for
    /// Kubernetes. Its first line is a comment that names the installation: see [`installation_of`].
    pub fn file(&self, target: &Target) -> String {
        let header = format!("{HEADER}{}\n", target.installation);
        if target.gateway == Gateway::Envoy {
            let clusters = self.backends().map(|backend| envoy::cluster(backend, target));
            return header + &yaml::document(&envoy::discovered(clusters));
        }
        let objects = self.objects(target);
        let documents: Vec<String> =
            objects.iter().map(|object| yaml::document(&object.content)).collect();
        header + &documents.join("---\n")
    }
}

/// What the first line of a file begins with. It is replaced together with the rest of the file, so the
/// two never disagree.
const HEADER: &str = "# patgate/installation: ";

/// Returns the installation that a file of [`Plan::file`] names; `None` if it names none.
pub fn installation_of(file: &[u8]) -> Option<&str> {
    let first = file.split(|byte| *byte == b'\n').next()?;
    let named = first.strip_prefix(HEADER.as_bytes())?;
    std::str::from_utf8(named).ok().filter(|named| !named.is_empty())
}

impl Gateway {
    /// The name of the file in a folder.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Envoy => "clusters.yaml",
            Self::EnvoyGateway => "envoy-gateway.yaml",
            Self::Istio => "istio.yaml",
        }
    }

    /// Every kind of object that is made for it.
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Envoy => &[],
            Self::EnvoyGateway => &[Kind::Backend, Kind::BackendTrafficPolicy, Kind::HttpRoute],
            Self::Istio => &[Kind::ServiceEntry, Kind::DestinationRule, Kind::VirtualService],
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envoy => "envoy",
            Self::EnvoyGateway => "envoy-gateway",
            Self::Istio => "istio",
        })
    }
}

impl Backend {
    fn admitted(described: &Described, rules: &Rules) -> Result<Self, Reason> {
        let name: BackendName = described.name.parse()?;
        if SHIPPED.contains(&name.as_str()) {
            return Err(Reason::Shipped);
        }
        if rules.reserved.holds(name.as_str()) {
            return Err(Reason::Reserved);
        }
        let api = match described.kind.as_str() {
            "vllm" => Api::Vllm,
            "ollama" => Api::Ollama,
            "openai" => Api::Openai,
            _ => return Err(Reason::Kind),
        };
        let address = Address::parse(&described.url)?;
        rules.admit(&address)?;
        Ok(Self { name, address, api })
    }
}

impl Api {
    /// A path that the server answers with 200 while it can work, and without a credential.
    pub(crate) const fn health_path(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("/health"),
            Self::Ollama => Some("/api/version"),
            Self::Openai => None,
        }
    }
}

/// Limits that the objects of all gateways share; `envoy/envoy.yaml` has the same.
pub(crate) mod limits {
    /// Each call in progress takes a connection or a stream for as long as it lasts.
    pub(crate) const IN_PROGRESS: u32 = 16_384;
    pub(crate) const CONNECT: &str = "2s";
    /// Failures to connect in a row after which an address is left alone for a while. Answers do not
    /// count: a client could cause them, and take the backend from all others.
    pub(crate) const FAILURES: u32 = 5;
    pub(crate) const PAUSE: &str = "5s";
    pub(crate) const EJECTED_PERCENT: u32 = 50;
}
