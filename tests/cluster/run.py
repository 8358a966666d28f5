"""Installs the Helm chart on a real Kubernetes, and looks at what users and operators rely on.

    make cluster-test mesh-test
    python tests/cluster/run.py cluster|mesh [WORD…]
        only the scenarios whose names have one of these words

README.md beside this file says what is needed, and how to use a cluster of one's own.
"""

import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cluster  # noqa: E402
import images  # noqa: E402
import oci  # noqa: E402
from cluster import Cluster  # noqa: E402
from programs import Failed  # noqa: E402
from sites import Site  # noqa: E402

# The longest come first.
SCENARIOS = {
    "cluster": (
        "install",
        "sidecar",
        "rollout",
        "reload",
        "replicas",
        "migration",
        "rights",
        "admission",
    ),
    "mesh": (
        "envoy_gateway",
        "istio",
        "routes",
    ),
}


# Alone at the end: Helm would refuse the custom resources that it installs.
LAST = "routes"
# How many run at the same time.
AT_A_TIME = 3
STARTED = time.monotonic()


def say(text: str) -> None:
    """Prints a line with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:4.0f}  {text}", file=sys.stderr, flush=True)


def main(group: str, words: list[str]) -> int:
    known = SCENARIOS[group]
    chosen = [name for name in known if not words or any(word in name for word in words)]
    if not chosen:
        sys.exit(f"no scenario has one of these words in its name: {words}. All: {known}")
    kubeconfig = cluster.given()
    meshes = group == "mesh"
    made = images.make(cluster.registry(), say, meshes)
    program = images.BUILT / "patgate"
    oci.extracted(made["patgate"].archive, "usr/local/bin/patgate", program)
    if kubeconfig:
        cluster.deliver(made, say)
        return run_all(chosen, Cluster(kubeconfig, made, program, say))
    # Only here: it needs root and Debian's packages.
    from node import in_cluster

    def inside(node) -> int:
        for image in made.values():
            node.load_image(image.archive)
        return run_all(chosen, Cluster(node.kubeconfig, made, program, say, on_this_machine=True))

    return in_cluster(inside, meshes)


def run_all(chosen: list[str], target: Cluster) -> int:
    started, failed = time.monotonic(), []
    waiting = [name for name in chosen if name != LAST]

    def work() -> None:
        while waiting:
            name = waiting.pop(0)
            if not run_one(name, target):
                failed.append(name)

    # Alone, since it looks at what Kubernetes warns of, and a busy node makes probes late.
    if waiting[:1] == ["install"] and not run_one(waiting.pop(0), target):
        failed.append("install")
    # Most of the time of the others, pods drain.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(AT_A_TIME)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if LAST in chosen and not run_one(LAST, target):
        failed.append(LAST)
    took = time.monotonic() - started
    say(f"{len(chosen) - len(failed)} of {len(chosen)} scenarios passed in {took:.0f} s")
    if failed:
        say(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def run_one(name: str, target: Cluster) -> bool:
    """Runs a scenario, and says what is needed to understand why it fails."""
    scenario = importlib.import_module(f"scenarios.{name}")
    say(f"begin   {name}: {scenario.__doc__.strip()}")
    # Names of the cluster have no underscores.
    site = Site(target, name.replace("_", "-"))
    began = time.monotonic()
    try:
        site.remove()
        site.await_removed()
        scenario.run(site)
    except Exception as error:
        message = str(error) if isinstance(error, Failed) else traceback.format_exc()
        say(f"FAILED  {name} after {time.monotonic() - began:.0f} s: {message}\n")
        say(site.state())
        return False
    finally:
        if not os.environ.get("KEEP"):
            site.remove()
    say(f"ok      {name} in {time.monotonic() - began:.0f} s")
    return True


if __name__ == "__main__":
    if sys.argv[1:2] not in ([name] for name in SCENARIOS):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
