"""With `initContainer`, replicas wait for a Postgres that comes after them, and migrate it."""

from kube import until
from programs import Failed
from sites import RELEASE, Site

SERVE = "app.kubernetes.io/component=serve"


def run(site: Site) -> None:
    site.prepare(database=False)
    values = site.values(migration={"mode": "initContainer"})
    site.helm("4", "install", RELEASE, str(site.chart), values=values, wait=False)
    until("pods whose migration fails", lambda: failures(site))

    # What the README does first is done last here.
    site.readme_database()
    site.surround()
    site.upgrade("4", values)
    site.populate()
    site.await_allowed()
    jobs = site.space.list_names("jobs")
    if jobs:
        raise Failed(f"there is a Job beside the init containers: {jobs}")
    site.helm("4", "uninstall", RELEASE)


def failures(site: Site) -> bool:
    """Whether each pod has tried, and says why it failed."""
    pods = site.space.pods(SERVE)
    states = [pod["status"].get("initContainerStatuses", []) for pod in pods]
    return len(pods) == 2 and all(
        any(state["restartCount"] for state in of_pod) for of_pod in states
    )
