//! What can others read or reach: connections, logs, the admin interface, old releases, memory.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    headers::CREDENTIALS,
    model::{Address, Maker, Tls},
    releases,
    value::{Read, texts, unwrapped},
    view::Context,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-TLS-PATGATE",
        severity: Severity::Medium,
        title: "tokens go to patgate in the clear",
        consequence: "Whoever reads the network between Envoy and patgate gets every token.",
        fix: each(
            "use a Unix socket or TLS for the cluster (envoy/README.md)",
            "use a Backend over a Unix socket, or a BackendTLSPolicy for patgate's Service",
            "let mutual TLS of the mesh cover patgate, or set `tls` in a DestinationRule",
        ),
        check: to_patgate,
    },
    Rule {
        id: "PG-TLS-BACKEND",
        severity: Severity::Medium,
        title: "a backend's credential goes out in the clear",
        consequence: "Whoever reads the network gets the credential that patgate adds, and every prompt.",
        fix: each(
            "set a transport_socket with TLS on the cluster",
            "set `tls` in the Backend to which the route leads, or add a BackendTLSPolicy if it leads to a Service: the policy has no effect on a Backend",
            "let mutual TLS of the mesh cover the backend, or set `tls` in a DestinationRule",
        ),
        check: to_backend,
    },
    Rule {
        id: "PG-TLS-VERIFY",
        severity: Severity::Medium,
        title: "Envoy does not verify a certificate",
        consequence: "Envoy sends tokens and credentials to whatever answers at this address.",
        fix: each(
            "set validation_context with trusted_ca and match_typed_subject_alt_names",
            "set `validation` in the BackendTLSPolicy",
            "set `caCertificates` and `subjectAltNames` in the DestinationRule",
        ),
        check: verify,
    },
    Rule {
        id: "PG-TLS-CLIENT",
        severity: Severity::Low,
        title: "clients may send tokens in the clear",
        consequence: "Unless something in front ends TLS, whoever reads the network gets every token.",
        fix: everywhere(
            "remove the listener, or let it listen on 127.0.0.1, or at an address that only the load balancer or the mesh that ends TLS can reach",
        ),
        check: from_clients,
    },
    Rule {
        id: "PG-ADMIN-OPEN",
        severity: Severity::High,
        title: "the admin interface listens beyond this machine",
        consequence: "Whoever reaches it reads secrets in the configuration, drains the proxy, or ends it.",
        fix: each(
            "let it listen on 127.0.0.1 or a Unix socket",
            "do not change the admin address with EnvoyProxy.bootstrap",
            "keep the admin address of Istio's own bootstrap, 127.0.0.1:15000",
        ),
        check: admin,
    },
    Rule {
        id: "PG-LOG-TOKEN",
        severity: Severity::High,
        title: "credentials are logged",
        consequence: "Whoever reads the log can use the tokens in it.",
        fix: each(
            "remove the header from the format, or from the list of headers to log",
            "remove the header from EnvoyProxy.telemetry.accessLog",
            "remove the header from the Telemetry resource and meshConfig.accessLogFormat",
        ),
        check: tokens,
    },
    Rule {
        id: "PG-LOG-QUERY",
        severity: Severity::Medium,
        title: "queries are logged",
        consequence: "A token that a client puts into the query stays in the log, although patgate refuses the request.",
        fix: each(
            "log `%PATH(NQ:ORIG_OR_PATH)%` instead of the path with its query",
            "set a format with `%PATH(NQ:ORIG_OR_PATH)%` in EnvoyProxy.telemetry.accessLog",
            "set a format with `%PATH(NQ:ORIG_OR_PATH)%` in meshConfig.accessLogFormat",
        ),
        check: queries,
    },
    Rule {
        id: "PG-ENVOY-OLD",
        severity: Severity::Medium,
        title: "an old release of Envoy",
        consequence: "Errors that are public and fixed can be used against this proxy.",
        fix: each(
            "update Envoy to the last release of its line, or to a newer line",
            "update Envoy Gateway, or set the image in EnvoyProxy",
            "update Istio to the last release of its line",
        ),
        check: old,
    },
    Rule {
        id: "PG-LIMIT-HEAP",
        severity: Severity::Low,
        title: "no limit of the memory",
        consequence: "A flood takes all memory, and the kernel ends Envoy with every open stream.",
        fix: everywhere("add the overload_manager of envoy/envoy.yaml"),
        check: heap,
    },
    Rule {
        id: "PG-LIMIT-BACKEND",
        severity: Severity::Low,
        title: "a backend takes 1,024 calls at a time by default",
        consequence: "Above that, Envoy answers 503 by itself, although each stream of a model holds one for minutes.",
        fix: each(
            "set max_connections, max_pending_requests and max_requests in circuit_breakers of the cluster",
            "set `circuitBreaker` in a BackendTrafficPolicy",
            "set `connectionPool` in a DestinationRule",
        ),
        check: backend,
    },
];

fn to_patgate(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        for address in cluster.in_the_clear() {
            found.add(Place::cluster(&cluster.name), format!("{address}, without TLS"));
        }
    }
}

fn to_backend(context: &Context<'_>, found: &mut Found) {
    for cluster in context.protected() {
        for address in cluster.in_the_clear() {
            found.add(Place::cluster(&cluster.name), format!("{address}, without TLS"));
        }
    }
}

fn verify(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates().chain(context.protected()) {
        if cluster.tls == Tls::Unverified {
            found.add(Place::cluster(&cluster.name), "TLS without `validation_context`");
        }
    }
}

