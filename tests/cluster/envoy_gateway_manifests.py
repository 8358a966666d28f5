"""The manifests of deploy/envoy-gateway: they repeat parts of envoy/envoy.yaml unchanged, and the
API server accepts each object, and no broken copy of it."""

import json

import gateway
import yaml
from envoy_gateway import SHIPPED, EnvoyGateway
from envoy_gateway_teams import tried
from programs import Failed


def same_as_envoy() -> None:
    manager = chain(yaml.safe_load(gateway.SHIPPED.read_text()))
    filters = {one["name"]: one["typed_config"] for one in manager["http_filters"]}
    asked = filters["envoy.filters.http.ext_authz"]
    objects = [
        item
        for file in ("policies.yaml", "patches.yaml", "without-patches.yaml")
        for item in yaml.safe_load_all((SHIPPED / file).read_text())
    ]
    [early] = manager["early_header_mutation_extensions"]
    removed = [removal(one) for one in early["typed_config"]["mutations"]]
    # The first one is about preflights, which SecurityPolicies answer.
    replies = manager["local_reply_config"]["mappers"][1:]
    read = [one["exact"] for one in asked["allowed_headers"]["patterns"]]
    rules = asked["decoder_header_mutation_rules"]["allow_expression"]
    found = {"removed": 0, "replies": 0, "read": 0, "rules": 0}

    def same(what: str, theirs, ours) -> None:
        if theirs != ours:
            raise Failed(f"{what} is {theirs} there, and {ours} in envoy.yaml")
        found[what] += 1

    for item in objects:
        match item["kind"]:
            case "ClientTrafficPolicy":
                headers = item["spec"]["headers"]["earlyRequestHeaders"]
                patterns = [one["value"] for one in headers["removeOnMatch"]]
                same("removed", headers["remove"] + patterns, removed)
            case "SecurityPolicy":
                same("read", item["spec"]["extAuth"]["headersToExtAuth"], read)
            case "EnvoyPatchPolicy":
                for patch in item["spec"]["jsonPatches"]:
                    value = patch["operation"].get("value")
                    if not isinstance(value, dict):
                        continue
                    config = value.get("typed_config", value)
                    if "mappers" in config:
                        same("replies", config["mappers"], replies)
                    if "allow_expression" in config:
                        same("rules", config["allow_expression"], rules)
                    if "allowed_headers" in config:
                        listed = config["allowed_headers"]["patterns"]
                        same("read", [one["exact"] for one in listed], read)
    if missing := [what for what, number in found.items() if not number]:
        raise Failed(f"nothing of this was compared: {missing}")


def chain(config: dict) -> dict:
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0][
        "typed_config"
    ]


def removal(mutation: dict) -> str:
    if "remove" in mutation:
        return mutation["remove"]
    return mutation["remove_on_match"]["key_matcher"]["safe_regex"]["regex"]


def admitted(made: EnvoyGateway) -> None:
    """The API server accepts each object, and refuses a broken copy of each."""
    files = ("sidecar.yaml", "without-patches.yaml", "rollout.yaml")
    items = made.objects() + made.objects(*files)
    for item in items:
        text = yaml.safe_dump(item)
        command = ["apply", "--server-side", "--force-conflicts", "--dry-run=server"]
        made.space.kubectl(*command, "--validate=strict", "-f", "-", stdin=text)
        # By another name: what the copy lacks, an object of the same name would keep.
        other = json.loads(json.dumps(item))
        other["metadata"]["name"] += "-broken"
        if why := tried(made.space, other):
            raise Failed(f"a copy of another name is refused: {why}")
        broken(other)
        if tried(made.space, other):
            continue
        raise Failed(f"a broken copy was accepted: {other['kind']} {other['metadata']['name']}")
    made.site.say(f"  {len(items)} shipped objects are accepted, and no broken copy of them")


def broken(item: dict) -> None:
    """Breaks a rule of the object's kind: of its schema, or in CEL."""
    spec = item.get("spec", {})
    match item["kind"]:
        case "GatewayClass":
            spec["controllerName"] = "no-domain"
        case "EnvoyProxy":
            spec["provider"]["kubernetes"]["envoyDaemonSet"] = {}
        case "Gateway":
            spec["listeners"].append(spec["listeners"][0])
        case "ClientTrafficPolicy" | "EnvoyPatchPolicy" | "BackendTrafficPolicy":
            reference = spec.get("targetRef") or spec["targetRefs"][0]
            if item["kind"] == "EnvoyPatchPolicy":
                spec["jsonPatches"][0]["operation"]["op"] = "merge"
            reference["group"] = "apps"
        case "SecurityPolicy":
            spec["extAuth"]["http"] = spec["extAuth"]["grpc"]
        case "HTTPRoute":
            spec["rules"][0]["matches"][0]["path"]["value"] = "no-slash"
            spec["rules"][0]["matches"][0]["path"]["type"] = "Exact"
        case "Backend":
            spec["endpoints"][0]["ip"] = {"address": "10.0.0.1", "port": 1}
            spec["endpoints"][0]["unix"] = {"path": "/a"}
        case "HTTPRouteFilter":
            if "path" in spec.get("urlRewrite", {}):
                del spec["urlRewrite"]["path"]["replaceRegexMatch"]
            elif "urlRewrite" in spec:
                spec["urlRewrite"]["hostname"]["type"] = "Header"
            else:
                spec["directResponse"]["body"] = {"type": "ValueRef"}
        case "BackendTLSPolicy":
            del spec["validation"]["caCertificateRefs"]
        case "ValidatingAdmissionPolicy":
            spec["validations"][0]["expression"] = "object."
        case "ValidatingAdmissionPolicyBinding":
            spec["validationActions"] = ["Ignore"]
        case "ConfigMap":
            item["data"] = {"a b": "no key has a space"}
        case kind:
            raise Failed(f"no defect of {kind} is known")
