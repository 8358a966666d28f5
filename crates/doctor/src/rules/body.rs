//! Which bodies does patgate see, and what do they cost?

use serde_json::Value;

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    model::{Cluster, Host, Route, Target},
    value::{Read, texts},
    view::{Asker, Context, EXPECTED_FIELD, View},
};

/// The most that patgate takes as one message in one step, less what else is in it, in bytes.
const ONE_MESSAGE: u64 = 3 << 20;
/// How long patgate may take to receive a body and to decide, in seconds.
const BODY_TIME: f64 = 15.0;
/// Envoy's default for a stream's window since 1.36, in bytes.
const DEFAULT_WINDOW: u64 = 16 << 20;
/// patgate's longest ordinary error, with room; its lists of models may be longer, in bytes.
const LONGEST_ERROR: u64 = 64 << 10;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-BODY-RAW",
        severity: Severity::Medium,
        title: "bodies arrive as text",
        consequence: "Envoy replaces bytes that are not UTF-8, so patgate reads no body, and refuses what depends on the model.",
        fix: each(
            "set `pack_as_bytes: true` in with_request_body of the filter",
            "set `pack_as_bytes: true` with an EnvoyPatchPolicy: extAuth.bodyToExtAuth cannot say it",
            "set `packAsBytes: true` in includeRequestBodyInCheck of the provider",
        ),
        check: raw,
    },
    Rule {
        id: "PG-BODY-ROUTE",
        severity: Severity::Medium,
        title: "pack_as_bytes on a route has no effect",
        consequence: "Envoy reads it from the filter only, so patgate reads no body on this route.",
        fix: everywhere("set with_request_body with `pack_as_bytes: true` in the filter as well"),
        check: on_route,
    },
    Rule {
        id: "PG-BODY-PARTIAL",
        severity: Severity::Medium,
        title: "long bodies are refused before patgate is asked",
        consequence: "Envoy answers a body above the limit with 413, whichever client sends it, instead of showing its beginning.",
        fix: each(
            "set `allow_partial_message: true` in with_request_body",
            "set `allow_partial_message: true` with an EnvoyPatchPolicy",
            "set `allowPartialMessage: true` in includeRequestBodyInCheck of the provider",
        ),
        check: partial,
    },
    Rule {
        id: "PG-BODY-BUFFER",
        severity: Severity::Medium,
        title: "Envoy holds less of a body than it must show",
        consequence: "Envoy answers a longer body with 413 and never asks patgate.",
        fix: each(
            "set per_connection_buffer_limit_bytes of the listener, or request_body_buffer_limit of the route, to at least max_request_bytes",
            "set `connection.bufferLimit` in the ClientTrafficPolicy to at least the limit of bodyToExtAuth",
            "set per_connection_buffer_limit_bytes with an EnvoyFilter on the listener",
        ),
        check: buffer,
    },
    Rule {
        id: "PG-BODY-WINDOW",
        severity: Severity::Medium,
        title: "a stream of HTTP/2 holds less of a body than must be shown",
        consequence: "Envoy answers a longer POST over HTTP/2 with 413, or its client waits forever.",
        fix: each(
            "set initial_stream_window_size to at least the longest body that is shown",
            "set `http2.initialStreamWindowSize` in the ClientTrafficPolicy to at least the limit of bodyToExtAuth",
            "set initial_stream_window_size with an EnvoyFilter on the connection manager",
        ),
        check: window,
    },
    Rule {
        id: "PG-BODY-LARGE",
        severity: Severity::Medium,
        title: "one step shows more than patgate takes",
        consequence: "patgate accepts messages of up to 4 MiB, and answers longer ones as an outage.",
        fix: everywhere(
            "set max_request_bytes to at most 3 MiB, or ask in two steps (envoy/README.md)",
        ),
        check: large,
    },
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
    Rule {
        id: "PG-BODY-CUT",
        severity: Severity::Low,
        title: "Envoy cuts patgate's error bodies and lists",
        consequence: "Clients get half a JSON document, and show nothing of the reason.",
        fix: everywhere("remove max_denied_response_body_bytes, or set it to 1 MiB"),
        check: cut,
    },
    Rule {
        id: "PG-BODY-HOLD",
        severity: Severity::Low,
        title: "a body may take forever to arrive",
        consequence: "A client that sends all except the last byte makes Envoy hold the body for as long as it likes.",
        fix: each(
            "set `request_timeout: 120s`",
            "set `timeout.http.requestReceivedTimeout: 120s` in the ClientTrafficPolicy",
            "set request_timeout with an EnvoyFilter on the connection manager",
        ),
        check: hold,
    },
];

