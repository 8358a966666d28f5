"""What an application team that shares the Gateway tries in order to be open, and what stops it.

It has a listener of patgate's Gateway, of which the README warns: nothing stops its routes from
getting what patgate has allowed."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import yaml
from cases import CHAT, Case, Gateway
from envoy_gateway import EnvoyGateway
from kube import Namespace, named, until
from programs import Failed, helm

POLICY = "gateway.envoyproxy.io/v1alpha1"
ROUTE = "gateway.networking.k8s.io/v1"
DOMAIN = "apps.example.org"
BINDING = ("ValidatingAdmissionPolicyBinding", "patgate-routes-stay-closed")


class Team:
    """It has a namespace from which one listener of the Gateway accepts routes."""

    def __init__(self, made: EnvoyGateway, name: str):
        self.made, self.site = made, made.site
        self.space = Namespace(f"{made.space.name}-{name}", made.site.cluster.kubeconfig)

    def prepare(self) -> None:
        self.space.make()
        self.space.kubectl("label", "namespace", self.space.name, "gateway-routes=allowed")

    @contextlib.contextmanager
    def listeners(self) -> Iterator[None]:
        """Adds what the platform should not grant a team: names of its own, and a port for TCP."""
        granted = {"from": "Selector", "selector": {"matchLabels": {"gateway-routes": "allowed"}}}

        def allowed(*kinds: str) -> dict:
            group = ROUTE.partition("/")[0]
            return {"namespaces": granted, "kinds": [{"group": group, "kind": k} for k in kinds]}

        def edit(spec: dict) -> None:
            http = {"name": "teams", "protocol": "HTTP", "port": 80, "hostname": f"*.{DOMAIN}"}
            tcp = {"name": "tcp", "protocol": "TCP", "port": 9000}
            spec["listeners"] += [
                http | {"allowedRoutes": allowed("HTTPRoute", "GRPCRoute")},
                tcp | {"allowedRoutes": allowed("TCPRoute")},
            ]

        with self.made.changed("Gateway", "gateway", edit):
            yield

    # What the team writes.

    def backend(self, name: str, host: str, port: int) -> dict:
        endpoint = {"fqdn": {"hostname": host, "port": port}}
        return {**named(POLICY, "Backend", name), "spec": {"endpoints": [endpoint]}}

    def ours(self) -> dict:
        """A Backend that leads to the platform's model."""
        return self.backend("ours", self.site.host("model-acme"), 8001)

    def route(self, name: str, kind: str = "HTTPRoute", backend: str = "ours", **rule) -> dict:
        reference = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": backend}
        spec = {
            "parentRefs": [self.parent("teams")],
            "hostnames": [f"{name}.{DOMAIN}"],
            "rules": [{"backendRefs": [reference], **rule}],
        }
        return {**named(ROUTE, kind, name), "spec": spec}

    def parent(self, listener: str) -> dict:
        return {"name": "gateway", "namespace": self.made.space.name, "sectionName": listener}

    def tcp(self, reference: dict) -> dict:
        spec = {"parentRefs": [self.parent("tcp")], "rules": [{"backendRefs": [reference]}]}
        return {**named("gateway.networking.k8s.io/v1alpha2", "TCPRoute", "tcp"), "spec": spec}

    def policy(
        self, name: str, kind: str = "SecurityPolicy", of: str = "HTTPRoute", **spec
    ) -> dict:
        target = {"group": "gateway.networking.k8s.io", "kind": of, "name": name}
        return {**named(POLICY, kind, name), "spec": {"targetRefs": [target], **spec}}

    def apply(self, *items: dict) -> None:
        self.made.apply(*items, space=self.space)

    def delete(self, *items: dict) -> None:
        self.made.delete(*items, space=self.space)

    # Requests.

    def asks(self, name: str, **more) -> Case:
        return Case(name, host=f"{name}.{DOMAIN}", http=(1,), **more)

    def refused(self, name: str, **more) -> Case:
        """Nobody's request, which the guard answers."""
        return self.asks(name, status=(503,), says='"unavailable"', **more)

    def open(self, name: str, **more) -> Case:
        """Nobody's request, which the model answers."""
        return self.asks(name, backend="model-acme", **more)


def attack(made: EnvoyGateway, gateway: Gateway) -> None:
    team = Team(made, "team")
    team.prepare()
    try:
        with their_patgate(made, team), team.listeners():
            with without_admission(made, team):
                first_lock(team, gateway)
                beyond_the_guard(team, gateway)
            second_lock(made, team)
            exceptions(made, team)
    finally:
        team.space.delete()
    # Until then, its routes would attach to the listener of the next team.
    gone = f"namespace/{team.space.name}"
    until("the team is gone", lambda: gone not in team.space.list_names("namespaces"))


