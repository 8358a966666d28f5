"""A real Envoy Gateway drives its Envoys by the manifests of deploy/envoy-gateway, with a real
patgate."""

import contextlib
import os
from dataclasses import replace

import cases
import envoy_gateway_holes
import envoy_gateway_manifests
import envoy_gateway_teams
import synced
import yaml
from cases import Case, Gateway
from disturb import SERVE
from envoy_gateway import EnvoyGateway
from kube import ready, until
from programs import Failed
from sites import Site

# What the route `patgate-undecided` lets Envoy hold.
LONGEST = 32 << 20
# The backends of the tests have no TLS.
KNOWN = {"PG-TLS-BACKEND": "medium"}
OF_THE_NAME = "whether the name patgate."


def run(site: Site) -> None:
    envoy_gateway_manifests.same_as_envoy()
    made = EnvoyGateway(site)
    try:
        install(made)
        plain = Gateway(site, f"{made.host}:80")
        table = list(cases.table(site, LONGEST, site.host("model-acme")))
        await_served(plain)
        step(site, "the API server")
        envoy_gateway_manifests.admitted(made)
        step(site, "the table of cases")
        plain.expect([case for case in table if not case.name.startswith("shadow")])
        Gateway(site, f"{made.host}:443", tls=True).expect(table[:12])
        hosts(made, plain)
        step(site, "the health of patgate")
        healthy(made)
        step(site, "the doctor")
        sound(made)
        step(site, "patgate sync")
        synced.show(site, plain, "envoy-gateway", site.space)
        step(site, "a rollout")
        rollout(made, plain, table)
        step(site, "application teams")
        envoy_gateway_teams.attack(made, plain)
        step(site, "each manifest left out")
        envoy_gateway_holes.show(made, plain)
        step(site, "as shipped again")
        await_served(plain)
        sound(made)
        step(site, "patgate restarts, is away, or slow")
        failures(made, plain)
        step(site, "without patches")
        without_patches(made, plain, table)
    except Exception:
        # Without the custom resources, there is no state.
        with contextlib.suppress(Failed):
            site.say(made.state())
        raise
    finally:
        if not os.environ.get("KEEP"):
            made.remove()


def step(site: Site, what: str) -> None:
    site.say(f"  {what}")


def install(made: EnvoyGateway) -> None:
    """Follows the README."""
    site = made.site
    made.await_removed()
    site.prepare()
    made.install_controller()
    # For one domain that is in shadow.
    made.install_patgate(settings={"mode": "per-domain"})
    site.backend("backend", "model-acme")
    site.backend("beta", "model-beta")
    cases.populate(site)
    until("the backends", lambda: all(ready(site.space.get("pod", n)) for n in ("backend", "beta")))
    until("the tokens are mounted", lambda: site.mounted("beta"))
    made.install_gateway()
    made.install_backends()
    made.await_proxies()


def served(site: Site) -> list[Case]:
    """Two requests that each domain's backend answers, and one that none may."""
    backend = {"token": "good", "backend": "model-acme", "http": (1,)}
    beta = {"token": "beta", "backend": "model-beta", "path": "/proxy/beta/v1/models", "http": (1,)}
    return [Case("acme", **backend), Case("beta", **beta), Case("nobody", status=(401,), http=(1,))]


def await_served(gateway: Gateway) -> None:
    until("both domains are served", lambda: not gateway.faults(served(gateway.site)))


def hosts(made: EnvoyGateway, gateway: Gateway) -> None:
    """Each route to a backend gives it a host of its own, and a Backend with an address has one."""
    routes = [
        route["route"]
        for part in made.dump()["configs"]
        for config in part.get("dynamic_route_configs", [])
        for host in config["route_config"]["virtual_hosts"]
        for route in host["routes"]
        if "/model-acme/" in route["name"]
    ]
    wrong = [
        route
        for route in routes
        if not route.get("auto_host_rewrite") or route.get("append_x_forwarded_host")
    ]
    # Of each listener: for Azure's clients, for the others, and two of the rule `surface`.
    if wrong or len(routes) != 8:
        raise Failed(f"of {len(routes)} routes, some let the client choose the host: {wrong}")
    pod = made.space.get("pod", "backend")
    address = {"address": pod["status"]["podIP"], "port": 8001}

    def by_address(spec: dict) -> None:
        spec["endpoints"] = [{"hostname": "named.example.org", "ip": address}]

    [acme, _, _] = served(made.site)
    named = replace(acme, host="mine.example.org", called="named.example.org")
    with made.changed("Backend", "model-acme", by_address):
        until("a Backend with an address has a host", lambda: not gateway.faults([named]))
    await_served(gateway)


def healthy(made: EnvoyGateway) -> None:
    """Each Envoy finds both replicas of patgate healthy; with the authority left out, none."""

    def members(total: int, good: int) -> bool:
        return made.members() == [(total, good)] * 2

    def left_out(spec: dict) -> None:
        path = "/grpc_health_check/authority"
        kept = [one for one in spec["jsonPatches"] if one["operation"].get("path") != path]
        if len(kept) != len(spec["jsonPatches"]) - 1:
            raise Failed("no patch sets the authority of the health check")
        spec["jsonPatches"] = kept

    until("both replicas are healthy", lambda: members(2, 2), every=1)
    with made.changed("EnvoyPatchPolicy", "patgate-authorizer", left_out):
        until("no replica is healthy", lambda: members(2, 0), every=1)
    until("both replicas are healthy again", lambda: members(2, 2), every=1)


