"""docs/operations.md: the schema, credentials of backends, why, leaks, health."""

import json
import re

import httpx2
import yaml
from claims import ROOT
from installation import Site
from procedure import Procedure

DOCUMENT = "docs/operations.md"


def run_bootstrap(p: Procedure) -> None:
    site = Site(p)
    site.database()
    site.psql("CREATE ROLE deployer LOGIN PASSWORD 'deployer-password'")
    p.env |= {"ADMIN_URL": site.url("postgres")}
    (p.folder / "deploy").symlink_to(ROOT / "deploy")
    heading = "migrations-and-upgrades"
    # Without the two commands, this login cannot migrate.
    p.env["PATGATE_POSTGRES_URL"] = site.url("deployer")
    p.run("patgate", "migrate", status=4)
    p.follow(DOCUMENT, heading, 1)
    # The first step of an upgrade, the first time and again.
    p.step(DOCUMENT, heading, "patgate migrate")
    again = p.run("patgate", "migrate")
    p.expect("nothing to do", "nothing to do" in again, again)
    site.login("gateway", "patgate_serve")
    keyring = p.run("patgate", "keyring", "new")
    (p.folder / "keyring").write_text(keyring)
    site.replica().ready()


def run_credentials(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    site.operator()
    gateway = site.gateway(site.replica().ready())
    token = site.token("laptop")["token"]
    (p.folder / "provider.key").write_text("a-key-of-the-provider\n")

    def sent() -> str | None:
        seen = gateway.chat(token).json().get("seen", {}).get("headers", [])
        return dict(seen).get("authorization")

    def arrives() -> None:
        p.until("the backend gets its key", lambda: sent() == "Bearer a-key-of-the-provider", sent)

    p.expect("no credential before", sent() is None, sent())
    before = {"patgate backend credential remove": arrives}
    shown = p.follow(DOCUMENT, "credentials-of-backends", 1, before=before)[1].text()
    p.expect("the key is not shown", "a-key-of-the-provider" not in shown, shown)
    p.until("the backend gets no key", lambda: sent() is None, sent)


def run_why(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    _ = site.valkey
    site.operator()
    replicas = [
        site.replica(
            f"replica-{n}", PATGATE_DECISION_LOG_TO=str(p.folder / f"replica-{n}.log")
        ).ready()
        for n in (1, 2)
    ]
    gateway = site.gateway(*replicas)
    token = site.token("embeds", "acme:models:*:llm_embeddings")
    site.token_file("token", token)
    # The replicas look the token up, and write it to Redis. For this path, no domain matters.
    gateway.answers(404, token["token"], "/proxy/acme/v1/nowhere")
    p.until(
        "an entry in Redis", lambda: p.run("redis-cli", "-u", site.valkey.url, "DBSIZE") != "0\n"
    )
    p.follow(DOCUMENT, "why-was-a-request-refused", 1, exits={"patgate check": 4})
    answer = gateway.chat(token["token"])
    p.expect("403", answer.status_code == 403, answer.text)
    id = answer.headers["x-request-id"]
    logs = [p.folder / f"replica-{n}.log" for n in (1, 2)]
    p.until("the decision in a log", lambda: any(id in log.read_text() for log in logs))
    p.fill("6f1c0b1e-…", id)
    found = p.follow(DOCUMENT, "why-was-a-request-refused", 3)[0].text()
    p.expect("the decision", "permission_denied" in found and id in found, found)


def run_leak(p: Procedure) -> None:
    heading = "when-a-token-leaks"
    site = Site(p)
    site.populated()
    site.operator()
    gateway = site.gateway(site.replica().ready())
    leaked, named, other, third = (site.token(n) for n in ("leaked", "named", "other", "third"))
    (p.folder / "leaked.txt").write_text(f'GET / "Bearer {leaked["token"]}", said the page\n')
    (p.folder / "access.log").symlink_to(gateway.envoy.access_log)
    for token in (leaked, named, other, third):
        gateway.answers(200, token["token"])
    p.follow(DOCUMENT, heading, 1)
    gateway.answers(401, leaked["token"], code="token_revoked")
    gateway.answers(200, named["token"])
    p.fill("TOKEN_ID", named["id"])
    p.follow(DOCUMENT, heading, 2)
    gateway.answers(401, named["token"], code="token_revoked")
    entry = rf"token_revoked.*{named['id']}"
    log = p.folder / "access.log"
    p.until("the last request in the access log", lambda: re.search(entry, log.read_text()))
    used = p.follow(DOCUMENT, heading, 3)[0].text()
    p.expect("what it was used for, and refused", "200" in used and "token_revoked" in used, used)
    shown = p.step(DOCUMENT, heading, "patgate token show TOKEN_ID").text()
    p.expect("its owner", "ada@example.com" in shown, shown)
    said = p.follow(DOCUMENT, heading, 4, exits={"patgate check": 4})[0].text()
    p.expect("it is revoked", re.search(r"state.*revoked", said), said)

    fourth = fifth = None

    def still_alive() -> None:
        gateway.answers(200, other["token"])

    def revoked_and_one_more() -> None:
        nonlocal fourth
        for token in (other, third):
            gateway.answers(401, token["token"], code="token_revoked")
        fourth = site.token("fourth")["token"]
        gateway.answers(200, fourth)

    def another() -> None:
        nonlocal fifth
        gateway.answers(401, fourth, code="token_revoked")
        fifth = site.token("fifth")["token"]
        gateway.answers(200, fifth)

    commands = {
        "patgate token revoke --wait --user ada@example.com --yes": still_alive,
        "patgate token revoke --wait --domain": revoked_and_one_more,
        "patgate token revoke --wait --key": another,
    }
    counted = {"patgate token revoke --user ada@example.com  ": 2}
    p.fill("KEY_ID", (p.folder / "keyring").read_text().partition(":")[0])
    ran = p.follow(DOCUMENT, heading, 5, exits=counted, before=commands)
    p.expect("says how many", re.search(r"\b2\b", ran[0].text()), ran[0].text())
    for token in (fourth, fifth):
        gateway.answers(401, token, code="token_revoked")
    lines = json.loads(site.cli("audit", "list", "--action", "token.revoke", "--output", "json"))
    p.expect("six lines of the audit log", len(lines) == 6, lines)


def run_all_refused(p: Procedure) -> None:
    """A role loses an operation, and is given it again by what the table says."""
    heading = "403-for-all-users-of-a-domain"
    site = Site(p)
    site.populated()
    site.operator()
    gateway = site.gateway(site.replica().ready())
    token = site.token("laptop")
    p.fill("TOKEN_ID", token["id"])
    site.cli("role", "revoke", "acme", "developer", "llm_chat_completions")
    p.until("403", lambda: gateway.chat(token["token"]).status_code == 403)
    said = p.follow(DOCUMENT, heading, 1, exits={"patgate check": 4})[0].text()
    p.expect("the step that refuses", "the owner's roles in acme lack" in said, said)
    found = p.follow(DOCUMENT, heading, 2)[0].text()
    p.expect("the change", "role.revoke" in found, found)
    site.cli("role", "grant", "acme", "developer", "llm_chat_completions")
    p.until("200", lambda: gateway.chat(token["token"]).status_code == 200)


def run_health(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    replica = site.replica().ready()
    probes = yaml.safe_load(p.block(DOCUMENT, "health", 1).text)
    asked = []
    for name, probe in probes.items():
        if name.endswith("Probe"):
            path = probe["httpGet"]["path"]
            status = httpx2.get(f"http://{replica.http}{path}").status_code
            p.expect(f"200 for {name}", status == 200, f"{status} for {path}")
            asked.append(path)
    p.expect("two probes", asked == ["/livez", "/readyz"], asked)
    # Kubernetes gives it this time to end.
    given = probes["terminationGracePeriodSeconds"]
    settings = site.cli("config", "check", login="gateway")
    p.expect("more than drain.delay and drain.grace", given >= 5 + 30 + 2, settings)
