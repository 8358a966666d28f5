"""What an application team does that wants to be open, with and without each of the two locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cases import Case, Gateway
from istio_holes import GUARDED, REFUSED, item, route_to_one_backend
from istio_site import GATEWAY, Istio
from kube import until
from programs import Failed

HONEST = Case("honest", token="good", backend="model-acme", asked="/v1/models")
# A request without a token to the team's own host or port.
THEIRS = replace(REFUSED, name="no token at the team's", host="team.example.org")
CLOSED = replace(GUARDED, name="a good token", token="good")

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
    # The port that it opens at the pod of the gateway, if any.
    port: int = 0
    # What becomes of requests if the API server accepts it.
    shown: tuple[Case, ...] = (REFUSED, HONEST)
    # The rules by which the doctor names it, besides what it finds without the attack.
    rules: tuple[str, ...] = ()


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

    # By `hosts: ["./*"]` in the Gateway, the route does not exist.
    taken = replace(HONEST, name="a good token at the team's host", host="team.example.org")
    for number, gateway in enumerate(
        (f"{ours}/patgate", f"patgate.{ours}", f"patgate.{ours}.svc.cluster.local")
    ):
        yield Attack(
            f"a route on {gateway}",
            [service(f"route-{number}", gateway)],
            "routes on the gateway",
            shown=(REFUSED, HONEST, THEIRS, taken),
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
            service("second", "second"),
        ],
        "the selector needs the label istio",
        port=8081,
        # A good token passes there to whatever server the team names.
        shown=(THEIRS, replace(taken, asked="/proxy/acme/v1/models")),
        rules=("PG-BODY-BUFFER",),
    )
    yield Attack(
        "a listener with TCP",
        [
            listener("tcp", 9000, "TCP", {"app": GATEWAY}),
            service("tcp", "tcp", tcp=[{"route": to_backend}]),
        ],
        "the selector needs the label istio",
        port=9000,
        # patgate is asked about the connection, knows no token of it, and refuses.
        shown=tuple(replace(case, status=(0,), http=(1,), says="") for case in (THEIRS, CLOSED)),
    )
    yield Attack(
        "a listener of all pods",
        [listener("all", 8082, "HTTP", {})],
        "the selector needs the label istio",
        port=8082,
        # It has no routes, so nobody is asked.
        shown=(CLOSED,),
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
        shown=(GUARDED, HONEST),
        rules=("PG-ASK-OFF",),
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
        shown=(GUARDED, CLOSED),
        rules=("PG-ASK-NONE",),
    )
    other = {
        **item("security.istio.io/v1", "AuthorizationPolicy", "other", ours),
        "spec": {"action": "CUSTOM", "provider": {"name": "theirs"}, "rules": [{}]},
    }
    # Istio then refuses everything, patgate's requests included.
    yield Attack(
        "another CUSTOM provider",
        [other],
        OF_PLATFORM,
        shown=(GUARDED, CLOSED),
        rules=("PG-ASK-NONE",),
    )


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
    annotated(istio)
    istio.site.say(f"  {len(attacks) + 1} attacks were refused by the API server")
    except_one(istio, attacks[0])
    deletion(istio)
    without_lock(istio, gateway, attacks)


def annotated(istio: Istio) -> None:
    """By such an annotation, Istio attaches a Gateway to pods that its selector does not name."""
    one = own_gateway(istio).objects[0]
    one["metadata"]["annotations"] = {"internal.istio.io/gateway-service": "patgate-gateway"}
    said = refusal(istio, Attack("an annotation of Istio's own", [one], ""))
    if "internal.istio.io/" not in said:
        raise Failed(f"an annotation of Istio's own was not refused: {said or 'accepted'}")


def except_one(istio: Istio, attack: Attack) -> None:
    """What the platform excepts by name passes."""
    [one] = attack.objects
    excepted = f"{istio.team.name}/VirtualService/{one['metadata']['name']}"

    def edit(items: list[dict]) -> None:
        [variable] = [
            found
            for policy in items
            for found in policy["spec"].get("variables", [])
            if found["name"] == "excepted"
        ]
        variable["expression"] = variable["expression"].replace("[]", f"['{excepted}']")

    istio.apply("admission.yaml", edit)
    until("the exception is in force", lambda: not refusal(istio, attack))
    istio.apply("admission.yaml")
    until("the exception is gone", lambda: refusal(istio, attack))
    harmless = own_gateway(istio)
    if said := refusal(istio, harmless):
        raise Failed(f"a Gateway of the team's own pods was refused: {said}")
    istio.site.say("  an exception passes, and what is the team's own")


def own_gateway(istio: Istio) -> Attack:
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
    """The team may not delete the guard either. Kubernetes may, when it deletes the namespace."""
    cleaner = "system:serviceaccount:kube-system:namespace-controller"
    istio.ingress.kubectl(
        "delete", "envoyfilter", "patgate-guard", f"--as={cleaner}", "--dry-run=server"
    )
    # A collection has no name, which the message must not need.
    group = f"/apis/networking.istio.io/v1/namespaces/{istio.ingress.name}"
    for what in (
        ("envoyfilter", "patgate-guard"),
        ("--raw", f"{group}/virtualservices?dryRun=All"),
    ):
        try:
            istio.ingress.kubectl("delete", *what, f"--as={USER}")
        except Failed as failed:
            if OF_PLATFORM not in str(failed):
                raise
        else:
            raise Failed(f"the team has deleted {what}")


def without_lock(istio: Istio, gateway: Gateway, attacks: list[Attack]) -> None:
    """Without the admission policies, the other lock holds: nothing is reachable unasked."""
    istio.put(route_to_one_backend(istio))
    istio.settle()
    address = istio.ingress.get("pod", istio.pod())["status"]["podIP"]
    wrong = []
    with unlocked(istio):
        until("the locks are open", lambda: not refusal(istio, attacks[0]))
        for attack in attacks:
            istio.site.say(f"without the admission policies: {attack.name}")
            with carried_out(istio, attack):
                to = Gateway(istio.site, f"{address}:{attack.port}") if attack.port else gateway
                wrong += [f"{attack.name}: {fault}" for fault in to.faults(list(attack.shown))]
                found = {one["rule"] for one in istio.doctor()["findings"]}
                if lost := set(attack.rules) - found:
                    wrong.append(f"{attack.name}: the doctor does not find {sorted(lost)}")
                if attack.port == 9000:
                    wrong += by_tcp(istio, to)
    if wrong:
        raise Failed("\n".join(wrong))


@contextmanager
def carried_out(istio: Istio, attack: Attack) -> Iterator[None]:
    istio.put(*attack.objects, user=USER)
    istio.settle()
    try:
        yield
    finally:
        istio.drop(*attack.objects)
        istio.settle()


def by_tcp(istio: Istio, to: Gateway) -> list[str]:
    """The guard sees no TCP: there, the AuthorizationPolicy and the admission policies hold."""
    istio.delete("authorization.yaml")
    istio.settle()
    passed = replace(THEIRS, http=(1,), status=(200,), backend="model-acme", says="")
    faults = to.faults([passed])
    istio.restore("authorization.yaml")
    istio.settle()
    return [f"by TCP without the AuthorizationPolicy: {fault}" for fault in faults]
