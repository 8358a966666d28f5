"""Helm 4 installs, tests and removes a Deployment with the values of the README."""

from kube import until
from programs import Failed
from sites import RELEASE, Site


def run(site: Site) -> None:
    site.prepare()
    site.surround()
    before = site.space.everything()

    site.install("4", site.values())
    site.populate()
    site.await_allowed()
    site.test("4")
    undisturbed(site)

    site.helm("4", "uninstall", RELEASE)
    # The tokens are the tests' own.
    before |= {"secret/tokens"}
    until(
        "an uninstallation leaves nothing behind",
        lambda: site.space.everything() <= before,
        every=1,
    )
    if lost := before - site.space.everything():
        raise Failed(f"helm uninstall has removed what is not the chart's: {sorted(lost)}")


def undisturbed(site: Site) -> None:
    """No container has been restarted, and Kubernetes has warned of nothing."""
    for pod in site.space.pods():
        for container in pod["status"]["containerStatuses"]:
            if container["restartCount"]:
                raise Failed(f"{pod['metadata']['name']} was restarted: {container}")
    if warnings := site.space.warnings():
        raise Failed("Kubernetes warns:\n" + "\n".join(warnings))
