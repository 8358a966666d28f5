"""What must hold for the objects that a chart renders.

Each rule takes the objects and the values, and yields an error for each object that breaks it.
"""

import functools
import json
import re
import sys
import types
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from helm import NAMESPACE, RELEASE, Loader

# Importing the reader of CEL also imports its command, which needs packages for terminals.
sys.modules["cel.cli"] = types.ModuleType("cel.cli")
import cel  # noqa: E402

HERE = Path(__file__).resolve().parent
KUBERNETES = [f"1.{minor}" for minor in range(29, 38)]
NAME, INSTANCE, COMPONENT = (
    f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")
)
HOOK = "helm.sh/hook"
# Volumes that Pod Security `restricted` permits.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
RULES = []


def rule(function):
    RULES.append(function)
    return function


# Reading schemas takes longer than using them.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)


def label(item: dict) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def hooks(item: dict) -> list[str]:
    """Returns the events of Helm at which it runs, none if it is part of the release."""
    events = item["metadata"].get("annotations", {}).get(HOOK)
    return events.split(",") if events else []


def pods(objects):
    """Yields each object that makes pods, with their labels and their spec."""
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Pod":
            yield item, item["metadata"]["labels"], spec
        elif item["kind"] in ("Deployment", "Job"):
            yield item, spec["template"]["metadata"]["labels"], spec["template"]["spec"]
        elif item["kind"] == "EnvoyProxy":
            made = spec["provider"]["kubernetes"]["envoyDeployment"]
            pod = dict(made["pod"], initContainers=made["initContainers"], containers=[])
            yield item, pod["labels"], pod


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def configs(objects):
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == "ConfigMap"}


# Custom resources are not in the schemas of Kubernetes.
@functools.cache
def custom(kind: str):
    file = HERE / f"crds/{kind.lower()}.json"
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    schema = kept["schema"]
    return f"{kept['group']}/{kept['version']}", jsonschema.Draft7Validator(closed(schema)), schema


def closed(node):
    """Makes unknown fields errors: an API server drops them in silence."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: closed(value) for key, value in node.items()}
    if made.pop("x-kubernetes-int-or-string", False) is True:
        made = {"type": ["integer", "string"]}
    open_object = made.get("x-kubernetes-preserve-unknown-fields") is True
    if (
        isinstance(made.get("properties"), dict)
        and made.get("type") == "object"
        and not open_object
    ):
        made.setdefault("additionalProperties", False)
        # Every object has these, whatever its schema says.
        if {"apiVersion", "kind", "metadata"} <= made["properties"].keys():
            made["properties"]["metadata"] = {"type": "object"}
    return made


def with_defaults(schema, value):
    """Returns the value as an API server has it when it runs the rules."""
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    made = {key: part["default"] for key, part in properties.items() if "default" in part}
    made |= value
    return {key: with_defaults(properties.get(key, {}), part) for key, part in made.items()}


def cel_errors(schema, value, path):
    """Yields an error for each rule in CEL that does not hold, except those about a change."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"]:
            try:
                holds = cel.evaluate(rule["rule"], {"self": value})
            except Exception as error:
                holds = error
            if holds is not True:
                yield f"{path}: {rule.get('message', rule['rule'])} ({holds})"
    if isinstance(value, list):
        for item in value:
            yield from cel_errors(schema.get("items", {}), item, f"{path}[]")
    if isinstance(value, dict):
        for key, part in value.items():
            yield from cel_errors(schema.get("properties", {}).get(key, {}), part, f"{path}.{key}")


@functools.cache
def schema_errors(text: str) -> tuple[str, ...]:
    item = json.loads(text)
    if kept := custom(item["kind"]):
        version, validator, schema = kept
        if item["apiVersion"] != version:
            return (f"{label(item)}: expected {version}",)
        errors = [
            f"{label(item)}: {error.json_path}: {error.message[:300]}"
            for error in validator.iter_errors(item)
        ]
        return (*errors, *cel_errors(schema, with_defaults(schema, item), label(item)))
    errors = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            errors.append(f"{label(item)} in {version}: {error.message[:300]}")
        except kubernetes_validate.SchemaNotFoundError as error:
            errors.append(f"{label(item)}: {error.message}")
    return tuple(errors)


@rule
def schemas(objects, values):
    """Each object is valid in Kubernetes 1.29 to 1.37, or under its CustomResourceDefinition."""
    for item in objects:
        yield from schema_errors(json.dumps(item, sort_keys=True))