# The first lock.


@contextlib.contextmanager
def their_patgate(made: EnvoyGateway, team: Team) -> Iterator[None]:
    """A service that lets everything pass, and sets the same metadata with another word: a patgate
    in shadow. It is in the site's namespace, because its Secrets are there."""
    settings = {"mode": "shadow", "guard": {"word": "theirs"}}
    values = helm.merged(
        made.site.values(settings=settings),
        {"replicas": 1, "grpc": {"secret": {"existingSecret": ""}}},
    )
    # Helm warns, rightly, so this does not go by the site.
    (made.site.folder / "theirs.yaml").write_text(yaml.safe_dump(values))
    place = f"-n {made.space.name} --wait"
    made.site.follow([f"helm install theirs deploy/helm/patgate -f theirs.yaml {place}"])
    grant = named("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "theirs")
    source = {"group": "gateway.envoyproxy.io", "kind": "SecurityPolicy"}
    grant["spec"] = {
        "from": [source | {"namespace": team.space.name}],
        "to": [{"group": "", "kind": "Service", "name": "theirs-patgate"}],
    }
    made.apply(grant)
    try:
        yield
    finally:
        made.delete(grant)
        made.site.follow([f"helm uninstall theirs {place}"])


def policies(team: Team) -> dict[str, list[dict]]:
    """By the name of the attack, what a team writes besides its route."""
    theirs = {"group": "", "kind": "Service", "name": "theirs-patgate", "port": 9191}
    theirs["namespace"] = team.made.space.name
    anyone = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "ours"}
    return {
        "empty": [team.policy("empty")],
        "cors": [team.policy("cors", cors={"allowOrigins": ["https://shop.example.org"]})],
        "rbac": [team.policy("rbac", authorization={"defaultAction": "Allow"})],
        "http": [team.policy("http", extAuth={"http": {"backendRefs": [anyone]}})],
        "word": [team.policy("word", extAuth={"grpc": {"backendRefs": [theirs]}})],
        "grpc": [team.policy("grpc", of="GRPCRoute")],
    }


def first_lock(team: Team, gateway: Gateway) -> None:
    """Objects that no admission has stopped: the guard refuses what passes by them."""
    attacks = policies(team)
    kinds = {"grpc": "GRPCRoute"}
    routes = [team.route(name, kinds.get(name, "HTTPRoute")) for name in attacks]
    added = [team.route("inherits"), team.route("merges")]
    merging = team.policy(
        "merges", mergeType="StrategicMerge", cors={"allowOrigins": ["https://shop.example.org"]}
    )
    team.apply(team.ours(), *routes, *added, merging, *sum(attacks.values(), []))
    # A route of theirs that is longer than those of the platform.
    longer = team.route("longer", matches=[{"path": {"value": "/proxy/acme/v1"}}])
    longer["spec"] |= {"parentRefs": [team.parent("http")], "hostnames": []}
    team.apply(longer)
    closed = [team.refused(name) for name in attacks if name != "grpc"]
    gateway_grpc = replace(team.refused("grpc", method="POST", path=CHAT), http=(2,))
    until("the guard refuses", lambda: not gateway.faults(closed + [gateway_grpc]))
    # With and without a token, and with the header by which the platform's routes are chosen.
    liar = (("x-upstream-cluster", "model-acme"),)
    everything = closed + [gateway_grpc]
    everything += [replace(case, headers=liar) for case in closed]
    everything += [replace(case, token="revoked") for case in closed]
    path = "/proxy/acme/v1/models"
    for name in ("inherits", "merges"):
        # This is what the README warns of: their route gets the identity of a member of acme, and
        # would get the credential of its backend.
        taken = {"x-user-id": team.site.user, "x-upstream-cluster": "model-acme"}
        asked = team.asks(name, token="good", backend="model-acme", asked=path, seen=taken)
        until(f"their route {name}", lambda asked=asked: not gateway.faults([asked]))
        everything += [asked, team.asks(name, status=(401,))]
    acme = Case("nobody's longer route", token="good", backend="model-acme", asked="/v1/models")
    gateway.expect([*everything, acme])
    status = team.space.get("httproutes.gateway.networking.k8s.io", "longer")["status"]["parents"][
        0
    ]["conditions"]
    if not any(one["reason"] == "NotAllowedByListeners" for one in status):
        raise Failed(f"a longer route of a team has the state {status}")
    # It is the guard that has refused: without it, each of their policies opens the route.
    opened = [team.open(name) for name in attacks if name != "grpc"]
    with team.made.without(("EnvoyPatchPolicy", "patgate-guard")):
        until("they are open without the guard", lambda: not gateway.faults(opened))
    until("the guard stands again", lambda: not gateway.faults(closed))
    foreign = {"kind": "Service", "name": "model-acme", "port": 8001}
    team.apply(team.tcp(foreign | {"namespace": team.made.space.name}))
    unreached = Case("a TCPRoute to a Service of the platform", status=(0,), http=(1,))
    Gateway(team.site, gateway.to.replace(":80", ":9000")).expect([unreached])


