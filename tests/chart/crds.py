"""Keeps the schemas of custom resources that the chart writes, without their descriptions.

    python tests/chart/crds.py FILE…    reads CustomResourceDefinitions, and writes tests/chart/crds

crds/README.md says where the definitions are from.
"""

import json
import sys
from pathlib import Path

import yaml

KEPT = Path(__file__).resolve().parent / "crds"
VERSIONS = {
    "certificates.cert-manager.io": "v1",
    "envoyproxies.gateway.envoyproxy.io": "v1alpha1",
    "httproutes.gateway.networking.k8s.io": "v1",
    "prometheusrules.monitoring.coreos.com": "v1",
    "servicemonitors.monitoring.coreos.com": "v1",
}
# EnvoyProxy describes whole pods many times. Of an object here, only these properties are kept, so
# a field beside them counts as unknown.
CUT = {
    "EnvoyProxy": {
        "spec": ["provider"],
        "spec.provider": ["type", "kubernetes"],
        "spec.provider.kubernetes": ["envoyDeployment"],
        "spec.provider.kubernetes.envoyDeployment": [
            "replicas",
            "pod",
            "initContainers",
            "container",
        ],
        "spec.provider.kubernetes.envoyDeployment.container": ["volumeMounts"],
    }
}


def main(files: list[str]) -> None:
    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text()):
            if not document or document.get("kind") != "CustomResourceDefinition":
                continue
            if wanted := VERSIONS.get(document["metadata"]["name"]):
                keep(document["spec"], wanted)


def keep(spec: dict, wanted: str) -> None:
    (version,) = (version for version in spec["versions"] if version["name"] == wanted)
    kind = spec["names"]["kind"]
    schema = bare(version["schema"]["openAPIV3Schema"])
    for path, kept in CUT.get(kind, {}).items():
        node = schema
        for name in path.split("."):
            node = node["properties"][name]
        node["properties"] = {name: node["properties"][name] for name in kept}
    text = json.dumps({"group": spec["group"], "version": wanted, "kind": kind, "schema": schema})
    (KEPT / f"{kind.lower()}.json").write_text(text + "\n")


def bare(node):
    """Returns the schema without descriptions."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: bare(value)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str))
    }


if __name__ == "__main__":
    main(sys.argv[1:])
