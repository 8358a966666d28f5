"""docs/runbook.md: the commands of each alert, and what some of them repair."""

import subprocess

import yaml
from claims import ROOT, blocks
from installation import Site
from procedure import Procedure

from documents import commands
from procedures.envoy import Parts, asking, manager
from server import answers

DOCUMENT = "docs/runbook.md"
# These are run where the replica runs, with its settings.
REPLICAS = ("patgate config check", "patgate keyring list --file", "patgate api check")


def settings(site: Site, login: str) -> None:
    """Gives the commands that follow the settings of a login."""
    for name, value in site.environment(login).items():
        site.procedure.given(f"export {name}='{value}'")


def follow(p: Procedure, site: Site, heading: str, number: int) -> str:
    """Runs a block, each command with the settings that the runbook names."""
    [block] = [
        block
        for block in blocks(ROOT / DOCUMENT)
        if (block.heading, block.number) == (heading, number)
    ]
    first_words = {command.text: command.text for command in commands(block.text)}
    logins = {text: "gateway" if text.startswith(REPLICAS) else "operator" for text in first_words}
    before = {text: (lambda login=login: settings(site, login)) for text, login in logins.items()}
    return "".join(ran.text() for ran in p.follow(DOCUMENT, heading, number, before=before))


def prepared(p: Procedure) -> Site:
    site = Site(p)
    site.populated()
    site.psql("CREATE ROLE watch LOGIN PASSWORD 'watch-password' IN ROLE pg_read_all_stats")
    site.psql("GRANT CONNECT ON DATABASE patgate TO watch")
    p.env["DATABASE_URL"] = site.url("watch")
    return site


def run_runbook(p: Procedure) -> None:
    site = prepared(p)
    replica = site.replica().ready()
    gateway = site.gateway(replica)
    p.env["REPLICA"] = replica.http
    (p.folder / "deploy").symlink_to(ROOT / "deploy")
    p.fill("127.0.0.1:9901", f"127.0.0.1:{gateway.envoy.admin_port}")
    p.fill("TOKEN_ID", site.token("laptop")["id"])
    p.fill("COPY", str(replica.ring))
    for block in blocks(ROOT / DOCUMENT):
        if block.language == "console":
            # Where the page asks for a login that may read patgate's tables.
            reader = "owner" if "\\gexec" in block.text else "watch"
            p.given(f"export DATABASE_URL='{site.url(reader)}'")
            said = follow(p, site, block.heading, block.number)
            p.expect(f"{block} says something", said.strip(), "nothing")
    settings(site, "operator")
    p.step(DOCUMENT, "patgatesealsrefused", "patgate installation show")
    listed = p.step(DOCUMENT, "patgatekeyringrefused", "patgate keyring list --file COPY").text()
    p.expect("the keys of the copy", listed.strip(), listed)
    waited = p.step(DOCUMENT, "patgatefeedstale", "patgate token revoke --wait TOKEN_ID").text()
    p.expect("all replicas have applied it", "1" in waited, waited)


def run_blocked(p: Procedure) -> None:
    """The filter that the page adds to Envoy refuses an address, and no other one."""
    parts = Parts(p)
    site = Site(p)
    site.populated()
    replica, token = site.replica().ready(), site.token("laptop")["token"]
    [block] = yaml.safe_load(p.text(DOCUMENT, "block-an-address-in-envoy"))
    for address, status in (("203.0.113.7", 200), ("127.0.0.1", 503)):
        [principal] = block["typed_config"]["rules"]["policies"]["runaway"]["principals"]
        principal["remote_ip"]["address_prefix"] = address
        config = parts.shipped("envoy.yaml")
        filters = manager(config)["http_filters"]
        first = next(i for i, one in enumerate(filters) if one["typed_config"] in asking(config))
        filters.insert(first, block)
        parts.accepted(f"a filter against {address}", "envoy.yaml", config)
        gateway = site.gateway(replica, text=yaml.safe_dump(config))
        gateway.answers(status, token)
        log = gateway.envoy.access_log
        refused = "rbac_access_denied_matched_policy[runaway]"
        p.until("the access log", lambda log=log: log.read_text())
        p.expect(f"{refused} or not", (refused in log.read_text()) == (status == 503), log)


