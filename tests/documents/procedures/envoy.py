"""envoy/README.md and docs/doctor.md: the shipped files, each part to be added, the doctor."""

import copy
import json

import httpx2
import yaml
from checkout import Checkout
from procedure import Procedure

from server import answers

DOCUMENT = "envoy/README.md"


def run_envoy(p: Procedure) -> None:
    tree = Checkout(p)
    p.fill("http://127.0.0.1:9901", f"http://127.0.0.1:{tree.port(9901)}")
    here = {"envoy -c": lambda: answers(f"http://127.0.0.1:{tree.port(8080)}/healthz")}
    p.follow(DOCUMENT, "patgate-beside-your-own-envoy", stays=here)
    # The doctor reads the Envoy that runs.
    ran = p.follow("docs/doctor.md", "patgate-doctor")[-1].text()
    p.expect("the table of routes", "ASKED" in ran and "undecided" in ran, ran)
    step = yaml.safe_load(p.text("docs/doctor.md", "in-ci"))[0]["run"]
    p.given(step)
    sarif = json.loads((p.folder / "doctor.sarif").read_text())
    p.expect("SARIF", sarif["version"] == "2.1.0", sarif)
    p.given("sed -i 's/clear_route_cache: true/clear_route_cache: false/' envoy/envoy.yaml")
    p.given(f"! {step} >/dev/null")


def run_tracing(p: Procedure) -> None:
    tree = Checkout(p)
    before = {"envoy -c": lambda: p.given("envoy --mode validate -c traced.yaml")}
    here = {"envoy -c": lambda: answers(f"http://127.0.0.1:{tree.port(8080)}/healthz")}
    p.follow(DOCUMENT, "tracing", stays=here, before=before)
    address = f"http://127.0.0.1:{tree.port(9901)}"
    clusters = httpx2.get(f"{address}/clusters").text
    p.expect("a cluster for the collector", "otlp::" in clusters, clusters)
    dump = httpx2.get(f"{address}/config_dump").text
    p.expect("a tracer", "OpenTelemetryConfig" in dump, "no OpenTelemetryConfig in the dump")


class Parts:
    """The shipped configurations, to which parts of the document are added."""

    def __init__(self, p: Procedure):
        self.p, self.folder, self.count = p, Checkout(p).folder, 0

    def shipped(self, name: str) -> dict:
        return yaml.safe_load((self.folder / "envoy" / name).read_text())

    def accepted(
        self, what: str, base: str, config: dict, expected: set[str] = frozenset()
    ) -> None:
        """Envoy accepts a configuration, and the doctor finds in it what it finds in the shipped
        one, and what is expected."""
        self.count += 1
        file = f"part-{self.count}.yaml"
        (self.folder / file).write_text(yaml.safe_dump(config, sort_keys=False))
        self.p.given(f"envoy --mode validate -c {file}")
        before, after = self.found(f"envoy/{base}"), self.found(file)
        self.p.expect(
            f"findings with {what}: {expected or 'no new ones'}",
            after - before == expected,
            sorted(after - before),
        )
        gone = before - after
        self.p.say(f"{what}: accepted, {len(after)} findings, gone: {sorted(gone) or 'none'}")

    def found(self, file: str) -> set[str]:
        command = f"patgate doctor {file} --output json || test $? = 4"
        return {finding["rule"] for finding in json.loads(self.p.given(command))["findings"]}


def manager(config: dict) -> dict:
    listener = config["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def routes(config: dict) -> list:
    [host] = manager(config)["route_config"]["virtual_hosts"]
    return host["routes"]


def cluster(config: dict, name: str) -> dict:
    return next(c for c in config["static_resources"]["clusters"] if c["name"] == name)


def filter_settings(config: dict, name: str) -> dict:
    [found] = [one for one in manager(config)["http_filters"] if one["name"] == name]
    return found["typed_config"]


def asking(config: dict) -> list[dict]:
    """The settings of the filters that ask patgate."""
    filters = [one["typed_config"] for one in manager(config)["http_filters"]]
    return [one for one in filters if one["@type"].endswith(".ExtAuthz")]


def give_secret(p: Procedure, config: dict, added: list[dict]) -> None:
    """Lets both filters send the secret, which is the last of these metadata."""
    first, second = asking(config)
    shipped = first["grpc_service"]["initial_metadata"]
    p.expect("the metadata that are there are kept", added[:-1] == shipped, added)
    first["grpc_service"]["initial_metadata"] = added
    second["grpc_service"]["initial_metadata"].append(added[-1])


def run_parts(p: Procedure) -> None:
    parts = Parts(p)

    # A rollout: the old gateway, before all other routes, and in one step with the bodies.
    for base in ("envoy.yaml", "single-step.yaml"):
        config = parts.shipped(base)
        [route] = yaml.safe_load(p.text(DOCUMENT, "rolling-out", 1))
        old = copy.deepcopy(cluster(config, "model-acme"))
        old["name"] = old["load_assignment"]["cluster_name"] = "old-gateway"
        config["static_resources"]["clusters"].append(old)
        if base == "single-step.yaml":
            route |= yaml.safe_load(p.text(DOCUMENT, "rolling-out", 2))
        routes(config).insert(0, route)
        parts.accepted(f"the route of a rollout in {base}", base, config)

    # The same for all mounts, and beside services that take JWTs.
    for base in ("envoy.yaml", "other-authentication.yaml"):
        config = parts.shipped(base)
        [route] = yaml.safe_load(p.text(DOCUMENT, "other-mounts-and-routes-that-stay", 1))
        old = copy.deepcopy(cluster(config, "model-acme"))
        old["name"] = old["load_assignment"]["cluster_name"] = "old-gateway"
        config["static_resources"]["clusters"].append(old)
        if base == "other-authentication.yaml":
            jwt = yaml.safe_load(p.text(DOCUMENT, "other-mounts-and-routes-that-stay", 2))
            route |= jwt
        exceptions = [one for one in routes(config) if "disabled" in str(one)]
        routes(config).insert(len(exceptions), route)
        parts.accepted(f"the route for all mounts in {base}", base, config)

    # A policy for Istio's guard, which is the same filter. No route of this file is its exception.
    config = parts.shipped("envoy.yaml")
    guard = filter_settings(config, "patgate.guard")
    policy = yaml.safe_load(p.text("deploy/istio/README.md", "beside-other-authentication"))
    guard["rules"]["policies"] |= policy
    parts.accepted("an exception for Istio", "envoy.yaml", config, {"PG-EXCEPT-UNUSED"})

    config = parts.shipped("envoy.yaml")
    patgate = cluster(config, "patgate")
    [endpoint] = patgate["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"] |= yaml.safe_load(p.text(DOCUMENT, "unix-socket"))
    parts.accepted("the Unix socket", "envoy.yaml", config)

    config = parts.shipped("rate-limits.yaml")
    [host] = manager(config)["route_config"]["virtual_hosts"]
    host["rate_limits"] += yaml.safe_load(p.text(DOCUMENT, "a-limit-for-a-model", 1))
    limits = filter_settings(config, "envoy.filters.http.local_ratelimit")
    limits["descriptors"] += yaml.safe_load(p.text(DOCUMENT, "a-limit-for-a-model", 2))
    parts.accepted("a limit for a model", "rate-limits.yaml", config)

    p.fill('value: "…"', f'value: "{"s" * 32}"')
    metadata = yaml.safe_load(p.text(DOCUMENT, "a-secret-between-envoy-and-patgate"))
    config = parts.shipped("envoy.yaml")
    give_secret(p, config, metadata["initial_metadata"])
    parts.accepted("a secret", "envoy.yaml", config)
