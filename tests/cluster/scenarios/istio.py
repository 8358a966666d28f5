"""A real istiod drives a gateway by the manifests of deploy/istio, with a real patgate."""

import os

import cases
import istio_holes
from cases import Gateway
from istio_site import GATEWAY, HERE, Istio
from programs import Failed
from sites import Site

# What the route `undecided` lets Envoy hold.
LONGEST = 32 << 20


def run(site: Site) -> None:
    istio = Istio(site)
    istio.remove()
    istio.await_removed()
    try:
        install(site, istio)
        sound(istio)
        for name in (*HERE, "patgate.yaml"):
            istio.restore(name)
        istio.settle()
        gateway = Gateway(site, f"{GATEWAY}.{istio.ingress.name}.svc.cluster.local:80")
        gateway.expect(cases.deviating(cases.table(site, LONGEST)))
        istio_holes.show(istio, gateway)
    finally:
        if not os.environ.get("KEEP"):
            istio.remove()


def install(site: Site, istio: Istio) -> None:
    """Follows the README, with two backends."""
    site.prepare()
    istio.install()
    site.install("4", site.values(**istio.certificates()))
    site.backend("backend", "model-acme")
    site.backend("beta", "model-beta")
    cases.populate(site)
    istio.gateway()
    istio.backend("model-beta", "beta")


def sound(istio: Istio) -> None:
    """Envoy has accepted everything as it is shipped, and the doctor finds nothing."""
    istio.settle()
    if errors := istio.errors():
        raise Failed(f"Envoy has refused: {errors}")
    report = istio.doctor()
    if report["findings"]:
        lines = [f"{one['rule']}: {one['found']} ({one['place']})" for one in report["findings"]]
        raise Failed("the doctor finds:\n" + "\n".join(lines))