@rule
def named_once(objects, values):
    """No two objects have one name, and all are in the namespace of the release."""
    seen = set()
    for item in objects:
        key = label(item)
        if key in seen:
            yield f"{key} is there twice"
        seen.add(key)
        if item["metadata"].get("namespace") != NAMESPACE:
            yield f"{key} names no namespace"
        if len(item["metadata"]["name"]) > 63:
            yield f"{key} has a name that is too long"


@rule
def labels(objects, values):
    for item in objects:
        have = item["metadata"].get("labels", {})
        wanted = {NAME, INSTANCE, COMPONENT, "app.kubernetes.io/version", "helm.sh/chart"}
        if missing := wanted - have.keys():
            yield f"{label(item)} lacks the labels {sorted(missing)}"
        for key, value in values.get("commonLabels", {}).items():
            if have.get(key) != value and key not in {*wanted, "patgate/service"}:
                yield f"{label(item)} lacks the label {key}"


def selectors(objects):
    """Yields each selector of pods, with its object and the component that it is about."""
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            yield item, spec["selector"]
        elif item["kind"] in ("Deployment", "PodDisruptionBudget"):
            yield item, spec["selector"]["matchLabels"]
        elif item["kind"] == "NetworkPolicy":
            yield item, spec["podSelector"]["matchLabels"]


@rule
def selection(objects, values):
    """Each selector selects the pods of its own component, and so never those of a hook."""
    made = [(item, have) for item, have, _ in pods(objects)]
    for item, wanted in selectors(objects):
        # They cannot be changed: anything else here would break an upgrade.
        if set(wanted) != {NAME, INSTANCE, COMPONENT}:
            yield f"{label(item)} selects by {sorted(wanted)}"
        own = item["metadata"]["labels"][COMPONENT]
        selected = [(other, have) for other, have in made if wanted.items() <= have.items()]
        if not selected and item["kind"] != "NetworkPolicy":
            yield f"{label(item)} selects no pod"
        for other, have in selected:
            if have[COMPONENT] != own:
                yield f"{label(item)} selects {label(other)}"
            if hooks(other) and item["kind"] != "NetworkPolicy":
                yield f"{label(item)} selects the hook {label(other)}"
    for item in objects:
        if item["kind"] == "ServiceMonitor":
            wanted = item["spec"]["selector"]["matchLabels"]
            have = [
                o
                for o in objects
                if o["kind"] == "Service" and wanted.items() <= o["metadata"]["labels"].items()
            ]
            if len(have) != 1:
                yield f"{label(item)} selects {len(have)} Services"


@rule
def secrets(objects, values):
    """Secrets are existing ones, mounted as files: none is made, and none is in the environment."""
    for item in objects:
        if item["kind"] == "Secret":
            yield f"{label(item)} is made"
    for item, _, spec in pods(objects):
        for container in containers(spec):
            if container.get("envFrom"):
                yield f"{label(item)} reads its environment from elsewhere"
            for variable in container.get("env", []):
                name, value = variable["name"], variable.get("value")
                if value is None:
                    yield f"{label(item)}: {name} has no plain value"
                elif not (
                    name.endswith("_FILE")
                    or name == "PATGATE_CONFIG"
                    or variable in values.get("extraEnv", [])
                    or (name == "PATGATE_POSTGRES_URL" and value.startswith("postgres://"))
                ):
                    yield f"{label(item)}: {name} names no file"
        for volume in spec.get("volumes", []):
            if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
                yield f"{label(item)}: everyone may read the volume {volume['name']}"
        for container in containers(spec):
            for mount in container.get("volumeMounts", []):
                if "subPath" in mount:
                    yield f"{label(item)}: {mount['name']} has a subPath, and is never updated"


