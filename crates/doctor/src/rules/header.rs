//! Which headers and paths of a client reach filters, routes and backends?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    headers::{IDENTITY, MISLEADING},
    value::Read,
    view::Context,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-HEADER-EARLY",
        severity: Severity::Medium,
        title: "patgate's headers are not removed early",
        consequence: "The client's own copies choose the first route, reach every filter before patgate, and reach the backend wherever patgate is not asked.",
        fix: each(
            "remove all seven in early_header_mutation_extensions, as envoy/envoy.yaml does",
            "list them in ClientTrafficPolicy.headers.earlyRequestHeaders.remove",
            "merge early_header_mutation_extensions into the connection manager with an EnvoyFilter: headers.request.remove of a VirtualService comes too late",
        ),
        check: early,
    },
    Rule {
        id: "PG-HEADER-PREFIX",
        severity: Severity::Medium,
        title: "headers of another prefix are removed",
        consequence: "The client's copies of the headers that patgate and the routes really use pass.",
        fix: everywhere(
            "use one prefix in early removal, routes, mutation rules and patgate's setting headers.prefix",
        ),
        check: prefix,
    },
    Rule {
        id: "PG-HEADER-FAMILY",
        severity: Severity::Medium,
        title: "headers pass by which backends read another request",
        consequence: "A backend that obeys them serves another host, path, method, user or tenant than patgate has checked.",
        fix: each(
            "remove these families in early_header_mutation_extensions, as envoy/envoy.yaml does",
            "list them in ClientTrafficPolicy.headers.earlyRequestHeaders.remove, which takes 64 names",
            "remove them in early_header_mutation_extensions with an EnvoyFilter",
        ),
        check: family,
    },
    Rule {
        id: "PG-HEADER-UNDERSCORE",
        severity: Severity::Medium,
        title: "headers with underscores pass",
        consequence: "Many backends read x_user_id as x-user-id, which only patgate may set.",
        fix: each(
            "set `headers_with_underscores_action: DROP_HEADER` in common_http_protocol_options",
            "set `withUnderscoresAction: DropHeader` in ClientTrafficPolicy.headers",
            "set headers_with_underscores_action with an EnvoyFilter on the connection manager",
        ),
        check: underscore,
    },
    Rule {
        id: "PG-HEADER-COUNT",
        severity: Severity::Low,
        title: "no room for patgate's headers",
        consequence: "An allowed request with 87 to 100 headers is answered with 500, because patgate adds some.",
        fix: everywhere("set `max_headers_count: 128` in common_http_protocol_options"),
        check: count,
    },
    Rule {
        id: "PG-HEADER-REMOTE",
        severity: Severity::Medium,
        title: "Envoy believes the client about its address",
        consequence: "Clients choose their address, request id, timeouts and retries with x-forwarded-for and x-envoy-* headers.",
        fix: each(
            "set `use_remote_address: true`, and xff_num_trusted_hops behind load balancers",
            "set `clientIPDetection` in the ClientTrafficPolicy",
            "set `gatewayTopology.numTrustedProxies` in the proxy's configuration",
        ),
        check: remote,
    },
    Rule {
        id: "PG-HEADER-INTERNAL",
        severity: Severity::Low,
        title: "whole networks count as internal",
        consequence: "Clients there keep their own x-envoy-* headers and request ids; a pod network is no proof of trust.",
        fix: everywhere(
            "set internal_address_config to an address that no client has, as envoy/envoy.yaml does",
        ),
        check: internal,
    },
    Rule {
        id: "PG-PATH-NORMALIZE",
        severity: Severity::Medium,
        title: "paths are not normalised",
        consequence: "`/proxy/acme/../beta/…` reaches patgate as sent, which refuses it; a service beside it decides on one path and serves another.",
        fix: each(
            "set `normalize_path: true`",
            "do not set ClientTrafficPolicy.path.disableMergeSlashes or patch normalize_path",
            "set `pathNormalization: {normalization: MERGE_SLASHES}` in meshConfig",
        ),
        check: normalize,
    },
    Rule {
        id: "PG-PATH-SLASHES",
        severity: Severity::Medium,
        title: "double slashes stay in paths",
        consequence: "`//proxy/x` matches other routes and rules than `/proxy/x`, and many backends read it as the same.",
        fix: each(
            "set `merge_slashes: true`",
            "remove `disableMergeSlashes` from ClientTrafficPolicy.path",
            "set `pathNormalization: {normalization: MERGE_SLASHES}` in meshConfig",
        ),
        check: slashes,
    },
    Rule {
        id: "PG-PATH-ESCAPED",
        severity: Severity::Medium,
        title: "escaped slashes stay in paths",
        consequence: "Envoy and patgate see one segment where a backend that decodes `%2F` sees two.",
        fix: each(
            "set `path_with_escaped_slashes_action: REJECT_REQUEST`",
            "set `escapedSlashesAction: RejectRequest` in ClientTrafficPolicy.path",
            "set path_with_escaped_slashes_action with an EnvoyFilter on the connection manager",
        ),
        check: escaped,
    },
];

