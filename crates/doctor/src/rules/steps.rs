//! Do the two filters of two steps fit together?

use super::{Found, Place, Rule, Severity, body::limit, everywhere};
use crate::{
    model::{Cluster, Target},
    value::{Read, texts},
    view::{Context, EXPECTED_FIELD},
};

/// How long patgate may take to receive a body and to decide, in seconds.
const BODY_TIME: f64 = 15.0;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-BODY-TWICE",
        severity: Severity::Low,
        title: "the second step shows long bodies in part now and then",
        consequence: "Envoy counts bytes twice that arrive during the first step, so bodies of more than half of max_request_bytes are refused.",
        fix: everywhere(
            "set max_request_bytes of the second filter to twice the largest request_body_buffer_limit",
        ),
        check: twice,
    },
    Rule {
        id: "PG-BODY-STEP",
        severity: Severity::Medium,
        title: "a filter does not say which step it is",
        consequence: "patgate takes each check for the only one and refuses what needs a body, or answers 503 to a wrong step.",
        fix: everywhere(
            "set `patgate-step` in initial_metadata: `first` on the filter without a body, `second` on the other one, none if there is one filter",
        ),
        check: step,
    },
    Rule {
        id: "PG-BODY-MISSING",
        severity: Severity::High,
        title: "the second step is missing",
        consequence: "The first answer to a request that needs a body permits nothing and refuses nothing, so the request goes on as nobody.",
        fix: everywhere(
            "add the filter that asks again with the body, as in envoy/envoy.yaml, or remove `patgate-step` from the first one",
        ),
        check: missing,
    },
    Rule {
        id: "PG-BODY-ALONE",
        severity: Severity::High,
        title: "the first step is missing",
        consequence: "The filter that asks with the body waits for an answer that never comes, so patgate is asked about nothing.",
        fix: everywhere(
            "add the filter that asks without a body before it, as in envoy/envoy.yaml",
        ),
        check: alone,
    },
    Rule {
        id: "PG-BODY-NONE",
        severity: Severity::Medium,
        title: "the second step shows no body",
        consequence: "Every request whose model must be read is refused.",
        fix: everywhere(
            "set with_request_body on the second filter, with `pack_as_bytes` and `allow_partial_message`",
        ),
        check: none,
    },
    Rule {
        id: "PG-BODY-ORDER",
        severity: Severity::Medium,
        title: "the second step comes before the first",
        consequence: "It waits for an answer that has not come, so every request that needs a body is refused.",
        fix: everywhere("put the filter without a body before the one with it"),
        check: order,
    },
    Rule {
        id: "PG-BODY-CONDITION",
        severity: Severity::Medium,
        title: "the second step waits for metadata that patgate does not set",
        consequence: "It never asks, so every request that needs a body is refused.",
        fix: everywhere(
            "set filter_enabled_metadata to envoy.filters.http.ext_authz, `needs_body`, `bool_match: true`",
        ),
        check: condition,
    },
    Rule {
        id: "PG-BODY-EVERY",
        severity: Severity::Low,
        title: "two steps show every body",
        consequence: "Each request waits for its upload and is checked twice, with its whole body.",
        fix: everywhere(
            "set filter_enabled_metadata on the second filter, and with_request_body on that one alone",
        ),
        check: every,
    },
    Rule {
        id: "PG-BODY-TIMEOUT",
        severity: Severity::Medium,
        title: "the second step has less time than a long body takes",
        consequence: "Checks with a long body end as an outage.",
        fix: everywhere("set `timeout: 20s` and `max_interval: 16s` on the second filter"),
        check: timeout,
    },
    Rule {
        id: "PG-BODY-REPLICA",
        severity: Severity::Low,
        title: "the two checks of a request may go to different replicas",
        consequence: "patgate counts the bodies of a token for longer than Envoy holds them, and refuses some with 429.",
        fix: everywhere(
            "choose the replica by a hash of x-request-id in the cluster, and send x-request-id in initial_metadata of both filters",
        ),
        check: replica,
    },
];

fn twice(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some(second) = view.second() else { continue };
        let most = limit(second.filter.config.at("with_request_body"));
        let held = view.largest_buffer();
        if most > 0 && most < 2 * held {
            let what = format!("`max_request_bytes` is {most}, and a route holds {held}");
            found.add(Place::asker(view, second), what);
        }
    }
}

