"""A real API server accepts every object, of all sets of values that `make chart-test` renders."""

import json
import re
import runpy

import yaml
from kube import named
from programs import ROOT, Failed, helm
from sites import Site

# There is another module `cases` beside this one.
CASES = runpy.run_path(str(ROOT / "tests/chart/cases.py"))
ACCEPTED, LEAST = CASES["ACCEPTED"], CASES["LEAST"]
CRDS = ROOT / "tests/chart/crds"
RULES = "x-kubernetes-validations"
# A cluster of one family refuses these.
OF_TWO_FAMILIES = ("IPv6", "both families")


def run(site: Site) -> None:
    site.space.make()
    made = install_definitions(site)
    try:
        sets = {
            name: objects(site, helm.merged(LEAST, more))
            for name, more in ACCEPTED.items()
            if name not in OF_TWO_FAMILIES or site.dual_stack()
        }
        # Many sets have the same objects, and a command for each set takes its time.
        every = {json.dumps(item): item for items in sets.values() for item in items}
        try:
            admit(site, list(every.values()))
        except Failed:
            for name, items in sets.items():
                site.say(f"  the values of {name!r}")
                admit(site, items)
            raise
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
        "schema": {"openAPIV3Schema": without_rules_of_others(kept["schema"])},
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


def without_rules_of_others(node):
    """Removes the rules about properties that the kept schema lacks, since no object has them."""
    if isinstance(node, list):
        return [without_rules_of_others(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: without_rules_of_others(value) for key, value in node.items()}
    if RULES in node and "properties" in node:
        names = lambda rule: set(re.findall(r"\bself\.(\w+)", rule["rule"]))  # noqa: E731
        node[RULES] = [rule for rule in node[RULES] if names(rule) <= node["properties"].keys()]
    return node


def objects(site: Site, values: dict) -> list[dict]:
    found = helm.parse(helm.template("4", site.chart, values))
    for item in found:
        item["metadata"]["namespace"] = site.space.name
    return found


def admit(site: Site, items: list[dict]) -> None:
    """A trial: the API server checks the objects, and keeps none."""
    # A pod is accepted only if its account is there.
    accounts = {item["spec"]["serviceAccountName"] for item in items if item["kind"] == "Pod"}
    site.space.apply(*(named("v1", "ServiceAccount", account) for account in accounts))
    text = yaml.safe_dump_all(items)
    done = site.space.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    if done.stderr:
        raise Failed(done.stderr)
    accepted = len(done.stdout.splitlines())
    if accepted != len(items):
        raise Failed(f"{accepted} of {len(items)} objects were accepted")
    site.say(f"  {accepted} objects")


def refused(site: Site) -> None:
    """The rules in CEL and Pod Security are in force here."""
    items = objects(site, helm.merged(LEAST, ACCEPTED["self-service, HTTPRoute"]))
    [route] = [item for item in items if item["kind"] == "HTTPRoute"]
    route["spec"]["parentRefs"] *= 2
    [serve] = [
        item
        for item in items
        if item["metadata"]["name"] == "patgate" and item["kind"] == "Deployment"
    ]
    serve["spec"]["template"]["spec"]["hostNetwork"] = True
    for item, why in ((route, "parentRefs"), (serve, "PodSecurity")):
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