@rule
def restricted(objects, values):
    """Pod Security `restricted`, and a read-only root."""
    for item, _, spec in pods(objects):

        def wrong(what, item=item):
            return f"{label(item)}: {what}"

        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield wrong("runAsNonRoot is not set")
        if context.get("runAsUser", 1) == 0:
            yield wrong("runs as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield wrong("has no seccomp profile")
        if any(
            spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
        ):
            yield wrong("shares a namespace of the host")
        for volume in spec.get("volumes", []):
            if volume.keys() - {"name"} - VOLUMES:
                yield wrong(f"the volume {volume['name']} is of a refused kind")
        for container in containers(spec):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield wrong(f"{container['name']} may gain privileges")
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield wrong(f"{container['name']} has capabilities")
            if own.get("readOnlyRootFilesystem") is not True:
                yield wrong(f"{container['name']} may write to its root")
            if own.get("privileged") or any("hostPort" in p for p in container.get("ports", [])):
                yield wrong(f"{container['name']} has a part of the host")
            resources = container.get("resources", {})
            if "memory" not in resources.get("limits", {}) or not resources.get("requests"):
                yield wrong(f"{container['name']} has no bounds")


@rule
def no_access_to_the_api(objects, values):
    """No roles, no token of a service account, no variables of other Services."""
    for item in objects:
        if item["apiVersion"].startswith("rbac."):
            yield f"{label(item)} is made"
        if (
            item["kind"] == "ServiceAccount"
            and item.get("automountServiceAccountToken") is not False
        ):
            yield f"{label(item)} mounts its token"
    for item, _, spec in pods(objects):
        if item["kind"] == "EnvoyProxy":
            continue
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{label(item)} mounts a token"
        if spec.get("enableServiceLinks") is not False:
            yield f"{label(item)} gets variables of Services"


@rule
def images(objects, values):
    """One setting leads all images to a registry, and all pods can log in to it."""
    for item, _, spec in pods(objects):
        for container in containers(spec):
            image = container["image"]
            registry = values.get("imageRegistry")
            if registry and not image.startswith(f"{registry}/"):
                yield f"{label(item)}: {image} is not from {registry}"
            if re.search(r":(latest)?$", image) or not re.search(r"[:@]", image.rsplit("/", 1)[-1]):
                yield f"{label(item)}: {image} has no version"
        wanted = [{"name": name} for name in values.get("imagePullSecrets", [])]
        if spec.get("imagePullSecrets", []) != wanted:
            yield f"{label(item)} pulls with {spec.get('imagePullSecrets')}"


@rule
def references(objects, values):
    """What an object refers to exists in the release, or is one of the names in the values."""
    have = {(item["kind"], item["metadata"]["name"]) for item in objects}
    text = json.dumps(values)
    ports = {}
    for _, found, spec in pods(objects):
        named = {p["name"] for container in containers(spec) for p in container.get("ports", [])}
        ports.setdefault(found[COMPONENT], set()).update(named)
    for item, _, spec in pods(objects):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        mounted = set()
        for container in containers(spec):
            mounts = [mount["name"] for mount in container.get("volumeMounts", [])]
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            mounted.update(mounts)
            if len(set(paths)) != len(paths):
                yield f"{label(item)}: {container['name']} mounts two volumes at one path"
            for name in mounts:
                if name not in volumes:
                    yield f"{label(item)}: the volume {name} does not exist"
        for name in volumes - mounted:
            yield f"{label(item)}: nothing mounts the volume {name}"
        for volume in spec.get("volumes", []):
            secret = volume.get("secret", {}).get("secretName")
            config = volume.get("configMap", {}).get("name")
            made_by = {o["spec"]["secretName"] for o in objects if o["kind"] == "Certificate"}
            if secret and json.dumps(secret) not in text and secret not in made_by:
                yield f"{label(item)}: the Secret {secret} does not exist"
            if config and ("ConfigMap", config) not in have and json.dumps(config) not in text:
                yield f"{label(item)}: the ConfigMap {config} does not exist"
            # What a hook needs must exist before the release does.
            early = {"pre-install", "pre-upgrade"} & set(hooks(item))
            if early and config and ("ConfigMap", config) in have:
                yield f"{label(item)} needs the ConfigMap {config}, which Helm makes later"
        account = spec.get("serviceAccountName")
        if item["kind"] != "EnvoyProxy":
            early = {"pre-install", "pre-upgrade"} & set(hooks(item))
            own = ("ServiceAccount", account) in have
            if (own and early) or (
                not own and account != "default" and json.dumps(account) not in text
            ):
                yield f"{label(item)}: the service account {account} does not exist then"
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            for port in spec["ports"]:
                if port["targetPort"] not in ports[spec["selector"][COMPONENT]]:
                    yield f"{label(item)}: no pod has the port {port['targetPort']}"
        if item["kind"] == "NetworkPolicy":
            named = {p["port"] for rule in spec.get("ingress") or [] for p in rule.get("ports", [])}
            component = spec["podSelector"]["matchLabels"][COMPONENT]
            for port in named - ports.get(component, set()):
                yield f"{label(item)}: no pod has the port {port}"
        backends = []
        if item["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            backends = [(target["kind"], target["name"])]
        if item["kind"] == "Ingress":
            paths = spec["rules"][0]["http"]["paths"]
            backends = [("Service", path["backend"]["service"]["name"]) for path in paths]
        if item["kind"] == "HTTPRoute":
            backends = [("Service", ref["name"]) for ref in spec["rules"][0]["backendRefs"]]
        for backend in backends:
            if backend not in have:
                yield f"{label(item)}: {backend} does not exist"


@rule
def disruptions(objects, values):
    """A drain is never blocked, and no Deployment lacks a budget."""
    for item in objects:
        if item["kind"] != "PodDisruptionBudget":
            continue
        spec = item["spec"]
        most = spec.get("maxUnavailable")
        if "minAvailable" in spec or not re.fullmatch(r"[1-9]\d*%?", str(most)):
            yield f"{label(item)} can block a drain"
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{label(item)} keeps pods that are not ready"
    if values.get("podDisruptionBudget", {}).get("enabled", True):
        names = {
            kind: {o["metadata"]["name"] for o in objects if o["kind"] == kind}
            for kind in ("Deployment", "PodDisruptionBudget")
        }
        for name in names["Deployment"] - names["PodDisruptionBudget"]:
            yield f"Deployment {name} has no PodDisruptionBudget"


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


@rule
def termination(objects, values):
    """A pod has the time that it takes to drain."""
    maps = configs(objects)
    for item, found, spec in pods(objects):
        if item["kind"] != "Deployment":
            continue
        (name,) = (v["configMap"]["name"] for v in spec["volumes"] if v["name"] == "config")
        settings = yaml.load(maps[name]["data"]["patgate.yaml"], Loader)
        before = sum(
            container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            for container in spec["containers"]
        )
        grace = 20 if found[COMPONENT] == "admin" else seconds(settings.get("drain.grace", "30s"))
        # Queues are written for up to four seconds.
        least = before + seconds(settings.get("drain.delay", "5s")) + grace + 4
        if spec["terminationGracePeriodSeconds"] < least:
            yield f"{label(item)} is killed before it has drained for {least} s"
        if found[COMPONENT] == "serve" and seconds(settings["drain.delay"]) < 0.5:
            yield f"{label(item)} leaves before Envoy has noticed"
        if found[COMPONENT] == "gateway" and before < 1:
            yield f"{label(item)}: Envoy leaves before its clients have noticed"


@rule
def one_owner_of_the_replicas(objects, values):
    for item in objects:
        if item["kind"] == "HorizontalPodAutoscaler":
            name = item["spec"]["scaleTargetRef"]["name"]
            for other in objects:
                if label(other) == f"Deployment {name}" and "replicas" in other["spec"]:
                    yield f"{label(other)} has replicas, which the autoscaler sets"


@rule
def checks_spread(objects, values):
    """Envoy finds each replica by name: the Service for gRPC is headless."""
    if values.get("mode", "deployment") == "deployment":
        services = [item["spec"] for item in objects if item["kind"] == "Service"]
        grpc = [spec for spec in services if spec["ports"][0]["name"] == "grpc"]
        if len([spec for spec in grpc if spec.get("clusterIP") == "None"]) != 1:
            yield "there is no headless Service for gRPC"


@rule
def families(objects, values):
    network = values.get("network", {})
    policy, wanted = network.get("ipFamilyPolicy"), network.get("ipFamilies")
    for item in objects:
        if item["kind"] != "Service":
            continue
        if (item["spec"].get("ipFamilyPolicy"), item["spec"].get("ipFamilies")) != (policy, wanted):
            yield f"{label(item)} has other families"
    address = (
        "[::]" if "IPv6" in (wanted or []) or (policy or "").endswith("DualStack") else "0.0.0.0"
    )
    address = network.get("listenAddress", address)
    for item in configs(objects).values():
        settings = yaml.load(item["data"].get("patgate.yaml", "{}"), Loader)
        for key in ("listen.grpc", "listen.http", "web.listen"):
            if settings.get(key) and not settings[key].startswith(f"{address}:"):
                yield f"{label(item)}: {key} is {settings[key]}"


@rule
def jobs(objects, values):
    """The alerts are about the jobs of the ServiceMonitors, and about that of `patgate sync`."""
    for item in objects:
        name = values.get("metrics", {}).get("job") or values.get("fullnameOverride", RELEASE)
        if item["kind"] == "ServiceMonitor":
            made = {
                r["replacement"]
                for r in item["spec"]["endpoints"][0]["relabelings"]
                if r["targetLabel"] == "job"
            }
            component = item["metadata"]["labels"]["app.kubernetes.io/component"]
            if made != {f"{name}-admin" if component == "admin" else name}:
                yield f"{label(item)} makes the job {made}"
        if item["kind"] == "PrometheusRule":
            rule_values = values["metrics"]["prometheusRule"]
            known = {name, f"{name}-admin", f"{name}-sync", rule_values.get("envoyJob", "envoy")}
            text = json.dumps(item["spec"]["groups"])
            used = set(re.findall(r'job=~?\\"([^"\\]*)\\"', text))
            if used != known:
                yield f"{label(item)} is about the jobs {sorted(used)}"
            if not item["spec"]["groups"] or text.count("runbook_url") < 20:
                yield f"{label(item)} lacks alerts"
            prefix = rule_values.get("runbookPrefix", "")
            if f'"{prefix}docs/runbook.md#' not in text:
                yield f"{label(item)} leads to no runbook"


@rule
def tests_reach(objects, values):
    """The policy of the replicas lets the pod of `helm test` ask if that has a token."""
    found = next((have for item, have, _ in pods(objects) if "test" in hooks(item)), {})
    asks = bool(values.get("tests", {}).get("check", {}).get("tokenSecret"))
    for item in objects:
        own = item["metadata"]["labels"].get(COMPONENT)
        if item["kind"] != "NetworkPolicy" or own != "serve":
            continue
        peers = [peer for one in item["spec"]["ingress"] for peer in one.get("from", [])]
        labels = [
            peer["podSelector"].get("matchLabels", {})
            for peer in peers
            if peer.keys() == {"podSelector"}
        ]
        if any(wanted.items() <= found.items() for wanted in labels) != (
            asks or not values["networkPolicy"].get("grpcFrom")
        ):
            yield f"{label(item)}: the pod of helm test {'may not' if asks else 'may'} ask"


@rule
def probes(objects, values):
    for item, found, spec in pods(objects):
        if hooks(item):
            continue
        for container in containers(spec):
            if container["args"][0] not in ("serve", "admin"):
                continue
            for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
                asked = container.get(probe, {}).get("httpGet", {})
                if asked.get("path") != path:
                    yield f"{label(item)}: {container['name']} has no {probe} at {path}"
                tls = values.get("http", {}).get("tls", {}).get("existingSecret")
                if container["args"][0] == "serve" and asked.get("scheme") != (
                    "HTTPS" if tls else "HTTP"
                ):
                    yield f"{label(item)}: {probe} asks by {asked.get('scheme')}"
            # Waiting for Postgres is no reason to be restarted.
            if (
                container.get("startupProbe", {}).get("httpGet", {}).get("path", "/livez")
                != "/livez"
            ):
                yield f"{label(item)}: a startupProbe restarts a replica that waits for Postgres"
            if found[COMPONENT] == "gateway" and (
                container.get("restartPolicy") != "Always" or "startupProbe" not in container
            ):
                yield f"{label(item)}: patgate is no native sidecar"


@rule
def spread(objects, values):
    """The replicas of a Deployment are spread by their own labels."""
    if values.get("topologySpread", {}).get("enabled") is False:
        return
    for item, found, spec in pods(objects):
        if item["kind"] != "Deployment":
            continue
        constraints = spec.get("topologySpreadConstraints", [])
        if len(constraints) < 2:
            yield f"{label(item)} is not spread"
        for constraint in constraints:
            if not constraint["labelSelector"]["matchLabels"].items() <= found.items():
                yield f"{label(item)} is spread by the labels of others"


@rule
def migrations(objects, values):
    """The migration runs exactly where the values say."""
    mode = values.get("migration", {}).get("mode", "hook")
    job = [o for o in objects if o["kind"] == "Job"]
    if (mode == "hook") != (len(job) == 1):
        yield f"there are {len(job)} Jobs"
    for item in job:
        if {"pre-install", "pre-upgrade"} != set(hooks(item)):
            yield f"{label(item)} does not run before the release"
        if "hook-succeeded" not in item["metadata"]["annotations"]["helm.sh/hook-delete-policy"]:
            yield f"{label(item)} is left behind"
    for item, found, spec in pods(objects):
        first = (spec.get("initContainers") or [{"args": [""]}])[0]["args"][0]
        serves = found[COMPONENT] in ("serve", "gateway")
        if serves and (mode == "initContainer") != (first == "migrate"):
            yield f"{label(item)} begins with {first or 'nothing'}"