fn step(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let two = view.second().is_some();
        for asker in &view.askers {
            let expected = if asker.second { "second" } else { "first" };
            let says = asker.metadata("patgate-step");
            let right = match says {
                Some(says) => says == expected,
                None => !two,
            };
            if !right {
                let says = says.unwrap_or("nothing");
                let what = format!("`patgate-step` says {says}, and the filter is the {expected}");
                found.add(Place::asker(view, asker), what);
            }
        }
    }
}

fn missing(context: &Context<'_>, found: &mut Found) {
    missing_on_route(context, found);
    for view in context.asking().filter(|view| view.second().is_none()) {
        let waiting =
            view.askers.iter().any(|asker| asker.filter.config.has("filter_enabled_metadata"));
        for asker in view.firsts() {
            let first = asker.metadata("patgate-step") == Some("first");
            if first && !(waiting && view.askers.len() > 1) {
                let place = Place::asker(view, asker);
                found.hole(view.worst_fate(), place, "`patgate-step: first`, and no second filter");
            }
        }
    }
}

/// A route may switch the second filter off.
fn missing_on_route(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        for (host, route) in view.routes().filter(|(_, route)| !view.needs_answer(route)) {
            let answers = matches!(route.target, Target::Answer(_));
            if !answers && view.second_is_off(host, route) {
                let what = "the second filter is off on this route";
                found.hole(view.fate(host, route), Place::route(view, host, route), what);
            }
        }
    }
}

fn alone(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| view.firsts().next().is_none()) {
        if let Some(second) = view.second() {
            let place = Place::asker(view, second);
            found.hole(view.worst_fate(), place, "no filter asks before it");
        }
    }
}

fn none(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| asker.second) {
        if !asker.filter.config.has("with_request_body") {
            found.add(Place::asker(view, asker), "no `with_request_body` on the second filter");
        }
    }
}

fn order(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some(second) = view.second() else { continue };
        if view.firsts().any(|first| first.at > second.at) {
            found.add(Place::asker(view, second), "it stands before the first one");
        }
    }
}

fn condition(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| asker.second) {
        if asker.waits_for_something_else() {
            let key = asker.filter.config.text("filter_enabled_metadata/path/0/key");
            let what = format!(
                "it waits for `{}`, and patgate sets `{EXPECTED_FIELD}` to true",
                key.unwrap_or_default()
            );
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn every(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some(second) = view.second() else { continue };
        if !second.filter.config.has("filter_enabled_metadata") {
            found.add(
                Place::asker(view, second),
                "no `filter_enabled_metadata` on the second filter",
            );
        }
        for first in view.firsts() {
            if first.filter.config.has("with_request_body") {
                found.add(Place::asker(view, first), "`with_request_body` on the first filter");
            }
        }
    }
}

fn timeout(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| asker.second) {
        let whole = asker.filter.config.seconds("grpc_service/timeout").unwrap_or(0.2);
        let place = Place::asker(view, asker);
        if whole > 0.0 && whole < BODY_TIME {
            found.add(place.clone(), format!("`timeout: {whole}s`"));
        }
        if let Some(one) = asker.one_try().filter(|one| *one < BODY_TIME) {
            found.add(place, format!("`max_interval` is {one}s"));
        }
    }
}

fn replica(context: &Context<'_>, found: &mut Found) {
    const ID: &str = "x-request-id";
    for view in context.asking().filter(|view| view.second().is_some()) {
        for asker in &view.askers {
            let Some(cluster) = asker.cluster.filter(|cluster| cluster.has_several()) else {
                continue;
            };
            if !hashes(cluster, ID) {
                let what = "the cluster does not choose by a hash of x-request-id";
                found.add(Place::cluster(&cluster.name), what);
            } else if asker.metadata(ID).is_none() {
                let what = "no x-request-id in `initial_metadata`";
                found.add(Place::asker(view, asker), what);
            }
        }
    }
}

/// Whether a cluster chooses its host by a hash of that header of the call: its policy says so by
/// itself, or hashes what the options of the protocol name, as Envoy Gateway has it.
fn hashes(cluster: &Cluster, header: &str) -> bool {
    let mut words = Vec::new();
    texts(cluster.config.at("load_balancing_policy"), &mut words);
    if words.contains(&header) {
        return true;
    }
    let hashing = words.iter().any(|word| word.ends_with(".Maglev") || word.ends_with(".RingHash"));
    let named = cluster.http_options().list("hash_policy");
    hashing && named.iter().any(|policy| policy.text("header/header_name") == Some(header))
}
