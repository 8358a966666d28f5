"""Helm 3 installs self-service, and three replicas, which share the load; over IPv6 if it can."""

import json
import re

import gateway
from kube import until
from programs import Failed
from sites import RELEASE, Site

TOKENS = "tokens.example.org"
SERVE = "app.kubernetes.io/component=serve"
# Each replica gets its share by the ids of requests, which is a third, more or less.
LEAST, MOST = 0.20, 0.47


def run(site: Site) -> None:
    site.prepare()
    both = site.dual_stack()
    network = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]} if both else {}

    def by_ipv6(config: dict) -> dict:
        if both:
            gateway.cluster(config, "patgate")["dns_lookup_family"] = "V6_ONLY"
        return config

    site.surround(edit=by_ipv6)
    values = site.values(
        replicas=3,
        network=network,
        admin={
            "enabled": True,
            "replicas": 1,
            "url": f"https://{TOKENS}",
            "postgres": {"existingSecret": "patgate-web"},
        },
    )
    site.install("3", values)
    site.populate()
    site.await_allowed()

    shares(site)
    self_service(site)
    tested_with_a_token(site, values)
    site.helm("3", "uninstall", RELEASE)


def shares(site: Site) -> None:
    """All replicas answer checks, about as many each."""
    before = counts(site)
    with site.load() as load:
        load.flow(8)
        result = load.end()
    site.expect_none_bad(load, result)
    after = counts(site)
    if len(after) != 3 or before.keys() != after.keys():
        raise Failed(f"three replicas were expected: {before}, {after}")
    checks = {name: after[name] - before[name] for name in after}
    total = sum(checks.values())
    if total < result.sent:
        raise Failed(f"{total} checks are counted for {result.sent} requests: {checks}")
    of_each = {name: number / total for name, number in checks.items()}
    site.say("  " + ", ".join(f"{share:.0%}" for share in of_each.values()) + f" of {total} checks")
    if not all(LEAST <= share <= MOST for share in of_each.values()):
        raise Failed(f"the replicas do not share the checks: {of_each}")


def counts(site: Site) -> dict[str, int]:
    """Returns how many checks each replica has answered, by its own metrics."""
    found = {}
    for pod in site.space.pods(SERVE):
        address = pod["status"]["podIP"]
        address = f"[{address}]" if ":" in address else address
        text = site.get(f"http://{address}:9192/metrics")["body"]
        numbers = re.findall(r"^patgate_check_duration_seconds_count(?:{.*})? (\d+)$", text, re.M)
        found[pod["metadata"]["name"]] = sum(map(int, numbers))
    return found


def self_service(site: Site) -> None:
    # As a proxy would ask that ends TLS.
    at, host = "http://patgate-admin", f"host: {TOKENS}"
    api = site.get(f"{at}/api/openapi.json", host)
    if api["status"] != 200 or not json.loads(api["body"])["openapi"].startswith("3.1"):
        raise Failed(f"the API of self-service: {api}")
    page = site.get(f"{at}/sign-in", host, "accept: text/html")
    if page["status"] != 200 or "<form" not in page["body"]:
        raise Failed(f"the page on which users sign in: {page}")
    stranger = site.get(f"{at}/api/pats", host)
    if stranger["status"] != 401:
        raise Failed(f"tokens without a session: {stranger}")


def tested_with_a_token(site: Site, values: dict) -> None:
    """`helm test` sends a token to the Service. To name it changes no pod."""
    login = f"operator:{site.passwords['operator']}"
    url = f"postgres://{login}@{site.postgres}:5432/patgate?sslmode=disable"
    site.space.secret("patgate-operator", url=url)
    check = {"tokenSecret": "tokens", "tokenKey": "good", "operatorSecret": "patgate-operator"}
    pods = site.identities()
    site.upgrade("3", values | {"tests": {"check": check}})
    site.test("3")
    # A rollout would begin within a moment, and `--wait` would have awaited it.
    if site.identities() != pods:
        raise Failed("an upgrade that changes no pod has replaced pods")
    until(
        "the pod of the test is gone",
        lambda: "pod/patgate-test" not in site.space.list_names("pods"),
    )
    site.upgrade("3", values | {"tests": {"check": check | {"tokenKey": "revoked"}}})
    try:
        site.test("3")
    except Failed:
        # Only newer versions of Helm print it.
        said = site.space.kubectl("logs", "patgate-test", "--container=check").stdout
        if "token_revoked" not in said:
            raise Failed(f"helm test fails with a revoked token, and says: {said}") from None
    else:
        raise Failed("helm test does not find that a token is revoked")