def run_triggers_off(p: Procedure) -> None:
    site = prepared(p)
    heading = "patgatetriggersoff"
    replica = site.replica().ready()
    site.psql("ALTER TABLE patgate.pats DISABLE TRIGGER ALL")
    p.until("the alert's metric", lambda: replica.metric("patgate_feed_triggers_off") == 1)
    shown = follow(p, site, heading, 2)
    p.expect("the triggers", "patgate.pats" in shown and "record_change" in shown, shown)
    settings(site, "postgres")
    said = p.step(DOCUMENT, heading, "patgate migrate").text()
    p.expect("nothing to do", "nothing to do" in said, said)
    shown = follow(p, site, heading, 2)
    p.expect("no row", "(0 rows)" in shown, shown)
    p.until("the feed is back", lambda: replica.metric("patgate_feed_triggers_off") == 0)


def run_unopened(p: Procedure) -> None:
    site = prepared(p)
    heading = "patgatecredentialunopened"
    replica = site.replica().ready()
    gateway = site.gateway(replica)
    token = site.token("laptop")["token"]
    gateway.answers(200, token)
    (p.folder / "provider.key").write_text("a-key-of-the-provider\n")
    # The operator's ring has a key that the replica lacks.
    ring = p.folder / "keyring"
    new = p.run("patgate", "keyring", "new")
    old = ring.read_text()
    ring.write_text(new + old)
    p.fill("credential set NAME", "credential set model-acme")
    settings(site, "operator")
    p.step(DOCUMENT, heading, "patgate backend credential set NAME <provider.key")
    gateway.answers(503, token)
    p.until("the alert's metric", lambda: replica.metric("patgate_unopened_credentials_total") > 0)
    shown = follow(p, site, heading, 2)
    p.expect("the key and the change", "backend.set_credential" in shown, shown)
    replica.takes_up(new + old)
    gateway.answers(200, token)
    # The other way: the key is lost, and the credential is set again.
    ring.write_text(old)
    replica.takes_up(old)
    gateway.answers(503, token)
    p.step(DOCUMENT, heading, "patgate backend credential set NAME <provider.key")
    gateway.answers(200, token)


def run_leaderless(p: Procedure) -> None:
    site = prepared(p)
    heading = "patgaterelayleaderless"
    relay = {"PATGATE_FEED_RELAY": "redis", "PATGATE_REDIS_URL": site.valkey.url}
    leader = site.replica("first", **relay).ready()
    p.until("a leader", lambda: leader.metric("patgate_relay_leader") == 1)
    held = "SELECT classid, objid, objsubid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    high, low, parts = map(int, site.psql(held).strip().split("|"))
    leader.process.stop()
    # A session of another login takes the lock, and keeps it.
    key = f"{high}, {low}" if parts == 2 else f"({high}::bigint << 32) | {low}"
    url, statement = site.url("watch"), f"SELECT pg_advisory_lock({key}), pg_sleep(600)"
    with subprocess.Popen(
        [p.programs / "psql", url, "-qc", statement],
        env=p.env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as session:
        try:
            p.until("the lock is taken", lambda: site.psql(held))
            follower = site.replica("second", **relay).ready()
            shown = follow(p, site, heading, 2)
            [row] = [line for line in shown.splitlines() if "psql" in line]
            p.expect("the session's login", "watch" in row, shown)
            p.expect("no leader", follower.metric("patgate_relay_leader") == 0, "one")
            p.fill("PID", row.split("|")[0].strip())
            statement = "SELECT pg_terminate_backend(PID)"
            p.statement(DOCUMENT, heading, statement, site.url("postgres"))
            p.until("a leader", lambda: follower.metric("patgate_relay_leader") == 1)
        finally:
            session.kill()
    p.expect("it serves", answers(f"http://{follower.http}/readyz"), "no")
