"""Gives each text in the values a content that means more than a text in YAML."""

import copy
import json

import jsonschema
import yaml
from cases import ADMIN, EVERYTHING, LEAST, SIDECAR_TLS
from helm import CHART, Refused, helm, merged, parse, programs, template
from rules import label, schemas

# A word that YAML reads as nothing, and an end of the document in two ways that YAML knows.
TEXTS = ("null", 'a\r---\rkind: Evil\n---\nkind: Evil\n# "{{ fail "a" }}: ')
# Texts that are not values of their own.
INSIDE = {
    "settings": lambda text: {"log": {"filter": text}},
    "apis.tables": lambda text: {"own.yaml": text},
    "podAnnotations": lambda text: {"example.org/a": text},
    "nodeSelector": lambda text: {"example.org/a": text},
    "extraEnv": lambda text: [{"name": "A", "value": text}],
    "imagePullSecrets": lambda text: [text],
    "grpc.tls.clientNames": lambda text: [text],
    "grpc.tls.certManager.dnsNames": lambda text: [text],
    "topologySpread.topologyKeys": lambda text: [text],
    "sidecar.envoy.extraArgs": lambda text: [text],
}


def texts(chart, values):
    """A text in the values stays one, or is refused: it adds no object and no field."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = jsonschema.Draft7Validator(json.loads((chart / "values.schema.json").read_text()))
    for path in [*strings(defaults), *INSIDE]:
        base = merged(SIDECAR_TLS, ADMIN) if path.startswith("sidecar.") else EVERYTHING
        base = merged(merged(LEAST, base), values)
        for text in TEXTS:
            changed = copy.deepcopy(base)
            place(changed, path.split("."), INSIDE.get(path, lambda text: text)(text))
            # Helm says the same, but takes a hundred times as long.
            if schema.is_valid(merged(defaults, changed)):
                yield from (f"{path} = {text!r}: {error}" for error in wrong(chart, changed))


def strings(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from strings(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}"


def place(values, path, content) -> None:
    *parents, last = path
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = content


def wrong(chart, values):
    try:
        objects = parse(template("3", chart, values))
    except Refused as refused:
        if "The values of patgate have errors" not in str(refused):
            yield f"Helm says: {refused}"
        return
    except yaml.YAMLError as error:
        yield str(error)
        return
    for item in objects:
        if item.get("kind") == "Evil" or "metadata" not in item:
            yield "it adds an object"
        elif empty(item):
            yield f"{label(item)} has lost a field"


def empty(node) -> bool:
    if isinstance(node, dict):
        return any(map(empty, node.values()))
    if isinstance(node, list):
        return any(map(empty, node))
    return node is None


def releases():
    """Whatever a release is called, its objects can be made, or its name is refused."""
    for version in programs():
        for name in ("on", "null", "x" * 53):
            done = helm(version, ["template", name], CHART, LEAST)
            yield from schemas(parse(done.stdout), LEAST) if done.stdout else [done.stderr]
        for name in ("1patgate", "123", "my.release"):
            done = helm(version, ["template", name], CHART, LEAST)
            if "a Service must begin with a letter and have no dot" not in done.stderr:
                yield f"Helm {version} makes objects of the release {name}: {done.stderr}"
            done = helm(version, ["template", name], CHART, {**LEAST, "fullnameOverride": "a"})
            yield from schemas(parse(done.stdout), LEAST) if done.stdout else [done.stderr]
