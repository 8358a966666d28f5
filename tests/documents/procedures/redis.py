"""docs/redis.md: Sentinels, and another password while replicas serve."""

from installation import Site
from procedure import Procedure

DOCUMENT = "docs/redis.md"
USER = "resetkeys ~patgate:* resetchannels -@all +mget +psetex +role"


def run_sentinel(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    p.run(
        "redis-cli", "-u", site.valkey.url, "ACL", "SETUSER", "patgate", "on", ">a", *USER.split()
    )
    watched = [f"sentinel monitor mymaster 127.0.0.1 {site.valkey.port} 2"]
    hosts = [f"127.0.0.1:{p.stack.sentinel(watched).port}" for _ in range(3)]
    password = p.folder / "password"
    password.touch(mode=0o600)
    password.write_text("a\n")
    for number, host in enumerate(hosts):
        p.fill(f"sentinel-{number}:26379", host)
    p.fill("/run/secrets/redis/password", str(password))
    config = p.folder / "patgate.yaml"
    config.write_text(p.text(DOCUMENT, "sentinel"))
    env = site.environment("gateway")
    del env["PATGATE_REDIS_URL"]
    command = ("patgate", "--config", config, "config", "check", "--connect")
    checked = p.run(*command, env=env)
    said = [line for line in checked.splitlines() if "redis.url" in line]
    p.expect("the check of Redis passes", said and " ok" in said[0], checked)
    # It is this user that asks, and this master.
    p.run("redis-cli", "-u", site.valkey.url, "ACL", "SETUSER", "patgate", "off")
    p.run(*command, env=env, status=1)


def run_redis_password(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    redis = site.valkey.url
    user = ["ACL", "SETUSER", "patgate-serve", "on", ">first", *USER.split()]
    p.run("redis-cli", "-u", redis, *user)
    password = p.folder / "redis.password"
    password.touch(mode=0o600)
    password.write_text("first\n")
    replica = site.replica(
        PATGATE_REDIS_URL=redis.replace("//", "//patgate-serve@"),
        PATGATE_REDIS_PASSWORD_FILE=str(password),
    ).ready()
    gateway = site.gateway(replica)
    token = site.token("laptop")["token"]
    gateway.answers(200, token)
    reloads = 'patgate_store_credential_reloads_total{store="redis",result="ok"}'
    count = replica.metric(reloads)

    def taken_up() -> None:
        p.until("the new password is taken up", lambda: replica.metric(reloads) > count)

    p.env["REDIS_URL"] = redis
    p.fill(">NEW", ">second")
    p.fill("'NEW'", "'second'")
    p.fill("<OLD", "<first")
    before = {"echo 'ACL SETUSER patgate-serve <OLD'": taken_up}
    p.follow(DOCUMENT, "replacing-passwords-and-certificates", before=before)
    # The old one is refused, and the replica still uses Redis.
    old = redis.replace("//", "//patgate-serve:first@")
    p.run("redis-cli", "-u", old, "PING", status=1)
    failures = 'patgate_store_failures_total{store="redis"}'
    before = replica.metric(failures)
    hits = replica.metric('patgate_store_commands_total{store="redis"}')
    for number in range(3):
        gateway.answers(200, site.token(f"another-{number}")["token"])
    p.expect("no failure of Redis", replica.metric(failures) == before, replica.metric(failures))
    after = replica.metric('patgate_store_commands_total{store="redis"}')
    p.expect("lookups in Redis", after > hits, after)
