"""docs/operations.md: the key ring, its rotation under load, and a ring that was stolen or lost."""

import re
from pathlib import Path

from claims import ROOT
from installation import Gateway, Replica, Site
from load import Load
from procedure import Procedure

DOCUMENT = "docs/operations.md"
SCOPE = "acme:models:*:llm_chat_completions,llm_read"
RELOADS = 'patgate_key_ring_reloads_total{result="ok"}'


class Rings:
    """Two replicas, and an operator with a key ring of one key, which is called `old-key`."""

    def __init__(self, p: Procedure):
        self.p, self.site = p, Site(p)
        self.site.populated()
        _ = self.site.valkey
        self.site.operator()
        self.file = p.folder / "keyring"
        named = self.file.read_text().replace(self.keys()[0], "old-key")
        self.file.write_text(named)
        self.provider = p.folder / "provider.key"
        self.provider.write_text("a-key-of-the-provider\n")
        self.site.cli("user", "create", "bob@example.com", "--name", "Bob")
        self.replicas = [self.site.replica(f"replica-{number}").ready() for number in (1, 2)]
        self.gateway: Gateway = self.site.gateway(*self.replicas)
        self.reloads = [replica.metric(RELOADS) for replica in self.replicas]
        p.fill("OLD_KEY", "old-key")
        p.fill("NEW_KEY", "new-key")

    def keys(self) -> list[str]:
        """The names of the keys in the file, the current one first."""
        lines = self.file.read_text().splitlines()
        return [line.split(":")[0] for line in lines if line and not line.startswith("#")]

    def follow(self, heading: str, number: int, **more) -> list:
        """Follows a block whose commands bring the file to the first replica, if to any."""
        self.at(self.replicas[0])
        return self.p.follow(DOCUMENT, heading, number, **more)

    def at(self, replica: Replica) -> None:
        """The commands that follow are about this replica."""
        self.p.fill("REPLICA_KEYRING", str(replica.ring), optional=True)
        self.p.fill("//REPLICA/", f"//{replica.http}/", optional=True)

    def bring(self, first: bool = False) -> None:
        """Brings the file to the other replica, or to both. Waits until all have taken it up."""
        for replica in self.replicas if first else self.replicas[1:]:
            self.at(replica)
            self.p.follow(DOCUMENT, "rotation", 2)
        self.taken_up()

    def taken_up(self, replicas: int = 2) -> None:
        for number, replica in enumerate(self.replicas[:replicas]):
            before = self.reloads[number]
            self.p.until(
                "the replica takes up the key ring",
                lambda replica=replica, before=before: replica.metric(RELOADS) > before,
                lambda replica=replica: replica.process.log_tail(),
            )
            self.reloads[number] = replica.metric(RELOADS)

    def as_replica(self) -> None:
        """For `config check --connect`, which tries the login of a replica."""
        self.p.given(f"export PATGATE_POSTGRES_URL='{self.site.url('gateway')}'")

    def as_operator(self) -> None:
        self.p.given(f"export PATGATE_POSTGRES_URL='{self.site.url('operator')}'")

    def checked(self) -> dict:
        """What a block with `config check --connect` needs."""
        return {"before": {"patgate config check": self.as_replica}}


def last_word(text: str) -> str:
    return re.findall(r"pat_\w+", text)[-1]


def run_key_ring(p: Procedure) -> None:
    p.follow(DOCUMENT, "the-key-ring")
    file: Path = p.folder / "keyring"
    p.expect("a file that only its user reads", file.stat().st_mode & 0o777 == 0o600, file.stat())


def run_rotation(p: Procedure) -> None:
    rings, heading = Rings(p), "rotation"
    site, gateway = rings.site, rings.gateway
    p.given("patgate backend credential set model-acme <provider.key")
    token = site.token("laptop")
    gateway.answers(200, token["token"])
    with Load(p, gateway, token["token"]) as load:
        rings.follow(heading, 1)
        p.expect("a second key", rings.keys() == ["old-key", "new-key"], rings.keys())
        rings.bring(first=True)
        for replica in rings.replicas:
            rings.at(replica)
            shown = p.follow(DOCUMENT, heading, 3)[0].text()
            p.expect("the count of the metric", 'result="ok"} 1' in shown, shown)
        rings.follow(heading, 4)
        p.expect("the new key first", rings.keys() == ["new-key", "old-key"], rings.keys())
        rings.bring()
        p.fill("TOKEN_ID", token["id"])
        counted, listed, rotated, _ = rings.follow(heading, 5)
        p.expect("both keys", "old-key" in counted.text(), counted.text())
        p.expect("the token of the old key", token["id"] in listed.text(), listed.text())
        load.token = last_word(rotated.text())
        gateway.answers(200, load.token)
        gateway.answers(200, token["token"])
        p.run("patgate", "keyring", "drop", "old-key", env=site.environment(), status=1)
        # As if the time of grace were over.
        site.cli("token", "revoke", token["id"])
        rings.follow(heading, 6, **rings.checked())
        p.expect("only the new key", rings.keys() == ["new-key"], rings.keys())
        rings.bring()
    gateway.answers(401, token["token"], code="invalid_token")
    for replica in rings.replicas:
        refused = replica.metric("patgate_lookups_total") and sum(
            replica.metric(f'patgate_lookups_total{{kind="{kind}",tier="redis",result="refused"')
            for kind in ("principal", "domain", "backend")
        )
        p.expect("no alert about somebody else in Redis", refused == 0, refused)


