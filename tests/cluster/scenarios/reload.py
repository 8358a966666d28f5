"""Key ring, login, API tables and certificates are taken up without a restart, under load."""

import json
import secrets

import gateway
from authority import Authority
from kube import until
from programs import Failed
from sites import RELEASE, Site

SERVE = "app.kubernetes.io/component=serve"
SERVER, CLIENT = "patgate", "envoy.gateway"
# In seconds. The kubelet brings a changed Secret to the files of a pod about once a minute.
TAKEN_UP = 180
TABLE = """\
name: own
mount: /api/own
domain: acme
credentials: [authorization.Bearer]
errors: openai
rules:
  - { methods: [GET], path: /models, operation: llm_read, entity: models }
"""


def run(site: Site) -> None:
    site.prepare()
    certificates = Certificates(site)
    site.surround(
        edit=lambda config: gateway.with_tls(config, SERVER),
        **{f"{name}.yaml": gateway.sds_file(name) for name in ("client", "authority")},
    )
    values = site.values(
        grpc={"tls": {"existingSecret": "patgate-tls", "clientNames": [CLIENT]}},
        apis={"shipped": ["cube-ai"]},
    )
    site.install("4", values)
    site.populate()
    site.await_allowed()
    pods = site.identities()

    with site.load() as load:
        load.flow(2)
        load.step("another API table, key ring and login")
        api_table(site, values)
        key_ring(site)
        login(site)
        soon("requests to the new table pass", lambda: status(site, "/api/own/models") == 200)
        soon("tokens of the new key pass", lambda: status(site, token="new-key") == 200)
        soon("no replica uses the old login", lambda: sessions(site, "gateway") == 0)
        if not sessions(site, "gateway_2"):
            raise Failed("no replica uses the new login")
        site.sql("ALTER ROLE gateway NOLOGIN")

        load.step("both ends trust a second authority")
        certificates.trust_both()
        load.step("both ends have certificates of the second authority")
        certificates.replace()
        load.step("both ends trust only the second authority")
        certificates.trust_second()
        load.flow(3)
        result = load.end()
    site.expect_none_bad(load, result)
    if site.identities() != pods:
        raise Failed(f"pods were replaced or restarted: {pods}, now {site.identities()}")
    site.helm("4", "uninstall", RELEASE)


def soon(what: str, holds) -> None:
    until(what, holds, TAKEN_UP, every=1)


def status(site: Site, path: str = "/proxy/acme/v1/models", token: str = "good") -> int:
    return site.get(f"http://envoy{path}", f"authorization: @/tokens/{token}")["status"]


def api_table(site: Site, values: dict) -> None:
    if (before := status(site, "/api/own/models")) != 404:
        raise Failed(f"a path that no table has yet is answered with {before} instead of 404")
    # It changes a ConfigMap, and no pod.
    site.upgrade("4", values | {"apis": {"shipped": ["cube-ai"], "tables": {"own.yaml": TABLE}}})


def key_ring(site: Site) -> None:
    """Makes a token with a key that the replicas do not know, and then brings the key to them."""
    with site.operator() as env:
        site.follow(["patgate keyring add"], env)
        listed = json.loads(site.follow(["patgate keyring list --output json"], env))
        [new] = [key["id"] for key in listed if not key["mints"]]
        create = (
            "patgate token create new-key --user ada@example.com"
            " --scope acme:models:*:llm_read >new-key"
        )
        site.follow([f"patgate keyring promote {new}", create], env)
    site.add_token("new-key", (site.folder / "new-key").read_text().strip())
    soon("the tests have the token", lambda: site.mounted("new-key"))
    if (before := status(site, token="new-key")) != 401:
        raise Failed(f"a token of an unknown key is answered with {before} instead of 401")
    site.space.secret("patgate-keyring", keyring=(site.folder / "keyring").read_text())


def login(site: Site) -> None:
    """Gives the replicas another login, which takes the place of the first one."""
    if not sessions(site, "gateway"):
        raise Failed("no replica uses the login of the README")
    password = secrets.token_hex(16)
    site.sql(f"CREATE ROLE gateway_2 LOGIN PASSWORD '{password}' IN ROLE patgate_serve")
    url = f"postgres://gateway_2:{password}@{site.postgres}:5432/patgate?sslmode=disable"
    site.space.secret("patgate-gateway", url=url)


def sessions(site: Site, user: str) -> int:
    return int(site.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"))


class Certificates:
    """Both ends of the connections between Envoy and patgate go to another authority: first both
    trust both, then both get certificates of the second one, then the first one goes. A step is
    over when its effect is seen at each end, because only then is the next one safe."""

    def __init__(self, site: Site):
        self._site = site
        self._first, self._second = Authority("first"), Authority("second")
        self._old = {name: self._first.issue(name) for name in (SERVER, CLIENT)}
        self._new = {name: self._second.issue(name) for name in (SERVER, CLIENT)}
        # What the tests themselves connect with, beside Envoy.
        probes = {"old": self._old[CLIENT], "new": self._new[CLIENT]}
        site.space.secret(
            "probes",
            **{
                f"{name}.{part}": probe[f"tls.{part}"]
                for name, probe in probes.items()
                for part in ("crt", "key")
            },
        )
        self._write(self._old, self._first.text)

    def _write(self, of: dict[str, dict], authorities: str) -> None:
        for secret, name in (("patgate-tls", SERVER), ("envoy-patgate", CLIENT)):
            pair = {key: of[name][key] for key in ("tls.crt", "tls.key")}
            self._site.space.secret(secret, **pair, **{"ca.crt": authorities})

    def trust_both(self) -> None:
        self._write(self._old, self._first.text + self._second.text)
        soon("replicas trust the second authority", lambda: self._shown("new") is not None)
        soon("Envoy trusts it", lambda: self._second.serial in self._of_envoy())

    def replace(self) -> None:
        self._write(self._new, self._first.text + self._second.text)
        wanted = {self._new[SERVER]["serial"]}
        soon("replicas have their new certificate", lambda: self._shown("new") == wanted)
        soon("Envoy has its own", lambda: self._new[CLIENT]["serial"] in self._of_envoy())

    def trust_second(self) -> None:
        self._write(self._new, self._second.text)
        soon("replicas refuse the first authority", lambda: self._shown("old") is None)
        soon("Envoy does", lambda: self._first.serial not in self._of_envoy())

    def _shown(self, probe: str) -> set[str] | None:
        """Returns the serial numbers that the replicas show, or None if any refuses the client."""
        found = set()
        for pod in self._site.space.pods(SERVE):
            address = f"{pod['status']['podIP']}:9191"
            try:
                found.add(self._site.peer(address, SERVER, f"/probes/{probe}"))
            except Failed as failed:
                if "remote error: tls" not in str(failed):
                    raise
                return None
        return found

    def _of_envoy(self) -> set[str]:
        """Returns the serial numbers of all certificates that Envoy uses now."""
        answer = self._site.get("http://127.0.0.1:9901/certs", pod="envoy")
        contexts = json.loads(answer["body"])["certificates"]
        return {
            str(int(item["serial_number"], 16))
            for context in contexts
            for item in [*context.get("ca_cert", []), *context.get("cert_chain", [])]
        }
