"""What happens to pods in a cluster: rollouts, scaling, evictions, and sudden ends."""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

from kube import ready, until
from load import Load
from programs import HERE, ROOT, Failed, run
from sites import RELEASE, Site

# The pods that serve, in either mode.
SERVE = "app.kubernetes.io/instance=patgate,app.kubernetes.io/component in (serve,gateway)"
PREVIOUS = HERE / "previous"


def previous_chart(site: Site) -> Path:
    """Returns the chart of the previous release, from the commit that the file `previous` names."""
    commit = PREVIOUS.read_text().split()[-1]
    folder = site.folder / "previous"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = folder / "chart.tar"
    try:
        path = site.chart.relative_to(ROOT)
        run(["git", "-C", ROOT, "archive", "--output", archive, commit, "--", path])
    except Failed as failed:
        raise Failed(f"{PREVIOUS} names {commit}, which is not in this clone: {failed}") from None
    run(["tar", "--extract", "--file", archive, "--directory", folder])
    return folder / path


def upgrade_back_and_scale(site: Site, load: Load, new: dict, upgrade: str) -> None:
    """Upgrades from the first revision to these values, back and again; then 1 and 3 replicas."""
    load.step(upgrade)
    first = site.identities()
    site.upgrade("4", new)
    expect_replaced(site, first, site.images["patgate"].name)

    load.step("helm rollback")
    second = site.identities()
    site.helm("4", "rollback", RELEASE, "1")
    expect_replaced(site, second, site.images["previous"].name)

    load.step("helm upgrade, again")
    third = site.identities()
    site.upgrade("4", new)
    expect_replaced(site, third, site.images["patgate"].name)
    await_gone(site, first | third)

    load.step("one replica")
    scale(site, new, 1)
    load.step("three replicas")
    scale(site, new, 3)


def expect_replaced(site: Site, before: dict[str, int], image: str) -> None:
    """Checks that pods which run `image` have taken the place of these, which may still drain."""
    if remaining := before.keys() & site.identities(SERVE).keys():
        raise Failed(f"an upgrade to another image has left pods in place: {remaining}")
    for pod in site.space.pods(SERVE):
        containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
        [patgate] = [item for item in containers if item["name"] == "patgate"]
        if patgate["image"] != image:
            raise Failed(f"{pod['metadata']['name']} runs {patgate['image']}, expected {image}")


def await_gone(site: Site, before: dict[str, int]) -> None:
    """Waits until these pods have ended, which is where requests would be lost."""
    still = lambda: {pod["metadata"]["uid"] for pod in site.space.objects("pods", SERVE)}  # noqa: E731
    until("the pods of before have ended", lambda: not before.keys() & still())


def scale(site: Site, values: dict, replicas: int) -> None:
    site.upgrade("4", values | {"replicas": replicas})
    until(f"{replicas} pods", lambda: len(site.space.objects("pods", SERVE)) == replicas)


def evict_all(site: Site) -> None:
    """Evicts one pod after another, as `kubectl drain` does, as soon as the budget permits it."""
    pods = site.space.pods(SERVE)
    refused = 0
    for pod in pods:
        refused += evict(site, pod["metadata"]["name"])
    await_gone(site, {pod["metadata"]["uid"]: 0 for pod in pods})
    await_replicas(site, len(pods))
    if not refused:
        raise Failed("the budget has permitted to evict all pods at once")


def evict(site: Site, name: str) -> int:
    """Returns how often the budget refused the eviction before."""
    path = f"/api/v1/namespaces/{site.space.name}/pods/{name}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    refused = 0

    def evicted() -> bool:
        nonlocal refused
        try:
            site.space.kubectl("create", f"--raw={path}", "-f", "-", stdin=json.dumps(eviction))
        except Failed as failed:
            if "disruption budget" not in str(failed):
                raise
            refused += 1
            return False
        return True

    until(f"{name} may be evicted", evicted, every=0.5)
    return refused


def await_replicas(site: Site, number: int) -> None:
    def all_ready() -> bool:
        pods = site.space.pods(SERVE)
        return len(pods) == number and all(map(ready, pods))

    until(f"{number} ready pods", all_ready)


def remove_by_force(site: Site) -> None:
    """Deletes a pod as if its node were gone."""
    pods = site.space.pods(SERVE)
    name = pods[0]["metadata"]["name"]
    site.space.kubectl("delete", "pod", name, "--grace-period=0", "--force")
    await_replicas(site, len(pods))


def kill_process(site: Site) -> None:
    """Ends patgate in a pod without a warning, as the kernel does when memory is short."""
    pods = site.space.pods(SERVE)
    uid = pods[0]["metadata"]["uid"]
    before = site.identities(SERVE)[uid]
    for process in processes(uid, b"patgate"):
        os.kill(process, signal.SIGKILL)
    until("the container is restarted", lambda: site.identities(SERVE).get(uid, 0) > before)
    await_replicas(site, len(pods))


def processes(uid: str, program: bytes) -> list[int]:
    """Returns the processes of a pod on this machine that run `program`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            groups = (folder / "cgroup").read_text().replace("_", "-")
            if words[0].endswith(b"/" + program) and uid in groups:
                found.append(int(folder.name))
    if not found:
        raise Failed(f"no process of the pod {uid} runs {program.decode()}")
    return found
