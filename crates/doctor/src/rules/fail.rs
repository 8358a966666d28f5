//! What happens while patgate, or one replica of it, does not answer?

use super::{Found, Place, Rule, Severity, call::is_authority, each, everywhere};
use crate::{
    model::{Address, Cluster},
    value::Read,
    view::Context,
};

/// patgate's own deadline by default, in seconds.
const DEADLINE: f64 = 0.1;
/// A client should not wait longer for a check than this, in seconds.
const PATIENCE: f64 = 30.0;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-FAIL-OPEN",
        severity: Severity::High,
        title: "requests pass while patgate does not answer",
        consequence: "While patgate is down or slow, every request reaches the backends without a token.",
        fix: each(
            "set `failure_mode_allow: false`",
            "remove `failOpen` from extAuth of the SecurityPolicy",
            "remove `failOpen` from the extension provider in meshConfig",
        ),
        check: open,
    },
    Rule {
        id: "PG-FAIL-STATUS",
        severity: Severity::Medium,
        title: "an outage is answered with 403",
        consequence: "Clients take a 403 for final and do not try again.",
        fix: each(
            "set `status_on_error: {code: ServiceUnavailable}`",
            "set `statusOnError: 503` in extAuth of the SecurityPolicy",
            "set `statusOnError: \"503\"` in the extension provider",
        ),
        check: status,
    },
    Rule {
        id: "PG-FAIL-TIMEOUT",
        severity: Severity::Medium,
        title: "the timeout is not longer than patgate's deadline",
        consequence: "patgate's own 503, with its text and Retry-After, never arrives.",
        fix: each(
            "set `timeout: 0.25s` in grpc_service",
            "set `timeout: 250ms` in extAuth of the SecurityPolicy",
            "set `timeout: 0.25s` in the extension provider",
        ),
        check: timeout,
    },
    Rule {
        id: "PG-FAIL-WAIT",
        severity: Severity::Medium,
        title: "a check may take very long",
        consequence: "While patgate does not answer, requests wait instead of failing, and pile up in Envoy.",
        fix: each(
            "set `timeout: 0.25s` in grpc_service, or 20s for the filter that shows bodies in a second step",
            "set `timeout` in extAuth of the SecurityPolicy",
            "set `timeout` in the extension provider: its default is 600 s",
        ),
        check: wait,
    },
    Rule {
        id: "PG-FAIL-TRY",
        severity: Severity::Medium,
        title: "one try is not longer than patgate's deadline",
        consequence: "Envoy uses max_interval of the back-off as the timeout of one try, so a slow answer never arrives.",
        fix: everywhere("set `max_interval: 0.2s` in retry_back_off"),
        check: one_try,
    },
    Rule {
        id: "PG-FAIL-RETRY",
        severity: Severity::Low,
        title: "checks are not retried",
        consequence: "The restart of one replica shows as errors.",
        fix: each(
            "add the retry_policy of envoy/envoy.yaml to grpc_service",
            "set `retry` in extAuth.grpc.backendSettings of the SecurityPolicy, or add the policy with an EnvoyPatchPolicy",
            "add a retry_policy to grpc_service with an EnvoyFilter",
        ),
        check: retry,
    },
    Rule {
        id: "PG-FAIL-HOST",
        severity: Severity::Low,
        title: "a retry may ask the replica that has just failed",
        consequence: "More checks fail while one replica is down.",
        fix: everywhere(
            "add `retry_host_predicate` with previous_hosts to the retry_policy of grpc_service",
        ),
        check: host,
    },
    Rule {
        id: "PG-FAIL-BREAKER",
        severity: Severity::Medium,
        title: "the circuit breakers of patgate's cluster have their defaults",
        consequence: "Above 1,024 checks, or 3 retries, at a time Envoy refuses requests by itself.",
        fix: each(
            "set max_requests, max_pending_requests and max_retries to 16384 in circuit_breakers",
            "set `circuitBreaker` in extAuth.grpc.backendSettings of the SecurityPolicy",
            "set `connectionPool` in a DestinationRule for patgate's service",
        ),
        check: breaker,
    },
    Rule {
        id: "PG-FAIL-HEALTH",
        severity: Severity::Low,
        title: "Envoy does not notice that a replica is about to end",
        consequence: "Envoy asks it until it closes its connections.",
        fix: each(
            "add the health_checks of envoy/envoy.yaml to the cluster",
            "set `healthCheck.active` with type GRPC in extAuth.grpc.backendSettings",
            "keep the readiness probe on patgate's pods, which removes them from the endpoints",
        ),
        check: health,
    },
    Rule {
        id: "PG-FAIL-OUTLIER",
        severity: Severity::Low,
        title: "no outlier detection",
        consequence: "Envoy asks a frozen replica until its health check has failed twice.",
        fix: each(
            "add the outlier_detection of envoy/envoy.yaml to the cluster",
            "set `healthCheck.passive` in extAuth.grpc.backendSettings",
            "set `outlierDetection` in a DestinationRule for patgate's service",
        ),
        check: outlier,
    },
    Rule {
        id: "PG-FAIL-KEEPALIVE",
        severity: Severity::Low,
        title: "no keepalive on the connection to patgate",
        consequence: "Requests time out on a connection that is dead without an error.",
        fix: each(
            "set `connection_keepalive: {interval: 5s, timeout: 1s}` in http2_protocol_options of the cluster",
            "set `http2.connectionKeepalive` in extAuth.grpc.backendSettings, where the version has it",
            "set connection_keepalive with an EnvoyFilter on the cluster",
        ),
        check: keepalive,
    },
    Rule {
        id: "PG-FAIL-ONE",
        severity: Severity::Medium,
        title: "one connection for all replicas behind a name",
        consequence: "LOGICAL_DNS uses one address at a time, so one replica gets all checks, and its end is an outage.",
        fix: each(
            "use `type: STRICT_DNS` with a name that has the address of each replica",
            "refer to patgate's Service instead of a Backend with a host name",
            "set `resolution: DNS` in the ServiceEntry, not DNS_ROUND_ROBIN",
        ),
        check: one,
    },
];

