"""What clients of the gateway see while patgate is away, frozen, or restarted under load."""

import os
import signal
from dataclasses import replace

import yaml
from cases import Case, Gateway
from disturb import SERVE, await_gone, await_replicas, kill_process, processes
from istio_holes import GUARDED, OPEN, route_to_one_backend
from istio_site import GATEWAY, Istio
from kube import named, until
from programs import Failed
from sites import Site

AWAY = [
    Case("good token while patgate is away", token="good", status=(503,), says="retry"),
    Case("no token while patgate is away", status=(503,), says="retry"),
]
BACK = [Case("good token again", token="good", backend="model-acme")]


def show(site: Site, istio: Istio, gateway: Gateway) -> None:
    away(site, istio, gateway)
    if site.cluster.on_this_machine:
        frozen(site, gateway)
    restarted(site, istio)


def away(site: Site, istio: Istio, gateway: Gateway) -> None:
    site.say("no replica of patgate")
    before = site.identities(SERVE)
    site.space.kubectl("scale", "deployment", "patgate", "--replicas=0")
    await_gone(site, before)
    gateway.expect(AWAY)
    fail_open(istio, gateway)
    for case, http, answer in gateway.send(AWAY):
        if "Retry-After" not in answer["headers"]:
            raise Failed(f"{case.name} by HTTP/{http}: no Retry-After in {answer['headers']}")
    site.space.kubectl("scale", "deployment", "patgate", f"--replicas={len(before)}")
    await_replicas(site, len(before))
    served(gateway)


def fail_open(istio: Istio, gateway: Gateway) -> None:
    """A provider that fails open lets everything pass, if there is no guard."""
    istio.put(route_to_one_backend(istio))
    provider(istio, failOpen=True, statusOnError="")
    gateway.expect([GUARDED])
    istio.delete("guard.yaml")
    istio.settle()
    gateway.expect([OPEN])
    found = {one["rule"] for one in istio.doctor()["findings"]}
    provider(istio, failOpen=False, statusOnError="")
    gateway.expect([replace(GUARDED, status=(403,), says="")])
    found |= {one["rule"] for one in istio.doctor()["findings"]}
    istio.restore("guard.yaml")
    provider(istio, failOpen=False, statusOnError="503")
    if lost := {"PG-FAIL-OPEN", "PG-FAIL-STATUS"} - found:
        raise Failed(f"the doctor does not find {sorted(lost)}")


def provider(istio: Istio, **fields) -> None:
    """Changes the provider, as another upgrade of istiod would."""
    config = istio.system.get("configmap", "istio")
    mesh = yaml.safe_load(config["data"]["mesh"])
    [patgate] = [one for one in mesh["extensionProviders"] if one["name"] == "patgate"]
    patgate["envoyExtAuthzGrpc"] |= fields
    istio.system.apply(
        {
            **named("v1", "ConfigMap", "istio"),
            "data": config["data"] | {"mesh": yaml.safe_dump(mesh)},
        }
    )
    # istiod reads the file that the kubelet brings it, or the ConfigMap itself.
    wanted = fields["failOpen"], int(fields["statusOnError"] or 0)
    until("the proxy has the provider", lambda: asked(istio) == wanted, every=1)


def asked(istio: Istio) -> tuple[bool, int]:
    """Returns what the proxy does if patgate does not answer."""
    for listener in istio.dump()["configs"]:
        for one in listener.get("dynamic_listeners", []):
            for chain in one.get("active_state", {}).get("listener", {}).get("filter_chains", []):
                for item in chain["filters"]:
                    for filtered in item["typed_config"].get("http_filters", []):
                        if filtered["name"] == "envoy.filters.http.ext_authz":
                            config = filtered["typed_config"]
                            code = config.get("status_on_error", {}).get("code", 0)
                            number = {"ServiceUnavailable": 503, "Forbidden": 403}.get(code, code)
                            return config.get("failure_mode_allow", False), number
    return False, -1


def served(gateway: Gateway) -> None:
    until("requests pass again", lambda: not gateway.faults(BACK), every=1)


def frozen(site: Site, gateway: Gateway) -> None:
    site.say("all replicas of patgate are frozen")
    found = []
    for pod in site.space.pods(SERVE):
        found += processes(pod["metadata"]["uid"], b"patgate")
    try:
        for process in found:
            os.kill(process, signal.SIGSTOP)
        gateway.expect(AWAY)
    finally:
        for process in found:
            os.kill(process, signal.SIGCONT)
    served(gateway)


def restarted(site: Site, istio: Istio) -> None:
    with site.load(f"{GATEWAY}.{istio.ingress.name}") as load:
        load.flow(2)
        load.step("kubectl rollout restart")
        before = site.identities(SERVE)
        site.space.kubectl("rollout", "restart", "deployment", "patgate")
        site.space.kubectl("rollout", "status", "deployment", "patgate", "--timeout=120s")
        await_gone(site, before)
        if site.cluster.on_this_machine:
            load.step("the process of a replica is killed")
            kill_process(site)
        load.flow(3)
        result = load.end()
    site.expect_none_bad(load, result)
