"""What clients of the gateway see while patgate is away, frozen, or restarted under load."""

import os
import signal

from cases import Case, Gateway
from disturb import SERVE, await_gone, await_replicas, kill_process, processes
from istio_site import GATEWAY, Istio
from kube import until
from programs import Failed
from sites import Site

AWAY = [
    Case("good token while patgate is away", token="good", status=(503,), says="retry"),
    Case("no token while patgate is away", status=(503,), says="retry"),
]
BACK = [Case("good token again", token="good", backend="model-acme")]


def show(site: Site, istio: Istio, gateway: Gateway) -> None:
    away(site, gateway)
    if site.cluster.on_this_machine:
        frozen(site, gateway)
    restarted(site, istio)


def away(site: Site, gateway: Gateway) -> None:
    site.say("no replica of patgate")
    before = site.identities(SERVE)
    site.space.kubectl("scale", "deployment", "patgate", "--replicas=0")
    await_gone(site, before)
    gateway.expect(AWAY)
    for case, http, answer in gateway.send(AWAY):
        if "Retry-After" not in answer["headers"]:
            raise Failed(f"{case.name} by HTTP/{http}: no Retry-After in {answer['headers']}")
    site.space.kubectl("scale", "deployment", "patgate", f"--replicas={len(before)}")
    await_replicas(site, len(before))
    served(gateway)


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
