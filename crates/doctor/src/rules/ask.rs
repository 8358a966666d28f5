//! Is patgate asked about every request that can reach a protected backend?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    model::{Host, Kind, Route, Target},
    value::Read,
    view::{Asked, Context, Fate, Unasked, View, connections_are_asked},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-ASK-NONE",
        severity: Severity::High,
        title: "no filter asks patgate",
        consequence: "Every request reaches the backends as nobody.",
        fix: each(
            "put the ext_authz filters of envoy/envoy.yaml first in http_filters",
            "give the Gateway a SecurityPolicy with extAuth",
            "name patgate in meshConfig.extensionProviders, and give the gateway an AuthorizationPolicy with action CUSTOM",
        ),
        check: none,
    },
    Rule {
        id: "PG-ASK-CHAIN",
        severity: Severity::High,
        title: "a listener or filter chain leads to a protected cluster without ext_authz",
        consequence: "Clients that connect there reach the backend without a token.",
        fix: each(
            "give this chain the same http_filters, or remove it, or let it listen on loopback only",
            "target the whole Gateway with the SecurityPolicy, and do not attach TCPRoutes or listeners of other Gateways to these backends",
            "select the workload with the AuthorizationPolicy, and do not route this server's port to these services",
        ),
        check: chain,
    },
    Rule {
        id: "PG-ASK-OFF",
        severity: Severity::High,
        title: "ext_authz is disabled on a route",
        consequence: "Requests on this route reach the backend without a token.",
        fix: each(
            "remove `disabled` from typed_per_filter_config there; for an exception, name its path in a policy of the guard",
            "remove the route's own SecurityPolicy, or give it `mergeType` and the same extAuth",
            "remove the EnvoyFilter that disables ext_authz there",
        ),
        check: off,
    },
    Rule {
        id: "PG-ASK-UNSET",
        severity: Severity::High,
        title: "a route does not switch ext_authz on",
        consequence: "Requests on this route reach the backend without a token.",
        fix: each(
            "switch the filter on in typed_per_filter_config of the route, or remove `disabled` from the filter",
            "target the Gateway with the SecurityPolicy, and give policies of single routes `mergeType`: one without it, or an empty one, replaces the Gateway's",
            "let the AuthorizationPolicy select the whole gateway",
        ),
        check: unset,
    },
    Rule {
        id: "PG-ASK-ELSEWHERE",
        severity: Severity::High,
        title: "a route asks another service instead of patgate",
        consequence: "Whatever that service permits reaches the backend without a token.",
        fix: everywhere("remove grpc_service and http_service from check_settings of the route"),
        check: elsewhere,
    },
    Rule {
        id: "PG-ASK-SHARE",
        severity: Severity::High,
        title: "only a share of the requests is asked about",
        consequence: "The others pass without a token, chosen by chance.",
        fix: everywhere(
            "remove `filter_enabled`; for a rollout, use patgate's own modes (docs/rollout.md)",
        ),
        check: share,
    },
    Rule {
        id: "PG-ASK-SHADOW",
        severity: Severity::High,
        title: "ext_authz only records decisions",
        consequence: "What patgate refuses passes nevertheless.",
        fix: everywhere(
            "remove `shadow_mode`; for a rollout, use patgate's own modes (docs/rollout.md)",
        ),
        check: shadow,
    },
    Rule {
        id: "PG-ASK-CONDITION",
        severity: Severity::High,
        title: "ext_authz depends on the metadata of another filter",
        consequence: "If that filter is missing, fails or decides otherwise, requests pass without a token.",
        fix: everywhere("remove `filter_enabled_metadata` from the first filter that asks patgate"),
        check: condition,
    },
    Rule {
        id: "PG-ASK-PATHS",
        severity: Severity::High,
        title: "ext_authz covers only some requests",
        consequence: "Envoy does not ask about the others, and many backends read paths such as `//proxy/x` or `/PROXY/x` as the covered ones.",
        fix: each(
            "let a policy of the shadow rules match every request",
            "target the whole Gateway with the SecurityPolicy",
            "leave `rules` of the AuthorizationPolicy without `to` and `from`: `rules: [{}]`",
        ),
        check: paths,
    },
    Rule {
        id: "PG-ASK-CATCHALL",
        severity: Severity::Medium,
        title: "no asked route matches every request",
        consequence: "Where no route matches, or one that does not ask, Envoy answers without asking patgate, and routes by patgate's header are never reached.",
        fix: each(
            "end the virtual host with a route for the prefix / that answers with direct_response",
            "add an HTTPRoute for PathPrefix / with an HTTPRouteFilter that answers 503 directly, under the Gateway's SecurityPolicy",
            "end the VirtualService with a route for the prefix / and directResponse",
        ),
        check: catch_all,
    },
];

