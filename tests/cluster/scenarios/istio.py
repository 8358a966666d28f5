"""A real istiod drives a gateway by the manifests of deploy/istio, with a real patgate."""

import os
from dataclasses import replace

import cases
import istio_admitted
import istio_failures
import istio_holes
import istio_sidecar
import istio_teams
import synced
import yaml
from cases import Case, Gateway
from istio_site import GATEWAY, Istio
from kube import until
from programs import Failed, helm
from sites import Site

# What the route `undecided` lets Envoy hold.
LONGEST = 32 << 20
# The backends of the tests have no TLS, which is right to find.
KNOWN = {"PG-TLS-BACKEND"}


def run(site: Site) -> None:
    istio = Istio(site)
    istio.remove()
    istio.await_removed()
    try:
        values = install(site, istio)
        sound(istio)
        istio_admitted.same_as_envoy(istio)
        istio_admitted.show(istio)
        for name in ("authorizer.yaml", "gateway.yaml", "patgate.yaml"):
            istio.restore(name)
        istio.settle()
        name = f"{GATEWAY}.{istio.ingress.name}.svc.cluster.local"
        gateway = Gateway(site, f"{name}:80")
        served(site, istio, gateway, Gateway(site, f"{name}:443", tls=True))
        synced.show(site, gateway, "istio", istio.ingress)
        order(istio, gateway)
        unserved(istio, gateway)
        istio_holes.show(istio, gateway)
        reported(istio, gateway)
        istio_admitted.misspelled(istio)
        istio_teams.show(istio, gateway)
        istio_failures.show(site, istio, gateway)
        istio_sidecar.show(site, istio, values)
        istio.uninstall()
    except Failed:
        site.say(istio.state())
        raise
    finally:
        if not os.environ.get("KEEP"):
            istio.remove()


def install(site: Site, istio: Istio) -> dict:
    """Follows the README, with two backends, and returns the values of patgate's chart."""
    site.prepare()
    istio.install()
    added = helm.merged(istio.certificates(), {"settings": {"mode": "per-domain"}})
    values = helm.merged(site.values(), added)
    site.install("4", values)
    site.backend("backend", "model-acme")
    site.backend("beta", "model-beta")
    cases.populate(site)
    istio.gateway()
    istio.backend("model-beta", "beta")
    return values


def sound(istio: Istio) -> None:
    """Envoy has accepted everything as it is shipped, and the doctor finds nothing."""
    istio.settle()
    if errors := istio.errors():
        raise Failed(f"Envoy has refused: {errors}")
    dump = istio.dump()
    istio.expect_closed_admin()
    if (istio.site.folder / "grpc-secret").read_text() in yaml.safe_dump(dump):
        raise Failed("the shared secret is in the dump of the proxy")
    findings = [one for one in istio.doctor(dump)["findings"] if one["rule"] not in KNOWN]
    if findings:
        lines = [f"{one['rule']}: {one['found']} ({one['places']})" for one in findings]
        raise Failed("the doctor finds:\n" + "\n".join(lines))


def served(site: Site, istio: Istio, plain: Gateway, tls: Gateway) -> None:
    called = f"{site.host('backend')}:8001"
    table = list(cases.table(site, LONGEST, called))
    shadow = [case for case in table if case.name.startswith("shadow")]
    table = [case for case in table if case not in shadow]
    plain.expect(table)
    tls.expect([case for case in table if not case.length])
    in_shadow(istio, plain, shadow)


def in_shadow(istio: Istio, gateway: Gateway, shadow: list[Case]) -> None:
    """As the README says, `undecided` leads to the old service during a rollout."""
    gateway.expect([replace(case, status=(503,), backend="", may="") for case in shadow[:2]])

    def old(items: list[dict]) -> None:
        destination = {"host": "model-acme.patgate.internal", "port": {"number": 8001}}
        items[0]["spec"]["http"][0]["route"][0]["destination"] = destination

    istio.apply("routes.yaml", old)
    istio.settle()
    # The old service gets the path as it came.
    gateway.expect([replace(case, asked=case.asked and case.path) for case in shadow])
    istio.restore("routes.yaml")
    istio.settle()


def order(istio: Istio, gateway: Gateway) -> None:
    """The routes of backends stand before the catch-all, whichever of them is older."""
    honest = [Case("served", token="good", backend="model-acme")]
    for name in ("routes.yaml", "backend.yaml"):
        istio.delete(name)
        istio.restore(name)
        istio.settle()
        gateway.expect(honest)
    older(istio, gateway)


def unserved(istio: Istio, gateway: Gateway) -> None:
    """A domain whose backend has no objects is out of service, for its users only."""
    away = Case("no objects", "/proxy/beta/v1/models", "beta")
    away = replace(away, status=(503,), says="backend_unavailable")
    names = ("virtualservice", "destinationrule", "serviceentry")
    for name in names:
        istio.ingress.kubectl("delete", name, "patgate-backend-model-beta")
    istio.settle()
    gateway.expect([away, Case("served", token="good", backend="model-acme")])
    # The route for it is older than those of the backend, and stands behind them all the same.
    istio.backend("model-beta", "beta")
    istio.settle()
    gateway.expect([replace(away, status=(200,), backend="model-beta", says="")])


def reported(istio: Istio, gateway: Gateway) -> None:
    """The guard's refusals are counted, and the log says why, without a secret."""
    before = istio.refusals()
    token = istio.site.tokens["good"]
    istio.delete("authorization.yaml")
    istio.settle()
    gateway.expect(
        [Case("not asked about", f"/proxy/acme/v1/models?key={token}", http=(1,), status=(503,))]
    )
    counted = istio.refusals() - before
    istio.restore("authorization.yaml")
    istio.settle()
    if counted != 1:
        raise Failed(f"the guard has refused one request, and {counted} are counted")
    none = "rbac_access_denied_matched_policy[none]"
    # Envoy writes a log every ten seconds.
    until(
        "the refusal is in the log",
        lambda: any(line["response_code_details"] == none for line in istio.log()),
        every=1,
    )
    lines = istio.log()
    if token in str(lines) or any("?" in line["path"] for line in lines if line["path"]):
        raise Failed("the access log has a query, or a token")
    missing = {"ext_authz_denied", "cluster_not_found"} - {
        line["response_code_details"] for line in lines
    }
    if missing:
        raise Failed(f"the access log does not name {sorted(missing)}")


def older(istio: Istio, gateway: Gateway) -> None:
    """Of two VirtualServices with the same condition, the older one is served."""
    [shipped] = [one for one in istio.file("backend.yaml") if one["kind"] == "VirtualService"]
    text = yaml.safe_dump(shipped).replace(
        "host: model-acme.patgate.internal", "host: model-beta.patgate.internal"
    )
    rival = yaml.safe_load(text)
    # Names say nothing.
    rival["metadata"]["name"] = "a-rival"
    istio.put(rival)
    istio.settle()
    gateway.expect([Case("the older one", token="good", backend="model-acme")])
    istio.drop(rival)
    istio.settle()
