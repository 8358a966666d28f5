"""Adapts the shipped configuration of Envoy as the documentation tells its users to."""

from collections.abc import Iterator
from pathlib import Path

import readme
import yaml
from programs import ROOT

SHIPPED = ROOT / "envoy/envoy.yaml"
CERTIFICATE = ROOT / "envoy/certificate.yaml"


def for_service(namespace: str, secret: str = "") -> dict:
    """Returns the configuration of an Envoy that asks the Service of a release in `namespace`."""
    config = yaml.safe_load(SHIPPED.read_text().replace("path: envoy/", "path: /etc/envoy/"))
    [snippet] = yaml.safe_load(
        readme.block(readme.CHART, "yaml", "- name: patgate").replace("authz", namespace)
    )
    cluster(config, "patgate").update(snippet)
    # As shipped, the port without TLS is for trials on one machine.
    [plain] = [
        item for item in config["static_resources"]["listeners"] if item["name"] == "gateway"
    ]
    plain["address"]["socket_address"]["address"] = "0.0.0.0"
    if secret:
        for service in grpc_services(config):
            service["initial_metadata"].append({"key": "patgate-secret", "value": secret})
    return config


def certificate() -> str:
    return CERTIFICATE.read_text().replace("envoy/tls/", "/etc/envoy-tls/")


def completed(config: dict, host: str) -> dict:
    """Lets the clusters of the backends lead to `host`, and gives a slow machine time."""
    for service in grpc_services(config):
        service["timeout"] = "20s"
        service["retry_policy"]["retry_back_off"]["max_interval"] = "16s"
    for name in ("model-acme", "model-beta"):
        [locality] = cluster(config, name)["load_assignment"]["endpoints"]
        [endpoint] = locality["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"] = {"address": host, "port_value": 8001}
    return config


def cluster(config: dict, name: str) -> dict:
    [found] = [item for item in config["static_resources"]["clusters"] if item["name"] == name]
    return found


def with_tls(config: dict, server: str) -> dict:
    """Adds the TLS of envoy/README.md, with files that Envoy reads again: SDS, as that says."""
    socket = yaml.safe_load(readme.block(readme.ENVOY, "yaml", "transport_socket:"))
    tls = socket["transport_socket"]["typed_config"]
    common = tls["common_tls_context"]
    validation = common.pop("validation_context")
    [subject] = validation["match_typed_subject_alt_names"]
    tls["sni"] = subject["matcher"]["exact"] = server
    del validation["trusted_ca"]
    common["tls_certificate_sds_secret_configs"] = [sds("client")]
    common["combined_validation_context"] = {
        "default_validation_context": validation,
        "validation_context_sds_secret_config": sds("authority"),
    }
    cluster(config, "patgate").update(socket)
    return config


def sds(name: str) -> dict:
    path = {"path": f"/etc/envoy/{name}.yaml"}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": path}}


def sds_file(name: str) -> str:
    """Returns the file of one SDS secret, whose certificates are in /etc/envoy-patgate."""
    file = lambda key: {"filename": f"/etc/envoy-patgate/{key}"}  # noqa: E731
    content = {
        "client": {
            "tls_certificate": {
                "certificate_chain": file("tls.crt"),
                "private_key": file("tls.key"),
            }
        },
        "authority": {"validation_context": {"trusted_ca": file("ca.crt")}},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return yaml.safe_dump({"resources": [{"@type": kind, "name": name, **content[name]}]})


def without_protection(config: dict) -> dict:
    """Removes what saves requests when a replica leaves, so that a test sees them fail."""
    patgate = cluster(config, "patgate")
    del patgate["health_checks"], patgate["outlier_detection"]
    for service in grpc_services(config):
        service.pop("retry_policy", None)
    return config


def grpc_services(node) -> Iterator[dict]:
    """Yields how each filter asks patgate. What two listeners share comes once."""
    seen = set()

    def walk(node):
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, dict):
            if node.get("envoy_grpc") == {"cluster_name": "patgate"}:
                yield node
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    yield from walk(node)


def written(config: dict, file: Path) -> None:
    file.write_text(yaml.safe_dump(config, width=1000, sort_keys=False))
