"""Under load, no request fails while replicas are replaced, scaled, evicted and killed."""

import gateway
from disturb import (
    await_replicas,
    evict_all,
    kill_process,
    previous_chart,
    remove_by_force,
    scale,
    upgrade_back_and_scale,
)
from programs import helm
from sites import RELEASE, Site


def run(site: Site) -> None:
    site.prepare()
    site.surround()
    old_chart = previous_chart(site)
    old = site.values(image=site.image("previous"))
    site.install("4", old, chart=old_chart)
    site.populate()
    site.await_allowed()

    with site.load() as load:
        load.flow(2)

        new = site.values()
        upgrade_back_and_scale(site, load, new, "helm upgrade from the previous chart and image")

        load.step("each replica is evicted")
        evict_all(site)

        load.step("a replica is deleted without grace")
        remove_by_force(site)
        if site.cluster.on_this_machine:
            load.step("the process of a replica is killed")
            kill_process(site)

        load.step("one replica again")
        scale(site, new, 1)
        load.flow(3)
        result = load.end()
    site.expect_none_bad(load, result)

    control(site, new)
    site.helm("4", "uninstall", RELEASE)


def control(site: Site, values: dict) -> None:
    """Without drain, health checks and retries, the same load sees that replicas leave."""
    hasty = helm.merged(values, {"replicas": 2, "settings": {"drain": {"delay": "0s"}}})
    site.upgrade("4", hasty)
    await_replicas(site, 2)
    site.space.kubectl("delete", "pod", "envoy")
    site.surround(edit=gateway.without_protection)
    site.await_allowed()
    with site.load() as load:
        load.flow(2)
        load.step("each replica is evicted, and does not wait")
        evict_all(site)
        result = load.end()
    site.expect_some_failed(load, result)
