"""The same under load as a native sidecar of Envoy, installed by the README's steps."""

import gateway
import readme
import yaml
from disturb import await_replicas, evict_all, upgrade_back_and_scale
from kube import until
from programs import Failed, helm
from sites import RELEASE, Site

GATEWAY = "patgate-gateway"


def run(site: Site) -> None:
    site.prepare()
    site.backend("backend", "model-acme")
    site.gateway_certificate()
    configure(site)
    before = site.space.everything()

    old = values(site, "previous")
    site.install("4", old)
    site.populate()
    site.await_allowed(GATEWAY)
    site.test("4")

    with site.load(GATEWAY) as load:
        load.flow(2)

        new = values(site, "patgate")
        upgrade_back_and_scale(site, load, new, "helm upgrade to another image")
        load.step("each replica is evicted")
        evict_all(site)
        load.flow(2)
        result = load.end()
    site.expect_none_bad(load, result)

    control(site, new)
    renewed_certificate(site)
    site.helm("4", "uninstall", RELEASE)
    before |= {"secret/tokens", "secret/load"}
    until("nothing is left", lambda: site.space.everything() <= before, every=1)


def values(site: Site, image: str) -> dict:
    """The values of the README for this mode, which are about the first ones."""
    added = readme.values("mode: sidecar")
    small = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "2560Mi"}}
    added["sidecar"]["envoy"] |= {"image": site.image("envoy"), "resources": small}
    return site.values(image=site.image(image), **added)


def configure(site: Site) -> None:
    """Makes the ConfigMap by the README's commands. Between them, users add their backends."""
    *edits, create = readme.commands(readme.block(readme.CHART, "console", "$ mkdir gateway"))
    site.follow(edits)
    file = site.folder / "gateway/envoy.yaml"
    config = yaml.safe_load(file.read_text())
    gateway.written(gateway.completed(config, site.host("backend")), file)
    site.follow([create])


def control(site: Site, values: dict) -> None:
    """If Envoy does not wait for its clients, the same load sees it."""
    hasty = helm.merged(values, {"replicas": 2, "sidecar": {"envoy": {"preStopSeconds": 0}}})
    site.upgrade("4", hasty)
    await_replicas(site, 2)
    with site.load(GATEWAY) as load:
        load.flow(2)
        load.step("each replica is evicted, and does not wait")
        evict_all(site)
        result = load.end()
    site.expect_some_failed(load, result)


def renewed_certificate(site: Site) -> None:
    """Envoy takes up a renewed certificate for its clients, without a restart."""
    pods = site.identities()
    peer = lambda: site.peer(f"{GATEWAY}:443", "gateway.example.org")  # noqa: E731
    old = peer()
    site.gateway_certificate()
    until("Envoy shows the renewed certificate", lambda: peer() != old, patience=180, every=1)
    if site.identities() != pods:
        raise Failed("a renewed certificate has replaced or restarted pods")
