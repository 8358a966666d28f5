//! Can Envoy call patgate at all?

use super::{Found, Place, Rule, Severity, each};
use crate::{value::Read, view::Context};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-FAIL-HTTP2",
        severity: Severity::High,
        title: "the cluster of patgate does not speak HTTP/2",
        consequence: "gRPC needs HTTP/2: every check fails, and every request is refused.",
        fix: each(
            "set http2_protocol_options in typed_extension_protocol_options of the cluster",
            "set `appProtocol: kubernetes.io/h2c` on the Service's port",
            "name the Service's port `grpc`",
        ),
        check: http2,
    },
    Rule {
        id: "PG-FAIL-CLUSTER",
        severity: Severity::High,
        title: "ext_authz asks a cluster that does not exist",
        consequence: "Envoy accepts the name without a look, and every check of this filter fails.",
        fix: each(
            "name the cluster of patgate in envoy_grpc.cluster_name of the filter",
            "write the name of the SecurityPolicy's cluster into the EnvoyPatchPolicy, such as securitypolicy/NAMESPACE/NAME/extauth/0",
            "write the name of the provider's cluster into the EnvoyFilter, such as outbound|9191||SERVICE.NAMESPACE.svc.cluster.local, and give the Service's port that number",
        ),
        check: cluster,
    },
    Rule {
        id: "PG-FAIL-AUTHORITY",
        severity: Severity::High,
        title: "the name that checks send as their host is not a valid one",
        consequence: "patgate's HTTP/2 server refuses such a call, so every check of this filter fails.",
        fix: each(
            "set `authority` in envoy_grpc of the filter to a host name, such as patgate",
            "set `authority` in envoy_grpc of the filter with the EnvoyPatchPolicy, as deploy/envoy-gateway does",
            "set `authority` in envoy_grpc of the filter with the EnvoyFilter, as deploy/istio does",
        ),
        check: authority,
    },
];

fn http2(context: &Context<'_>, found: &mut Found) {
    for cluster in context.patgates() {
        if cluster.http2().is_none() {
            found.add(Place::cluster(&cluster.name), "no `http2_protocol_options`");
        }
    }
}

fn cluster(context: &Context<'_>, found: &mut Found) {
    if !context.proxy.whole_clusters {
        return;
    }
    for (view, asker) in context.askers().filter(|(_, asker)| asker.cluster.is_none()) {
        if let Some(name) = asker.filter.config.text("grpc_service/envoy_grpc/cluster_name") {
            found.add(Place::asker(view, asker), format!("no cluster is called {name}"));
        }
    }
}

fn authority(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let grpc = asker.filter.config.at("grpc_service/envoy_grpc");
        let own = grpc.text("authority").unwrap_or_default();
        // Without a name of its own, Envoy sends that of the cluster.
        let sent = if own.is_empty() { grpc.text("cluster_name") } else { Some(own) };
        if let Some(sent) = sent.filter(|sent| !is_authority(sent)) {
            let what = if own.is_empty() {
                format!("`authority` is not set, so Envoy sends the cluster's name {sent}")
            } else {
                format!("`authority: {sent}`")
            };
            found.add(Place::asker(view, asker), what);
        }
    }
}

/// Whether an HTTP/2 server takes this for a host, as patgate's reads it: no slash, no bar, and one
/// colon outside brackets.
pub(super) fn is_authority(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]".contains(&byte);
    let host = name.rsplit(['@', ']']).next().unwrap_or_default();
    !name.is_empty() && name.bytes().all(allowed) && host.matches(':').count() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_server_refuses_are_told_from_hosts() {
        for host in ["patgate", "patgate_authz", "patgate.authz:9191", "[::1]:9191", "c-17"] {
            assert!(is_authority(host), "{host}");
        }
        for name in ["", "securitypolicy/a/b/extauth/0", "outbound|9191||a.b", "a b", "a:b:c"] {
            assert!(!is_authority(name), "{name}");
        }
    }
}