def sound(made: EnvoyGateway) -> None:
    """The doctor finds nothing but what the tests lack."""
    report = made.doctor()
    found = {one["rule"]: one["severity"] for one in report["findings"]}
    # No configuration says that the Service behind patgate's name is headless.
    unjudged = [one for one in report["unjudged"] if not one["reason"].startswith(OF_THE_NAME)]
    if found != KNOWN or report["maker"] != "envoy-gateway" or unjudged:
        raise Failed(f"the doctor finds {yaml.safe_dump(report['findings'])} {unjudged}")
    if not report["guards"] or not all(guard["sound"] for guard in report["guards"]):
        raise Failed(f"the guards are {report['guards']}")


# What happens while patgate does not answer.


def failures(made: EnvoyGateway, gateway: Gateway) -> None:
    site = made.site
    restarted(made, gateway)
    away = [replace(case, status=(503,), backend="") for case in served(site)]
    site.space.kubectl("scale", "deployment/patgate", "--replicas=0")
    until("patgate is away", lambda: not site.space.objects("pods", SERVE))
    until("requests are refused", lambda: not gateway.faults(away))
    gateway.expect(away)
    site.space.kubectl("scale", "deployment/patgate", "--replicas=2")
    await_served(gateway)
    if site.cluster.on_this_machine:
        frozen(made, gateway, away)


def frozen(made: EnvoyGateway, gateway: Gateway, away: list[Case]) -> None:
    """All replicas are as slow as can be. Nothing passes, and Envoy answers in the end."""
    site = made.site
    until("two replicas", lambda: [ready(pod) for pod in site.space.pods(SERVE)] == [True] * 2)
    with made.frozen():
        gateway.expect(away)
    await_served(gateway)


def restarted(made: EnvoyGateway, gateway: Gateway) -> None:
    site = made.site
    with site.load(made.host) as load:
        load.flow(2)
        load.step("patgate restarts")
        site.space.kubectl("rollout", "restart", "deployment/patgate")
        site.space.kubectl("rollout", "status", "deployment/patgate", "--timeout=180s")
        load.flow(2)
        result = load.end()
    if result.bad:
        site.say(f"  {made.refusals()}")
    site.expect_none_bad(load, result)


def rollout(made: EnvoyGateway, gateway: Gateway, table: list[Case]) -> None:
    """The manifests for a rollout, with the first backend as the service of before."""
    site = made.site
    for item in made.objects("rollout.yaml"):
        if item["kind"] == "Backend":
            item["spec"]["endpoints"][0]["fqdn"]["hostname"] = site.host("backend")
        made.apply(item)
    made.delete(made.object("EnvoyPatchPolicy", "patgate-undecided"))
    shadow = [case for case in table if case.name.startswith("shadow")]
    # The service of before gets the path as it came.
    shadow = [replace(case, asked=case.asked and case.path) for case in shadow]
    until("shadow", lambda: not gateway.faults(shadow[:1]))
    gateway.expect(shadow + served(site))
    # The service of before is the backend of acme, which must not get what patgate has allowed.
    unrouted = [replace(served(site)[0], status=(503,), backend="", says="backend_unavailable")]
    with made.without(("HTTPRoute", "model-acme"), ("BackendTrafficPolicy", "model-acme")):
        until("its route is gone", lambda: not gateway.faults(unrouted))
        gateway.expect(unrouted + shadow + served(site)[1:])
    await_served(gateway)
    made.apply(made.object("HTTPRoute", "patgate-undecided"))
    made.apply(made.object("EnvoyPatchPolicy", "patgate-undecided"))
    closed = [replace(shadow[0], status=(503,), backend="")]
    until("the rollout has ended", lambda: not gateway.faults(closed))
    made.delete(*made.objects("rollout.yaml")[1:])


def without_patches(made: EnvoyGateway, gateway: Gateway, table: list[Case]) -> None:
    """On a platform without EnvoyPatchPolicy, requests are answered as before, except those whose
    body must be read."""
    site = made.site
    values = "-f site.yaml -f values.yaml"
    upgrade = f"helm upgrade patgate deploy/helm/patgate -n authz {values} --wait"
    patches = made.objects("patches.yaml")
    made.delete(*patches)
    made.apply(*made.objects("without-patches.yaml"))
    site.follow([f"{upgrade} --set grpc.secret.existingSecret="])
    try:
        # The replicas that still want the secret refuse what Envoy asks them.
        until("the replicas before are gone", lambda: len(site.space.objects("pods", SERVE)) == 2)
        await_served(gateway)
        read = [case for case in table if case.token == "one-model" and case.model]
        unread = [replace(case, status=(400,), backend="", says="invalid_body") for case in read]
        rest = [
            case
            for case in table
            if case not in read and not case.name.startswith(("shadow", "misleading"))
        ]
        gateway.expect(rest + unread)
    finally:
        made.apply(made.object("SecurityPolicy", "patgate"), *patches)
        site.follow([upgrade])
