"""docs/postgres.md: logins, dumps, backups, and restores into another cluster."""

import json

from installation import Site
from procedure import Procedure

DOCUMENT = "docs/postgres.md"


def run_logins(p: Procedure) -> None:
    site = Site(p)
    site.database()
    site.cli("migrate", login="postgres")
    (p.folder / "keyring").touch(mode=0o600)
    (p.folder / "keyring").write_text(p.run("patgate", "keyring", "new"))
    p.fill("gateway  LOGIN PASSWORD '…'", "gateway  LOGIN PASSWORD 'gateway-password'")
    p.fill("operator LOGIN PASSWORD '…'", "operator LOGIN PASSWORD 'operator-password'")
    p.sql(DOCUMENT, "database-roles-and-logins", 1, site.url("postgres"))
    site.cli("config", "check", "--connect", login="gateway")
    site.cli("config", "check", "--admin", "--connect", login="operator")
    refused = site.cli("config", "check", "--connect", login="operator", status=1)
    p.expect("the operator's login is refused to serve", "may administer" in refused, refused)


def run_restore(p: Procedure) -> None:
    heading = "restoring-postgres"
    site = Site(p)
    site.populated()
    _ = site.valkey
    site.as_administrator()
    # It holds the logins that the roles lead to.
    kept, revoked = site.token("kept"), site.token("revoked later")
    replica = site.replica("before")
    gateway = site.gateway(replica.ready())
    for token in (kept, revoked):
        gateway.answers(200, token["token"])
    p.follow(DOCUMENT, heading, 1)
    # What happens after the dump.
    site.cli("token", "revoke", revoked["id"])
    gateway.answers(401, revoked["token"], code="token_revoked")
    lost = site.token("created later")

    # Another cluster, which is also another server for the commands.
    other = Site(p)
    p.given(f"export PGPORT={other.postgres.port}")
    p.follow(DOCUMENT, heading, 2)
    other.__dict__["valkey"] = site.valkey
    # Step 1.
    replica.process.stop()
    # Step 2.
    other.cli("token", "revoke", revoked["id"])
    # Step 3. Something is there, and something else is not this installation's.
    prefix = json.loads(other.cli("installation", "show", "--output", "json"))["redis_prefix"]

    def keys() -> set[str]:
        listed = p.run("redis-cli", "-u", site.valkey.url, "--scan", "--pattern", "*")
        return set(listed.split())

    ours, foreign = f"{prefix}an-entry", "patgate:another:entry"
    for key in (ours, foreign):
        p.run("redis-cli", "-u", site.valkey.url, "SET", key, "x")
    p.given(f"export REDIS_URL={site.valkey.url} OWNER_URL={other.url('owner')}")
    for name, value in other.environment().items():
        p.given(f"export {name}='{value}'")
    p.fill("PREFIX", prefix)
    before = keys()
    shown = p.follow(DOCUMENT, heading, 3)[0].text()
    p.expect("the prefix is shown", prefix in shown, shown)
    after = keys()
    p.expect("only this installation's keys are gone", before - after == {ours}, before - after)
    # Step 4. It says itself that the database is open.
    settings = f"PATGATE_POSTGRES_URL='{other.url('postgres')}'"
    p.given(f"saved=$PATGATE_POSTGRES_URL; export {settings}")
    said = p.step(DOCUMENT, heading, "patgate migrate").text()
    p.expect("the statements", "REVOKE CONNECT ON DATABASE" in said, said)
    p.given("export PATGATE_POSTGRES_URL=$saved")
    other.psql("CREATE ROLE stranger LOGIN PASSWORD 'stranger-password'", "postgres")
    stranger = ("psql", other.url("stranger"), "-qc", "SELECT 1")
    p.run(*stranger)
    p.follow(DOCUMENT, heading, 4)
    p.run(*stranger, status=2)
    # Step 5.
    gateway = other.gateway(other.replica("after").ready())
    gateway.answers(200, kept["token"])
    gateway.answers(401, revoked["token"], code="token_revoked")
    gateway.answers(401, lost["token"], code="invalid_token")


def run_backup(p: Procedure) -> None:
    """The backup of docs/operations.md is restored into another cluster."""
    site, other = Site(p), Site(p)
    site.populated()
    site.operator()
    other.as_administrator()
    p.env["ADMIN_URL"] = site.url("postgres")
    token = site.token("kept")
    p.follow("docs/operations.md", "backup", 1)
    made = [str(file.relative_to(p.folder)) for file in sorted(p.folder.glob("*-20*"))]
    modes = p.given(f"stat -c %a {' '.join(made)}").split()
    p.expect("three files that only their user reads", modes == ["600"] * 3, (made, modes))
    audit, dump, roles = made
    lines = json.loads((p.folder / audit).read_text())
    p.expect("the audit log", "token.create" in str(lines), lines)
    p.fill("patgate.dump", dump)
    p.fill("roles.sql", roles)
    p.follow(DOCUMENT, "restoring-postgres", 2)
    path = "/proxy/acme/v1/models"
    options = ("--method", "GET", "--path", path, "--pat-id", token["id"])
    # The login is restored as well, with its password.
    said = other.cli("check", *options)
    p.expect("200 for the token there", "200" in said, said)


def run_renewal(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    standby = p.stack.postgres(primary=site.postgres.port)
    p.run("psql", standby.url, "-qc", "SELECT pg_promote()")
    copy = Site(p)
    copy.__dict__["postgres"] = standby
    copy.operator()
    before = site.cli("installation", "show", "--output", "json")
    same = copy.cli("installation", "show", "--output", "json")
    p.expect("the copy is the same installation", json.loads(same) == json.loads(before), same)
    p.follow(DOCUMENT, "installations")
    renewed = json.loads(copy.cli("installation", "show", "--output", "json"))
    p.expect("another installation", renewed != json.loads(before), renewed)
    unchanged = json.loads(site.cli("installation", "show", "--output", "json"))
    p.expect("the original is what it was", unchanged == json.loads(before), unchanged)
    # Tokens, key ring and permissions are the same.
    token = site.token("in the original only")
    copy.gateway(copy.replica().ready()).answers(401, token["token"], code="invalid_token")
