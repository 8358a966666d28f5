"""Every manifest of deploy/istio is admitted by the real API server, and a broken copy is not."""

from collections.abc import Callable

import build
import yaml
from istio_holes import patched
from istio_site import README, SOURCE, Istio
from programs import ROOT, Failed

# Values of Helm's charts, which the API server does not see.
VALUES = ("istiod.yaml", "gateway-values.yaml")
GATEWAYS = "gateways.gateway.networking.k8s.io"
CRD = "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"


def first(items: list[dict], kind: str) -> dict:
    return next(item for item in items if item["kind"] == kind)


def set_to(kind: str, path: str, value) -> Callable[[list[dict]], None]:
    """Returns an edit of one field, whose path has numbers for the items of lists."""

    def edit(items: list[dict]) -> None:
        node = first(items, kind)
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in way:
            node = node[part]
        node[last] = value

    return edit


def both_selections(items: list[dict]) -> None:
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "any"}
    first(items, "EnvoyFilter")["spec"]["targetRefs"] = [reference]


def wrong_type(items: list[dict]) -> None:
    patched(items)["clear_route_cache"] = {"value": True}


# What is broken, and what the API server says of it: by CEL, by the schema, or by istiod's webhook.
BROKEN = {
    "admission.yaml": (
        set_to("ValidatingAdmissionPolicy", "spec.validations.0.expression", "1 +"),
        "compilation failed",
    ),
    "answers.yaml": (both_selections, "only one of targetRefs or workloadSelector can be set"),
    "authorization.yaml": (set_to("AuthorizationPolicy", "spec.action", "CUSTOMS"), "CUSTOMS"),
    "authorizer.yaml": (wrong_type, "cannot unmarshal"),
    "backend.yaml": (set_to("VirtualService", "spec.http.1.timeout", "0s"), "duration"),
    "connection.yaml": (
        set_to("EnvoyFilter", "spec.configPatches.0.match.context", "GATEWAYS"),
        "GATEWAYS",
    ),
    "gateway.yaml": (set_to("Gateway", "spec.servers.0.hosts", []), "host"),
    "guard.yaml": (
        set_to("EnvoyFilter", "spec.configPatches.0.patch.operation", "INSERT"),
        "INSERT",
    ),
    "log.yaml": (set_to("Telemetry", "spec.accessLogging", "on"), "accessLogging"),
    "metrics.yaml": (
        set_to("EnvoyFilter", "spec.configPatches.0.patch.operation", "APPEND"),
        "APPEND",
    ),
    "patgate.yaml": (
        set_to("DestinationRule", "spec.trafficPolicy.connectionPool.tcp.connectTimeout", "0s"),
        "duration",
    ),
    "rights.yaml": (set_to("Role", "rules.0.verbs", []), "verbs"),
    "routes.yaml": (set_to("VirtualService", "spec.http.1.directResponse.status", 9000), "status"),
    "sidecar.yaml": (both_selections, "only one of targetRefs or workloadSelector can be set"),
    "waypoint.yaml": (
        set_to("EnvoyFilter", "spec.workloadSelector", {"labels": {"app": "any"}}),
        "only one of targetRefs or workloadSelector can be set",
    ),
}


def define_gateways(istio: Istio) -> None:
    """Installs the Gateway of the Gateway API, of which a waypoint is one, if it is not there."""
    known = istio.system.list_names("customresourcedefinitions")
    if f"customresourcedefinition.apiextensions.k8s.io/{GATEWAYS}" not in known:
        file = build.module("istio", "sigs.k8s.io/gateway-api") / CRD
        istio.system.kubectl("apply", "--server-side", "-f", str(file))
        condition = "--for=condition=Established"
        istio.system.kubectl("wait", condition, f"customresourcedefinition/{GATEWAYS}")


def show(istio: Istio) -> None:
    define_gateways(istio)
    names = {file.name for file in SOURCE.glob("*.yaml")} - set(VALUES)
    if names != BROKEN.keys():
        raise Failed(f"these files have no broken copy, or are none: {names ^ BROKEN.keys()}")
    wrong = []
    for name, (edit, why) in BROKEN.items():
        istio.put(*here(istio, name), dry=True)
        broken = here(istio, name)
        edit(broken)
        try:
            istio.put(*broken, dry=True)
            wrong.append(f"a broken copy of {name} is admitted")
        except Failed as failed:
            if why not in str(failed):
                wrong.append(f"a broken copy of {name} is refused without {why!r}: {failed}")
    if wrong:
        raise Failed("\n".join(wrong))
    istio.site.say(f"  {len(BROKEN)} files were admitted, and a broken copy of each refused")


def here(istio: Istio, name: str) -> list[dict]:
    """Returns the objects of a file, with the namespace of the backends replaced by the team's."""
    items = istio.file(name)
    for item in items:
        if item["metadata"].get("namespace") == "models":
            item["metadata"]["namespace"] = istio.team.name
    return items


def misspelled(istio: Istio) -> None:
    """A field that Envoy does not have is admitted and dropped, and only the doctor sees it."""
    items = istio.file("authorizer.yaml")
    settings = patched(items)
    settings["clear_route_cash"] = settings.pop("clear_route_cache")
    istio.put(*items)
    istio.settle()
    found = {one["rule"] for one in istio.doctor()["findings"]}
    istio.restore("authorizer.yaml")
    istio.settle()
    if "PG-ROUTE-CACHE" not in found:
        raise Failed(f"the doctor does not find a misspelled field: {sorted(found)}")


def same_as_envoy(istio: Istio) -> None:
    """What the documentation calls the same as in envoy/envoy.yaml is the same."""
    shipped = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
    [chain] = shipped["static_resources"]["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    theirs = {one["name"]: one["typed_config"] for one in manager["http_filters"]}
    ours = patched(istio.file("answers.yaml"))
    pairs = [("answers.yaml", ours["local_reply_config"], manager["local_reply_config"])]
    for number, name in enumerate(("envoy.filters.http.ext_authz", "patgate.with-body")):
        for key in ("allowed_headers", "clear_route_cache", "validate_mutations"):
            ours = patched(istio.file("authorizer.yaml"), number)
            pairs.append((f"authorizer.yaml, {name}, {key}", ours[key], theirs[name][key]))
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise Failed(f"{what} differs from envoy/envoy.yaml")
    connection = patched(istio.file("connection.yaml"), 1)
    for key in ("common_http_protocol_options", "http2_protocol_options", "request_timeout"):
        if connection[key] != manager[key]:
            raise Failed(f"connection.yaml: {key} differs from envoy/envoy.yaml")
    if not README.exists():
        raise Failed("deploy/istio has no README")