fn open(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        if asker.filter.config.is_on("failure_mode_allow") {
            let place = Place::asker(view, asker);
            found.hole(view.worst_fate(), place, "`failure_mode_allow: true`");
        }
    }
}

fn status(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let code = asker.filter.config.at("status_on_error/code");
        let right = code.as_u64().is_some_and(|code| (500..600).contains(&code))
            || code.as_str().is_some_and(is_outage);
        if !right {
            let code = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
            let what = if code == "null" {
                "`status_on_error` is not set".to_owned()
            } else {
                format!("`status_on_error` is {code}")
            };
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn is_outage(name: &str) -> bool {
    ["ServiceUnavailable", "InternalServerError", "BadGateway", "GatewayTimeout"].contains(&name)
}

fn timeout(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| !asker.second) {
        let timeout = asker.filter.config.seconds("grpc_service/timeout");
        if let Some(timeout) = timeout.filter(|timeout| *timeout > 0.0 && *timeout <= DEADLINE) {
            found.add(Place::asker(view, asker), format!("`timeout: {timeout}s`"));
        }
    }
}

fn wait(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let timeout = asker.filter.config.seconds("grpc_service/timeout");
        if let Some(timeout) = timeout.filter(|timeout| *timeout == 0.0 || *timeout > PATIENCE) {
            let what = if timeout == 0.0 {
                "`timeout: 0s`, which means without limit".to_owned()
            } else {
                format!("`timeout: {timeout}s`")
            };
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn one_try(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(_, asker)| !asker.second) {
        if let Some(longest) = asker.one_try().filter(|longest| *longest <= DEADLINE) {
            found.add(Place::asker(view, asker), format!("`max_interval` is {longest}s"));
        }
    }
}

fn retry(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let policy = asker.filter.config.at("grpc_service/retry_policy");
        // Google's gRPC retries by itself.
        let google = asker.filter.config.has("grpc_service/google_grpc");
        if !google && policy.text("retry_on").is_none_or(str::is_empty) {
            found.add(Place::asker(view, asker), "no `retry_policy` in grpc_service");
        }
    }
}

fn host(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let policy = asker.filter.config.at("grpc_service/retry_policy");
        let several = asker.cluster.is_some_and(Cluster::has_several);
        if several && policy.has("retry_on") && policy.list("retry_host_predicate").is_empty() {
            found.add(Place::asker(view, asker), "no `retry_host_predicate`");
        }
    }
}

fn breaker(context: &Context<'_>, found: &mut Found) {
    let limits = [("max_requests", 1024), ("max_pending_requests", 1024), ("max_retries", 3)];
    for cluster in context.patgates() {
        let low = limits
            .iter()
            .filter(|(field, default)| cluster.limit(field).unwrap_or(*default) <= *default);
        let low: Vec<_> = low.map(|(field, default)| format!("{field} {default}")).collect();
        if !low.is_empty() {
            found.add(Place::cluster(&cluster.name), format!("at most {}", low.join(", ")));
        }
    }
}

fn health(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        let checks = cluster.config.list("health_checks");
        let place = Place::cluster(&cluster.name);
        if checks.is_empty() {
            // A control plane takes endpoints away that are not ready.
            if cluster.discovery() != "EDS" {
                found.add(place, "no `health_checks`");
            }
            continue;
        }
        for check in checks {
            if !check.has("grpc_health_check") {
                found.add(place.clone(), "the health check is not by gRPC");
                continue;
            }
            let authority = check.text("grpc_health_check/authority").unwrap_or_default();
            let by_name = !authority.is_empty() || cluster.checked_by_name;
            if !by_name && !is_authority(&cluster.name) {
                let what = format!(
                    "the health check has no `authority` and sends the name {}, which an HTTP/2 server refuses, so every replica counts as unhealthy",
                    cluster.name
                );
                found.at(Severity::Medium, place.clone(), what);
            }
            let service = check.text("grpc_health_check/service_name").unwrap_or_default();
            if !["", "envoy.service.auth.v3.Authorization"].contains(&service) {
                let what = format!(
                    "the health check asks for the service {service}, which patgate does not have, so every replica counts as unhealthy"
                );
                found.at(Severity::Medium, place.clone(), what);
            }
        }
    }
}

fn outlier(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        if cluster.has_several() && !cluster.config.has("outlier_detection") {
            found.add(
                Place::cluster(&cluster.name),
                "no `outlier_detection`, with several replicas",
            );
        }
    }
}

fn keepalive(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        let socket = |address: &Address| matches!(address, Address::Pipe(_));
        let remote = !cluster.addresses.iter().all(socket);
        if let Some(options) = cluster.http2()
            && remote
            && !options.has("connection_keepalive/interval")
        {
            found.add(Place::cluster(&cluster.name), "no `connection_keepalive`");
        }
    }
}

fn one(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        if cluster.discovery() == "LOGICAL_DNS" {
            found.add(Place::cluster(&cluster.name), "`type: LOGICAL_DNS`");
        }
    }
}