/// Calls back for each filter and route on which a body is shown.
fn each_shown(
    context: &Context<'_>,
    mut say: impl FnMut(&View<'_>, &Asker<'_>, &Host, &Route, &Value),
) {
    for (view, asker) in context.askers() {
        for (host, route) in view.routes() {
            if let Some(shown) = view.shown(asker, host, route) {
                say(view, asker, host, route, &shown);
            }
        }
    }
}

fn raw(context: &Context<'_>, found: &mut Found) {
    each_shown(context, |view, asker, _, _, shown| {
        let packed = asker.filter.config.is_on("with_request_body/pack_as_bytes");
        if !packed && !shown.is_on("pack_as_bytes") {
            found.add(Place::asker(view, asker), "`pack_as_bytes` is not true");
        }
    });
}

fn on_route(context: &Context<'_>, found: &mut Found) {
    each_shown(context, |view, asker, host, route, shown| {
        let packed = asker.filter.config.is_on("with_request_body/pack_as_bytes");
        if !packed && shown.is_on("pack_as_bytes") {
            let what = "`pack_as_bytes` is on the route, and not in the filter";
            found.add(Place::route(view, host, route), what);
        }
    });
}

fn partial(context: &Context<'_>, found: &mut Found) {
    each_shown(context, |view, asker, _, _, shown| {
        if !shown.is_on("allow_partial_message") {
            found.add(Place::asker(view, asker), "`allow_partial_message` is not true");
        }
    });
}

fn limit(shown: &Value) -> u64 {
    shown.number("max_request_bytes").unwrap_or_default()
}

fn buffer(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| asker.second) {
        let (most, held) =
            (limit(asker.filter.config.at("with_request_body")), view.largest_buffer());
        // Twice as much is right, because Envoy counts some bytes twice.
        if most > 2 * held {
            let what =
                format!("`max_request_bytes` is {most}, and no route holds more than {held}");
            found.add(Place::asker(view, asker), what);
        }
    }
    each_shown(context, |view, asker, host, route, shown| {
        // In two steps, the route's buffer is the limit, and max_request_bytes is above it.
        if asker.second {
            return;
        }
        let held = view.buffer(host, route);
        if limit(shown) > held {
            let what = format!("`max_request_bytes` is {}, and Envoy holds {held}", limit(shown));
            found.add(Place::route(view, host, route), what);
        }
    });
}

/// The longest body that a filter shows on any route.
fn longest(view: &View<'_>, asker: &Asker<'_>) -> Option<u64> {
    let shown = view.routes().filter_map(|(host, route)| view.shown(asker, host, route));
    let most = shown.map(|shown| limit(&shown)).max()?;
    Some(if asker.second { most.min(view.largest_buffer()) } else { most })
}

fn window(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(view, _)| view.speaks_http2()) {
        let window = view.http.config.number("http2_protocol_options/initial_stream_window_size");
        let window = window.unwrap_or(DEFAULT_WINDOW);
        if let Some(most) = longest(view, asker).filter(|most| *most > window) {
            let what = format!("bodies of {most} bytes are shown, and the window is {window}");
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn large(context: &Context<'_>, found: &mut Found) {
    each_shown(context, |view, asker, _, _, shown| {
        if !asker.second && limit(shown) > ONE_MESSAGE {
            let what = format!("`max_request_bytes` is {}", limit(shown));
            found.add(Place::asker(view, asker), what);
        }
    });
}

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

/// Whether a cluster chooses its host by a hash of that header of the call.
fn hashes(cluster: &Cluster, header: &str) -> bool {
    let mut words = Vec::new();
    texts(cluster.config.at("load_balancing_policy"), &mut words);
    words.contains(&header)
}

fn cut(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let most = asker.filter.config.number("max_denied_response_body_bytes").unwrap_or_default();
        if most > 0 && most < LONGEST_ERROR {
            let what = format!("`max_denied_response_body_bytes` is {most}");
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn hold(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| view.shows_bodies()) {
        if view.http.config.seconds("request_timeout").is_none_or(|limit| limit == 0.0) {
            found.add(Place::of(view), "no `request_timeout`, and bodies are shown");
        }
    }
}