fn none(context: &Context<'_>, found: &mut Found) {
    if context.asking().next().is_some() {
        return;
    }
    let unclear = &context.authorizers.unclear;
    if unclear.is_empty() {
        found.add(Place::default(), "no ext_authz filter over gRPC asks patgate");
    } else {
        found.add(
            Place::default(),
            format!(
                "nothing shows which of these ext_authz services is patgate: {}; say where it listens \
                 with --authorizer",
                unclear.join(", ")
            ),
        );
    }
}

fn chain(context: &Context<'_>, found: &mut Found) {
    if context.asking().next().is_none() {
        return;
    }
    for listener in &context.proxy.listeners {
        for chain in &listener.chains {
            let place = Place {
                listener: Some(listener.name.clone()),
                chain: Some(chain.name.clone()),
                ..Place::default()
            };
            if let Kind::Tcp(clusters) = &chain.kind
                && !connections_are_asked(&chain.config, &context.authorizers)
            {
                for name in clusters.iter().filter(|name| context.is_protected(name)) {
                    found.add(place.clone(), format!("connections go to the cluster {name}"));
                }
            }
        }
    }
    for view in context.views.iter().filter(|view| view.askers.is_empty()) {
        for (host, route) in view.routes() {
            let what = match &route.target {
                Target::Clusters(clusters) => {
                    let protected = clusters.iter().filter(|(name, _)| context.is_protected(name));
                    let names: Vec<_> = protected.map(|(name, _)| name.as_str()).collect();
                    if names.is_empty() {
                        continue;
                    }
                    format!("the route leads to the cluster {}", names.join(", "))
                }
                Target::Header(name) => format!("the client's header {name} chooses the cluster"),
                Target::Answer(_) | Target::Other(_) => continue,
            };
            found.hole(fate_without(view, host, route), Place::route(view, host, route), what);
        }
    }
}

/// In a chain without ext_authz, only a guard can hold.
fn fate_without(view: &View<'_>, host: &Host, route: &Route) -> Fate {
    if view.guard_holds(host, route) { Fate::Held } else { Fate::Passes }
}

