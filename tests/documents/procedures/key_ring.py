"""docs/operations.md: the key ring, its rotation under load, and a stolen one."""

from installation import Replica, Site
from load import Load
from procedure import Procedure

DOCUMENT = "docs/operations.md"


def served(p: Procedure) -> tuple[Site, list[Replica]]:
    site = Site(p)
    site.populated()
    _ = site.valkey
    site.operator()
    return site, [site.replica(f"replica-{number}").ready() for number in (1, 2)]


def keys(p: Procedure) -> list[str]:
    """The names of the keys in the file, the current one first."""
    ring = (p.folder / "keyring").read_text()
    return [line.split(":")[0] for line in ring.splitlines() if not line.startswith("#")]


def bring(p: Procedure, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.takes_up((p.folder / "keyring").read_text())


def run_key_ring(p: Procedure) -> None:
    listed = p.follow(DOCUMENT, "the-key-ring")[-1].text()
    p.expect("one key", len(keys(p)) == 1 and keys(p)[0] in listed, listed)
    mode = (p.folder / "keyring").stat().st_mode & 0o777
    p.expect("a file that only its user reads", mode == 0o600, oct(mode))


def run_rotation(p: Procedure) -> None:
    heading = "rotation"
    site, replicas = served(p)
    gateway = site.gateway(*replicas)
    (p.folder / "provider.key").write_text("a-key-of-the-provider\n")
    p.given("patgate backend credential set model-acme <provider.key")
    token = site.token("laptop")
    gateway.answers(200, token["token"])
    [old] = keys(p)
    with Load(p, gateway, token["token"]) as load:
        # Step 1.
        p.step(DOCUMENT, heading, "patgate keyring add")
        new = keys(p)[1]
        bring(p, replicas)
        # Step 2.
        p.fill("NEW_KEY", new)
        p.step(DOCUMENT, heading, "patgate keyring promote NEW_KEY")
        p.expect("the new key is the current one", keys(p) == [new, old], keys(p))
        bring(p, replicas)
        # Step 3.
        counted = p.step(DOCUMENT, heading, "patgate keyring list --count").text()
        p.expect("both keys", old in counted and new in counted, counted)
        # This one is for a replica's settings.
        p.given(f"operator=$PATGATE_POSTGRES_URL; PATGATE_POSTGRES_URL='{site.url('gateway')}'")
        p.step(DOCUMENT, heading, "patgate config check --connect")
        p.given("PATGATE_POSTGRES_URL=$operator")
        live = p.step(DOCUMENT, heading, "patgate token list --live --output json").text()
        p.expect("the key of each token", old in live, live)
        p.fill("TOKEN_ID", token["id"])
        rotated = p.step(DOCUMENT, heading, "patgate token rotate TOKEN_ID --grace 24h").text()
        load.token = rotated.split()[-1]
        gateway.answers(200, load.token)
        # Step 4.
        p.step(DOCUMENT, heading, "patgate backend credential reseal")
        # Step 5 is refused while the old token lives.
        p.fill("OLD_KEY", old)
        p.run("patgate", "keyring", "drop", old, env=site.environment(), status=1)
        site.cli("token", "revoke", token["id"])
        p.step(DOCUMENT, heading, "patgate keyring drop OLD_KEY")
        p.expect("only the new key", keys(p) == [new], keys(p))
        bring(p, replicas)
    gateway.answers(401, token["token"], code="invalid_token")
