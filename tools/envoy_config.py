"""Adapts a shipped Envoy configuration to throwaway servers on this machine.

The configuration is changed structurally and nowhere else than asked, so that a test of the
result is a test of the file that is shipped.
"""

import copy
from pathlib import Path

import yaml

EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
FILE_ACCESS_LOG = {
    "name": "envoy.access_loggers.file",
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
}
SHIPPED = Path(__file__).resolve().parent.parent / "envoy"


def adapt(text, *, admin_port, next_ports, access_log, certificate, patch):
    """Returns the adapted configuration as YAML and the port of each listener by its name.

    TLS is always on the port after that of the same listener without TLS. `next_ports` returns the
    first of two free ports in a row. Certificates come from the file `certificate`, whose content
    `secret` returns.

    `patch` may hold:
      authz               where patgate listens: "127.0.0.1:PORT" or "unix:/path", or a list of
                          such addresses, one for each replica
      clusters            upstream clusters to repoint or add: {"name": address or list, ...}
      failure_mode_allow  the ext_authz setting of that name
      ext_authz           other ext_authz settings, merged over those of the file. With a `timeout`,
                          a connection to patgate may take as long
      tls                 {"certificate": path, "key": path}: these files are served over TLS. A
                          listener that has none of its own in the file gets it as shipped
    """
    unknown = patch.keys() - {"authz", "clusters", "failure_mode_allow", "ext_authz", "tls"}
    if unknown:
        raise ValueError(f"unknown patch: {', '.join(sorted(unknown))}")

    config = yaml.safe_load(text)
    resources = config["static_resources"]
    config["admin"] = {"address": _address(f"127.0.0.1:{admin_port}")}

    if "tls" in patch:
        resources["listeners"] = _secured(resources["listeners"])
    ports, port = {}, 0
    for listener in resources["listeners"]:
        tls = _tls(listener)
        ports[listener["name"]] = port = port + 1 if tls else next_ports()
        listener["address"] = _address(f"127.0.0.1:{port}")
        if tls:
            [served] = tls["common_tls_context"]["tls_certificate_sds_secret_configs"]
            served["sds_config"]["path_config_source"]["path"] = str(certificate)

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
                name = settings["grpc_service"]["envoy_grpc"]["cluster_name"]
                if "authz" in patch:
                    _point(resources["clusters"], name, patch["authz"])
                patience = patch.get("ext_authz", {}).get("grpc_service", {}).get("timeout")
                if patience:
                    _connect_within(resources["clusters"], name, patience)

    for name, address in patch.get("clusters", {}).items():
        _point(resources["clusters"], name, address)

    return yaml.safe_dump(config, sort_keys=False), ports


def _connection_managers(listeners):
    for listener in listeners:
        chains = listener.get("filter_chains", []) + [listener.get("default_filter_chain", {})]
        for chain in chains:
            for network_filter in chain.get("filters", []):
                if "http_filters" in network_filter.get("typed_config", {}):
                    yield network_filter["typed_config"]


def secret(tls):
    """Returns the shipped file of certificates. It names those of the patch, if any."""
    config = yaml.safe_load((SHIPPED / "certificate.yaml").read_text())
    if tls:
        [resource] = config["resources"]
        resource["tls_certificate"]["certificate_chain"]["filename"] = tls["certificate"]
        resource["tls_certificate"]["private_key"]["filename"] = tls["key"]
    return yaml.safe_dump(config)


def _tls(listener):
    """The settings of a listener's TLS, if it has any."""
    chain = listener["filter_chains"][0]
    return chain.get("transport_socket", {}).get("typed_config")


def _secured(listeners):
    """Adds a copy over TLS, as shipped, after each listener that no such copy follows."""
    shipped = yaml.safe_load((SHIPPED / "envoy.yaml").read_text())["static_resources"]["listeners"]
    [https] = filter(_tls, shipped)
    all = []
    for listener, following in zip(listeners, [*listeners[1:], None], strict=True):
        all.append(listener)
        if not _tls(listener) and not (following and _tls(following)):
            copied = copy.deepcopy(listener)
            copied["name"] += " over TLS"
            chain, secure = copied["filter_chains"][0], https["filter_chains"][0]
            chain.update({**copy.deepcopy(secure), "filters": chain["filters"]})
            all.append(copied)
    return all


def _point(clusters, name, addresses):
    addresses = [addresses] if isinstance(addresses, str) else addresses
    cluster = next((c for c in clusters if c["name"] == name), None)
    if cluster is None:
        cluster = {"name": name, "connect_timeout": "1s"}
        clusters.append(cluster)
    # A Unix socket is refused by every type but STATIC, whose endpoints have no host names of their
    # own.
    cluster["type"] = "STATIC"
    endpoints = [{"hostname": name, "address": _address(to)} for to in addresses]
    cluster["load_assignment"] = {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": endpoint} for endpoint in endpoints]}],
    }


def _connect_within(clusters, name, patience):
    """Lengthens the shipped time limit, unless the configuration has another one."""
    for cluster in clusters:
        if cluster["name"] == name and cluster.get("connect_timeout") == "0.1s":
            cluster["connect_timeout"] = patience


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
