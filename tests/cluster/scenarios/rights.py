"""The service accounts may do nothing, and no pod has a token, in both modes."""

from kube import named, until
from programs import Failed
from sites import RELEASE, Site


def run(site: Site) -> None:
    site.prepare(database=False)
    site.space.apply(named("v1", "ServiceAccount", "bare"))
    site.space.apply(named("v1", "ConfigMap", "gateway"))
    found_if_there(site)
    for mode in ("deployment", "sidecar"):
        values = site.values(
            mode=mode,
            # Nothing needs to become ready here: what pods may do is decided before.
            migration={"mode": "initContainer"},
            replicas=1,
            sidecar={"envoy": {"existingConfigMap": "gateway", "image": site.image("envoy")}},
            admin={
                "enabled": True,
                "replicas": 1,
                "url": "https://tokens.example.org",
                "postgres": {"existingSecret": "patgate-web"},
            },
        )
        site.helm("4", "install", RELEASE, str(site.chart), values=values, wait=False)
        until("both pods", lambda: len(site.space.pods()) == 2)
        check(site)
        site.helm("4", "uninstall", RELEASE)
        until("no pod is left", lambda: not site.space.list_names("pods"), every=1)


def check(site: Site) -> None:
    bare = rights(site, "bare")
    accounts = {pod["spec"]["serviceAccountName"] for pod in site.space.pods()}
    if accounts != {"patgate"}:
        raise Failed(f"the pods run as {accounts}, expected the chart's account")
    # The migration as a hook runs as `default`, which is not the chart's.
    for account in ("patgate", "default"):
        if more := rights(site, account) ^ bare:
            raise Failed(
                f"{account} may do something else than any service account: {sorted(more)}"
            )
    for pod in site.space.pods():
        name, spec = pod["metadata"]["name"], pod["spec"]
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        if "projected" in kinds:
            raise Failed(f"{name} has a token of its service account: {spec['volumes']}")
        if spec.get("automountServiceAccountToken") is not False:
            raise Failed(f"{name} does not refuse the token of its service account")
    for kind in ("roles", "rolebindings"):
        if found := site.space.list_names(f"{kind}.rbac.authorization.k8s.io"):
            raise Failed(f"the chart has made {found}")


def found_if_there(site: Site) -> None:
    """An account that may do something is found."""
    account = f"--serviceaccount={site.space.name}:bare"
    site.space.kubectl("create", "rolebinding", "more", "--clusterrole=view", account)
    if not rights(site, "bare") - rights(site, "default"):
        raise Failed("the rights of a role do not show")
    site.space.kubectl("delete", "rolebinding", "more")


def rights(site: Site, account: str) -> set[str]:
    who = f"--as=system:serviceaccount:{site.space.name}:{account}"
    listed = site.space.kubectl("auth", "can-i", "--list", "--no-headers", who).stdout
    return {" ".join(line.split()) for line in listed.splitlines()}