def run_stolen_key(p: Procedure) -> None:
    rings, heading = Rings(p), "a-stolen-key"
    site, gateway = rings.site, rings.gateway
    p.given("patgate backend credential set model-acme <provider.key")
    kept, other = site.token("kept"), site.token("other")
    for token in (kept, other):
        gateway.answers(200, token["token"])

    def before_promotion() -> None:
        rings.bring()
        rings.at(rings.replicas[0])

    rings.follow(heading, 1, before={"patgate keyring promote": before_promotion})
    rings.bring()
    p.fill("TOKEN_ID", kept["id"])
    rotated = rings.follow(heading, 2)[1].text()
    new = last_word(rotated)
    gateway.answers(200, new)
    for token in (kept, other):
        gateway.answers(401, token["token"], code="token_revoked")
    # The way by hand, on a copy.
    p.given("cp -p keyring kept")
    rings.follow(heading, 4)
    p.expect("the line is gone", rings.keys() == ["new-key"], rings.keys())
    p.given("mv kept keyring")
    rings.follow(heading, 3, **rings.checked())
    rings.bring()
    gateway.answers(200, new)
    gateway.answers(401, other["token"], code="invalid_token")


def replaced(rings: Rings, heading: str, created: int = 1) -> tuple[str, dict]:
    """Follows the first block, which makes a new ring. Returns its token, and an earlier one."""
    p, site, gateway = rings.p, rings.site, rings.gateway
    p.given("patgate backend credential set model-acme <provider.key")
    old = site.token("laptop")
    gateway.answers(200, old["token"])
    p.fill("TOKEN_NAME", "first")
    p.fill("--user USER", "--user bob@example.com")
    p.fill("--scope SCOPE", f"--scope '{SCOPE}'")
    site.cli("role", "member", "add", "acme", "developer", "bob@example.com")
    ran = rings.follow(heading, 1)
    return last_word(ran[created].text()), old


def run_stolen_ring(p: Procedure) -> None:
    rings, heading = Rings(p), "a-stolen-ring"
    site, gateway = rings.site, rings.gateway
    p.fill("credential set BACKEND", "credential set model-acme")
    first, old = replaced(rings, heading)
    rings.bring()
    gateway.answers(401, old["token"], code="invalid_token")
    gateway.answers(503, first)

    # What the thief has left: a change by SQL alone, and one by the commands.
    statement = "UPDATE patgate.users SET platform_admin = true WHERE email = 'bob@example.com'"
    site.psql(statement)
    (p.folder / "deploy").symlink_to(ROOT / "deploy")
    p.given(f"export DATABASE_URL='{site.url('postgres')}'")
    p.fill("--since TIME", "--since 2026-01-01T00:00:00Z")
    p.fill("--login LOGIN", "--login operator")
    what = "what-was-changed-in-postgres"
    shown = p.follow(DOCUMENT, what, 1)[0].text()
    row = re.search(r"user +\| bob@example.com .*, platform administrator", shown)
    p.expect("the row without a line in the audit log", row, shown)
    p.follow(DOCUMENT, what, 2)
    now = "".join(ran.text() for ran in p.follow(DOCUMENT, what, 3))
    p.expect("the users", "bob@example.com" in now, now)

    counted = rings.follow(heading, 2)[0].text()
    p.expect("the key that is not in the file", "old-key" in counted, counted)
    rings.follow(heading, 3, **rings.checked())
    gateway.answers(200, first)
    rings.as_operator()
    rings.follow(heading, 4)
    count = "SELECT count(*) FROM patgate.replicas"
    p.until("both leases are back", lambda: site.psql(count) == "2\n", lambda: site.psql(count))


def run_lost_ring(p: Procedure) -> None:
    rings, heading = Rings(p), "a-lost-key-ring"
    p.fill("credential set BACKEND", "credential set model-acme")
    first, old = replaced(rings, heading)
    rings.bring()
    rings.gateway.answers(200, first)
    rings.gateway.answers(401, old["token"], code="invalid_token")
    counted = rings.follow(heading, 2, **rings.checked())[0].text()
    p.expect("the key that is not in the file", "old-key" in counted, counted)
