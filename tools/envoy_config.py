"""Adapts a shipped Envoy configuration to throwaway servers on this machine.

The configuration is changed structurally and nowhere else than asked, so that a test of the
result is a test of the file that is shipped.
"""

import copy

import yaml

EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
FILE_ACCESS_LOG = {
    "name": "envoy.access_loggers.file",
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
}
TLS = "envoy.extensions.transport_sockets.tls"
TLS_INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {
        "@type": "type.googleapis.com/"
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    },
}


def adapt(text, *, admin_port, next_port, access_log, patch):
    """Returns the adapted configuration as YAML and the port of each listener by its name.

    `patch` may hold:
      authz               where patgate listens: "127.0.0.1:PORT" or "unix:/path", or a list of
                          such addresses, one for each replica
      clusters            upstream clusters to repoint or add: {"name": address or list, ...}
      failure_mode_allow  the ext_authz setting of that name
      ext_authz           other ext_authz settings, merged over those of the file
      tls                 {"certificate": path, "key": path}: each listener also speaks TLS on its
                          port, and HTTP/2 there with clients that offer it by ALPN
    """
    unknown = patch.keys() - {"authz", "clusters", "failure_mode_allow", "ext_authz", "tls"}
    if unknown:
        raise ValueError(f"unknown patch: {', '.join(sorted(unknown))}")

    config = yaml.safe_load(text)
    resources = config["static_resources"]
    config["admin"] = {"address": _address(f"127.0.0.1:{admin_port}")}

    ports = {}
    for listener in resources["listeners"]:
        ports[listener["name"]] = port = next_port()
        listener["address"] = _address(f"127.0.0.1:{port}")

    for manager in _connection_managers(resources["listeners"]):
        for logger in manager.get("access_log", []):
            logger["name"] = FILE_ACCESS_LOG["name"]
            logger["typed_config"].update(
                {"@type": FILE_ACCESS_LOG["@type"], "path": str(access_log)}
            )
        for http_filter in manager["http_filters"]:
            settings = http_filter["typed_config"]
            if settings["@type"] == EXT_AUTHZ:
                if "failure_mode_allow" in patch:
                    settings["failure_mode_allow"] = patch["failure_mode_allow"]
                _merge(settings, patch.get("ext_authz", {}))
                if "authz" in patch:
                    name = settings["grpc_service"]["envoy_grpc"]["cluster_name"]
                    _point(resources["clusters"], name, patch["authz"])

    for name, address in patch.get("clusters", {}).items():
        _point(resources["clusters"], name, address)

    if "tls" in patch:
        for listener in resources["listeners"]:
            _add_tls(listener, **patch["tls"])

    return yaml.safe_dump(config, sort_keys=False), ports


def _connection_managers(listeners):
    for listener in listeners:
        chains = listener.get("filter_chains", []) + [listener.get("default_filter_chain", {})]
        for chain in chains:
            for network_filter in chain.get("filters", []):
                if "http_filters" in network_filter.get("typed_config", {}):
                    yield network_filter["typed_config"]


def _add_tls(listener, certificate, key):
    """The same filters behind TLS; what is not TLS goes on as before."""
    listener.setdefault("listener_filters", []).append(copy.deepcopy(TLS_INSPECTOR))
    chain = copy.deepcopy(listener["filter_chains"][0])
    chain["name"] = "tls"
    chain["filter_chain_match"] = {"transport_protocol": "tls"}
    chain["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"type.googleapis.com/{TLS}.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": certificate},
                        "private_key": {"filename": key},
                    }
                ],
            },
        },
    }
    listener["filter_chains"].append(chain)


def _point(clusters, name, addresses):
    addresses = [addresses] if isinstance(addresses, str) else addresses
    cluster = next((c for c in clusters if c["name"] == name), None)
    if cluster is None:
        cluster = {"name": name, "connect_timeout": "1s"}
        clusters.append(cluster)
    # A Unix socket is refused by every type but STATIC.
    cluster["type"] = "STATIC"
    cluster["load_assignment"] = {
        "cluster_name": name,
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": _address(to)}} for to in addresses]}
        ],
    }


def _address(text):
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _merge(into, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)
