"""A real API server accepts every object, of all sets of values that `make chart-test` renders."""

import json
import sys

import yaml
from programs import ROOT, Failed, helm
from sites import Site

sys.path.insert(0, str(ROOT / "tests/chart"))
from cases import ACCEPTED, LEAST  # noqa: E402

CRDS = ROOT / "tests/chart/crds"
# A cluster of one family refuses these.
OF_TWO_FAMILIES = ("IPv6", "both families")


def run(site: Site) -> None:
    site.space.make()
    made = install_definitions(site)
    try:
        for name, more in ACCEPTED.items():
            if name in OF_TWO_FAMILIES and not site.dual_stack():
                continue
            admit(site, name, helm.merged(LEAST, more))
        refused(site)
    finally:
        for name in made:
            site.space.kubectl("delete", "customresourcedefinition", name)


def install_definitions(site: Site) -> list[str]:
    """Installs the custom resources that the cluster does not know, and returns their names."""
    known = site.space.list_names("customresourcedefinitions")
    made = []
    for file in sorted(CRDS.glob("*.json")):
        definition = of(json.loads(file.read_text()))
        name = definition["metadata"]["name"]
        if f"customresourcedefinition.apiextensions.k8s.io/{name}" not in known:
            site.space.apply(definition)
            made.append(name)
    for name in made:
        condition = "--for=condition=Established"
        site.space.kubectl("wait", condition, f"customresourcedefinition/{name}", "--timeout=60s")
    return made


def of(kept: dict) -> dict:
    singular = kept["kind"].lower()
    plural = f"{singular[:-1]}ies" if singular.endswith("xy") else f"{singular}s"
    version = {
        "name": kept["version"],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": kept["schema"]},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{kept['group']}",
            # Groups of Kubernetes ask for it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": kept["group"],
            "scope": "Namespaced",
            "names": {"kind": kept["kind"], "plural": plural, "singular": singular},
            "versions": [version],
        },
    }


def admit(site: Site, name: str, values: dict) -> None:
    objects = helm.parse(helm.template("4", site.chart, values))
    for item in objects:
        item["metadata"]["namespace"] = site.space.name
    text = yaml.safe_dump_all(objects)
    try:
        done = site.space.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
        )
    except Failed as failed:
        raise Failed(f"the objects of {name!r}: {failed}") from None
    if done.stderr:
        raise Failed(f"the objects of {name!r}: {done.stderr}")
    accepted = len(done.stdout.splitlines())
    if accepted != len(objects):
        raise Failed(f"{accepted} of the {len(objects)} objects of {name!r} were accepted")


def refused(site: Site) -> None:
    """The rules in CEL and Pod Security are in force here."""
    values = helm.merged(LEAST, ACCEPTED["self-service, HTTPRoute"])
    objects = helm.parse(helm.template("4", site.chart, values))
    [route] = [item for item in objects if item["kind"] == "HTTPRoute"]
    route["spec"]["parentRefs"] *= 2
    [serve] = [
        item
        for item in objects
        if item["metadata"]["name"] == "patgate" and item["kind"] == "Deployment"
    ]
    serve["spec"]["template"]["spec"]["hostNetwork"] = True
    for item, why in ((route, "parentRefs"), (serve, "PodSecurity")):
        item["metadata"]["namespace"] = site.space.name
        try:
            done = site.space.kubectl(
                "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(item)
            )
        except Failed as failed:
            said = str(failed)
        else:
            said = done.stderr
        if why not in said:
            raise Failed(f"a defect of {item['kind']} was not found: {said!r}, expected {why}")