fn early(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| other_prefix(view).is_none()) {
        let missing = missing(view);
        if !missing.is_empty() {
            found.add(Place::of(view), format!("not removed: {}", missing.join(", ")));
        }
    }
}

fn missing(view: &crate::view::View<'_>) -> Vec<String> {
    let names = IDENTITY.iter().map(|suffix| format!("{}{suffix}", view.prefix));
    names.filter(|name| !view.early.removes(name)).collect()
}

fn other_prefix<'v>(view: &'v crate::view::View<'_>) -> Option<&'v str> {
    let other = view.early.prefix().filter(|prefix| *prefix != view.prefix)?;
    (!missing(view).is_empty()).then_some(other)
}

fn prefix(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        if let Some(other) = other_prefix(view) {
            let what = format!("`{other}…` headers are removed, and routes use `{}…`", view.prefix);
            found.add(Place::of(view), what);
        }
    }
}

fn family(context: &Context<'_>, found: &mut Found) {
    /// More names would not help.
    const SHOWN: usize = 8;
    for view in context.asking() {
        let passing = MISLEADING.iter().filter(|name| !view.early.removes(name));
        let passing: Vec<_> = passing.copied().collect();
        if passing.is_empty() {
            continue;
        }
        let more = passing.len().saturating_sub(SHOWN);
        let mut what = passing[..passing.len().min(SHOWN)].join(", ");
        if more > 0 {
            what = format!("{what}, and {more} more");
        }
        found.add(Place::of(view), format!("these pass: {what}"));
    }
}

fn underscore(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let options = view.http.config.at("common_http_protocol_options");
        let action = options.text("headers_with_underscores_action").unwrap_or("ALLOW");
        if !["DROP_HEADER", "REJECT_REQUEST"].contains(&action) {
            found.add(Place::of(view), format!("`headers_with_underscores_action` is {action}"));
        }
    }
}

fn count(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let options = view.http.config.at("common_http_protocol_options");
        let most = options.number("max_headers_count").unwrap_or(100);
        if most <= 100 {
            found.add(Place::of(view), format!("`max_headers_count` is {most}"));
        }
    }
}

fn remote(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let detects = !view.http.config.list("original_ip_detection_extensions").is_empty();
        if !view.http.config.is_on("use_remote_address") && !detects {
            found.add(Place::of(view), "`use_remote_address` is not true");
        }
    }
}

fn internal(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let ranges = view.http.config.list("internal_address_config/cidr_ranges");
        let wide = ranges.iter().filter_map(|range| {
            let address = range.text("address_prefix")?;
            let length = range.number("prefix_len").unwrap_or_default();
            let nobody = address == "0.0.0.0" && length == 32;
            let one = length == 32 || length == 128;
            (!nobody && !one).then(|| format!("{address}/{length}"))
        });
        let wide: Vec<_> = wide.collect();
        if !wide.is_empty() {
            found.add(Place::of(view), format!("internal are {}", wide.join(", ")));
        }
    }
}

fn normalize(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| !view.http.config.is_on("normalize_path")) {
        found.add(Place::of(view), "`normalize_path` is not true");
    }
}

fn slashes(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| !view.http.config.is_on("merge_slashes")) {
        found.add(Place::of(view), "`merge_slashes` is not true");
    }
}

fn escaped(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let action = view.http.config.text("path_with_escaped_slashes_action");
        let safe = ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"];
        if !action.is_some_and(|action| safe.contains(&action)) {
            let action = action.unwrap_or("not set");
            found.add(Place::of(view), format!("`path_with_escaped_slashes_action` is {action}"));
        }
    }
}
