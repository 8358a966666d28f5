"""What an application team does that wants to be open, with and without each of the two locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cases import Case, Gateway
from istio_holes import FIXED, GUARDED, OPEN, REFUSED, item, route_to_one_backend
from istio_site import GATEWAY, Istio
from kube import until
from programs import Failed

# Who may write all objects of Istio in the team's namespace and, by mistake, in the gateway's.
USER = "team-lead"
MESH = ("networking.istio.io", "security.istio.io", "extensions.istio.io", "telemetry.istio.io")
FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
OF_PLATFORM = "belongs to the platform"


@dataclass
class Attack:
    name: str
    objects: list[dict]
    # What the API server says about it.
    refusal: str


def network(kind: str, name: str, namespace: str, spec: dict) -> dict:
    version = "networking.istio.io/v1alpha3" if kind == "EnvoyFilter" else "networking.istio.io/v1"
    return {**item(version, kind, name, namespace), "spec": spec}


def rights(istio: Istio) -> None:
    """Gives the user what a team may have, and more."""
    for space in (istio.team, istio.ingress):
        role = {
            **item("rbac.authorization.k8s.io/v1", "Role", "mesh", space.name),
            "rules": [{"apiGroups": list(MESH), "resources": ["*"], "verbs": ["*"]}],
        }
        binding = {
            **item("rbac.authorization.k8s.io/v1", "RoleBinding", "mesh", space.name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mesh"},
            "subjects": [{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        istio.put(role, binding)


def elsewhere(istio: Istio) -> Iterator[Attack]:
    """Yields what the team does in its own namespace."""
    ours, team = istio.ingress.name, istio.team.name
    backend = istio.site.host("backend")
    to_backend = [{"destination": {"host": backend, "port": {"number": 8001}}}]

    def service(name: str, gateway: str, **more) -> dict:
        routes = more or {"http": [{"route": to_backend}]}
        spec = {"hosts": ["team.example.org"], "gateways": [gateway], **routes}
        return network("VirtualService", name, team, spec)

    for number, gateway in enumerate(
        (f"{ours}/patgate", f"patgate.{ours}", f"patgate.{ours}.svc.cluster.local")
    ):
        yield Attack(
            f"a route on {gateway}", [service(f"route-{number}", gateway)], "routes on the gateway"
        )

    def listener(name: str, port: int, protocol: str, selector: dict) -> dict:
        server = {
            "port": {"number": port, "name": name, "protocol": protocol},
            "hosts": ["*"],
        }
        return network("Gateway", name, team, {"selector": selector, "servers": [server]})

    of_gateway = {"istio": GATEWAY}
    yield Attack(
        "a listener with HTTP",
        [
            listener("second", 8081, "HTTP", of_gateway),
            service("second", "second") | {},
        ],
        "the selector needs the label istio",
    )
    yield Attack(
        "a listener with TCP",
        [
            listener("tcp", 9000, "TCP", {"app": GATEWAY}),
            service("tcp", "tcp", tcp=[{"route": to_backend}]),
        ],
        "the selector needs the label istio",
    )
    yield Attack(
        "a listener of all pods",
        [listener("all", 8082, "HTTP", {})],
        "the selector needs the label istio",
    )
    for number, host in enumerate((istio.site.host("patgate"), "model-acme.patgate.internal")):
        entry = {
            "hosts": [host],
            "ports": [{"number": 9191, "name": "grpc", "protocol": "GRPC"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "192.0.2.1"}],
        }
        rule = {"host": host, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
        for kind, spec in (("ServiceEntry", entry), ("DestinationRule", rule)):
            yield Attack(
                f"a {kind} for {host}",
                [network(kind, f"theirs-{number}", team, spec)],
                "hosts of patgate",
            )


def inside(istio: Istio) -> Iterator[Attack]:
    """Yields what the team does in the namespace of the gateway, where it may write by mistake."""
    ours = istio.ingress.name
    off = {
        "envoy.filters.http.ext_authz": {
            "@type": f"{FILTERS}.ext_authz.v3.ExtAuthzPerRoute",
            "disabled": True,
        },
        # A control plane generates this name. It must not be that of the guard.
        "envoy.filters.http.rbac": {"@type": f"{FILTERS}.rbac.v3.RBACPerRoute"},
    }
    route = {
        "applyTo": "HTTP_ROUTE",
        "match": {
            "context": "GATEWAY",
            "routeConfiguration": {"vhost": {"route": {"name": "fixed"}}},
        },
        "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": off}},
    }
    yield Attack(
        "an EnvoyFilter that switches ext_authz off on a route",
        [network("EnvoyFilter", "off", ours, {"configPatches": [route]})],
        OF_PLATFORM,
    )
    removal = {
        "applyTo": "HTTP_FILTER",
        "match": {
            "context": "GATEWAY",
            "listener": {
                "filterChain": {
                    "filter": {
                        "name": "envoy.filters.network.http_connection_manager",
                        "subFilter": {"name": "envoy.filters.http.ext_authz"},
                    }
                }
            },
        },
        "patch": {"operation": "REMOVE"},
    }
    yield Attack(
        "an EnvoyFilter that removes ext_authz",
        [network("EnvoyFilter", "removal", ours, {"configPatches": [removal]})],
        OF_PLATFORM,
    )
    other = {
        **item("security.istio.io/v1", "AuthorizationPolicy", "other", ours),
        "spec": {"action": "CUSTOM", "provider": {"name": "theirs"}, "rules": [{}]},
    }
    yield Attack("another CUSTOM provider", [other], OF_PLATFORM)


LOCKS = ("patgate-istio-owned", "patgate-istio-foreign")


@contextmanager
def unlocked(istio: Istio) -> Iterator[None]:
    """The API server without the admission policies."""
    for name in LOCKS:
        istio.system.kubectl("delete", "validatingadmissionpolicybinding", name)
    try:
        yield
    finally:
        istio.apply("admission.yaml")
        until("the locks are closed again", lambda: refusal(istio, next(inside(istio))))


def refusal(istio: Istio, attack: Attack) -> str:
    """Returns how the API server refuses an attack, in a trial; empty if it accepts it."""
    try:
        for one in attack.objects:
            istio.put(one, user=USER, dry=True)
    except Failed as failed:
        return str(failed)
    return ""


def show(istio: Istio, gateway: Gateway) -> None:
    rights(istio)
    attacks = [*elsewhere(istio), *inside(istio)]
    until("the locks are closed", lambda: refusal(istio, attacks[0]))
    wrong = []
    for attack in attacks:
        if attack.refusal not in (said := refusal(istio, attack)):
            wrong.append(f"{attack.name}: {said or 'accepted'}")
    if wrong:
        raise Failed("the API server did not refuse as it must:\n" + "\n".join(wrong))
    istio.site.say(f"  {len(attacks)} attacks were refused by the API server")
    except_one(istio, attacks[0])
    deletion(istio)
    without_lock(istio, gateway, attacks)


def except_one(istio: Istio, attack: Attack) -> None:
    """What the platform excepts by name passes."""
    [one] = attack.objects
    key = f"{istio.team.name}.VirtualService.{one['metadata']['name']}"

    def exceptions(data: dict) -> None:
        config = item("v1", "ConfigMap", "patgate-exceptions", istio.system.name)
        istio.put({**config, "data": data})

    exceptions({key: "for a test"})
    until("the exception is in force", lambda: not refusal(istio, attack))
    exceptions({key: None})
    until("the exception is gone", lambda: refusal(istio, attack))
    harmless = replace_gateway(istio)
    if said := refusal(istio, harmless):
        raise Failed(f"a Gateway of the team's own pods was refused: {said}")
    istio.site.say("  an exception passes, and what is the team's own")


def replace_gateway(istio: Istio) -> Attack:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    spec = {"selector": {"istio": "gateway-of-the-team"}, "servers": [server]}
    service = {
        "hosts": ["team.example.org"],
        "gateways": ["own"],
        "http": [{"directResponse": {"status": 200}}],
    }
    own = [
        network("Gateway", "own", istio.team.name, spec),
        network("VirtualService", "own", istio.team.name, service),
    ]
    return Attack("the team's own gateway", own, "")


def deletion(istio: Istio) -> None:
    """The team may not delete the guard either."""
    try:
        istio.ingress.kubectl("delete", "envoyfilter", "patgate-guard", f"--as={USER}")
    except Failed as failed:
        if OF_PLATFORM in str(failed):
            return
        raise
    raise Failed("the team has deleted the guard")


def without_lock(istio: Istio, gateway: Gateway, attacks: list[Attack]) -> None:
    """Without the admission policies, the other lock holds: nothing is reachable by HTTP."""
    istio.put(route_to_one_backend(istio))
    with unlocked(istio):
        until("the locks are open", lambda: not refusal(istio, attacks[0]))
        for attack in attacks:
            istio.put(*attack.objects, user=USER)
            istio.settle()
            istio.site.say(f"  without the admission policies: {attack.name}")
            try:
                cases = [
                    REFUSED,
                    replace(REFUSED, name="no token at the team's host", host="team.example.org"),
                    Case("honest", token="good", backend="model-acme"),
                ]
                if "off on a route" in attack.name or "removes" in attack.name:
                    cases = [GUARDED]
                elif "CUSTOM" in attack.name:
                    cases = [Case("all is refused", status=(403, 503), host=FIXED)]
                elif attack.name.startswith("a Serv") and "patgate.internal" not in attack.name:
                    cases = [replace(REFUSED, status=(401, 503), says="")]
                print(attack.name, gateway.faults(cases))
            finally:
                istio.drop(*attack.objects)
                istio.settle()
    if OPEN is None:
        raise Failed("")