/// Calls back for each route, and each weighted cluster of one, that leads to a backend.
fn each_way(
    context: &Context<'_>,
    mut say: impl FnMut(&View<'_>, &Host, &Route, Asked, Option<&str>),
) {
    for view in context.asking() {
        for (host, route) in view.routes() {
            match &route.target {
                Target::Answer(_) => {}
                Target::Clusters(clusters) if clusters.len() > 1 => {
                    for (name, config) in clusters {
                        let asked = view.asked(host, route, Some(config));
                        say(view, host, route, asked, Some(name));
                    }
                }
                _ => say(view, host, route, view.asked(host, route, None), None),
            }
        }
    }
}

fn off(context: &Context<'_>, found: &mut Found) {
    each_way(context, |view, host, route, asked, weighted| {
        if let Asked::Never(Unasked::Disabled(level)) = asked {
            let of = weighted.map(|name| format!(", for the cluster {name}")).unwrap_or_default();
            let place = Place::route(view, host, route);
            found.hole(view.fate(host, route), place, format!("`disabled: true` on {level}{of}"));
        }
    });
}

fn unset(context: &Context<'_>, found: &mut Found) {
    each_way(context, |view, host, route, asked, _| {
        if let Asked::Never(Unasked::NotSwitchedOn) = asked {
            let place = Place::route(view, host, route);
            let what = "the filter is `disabled`, and nothing on the route switches it on";
            found.hole(view.fate(host, route), place, what);
        }
    });
}

fn elsewhere(context: &Context<'_>, found: &mut Found) {
    each_way(context, |view, host, route, asked, _| {
        if let Asked::Never(Unasked::Elsewhere(service)) = asked {
            let place = Place::route(view, host, route);
            found.hole(view.fate(host, route), place, format!("it asks {service}"));
        }
    });
}

/// Calls back for each reason why a filter does not ask about some requests.
fn each_condition(context: &Context<'_>, mut say: impl FnMut(Fate, Place, Unasked)) {
    for view in context.asking() {
        for asker in view.firsts() {
            for reason in view.conditions(asker) {
                say(view.worst_fate(), Place::asker(view, asker), reason);
            }
        }
    }
}

fn share(context: &Context<'_>, found: &mut Found) {
    each_condition(context, |fate, place, reason| {
        if let Unasked::Share { percent, refused } = reason {
            let what = format!("`filter_enabled` is {percent} %");
            if refused {
                let what = format!("{what}, and the others are refused (`deny_at_disable`)");
                found.at(Severity::Medium, place, what);
            } else {
                found.hole(fate, place, what);
            }
        }
    });
}

fn shadow(context: &Context<'_>, found: &mut Found) {
    each_condition(context, |fate, place, reason| {
        if let Unasked::Shadow = reason {
            found.hole(fate, place, "`shadow_mode: true`");
        }
    });
}

fn condition(context: &Context<'_>, found: &mut Found) {
    each_condition(context, |fate, place, reason| {
        if let Unasked::Condition(what) = reason {
            found.hole(fate, place, format!("`filter_enabled_metadata` reads {what}"));
        }
    });
}

fn paths(context: &Context<'_>, found: &mut Found) {
    each_condition(context, |fate, place, reason| {
        if let Unasked::Paths(rules) = reason {
            let rules = if rules.is_empty() { "nothing".to_owned() } else { rules };
            found.hole(fate, place, format!("the rules cover {rules}"));
        }
    });
}

/// Whether a route matches every request of its virtual host.
pub(crate) fn matches_all(route: &Route) -> bool {
    let matched = route.config.at("match");
    let every = matched.text("prefix") == Some("/")
        || matches!(matched.text("safe_regex/regex"), Some(".*" | "/.*" | ".+"));
    let conditions = [
        "headers",
        "query_parameters",
        "cookies",
        "grpc",
        "runtime_fraction",
        "dynamic_metadata",
        "filter_state",
        "tls_context",
    ];
    every && !conditions.iter().any(|condition| matched.has(condition))
}

fn catch_all(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for host in &view.http.hosts {
            let leads = |route: &Route| !matches!(route.target, Target::Answer(_));
            if !host.routes.iter().any(leads) {
                continue;
            }
            let place = Place::host(view, host);
            if !host.routes.iter().any(matches_all) {
                found.add(place, "no route matches every request");
                continue;
            }
            // Where routes need patgate's header, some other route must ask first.
            let needs = host.routes.iter().any(|route| view.needs_answer(route));
            let asks = host.routes.iter().any(|route| {
                !view.needs_answer(route)
                    && !matches!(view.asked(host, route, None), Asked::Never(_) | Asked::Before)
            });
            if needs && !asks {
                found.add(place, "every route that asks needs patgate's header first");
            }
        }
    }
}