def beyond_the_guard(team: Team, gateway: Gateway) -> None:
    """What the guard cannot see, and only admission stops."""
    reference = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "ours"}
    team.apply(team.tcp(reference))
    tunnel = Gateway(team.site, gateway.to.replace(":80", ":9000"))
    reached = Case("a TCPRoute to a Backend", path="/", backend="model-acme", http=(1,))
    until("their TCPRoute leads to the model", lambda: not tunnel.faults([reached]))
    team.delete(team.tcp(reference))


# The second lock.


def tried(space: Namespace, item: dict) -> str:
    """Returns why the API server refuses an object, which it does not keep."""
    try:
        space.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(item))
    except Failed as failed:
        return str(failed)
    return ""


def denied(space: Namespace, item: dict, by: str = BINDING[1]) -> bool:
    return by in tried(space, item)


@contextlib.contextmanager
def without_admission(made: EnvoyGateway, team: Team) -> Iterator[None]:
    probe = team.policy("probe")
    until("admission", lambda: denied(team.space, probe))

    # Not by deleting the binding: the API server (1.37) would not notice changes of the exceptions
    # once there is a new one.
    def audit(spec: dict) -> None:
        spec["validationActions"] = ["Audit"]

    with made.changed(*BINDING, audit):
        until("no admission", lambda: not tried(team.space, probe))
        yield
    until("admission again", lambda: denied(team.space, probe))


def forbidden(team: Team) -> dict[str, dict]:
    """Objects, each of which only one rule forbids."""
    merging = {"mergeType": "StrategicMerge"}
    own = {"http": {"backendRefs": [{"kind": "Service", "name": "any", "port": 80}]}}
    other = named(POLICY, "SecurityPolicy", "selects")
    selector = {"kind": "HTTPRoute", "matchLabels": {"a": "b"}, "namespaces": {"from": "All"}}
    other["spec"] = {"targetSelectors": [selector], **merging}
    patch = {"type": "JSONPatch", "jsonPatches": []}
    patch["targetRef"] = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": "gateway",
    }
    upgrade = [{"type": "connect"}]
    proxy = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "any"}
    return {
        "SecurityPolicy, empty": team.policy("empty-one"),
        "SecurityPolicy, CORS": team.policy(
            "cors-one", cors={"allowOrigins": ["https://a.example"]}
        ),
        "SecurityPolicy, targetRef": {
            **named(POLICY, "SecurityPolicy", "single"),
            "spec": {
                "targetRef": {
                    "group": "gateway.networking.k8s.io",
                    "kind": "GRPCRoute",
                    "name": "any",
                }
            },
        },
        "SecurityPolicy, own extAuth": team.policy("own", extAuth=own, **merging),
        "SecurityPolicy, other namespaces": other,
        "EnvoyExtensionPolicy": team.policy("extension", kind="EnvoyExtensionPolicy"),
        "EnvoyPatchPolicy": {**named(POLICY, "EnvoyPatchPolicy", "patch"), "spec": patch},
        "Backend": team.backend("any", "any.example.org", 80),
        "BackendTrafficPolicy, CONNECT": team.policy(
            "tunnel", kind="BackendTrafficPolicy", httpUpgrade=upgrade
        ),
        "EnvoyProxy": {**named(POLICY, "EnvoyProxy", "pods"), "spec": {}},
        "Gateway, EnvoyProxy": own_gateway("proxied", infrastructure={"parametersRef": proxy}),
        "Gateway, the platform's class": own_gateway("ours", gatewayClassName="patgate"),
        "Gateway, address": own_gateway("taken", addresses=[{"value": "10.20.0.7"}]),
        "Gateway, address of a type": own_gateway(
            "typed", addresses=[{"type": "IPAddress", "value": "2001:db8::7"}]
        ),
        "HTTPRouteFilter, empty substitution": rewriting("empty-rewrite", ""),
    }


