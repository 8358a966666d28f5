//! Finds which ext_authz filters ask patgate, by what they are and how they are set. Names of filters
//! and clusters say nothing: control planes generate them, and operators choose them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Hints,
    guard::NAMESPACE,
    headers::Rules,
    model::{Address, Kind, Proxy},
    value::Read,
};

/// Metadata that patgate alone reads: `patgate-step` and `patgate-secret`.
const METADATA: &str = "patgate-";
/// The field of an answer that asks for the body.
pub(crate) const NEEDS_BODY: &str = "needs_body";

/// The services that are patgate, each as a name of a cluster or an address of Google's gRPC.
#[derive(Default)]
pub(crate) struct Authorizers {
    /// With what shows it.
    pub(crate) services: BTreeMap<String, Vec<&'static str>>,
    /// Services of which none could be told to be patgate.
    pub(crate) unclear: Vec<String>,
}

/// The service that an ext_authz filter asks over gRPC.
pub(crate) fn service(config: &Value) -> Option<&str> {
    let grpc = config.at("grpc_service");
    grpc.text("envoy_grpc/cluster_name").or_else(|| grpc.text("google_grpc/target_uri"))
}

pub(crate) fn find(proxy: &Proxy, hints: &Hints) -> Authorizers {
    let mut signs: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for filter in filters(proxy) {
        if let Some(service) = service(filter) {
            signs.entry(service.to_owned()).or_default().extend(shown_by(filter));
        }
    }
    if let Some(hint) = &hints.authorizer {
        let named = signs.into_keys().filter(|service| is_at(proxy, service, hint));
        let services = named.map(|service| (service, vec!["you have named it"])).collect();
        return Authorizers { services, unclear: Vec::new() };
    }
    let known: BTreeSet<_> =
        signs.iter().filter(|(_, signs)| !signs.is_empty()).map(|(name, _)| name.clone()).collect();
    if known.is_empty() && signs.len() == 1 {
        let only =
            "it is the only ext_authz service over gRPC; nothing else shows that it is patgate";
        let services = signs.into_keys().map(|service| (service, vec![only])).collect();
        return Authorizers { services, unclear: Vec::new() };
    }
    if known.is_empty() {
        return Authorizers { services: BTreeMap::new(), unclear: signs.into_keys().collect() };
    }
    let places: Vec<_> = known.iter().filter_map(|service| addresses(proxy, service)).collect();
    let services = signs.into_iter().filter_map(|(service, signs)| {
        if known.contains(&service) {
            return Some((service, signs.into_iter().collect()));
        }
        let same = addresses(proxy, &service).is_some_and(|own| places.contains(&own));
        same.then(|| (service, vec!["it has the address of another one that is patgate"]))
    });
    Authorizers { services: services.collect(), unclear: Vec::new() }
}

fn filters(proxy: &Proxy) -> impl Iterator<Item = &Value> {
    let chains = proxy.listeners.iter().flat_map(|listener| &listener.chains);
    let managers = chains.filter_map(|chain| match &chain.kind {
        Kind::Http(http) => Some(http),
        _ => None,
    });
    let filters = managers.flat_map(|http| &http.filters);
    filters.filter(|filter| filter.kind() == "ExtAuthz").map(|filter| &filter.config)
}

/// What of a filter's settings only patgate has a use for.
fn shown_by(config: &Value) -> Vec<&'static str> {
    let mut signs = Vec::new();
    let metadata = config.list("grpc_service/initial_metadata").iter();
    if metadata.filter_map(|one| one.text("key")).any(|key| key.starts_with(METADATA)) {
        signs.push("the metadata of its calls are patgate's");
    }
    if waits_for_body(config) {
        signs.push("it asks again if an answer has asked for the body");
    }
    let strict = config.is_on("decoder_header_mutation_rules/disallow_all");
    let own = ["x-pat-id", "x-auth-operation", "x-domain-slug", "x-upstream-cluster"];
    let permits = |rules: Rules<'_>| own.iter().any(|name| rules.permit(name));
    if strict && Rules::read(config).is_some_and(permits) {
        signs.push("its answers may set patgate's headers and few others");
    }
    let names = config.list("allowed_headers/patterns").iter();
    let names: Vec<_> = names.filter_map(|one| one.text("exact")).collect();
    if ["x-litellm-api-key", "ocp-apim-subscription-key"].iter().all(|name| names.contains(name)) {
        signs.push("it is shown the headers in which clients of model APIs send tokens");
    }
    signs
}

/// Whether a filter asks only if an answer has asked for the body.
pub(crate) fn waits_for_body(config: &Value) -> bool {
    let condition = config.at("filter_enabled_metadata");
    condition.text("filter") == Some(NAMESPACE) && condition.text("path/0/key") == Some(NEEDS_BODY)
}

fn addresses(proxy: &Proxy, service: &str) -> Option<BTreeSet<Address>> {
    let cluster = proxy.clusters.get(service)?;
    let addresses: BTreeSet<_> = cluster.addresses.iter().cloned().collect();
    (!addresses.is_empty() && !addresses.contains(&Address::Unknown)).then_some(addresses)
}

fn is_at(proxy: &Proxy, service: &str, hint: &str) -> bool {
    let cluster = proxy.clusters.get(service);
    service == hint
        || cluster.is_some_and(|cluster| {
            cluster.addresses.iter().any(|address| address.to_string() == hint)
        })
}
