//! Which bodies does patgate see, and what do they cost?

use serde_json::Value;

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    model::{Host, Route},
    value::Read,
    view::{Asker, Context, View},
};

/// The most that patgate takes as one message in one step, less what else is in it, in bytes.
const ONE_MESSAGE: u64 = 3 << 20;
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

pub(super) fn limit(shown: &Value) -> u64 {
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