def own_gateway(name: str, **spec) -> dict:
    """A Gateway of a team's, which is not that of the platform."""
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    spec = {"gatewayClassName": "apps", "listeners": [listener], **spec}
    return {**named(ROUTE, "Gateway", name), "spec": spec}


def rewriting(name: str, substitution: str) -> dict:
    replaced = {"pattern": "^/proxy/", "substitution": substitution}
    path = {"type": "ReplaceRegexMatch", "replaceRegexMatch": replaced}
    return {**named(POLICY, "HTTPRouteFilter", name), "spec": {"urlRewrite": {"path": path}}}


def endpoints(address_type: str, address: str) -> dict:
    item = named("discovery.k8s.io/v1", "EndpointSlice", "leads-astray")
    ports = [{"name": "", "port": 19000, "protocol": "TCP"}]
    item |= {"addressType": address_type, "ports": ports, "endpoints": [{"addresses": [address]}]}
    return item


def second_lock(made: EnvoyGateway, team: Team) -> None:
    for what, item in forbidden(team).items():
        if not denied(team.space, item):
            raise Failed(f"admission has not refused: {what}: {tried(team.space, item)!r}")
        # It is admission that refuses, and nothing else is wrong with the object.
        if why := tried(made.space, item):
            raise Failed(f"the platform may not write: {what}: {why}")
    permitted = {
        "SecurityPolicy, merging": team.policy(
            "fine", mergeType="StrategicMerge", cors={"allowOrigins": ["https://a.example"]}
        ),
        "SecurityPolicy of a Gateway of theirs": team.policy("fine", of="Gateway"),
        "BackendTrafficPolicy": team.policy(
            "fine", kind="BackendTrafficPolicy", httpUpgrade=[{"type": "websocket"}]
        ),
        "ClientTrafficPolicy": team.policy("fine", kind="ClientTrafficPolicy", of="Gateway"),
        "HTTPRoute": team.route("fine"),
        "Gateway": own_gateway("fine"),
        "Gateway with a host": own_gateway(
            "fine", addresses=[{"type": "Hostname", "value": "apps.example.org"}]
        ),
        "HTTPRouteFilter": rewriting("fine", "/"),
        "EndpointSlice": endpoints("IPv4", "10.20.0.7"),
    }
    for what, item in permitted.items():
        if why := tried(team.space, item):
            raise Failed(f"admission has refused: {what}: {why}")
    # Its policy has no exceptions.
    astray = endpoints("FQDN", "loopback.example.org")
    if not denied(team.space, astray, "patgate-endpoints-are-addresses"):
        raise Failed("admission has not refused an EndpointSlice with a name")
    if why := tried(made.space, astray):
        raise Failed(f"the platform may not write an EndpointSlice with a name: {why}")
    made.site.say(f"  {len(forbidden(team)) + 1} objects are refused, {len(permitted)} accepted")


def exceptions(made: EnvoyGateway, team: Team) -> None:
    config = made.object("ConfigMap", "patgate-exceptions")
    objects = forbidden(team)
    for key in ("one of each", "namespace"):
        if key == "namespace":
            data = {f"Namespace.{team.space.name}": "a test"}
        else:
            data = {
                f"{item['kind']}.{team.space.name}.{item['metadata']['name']}": "a test"
                for item in objects.values()
            }
        made.apply(config | {"data": data})

        def all_pass() -> bool:
            return not any(tried(team.space, item) for item in objects.values())

        until(f"exceptions: {key}", all_pass)
        if key != "namespace":
            other = team.policy("another-one")
            if not denied(team.space, other):
                raise Failed("an exception has let another object pass")
    made.delete(config)
    probe = team.policy("fine", mergeType="StrategicMerge")
    until("nothing passes without the ConfigMap", lambda: denied(team.space, probe))
    made.apply(config)
    until("exceptions are gone", lambda: denied(team.space, objects["Backend"]))
    until("the rest passes", lambda: not tried(team.space, probe))
    broken_expression(made, team)


def broken_expression(made: EnvoyGateway, team: Team) -> None:
    """An expression that fails refuses."""
    name = "patgate-test-broken"
    policy = made.object("ValidatingAdmissionPolicy", BINDING[1])
    policy["metadata"]["name"] = name
    policy["spec"]["validations"] = [{"expression": "object.spec.nothing == 'x'"}]
    binding = made.object(*BINDING)
    binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    probe = team.policy("fine", mergeType="StrategicMerge")
    made.apply(policy, binding)
    try:
        until("a failing expression refuses", lambda: name in tried(team.space, probe))
    finally:
        made.delete(policy, binding)
    until("the probe passes again", lambda: not tried(team.space, probe))