fn from_clients(context: &Context<'_>, found: &mut Found) {
    // The gateway of a control plane has the listeners that its Gateway names, with their protocol.
    if context.proxy.maker != Maker::Envoy {
        return;
    }
    for view in context.asking() {
        let socket = view.chain.config.at("transport_socket/typed_config");
        if !matches!(socket.type_name(), "" | "RawBuffer") {
            continue;
        }
        for address in view.listener.addresses() {
            if !address.is_local() && address != Address::Unknown {
                found.add(Place::of(view), format!("{address}, without TLS"));
            }
        }
    }
}

fn admin(context: &Context<'_>, found: &mut Found) {
    let admin = context.proxy.bootstrap.at("admin");
    if admin.has("address") {
        let address = Address::read(admin.at("address"));
        if !address.is_local() {
            found.add(Place::default(), format!("admin at {address}"));
        }
    }
}

/// Calls back for each access log, with its place.
fn each_log(context: &Context<'_>, mut say: impl FnMut(Place, &Value)) {
    for view in context.asking() {
        let logs = view.http.config.list("access_log").iter();
        for log in logs.chain(view.listener.config.list("access_log")) {
            say(Place::of(view), &unwrapped(log.at("typed_config")));
        }
    }
}

/// The operators of a log's format, such as `REQ(:PATH)`, without their percent signs.
fn operators(log: &Value) -> Vec<String> {
    let mut formats = Vec::new();
    for field in ["log_format", "format", "json_format", "typed_json_format", "body", "attributes"]
    {
        texts(log.at(field), &mut formats);
    }
    formats.iter().flat_map(|format| format.split('%')).map(str::to_ascii_lowercase).collect()
}

/// The headers that a format takes from the request.
fn logged_headers(log: &Value) -> BTreeSet<String> {
    let operators = operators(log);
    let lists = ["additional_request_headers_to_log", "additional_response_headers_to_log"];
    let listed = lists.iter().flat_map(|list| log.list(list)).filter_map(Value::as_str);
    let mut names: BTreeSet<String> = listed.map(str::to_ascii_lowercase).collect();
    for operator in &operators {
        for command in ["req(", "req_without_query("] {
            if let Some(arguments) = operator.strip_prefix(command) {
                let arguments = arguments.split(')').next().unwrap_or_default();
                names.extend(arguments.split('?').map(str::to_owned));
            }
        }
        if operator.starts_with("cookie(") {
            names.insert("cookie".to_owned());
        }
        if operator.starts_with("cel(") {
            let quoted = operator.split(['\'', '"']);
            names.extend(quoted.filter(|part| CREDENTIALS.contains(part)).map(str::to_owned));
        }
    }
    names
}

fn tokens(context: &Context<'_>, found: &mut Found) {
    each_log(context, |place, log| {
        let names = logged_headers(log);
        let secret: Vec<_> =
            CREDENTIALS.iter().filter(|name| names.contains(**name)).copied().collect();
        if !secret.is_empty() {
            found.add(place, format!("the access log has {}", secret.join(", ")));
        }
    });
    for view in context.asking() {
        for tag in view.http.config.list("tracing/custom_tags") {
            let name = tag.text("request_header/name").unwrap_or_default().to_ascii_lowercase();
            if CREDENTIALS.contains(&name.as_str()) {
                found.add(Place::of(view), format!("spans have {name}"));
            }
        }
    }
}

fn queries(context: &Context<'_>, found: &mut Found) {
    each_log(context, |place, log| {
        let kind = log.type_name();
        if kind == "HttpGrpcAccessLogConfig" {
            found.add(place, "an access log over gRPC sends the path with its query");
            return;
        }
        let text = matches!(kind, "FileAccessLog" | "StdoutAccessLog" | "StderrAccessLog");
        let formats = ["log_format", "format", "json_format", "typed_json_format"];
        if text && !formats.iter().any(|format| log.has(format)) {
            found.add(place, "Envoy's default format has the path with its query");
            return;
        }
        let with_query = operators(log).into_iter().find(|operator| {
            let of_header = operator
                .strip_prefix("req(")
                .is_some_and(|rest| rest.contains(":path") || rest.contains("original-path"));
            let of_path =
                operator.strip_prefix("path(").is_some_and(|rest| !rest.starts_with("nq"));
            let of_cel = operator.starts_with("cel(")
                && ["request.path", "request.query"].iter().any(|part| operator.contains(part))
                && !operator.contains("request.url_path");
            of_header
                || of_path
                || of_cel
                || operator == "path"
                || operator.starts_with("query_param")
        });
        if let Some(operator) = with_query {
            found.add(place, format!("the access log has %{}%", operator.to_uppercase()));
        }
    });
}

fn old(context: &Context<'_>, found: &mut Found) {
    if let Some(version) = context.proxy.version
        && let Some(what) = releases::outdated(version)
    {
        found.add(Place::default(), what);
    }
}

fn heap(context: &Context<'_>, found: &mut Found) {
    // Control planes make their own bootstrap, with limits of their own.
    if context.proxy.maker != Maker::Envoy || context.asking().next().is_none() {
        return;
    }
    let monitors = context.proxy.bootstrap.list("overload_manager/resource_monitors");
    let limits = ["FixedHeapConfig", "CgroupMemoryConfig"];
    if !monitors.iter().any(|monitor| limits.contains(&monitor.at("typed_config").type_name())) {
        found.add(Place::default(), "no `fixed_heap` in overload_manager");
    }
}

fn backend(context: &Context<'_>, found: &mut Found) {
    const DEFAULT: u64 = 1024;
    for cluster in context.protected() {
        let fields = ["max_connections", "max_pending_requests", "max_requests"];
        let low = fields.iter().filter(|field| cluster.limit(field).unwrap_or(DEFAULT) == DEFAULT);
        let low: Vec<_> = low.copied().collect();
        if !low.is_empty() {
            found.add(Place::cluster(&cluster.name), format!("{} at 1024", low.join(", ")));
        }
    }
}
