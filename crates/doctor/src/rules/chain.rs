//! Do other filters of the chain, upgrades or tunnels get in patgate's way?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    authorizer,
    model::{Route, Target},
    value::{Read, unwrapped},
    view::Context,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-ASK-ORDER",
        severity: Severity::Medium,
        title: "a filter acts before ext_authz",
        consequence: "It acts on requests that nobody has authorized, and may answer, count or change them.",
        fix: each(
            "move it behind the filters that ask patgate",
            "order it behind ext_authz with EnvoyProxy.filterOrder",
            "insert it with INSERT_BEFORE the router in its EnvoyFilter",
        ),
        check: order,
    },
    Rule {
        id: "PG-ASK-CACHE",
        severity: Severity::High,
        title: "an HTTP cache in the chain",
        consequence: "It stores answers by host and path, and serves those of one token to another.",
        fix: everywhere("remove the cache from this chain; cache in the backends"),
        check: cache,
    },
    Rule {
        id: "PG-ASK-UPGRADE",
        severity: Severity::High,
        title: "an upgrade has filters of its own, without ext_authz",
        consequence: "A client that asks for this upgrade reaches the backend without a token.",
        fix: everywhere("remove `filters` from upgrade_configs"),
        check: upgrade,
    },
    Rule {
        id: "PG-ASK-CONNECT",
        severity: Severity::High,
        title: "CONNECT makes tunnels",
        consequence: "Envoy answers CONNECT without asking patgate, and what goes through the tunnel is never checked.",
        fix: everywhere("remove the route with connect_matcher and the upgrade type CONNECT"),
        check: connect,
    },
    Rule {
        id: "PG-ASK-SECOND",
        severity: Severity::Medium,
        title: "another ext_authz service in the chain",
        consequence: "It writes into the same metadata as patgate, the guard's word included, and can replace the headers that patgate has set.",
        fix: each(
            "remove it, or let it serve other listeners",
            "remove extAuth from the other SecurityPolicy",
            "remove the other CUSTOM provider from this workload",
        ),
        check: second,
    },
];

/// Filters that may stand before ext_authz: they only refuse, count, or answer what needs no token.
const HARMLESS: &[&str] = &[
    "Cors",
    "HealthCheck",
    "HTTPFault",
    "CustomResponse",
    "CsrfPolicy",
    "RBAC",
    "FilterConfig",
    "Compressor",
    "Decompressor",
    "IpTagging",
    "SetMetadata",
    "SetFilterState",
    "AdmissionControl",
    "BandwidthLimit",
];

fn order(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some(first) = view.firsts().map(|asker| asker.at).min() else { continue };
        for filter in &view.http.filters[..first] {
            let kind = filter.kind();
            let answers_only = kind == "HeaderMutation"
                && filter.config.list("mutations/request_mutations").is_empty();
            // These have rules of their own, or are reported as not judged.
            let elsewhere = matches!(kind, "ExtAuthz" | "CacheConfig" | "CacheV2Config" | "");
            // Istio's own filters read, count and mark.
            let of_istio = filter.config.text("@type").is_some_and(|url| url.contains("istio."));
            let harmless = HARMLESS.contains(&kind) || answers_only || of_istio;
            if !harmless && !elsewhere {
                found.add(Place::filter(view, &filter.name), format!("a filter of type {kind}"));
            }
        }
    }
}

fn cache(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let first = view.askers.first().map_or(0, |asker| asker.at);
        for (at, filter) in view.http.filters.iter().enumerate() {
            if matches!(filter.kind(), "CacheConfig" | "CacheV2Config") {
                let side = if at < first { "before" } else { "after" };
                let what = format!("it stands {side} ext_authz");
                found.add(Place::filter(view, &filter.name), what);
            }
        }
    }
}

fn upgrade(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for upgrade in view.http.config.list("upgrade_configs") {
            let filters = upgrade.list("filters");
            let asks = filters.iter().any(|filter| {
                let config = unwrapped(filter.at("typed_config"));
                let service = authorizer::service(&config);
                config.type_name() == "ExtAuthz"
                    && service.is_some_and(|it| context.authorizers.services.contains_key(it))
            });
            if !filters.is_empty() && !asks && upgrade.flag("enabled") != Some(false) {
                let kind = upgrade.text("upgrade_type").unwrap_or_default();
                found.add(Place::of(view), format!("upgrade_configs for {kind} has `filters`"));
            }
        }
    }
}

fn connect(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes() {
            if is_connect(route) && !matches!(route.target, Target::Answer(_)) {
                let what = "a route with `connect_matcher` leads to a cluster";
                found.add(Place::route(view, host, route), what);
            }
        }
    }
}

/// Whether only CONNECT requests match a route.
pub(super) fn is_connect(route: &Route) -> bool {
    route.config.has("match/connect_matcher")
}

fn second(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (at, filter) in view.http.filters.iter().enumerate() {
            let ours = view.askers.iter().any(|asker| asker.at == at);
            if filter.kind() == "ExtAuthz" && !ours {
                let service = authorizer::service(&filter.config)
                    .or_else(|| filter.config.text("http_service/server_uri/cluster"));
                let service = service.unwrap_or("an unknown service");
                found.add(Place::filter(view, &filter.name), format!("it asks {service}"));
            }
        }
    }
}
