"""Writes what the Helm chart derives from other files, or checks that it is up to date.

    python tools/chart.py            writes it
    python tools/chart.py --check    reports what is out of date; then the exit status is 1

- values.schema.json: from the defaults in values.yaml, the constraints below, and the settings of
  docs/configuration.md.
- the table of values in the chart's README.md: from the comments of values.yaml.
- files/: copies of the alerts, the dashboard and the API tables. Helm reads no file outside of a
  chart, and warns of links.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = Path("deploy/helm/patgate")
BEGIN, END = "<!-- values:begin -->\n", "<!-- values:end -->"

# Settings that the chart writes itself, each with the value that stands for it.
WRITTEN = {
    "listen.grpc": "grpc.port",
    "listen.uds": "sidecar.socket",
    "listen.http": "http.port",
    "postgres.url": "postgres",
    "postgres.password_file": "postgres.passwordKey",
    "feed.url": "feed",
    "redis.url": "redis",
    "redis.password_file": "redis.passwordKey",
    "redis.sentinel.password_file": "redis.sentinel",
    "redis.tls.ca_file": "redis.tls",
    "redis.tls.certificate_file": "redis.tls",
    "redis.tls.private_key_file": "redis.tls",
    "keyring_file": "keyring",
    "apis": "apis",
    "grpc.secret": "grpc.secret",
    "grpc.tls.certificate_file": "grpc.tls",
    "grpc.tls.private_key_file": "grpc.tls",
    "grpc.tls.client_ca_file": "grpc.tls.clientCa",
    "grpc.tls.client_names": "grpc.tls.clientNames",
    "http.tls.certificate_file": "http.tls",
    "http.tls.private_key_file": "http.tls",
    "log.filter_file": "logFilter",
    "telemetry.otlp.headers": "telemetry.headers",
    "telemetry.otlp.ca_file": "telemetry.ca",
    "web.listen": "admin.port",
    "web.url": "admin.url",
    "web.metrics.listen": "admin.metricsPort",
    "web.proxies": "admin.proxies",
    "web.postgres.url": "admin.postgres",
    "web.postgres.password_file": "admin.postgres.passwordKey",
    "web.oidc.client_secret_file": "admin.oidc",
    "web.oidc.ca_file": "admin.oidc",
}

PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
# Kubernetes has 32 bits for a number.
MOST = 2**31 - 1
# Helm reads numbers as floating-point numbers, which are exact up to here.
EXACT = 2**53 - 1
COUNT = {"type": "integer", "minimum": 1, "maximum": MOST}
SHARE = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^(100|[1-9]?[0-9])%$"},
    ]
}
ABOVE_ZERO = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^(100|[1-9][0-9]?)%$"},
    ]
}


def pattern(text):
    return {"type": "string", "pattern": text}


def listed(item):
    return {"type": "array", "items": item}


# Empty, or the name of an object of Kubernetes.
WORD = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME = pattern(rf"^({WORD}(\.{WORD})*)?$") | {"maxLength": 253}
# A key of a Secret or ConfigMap: one name below a folder, not the folder itself or the one above.
KEY_WORD = r"\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*"
KEY = pattern(f"^{KEY_WORD}$")
KEY_OR_NONE = pattern(f"^({KEY_WORD})?$")
DURATIONS = pattern("^([0-9]+(ms|s|m|h))*$")
REGISTRY = pattern(r"^(([-.a-zA-Z0-9]+|\[[0-9a-fA-F:]+\])(:[0-9]+)?(/[-._a-z0-9]+)*/?)?$")
REPOSITORY = pattern("^[a-z0-9]+([-._/]+[a-z0-9]+)*$")
TAG = pattern("^([_a-zA-Z0-9][-._a-zA-Z0-9]{0,127})?$")
JOB = pattern("^[-._/a-zA-Z0-9]*$")
POSTGRES = pattern(r"^(postgres(ql)?://[!-~]*)?$")
REDIS = pattern(r"^(rediss?://[!-~]*)?$")
TEXTS = listed({"type": "string", "minLength": 1})
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
# Objects of Kubernetes, which the API server checks.
OPEN = {"type": "object"}
OBJECTS = {"type": "array", "items": {"type": "object"}}
PULL = {"enum": ["Always", "IfNotPresent", "Never"]}
ID = {"type": ["integer", "null"], "minimum": 1}
DIGEST = {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"}


def one_of(*values):
    return {"enum": list(values)}


def closed(required, **properties):
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


# What the type of a default does not say.
CONSTRAINTS = {
    # Services have the strictest names.
    "nameOverride": pattern("^([a-z][-a-z0-9]*)?$"),
    "fullnameOverride": pattern("^([a-z][-a-z0-9]*)?$"),
    "commonLabels": LABELS,
    "imageRegistry": REGISTRY,
    "imagePullSecrets": listed(pattern(rf"^{WORD}(\.{WORD})*$")),
    "image.registry": REGISTRY,
    "image.repository": REPOSITORY,
    "image.tag": TAG,
    "image.digest": DIGEST,
    "image.pullPolicy": PULL,
    "mode": one_of("deployment", "sidecar"),
    "replicas": COUNT,
    "postgres.url": POSTGRES,
    "feed.url": POSTGRES,
    "redis.url": REDIS,
    "redis.tls.caKey": KEY_OR_NONE,
    "apis.shipped": {
        "type": "array",
        "uniqueItems": True,
        "items": one_of("cube-ai", "cube-platform", "cube-cloud", "scim", "aigne-hub"),
    },
    "apis.tables": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {r"^[-_a-z0-9][-._a-z0-9]*\.yaml$": {"type": "string"}},
    },
    "grpc.port": PORT,
    "grpc.tls.clientNames": listed(
        pattern(rf"^({WORD}(\.{WORD})*|spiffe://[-._a-z0-9]+(/[-._a-zA-Z0-9]+)*)$")
    ),
    "grpc.tls.certManager.dnsNames": listed(pattern(rf"^(\*\.)?{WORD}(\.{WORD})*$")),
    "grpc.tls.certManager.duration": DURATIONS,
    "grpc.tls.certManager.renewBefore": DURATIONS,
    "grpc.tls.certManager.issuerRef.kind": pattern("^[A-Za-z]+$"),
    "grpc.tls.certManager.issuerRef.group": pattern(rf"^{WORD}(\.{WORD})*$"),
    "http.port": PORT,
    "service.annotations": LABELS,
    "service.appProtocol": JOB,
    "network.listenAddress": pattern(r"^([0-9]+(\.[0-9]+){3}|\[[0-9a-fA-F:.]+\])?$"),
    "network.ipFamilyPolicy": one_of("", "SingleStack", "PreferDualStack", "RequireDualStack"),
    "network.ipFamilies": {
        "type": "array",
        "maxItems": 2,
        "uniqueItems": True,
        "items": one_of("IPv4", "IPv6"),
    },
    "serviceAccount.annotations": LABELS,
    "podAnnotations": LABELS,
    "podLabels": LABELS,
    # Pod Security `restricted` refuses a pod without this.
    "podSecurityContext.runAsNonRoot": one_of(True),
    "podSecurityContext.fsGroupChangePolicy": one_of("OnRootMismatch", "Always"),
    "podSecurityContext.runAsUser": ID,
    "podSecurityContext.runAsGroup": ID,
    "podSecurityContext.fsGroup": ID,
    "podSecurityContext.seccompProfile.type": one_of("RuntimeDefault"),
    "resources": OPEN,
    "extraEnv": {
        "type": "array",
        "items": closed(
            ["name", "value"],
            # Settings are checked under `settings`, secrets are files, and what is about Postgres
            # is in its URL: PGSSLMODE would turn off TLS, and PGPASSWORD show a password.
            name=pattern("^[A-Za-z_][A-Za-z0-9_]*$")
            | {"not": {"pattern": "^(PATGATE_|SSL_CERT_|PG)|HEADERS$|PASSWORD|SECRET|TOKEN"}},
            value={"type": "string"},
        ),
    },
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "nodeSelector": LABELS,
    "tolerations": OBJECTS,
    "affinity": OPEN,
    "topologySpread.topologyKeys": listed(pattern("^[-._/a-zA-Z0-9]+$")),
    "topologySpread.maxSkew": COUNT,
    "topologySpread.whenUnsatisfiable": one_of("ScheduleAnyway", "DoNotSchedule"),
    "strategy.type": one_of("RollingUpdate", "Recreate"),
    "strategy.rollingUpdate": {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {"maxSurge": SHARE, "maxUnavailable": SHARE},
    },
    "progressDeadlineSeconds": COUNT,
    "podDisruptionBudget.maxUnavailable": ABOVE_ZERO,
    "autoscaling.minReplicas": COUNT,
    "autoscaling.maxReplicas": COUNT,
    "autoscaling.targetCPUUtilizationPercentage": COUNT,
    "autoscaling.behavior": OPEN,
    "networkPolicy.grpcFrom": OBJECTS,
    "networkPolicy.metricsFrom": OBJECTS,
    "networkPolicy.adminFrom": OBJECTS,
    "networkPolicy.envoyFrom": OBJECTS,
    "networkPolicy.egress": OBJECTS,
    "metrics.job": JOB,
    "metrics.serviceMonitor.interval": pattern("^([0-9]+(ms|s|m|h))+$"),
    "metrics.serviceMonitor.labels": LABELS,
    "metrics.serviceMonitor.tlsConfig": OPEN,
    "metrics.prometheusRule.labels": LABELS,
    # It becomes part of a text in YAML, and Prometheus would run a template in it.
    "metrics.prometheusRule.runbookPrefix": pattern("^(https?://[-._~/:?&=%+a-zA-Z0-9]+)?$"),
    "metrics.prometheusRule.envoyJob": JOB,
    "metrics.dashboard.labels": LABELS,
    "metrics.dashboard.annotations": LABELS,
    "migration.postgres.url": POSTGRES,
    "migration.mode": one_of("hook", "initContainer", "none"),
    "migration.activeDeadlineSeconds": COUNT,
    "migration.resources": OPEN,
    "admin.replicas": COUNT,
    "admin.url": pattern("^[!-~]*$"),
    "admin.postgres.url": POSTGRES,
    "admin.redis.url": REDIS,
    "admin.oidc.clientSecretKey": KEY_OR_NONE,
    "admin.proxies": {"type": ["integer", "null"], "minimum": 0},
    "admin.port": PORT,
    "admin.metricsPort": PORT,
    "admin.service.port": PORT,
    "admin.service.annotations": LABELS,
    "admin.ingress.annotations": LABELS,
    "admin.httpRoute.annotations": LABELS,
    "admin.httpRoute.parentRefs": OBJECTS,
    "admin.affinity": OPEN,
    "admin.resources": OPEN,
    "sidecar.attach": one_of("Deployment", "EnvoyProxy"),
    # Its folder is mounted over what the image has there.
    "sidecar.socket": pattern("^(/[-_a-zA-Z0-9][-._a-zA-Z0-9]*){2,}$")
    | {"not": {"pattern": "^/(dev|etc|proc|sys|usr)/"}},
    "sidecar.envoy.image.registry": REGISTRY,
    "sidecar.envoy.image.repository": REPOSITORY,
    "sidecar.envoy.image.tag": TAG,
    "sidecar.envoy.image.digest": DIGEST,
    "sidecar.envoy.image.pullPolicy": PULL,
    "sidecar.envoy.extraArgs": TEXTS,
    "sidecar.envoy.ports": {
        "type": "array",
        "minItems": 1,
        "items": closed(
            ["name", "containerPort", "servicePort"],
            name=pattern("^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"),
            containerPort=PORT,
            servicePort=PORT,
        ),
    },
    "sidecar.envoy.readinessProbe": {"type": ["object", "null"]},
    "sidecar.envoy.extraVolumeMounts": OBJECTS,
    "sidecar.envoy.resources": OPEN,
    "sidecar.service.type": one_of("ClusterIP", "NodePort", "LoadBalancer"),
    "sidecar.service.annotations": LABELS,
    "tests.check.path": pattern("^/[!-~]*$"),
}

COMMENT = re.compile(r"^( *)# (.*)$")
ENTRY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9_]*):( .*)?$")


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path, text in derived(ROOT).items():
        file = ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        stale.append(path)
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if stale and check:
        names = ", ".join(str(path) for path in stale)
        print(f"out of date: {names}\nRun: python tools/chart.py", file=sys.stderr)
    return int(bool(stale and check))


def derived(root: Path) -> dict[Path, str]:
    """Returns the derived files by their path in the repository `root`."""
    values = (root / CHART / "values.yaml").read_text()
    files = {
        CHART / "values.schema.json": schema(values, (root / "docs/configuration.md").read_text()),
        CHART / "README.md": with_table((root / CHART / "README.md").read_text(), values),
        CHART / "files/alerts.yaml": (root / "deploy/observability/alerts.yaml").read_text(),
        CHART / "files/dashboard.json": (root / "deploy/observability/dashboard.json").read_text(),
    }
    for name in CONSTRAINTS["apis.shipped"]["items"]["enum"]:
        files[CHART / f"files/apis/{name}.yaml"] = (root / f"deploy/apis/{name}.yaml").read_text()
    return files


def comments(text: str) -> dict[str, str]:
    """Returns the comment above each value of values.yaml, by the dotted path of the value."""
    found, path, waiting = {}, [], []
    list_indent = None
    for line in text.splitlines():
        if match := COMMENT.match(line):
            waiting.append(match[2])
        elif match := ENTRY.match(line):
            depth = len(match[1]) // 2
            if list_indent is not None and len(match[1]) > list_indent:
                continue
            list_indent = None
            path = [*path[:depth], match[2]]
            if waiting:
                found[".".join(path)] = " ".join(waiting)
            waiting = []
        elif line.lstrip().startswith("- "):
            if list_indent is None:
                list_indent = len(line) - len(line.lstrip())
        else:
            waiting = []
    return found


def leaves(node, prefix=""):
    """Yields path and default of each value that the table and the schema treat as one."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        whole = path in CONSTRAINTS or path == "settings"
        if isinstance(value, dict) and value and not whole:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def described(path: str, texts: dict[str, str]) -> str:
    """Returns the comment of a value, or of the nearest object around it that has one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if text := texts.get(".".join(parts[:end])):
            return text
    raise SystemExit(f"values.yaml: {path} has no comment")


def table(values: str) -> str:
    texts = comments(values)
    lines = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for path, default in leaves(yaml.safe_load(values)):
        shown = "" if default in ("", None) else f"`{json.dumps(default, ensure_ascii=False)}`"
        if isinstance(default, str) and default:
            shown = f"`{default}`"
        meaning = described(path, texts).replace("|", "\\|")
        lines.append(f"| `{path}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str, values: str) -> str:
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table(values)}{END}{after}"


def schema(values: str, readme: str) -> str:
    root = object_schema(yaml.safe_load(values), comments(values), "")
    root["properties"]["settings"] = settings_schema(readme)
    root["properties"]["global"] = {
        "description": "Helm adds this, and passes on what a parent chart sets; unused.",
        "type": "object",
    }
    root = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "patgate", **root}
    return json.dumps(root, indent=2, ensure_ascii=False) + "\n"


def object_schema(node, texts, prefix):
    properties = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        if path in CONSTRAINTS:
            part = dict(CONSTRAINTS[path])
        elif isinstance(value, dict) and value:
            part = object_schema(value, texts, f"{path}.")
        else:
            part = of_default(path, value)
        if path in texts:
            part = {"description": texts[path], **part}
        properties[key] = part
    return {
        "type": "object",
        "additionalProperties": False,
        # Null removes a default, and with it what the default protects.
        "required": [key for key, part in properties.items() if "null" not in part.get("type", "")],
        "properties": properties,
    }


def of_default(path, value):
    last = path.rpartition(".")[2]
    if path == "settings":
        return {}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0, "maximum": MOST}
    if isinstance(value, str) and last.lower().endswith("key"):
        return dict(KEY if value else KEY_OR_NONE)
    if isinstance(value, str) and last.lower().endswith(("name", "secret", "configmap")):
        return dict(NAME)
    if path in ("logFilter", "drain.delay"):
        return {"type": "string"}
    raise SystemExit(f"tools/chart.py: {path} needs a constraint")


def settings(document: str) -> list[tuple[str, str, str]]:
    """Returns key, default and meaning of each setting in the table of docs/configuration.md."""
    rows = document.split("<!-- configuration:begin -->")[1].split("<!-- configuration:end -->")[0]
    found = re.findall(r"^\| `([a-z0-9_.]+)` \| [^|]* \| `?([^|`]*)`? \| (.*) \|$", rows, re.M)
    missing = WRITTEN.keys() - {key for key, _, _ in found}
    if missing:
        raise SystemExit(f"tools/chart.py: WRITTEN has keys that do not exist: {missing}")
    return found


def setting(default: str, meaning: str) -> dict:
    """Returns what a setting can be, as far as its default and its meaning tell. patgate checks the
    rest, but only once the database has been migrated for it."""
    choices = re.findall(r"`([a-z-]+)`(?:, [^`.:]*)?:|^`([a-z]+)` or `([a-z]+)`\.", meaning)
    choices = {word for found in choices for word in found if word}
    if default in choices:
        return {"enum": sorted(choices)}
    if re.fullmatch(r"[0-9]+(ms|s|m|h)", default):
        return pattern("^(0|([0-9]+ *[a-z]+ *)+)$")
    # YAML reads octal digits without quotes as another number.
    if re.fullmatch(r"0[0-7]+", default):
        return pattern("^0[0-7]+$")
    if re.fullmatch(r"[0-9]+", default):
        return {
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": EXACT,
            "pattern": "^[0-9]+$",
        }
    return {"type": ["string", "number", "boolean"], "minimum": -EXACT, "maximum": EXACT}


def settings_schema(readme: str) -> dict:
    root = {"type": "object", "additionalProperties": False, "properties": {}}
    for key, default, meaning in settings(readme):
        if key in WRITTEN:
            continue
        *parents, last = key.split(".")
        node = root
        for parent in parents:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            node = node["properties"].setdefault(parent, empty)
        node["properties"][last] = {"description": meaning, **setting(default.strip(), meaning)}
    return {"description": "Settings of patgate, except those that the chart writes.", **root}


if __name__ == "__main__":
    sys.exit(main())
