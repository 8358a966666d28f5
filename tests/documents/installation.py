"""What procedures need before they begin: servers, an installation, a gateway."""

import json
import re
import shutil
from functools import cached_property
from pathlib import Path

import httpx2
from claims import ROOT
from procedure import Procedure

from server import answers, free_port

# Passwords are checked, except that of the administrator, who would have the server's socket.
RULES = """
host all,replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
# On a loaded machine, a late answer must not become a 503.
PATIENT = {
    "grpc_service": {
        "timeout": "10s",
        "retry_policy": {"retry_back_off": {"base_interval": "0.02s", "max_interval": "10s"}},
    }
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
MODELS = "/proxy/acme/v1/models"


class Site:
    """The servers of a procedure. Each is started when it is first used."""

    def __init__(self, procedure: Procedure):
        self.procedure, self.stack = procedure, procedure.stack
        self.settings: dict[str, str] = {}

    # Servers.

    @cached_property
    def postgres(self):
        server = self.stack.postgres()
        (server.data / "pg_hba.conf").write_text(RULES)
        self._programs(server)
        self.procedure.run("psql", server.url, "-qc", "SELECT pg_reload_conf()")
        return server

    def _programs(self, server) -> None:
        for name in ("psql", "createdb", "createuser", "pg_dump", "pg_dumpall", "pg_restore"):
            self.procedure.program(name, f'exec {server.bin / name} "$@"')

    def as_administrator(self) -> None:
        """Lets the commands reach the server as its administrator, as psql without a URL does."""
        port = str(self.postgres.port)
        self.procedure.env |= {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres"}

    @cached_property
    def valkey(self):
        # No wheel has this program.
        python, client = ROOT / ".venv/bin/python", Path(__file__).with_name("redis_cli.py")
        self.procedure.program("redis-cli", f'exec {python} {client} "$@"')
        return self.stack.valkey()

    @cached_property
    def backend(self):
        return self.stack.backend("model-acme")

    # An installation, as the quick start makes it.

    def url(self, login: str, database: str = "patgate") -> str:
        password = f":{login}-password" if login != "postgres" else ""
        return f"postgres://{login}{password}@127.0.0.1:{self.postgres.port}/{database}"

    def psql(self, statement: str, database: str = "patgate") -> str:
        return self.procedure.run("psql", self.url("postgres", database), "-qAtc", statement)

    def database(self, name: str = "patgate") -> None:
        self.psql(f'CREATE DATABASE "{name}"', "postgres")

    def login(self, name: str, role: str) -> None:
        self.psql(f"CREATE ROLE {name} LOGIN PASSWORD '{name}-password' IN ROLE {role}")

    def migrated(self) -> None:
        """A database with the schema and logins."""
        self.database()
        self.cli("migrate", login="postgres")
        for name, role in (("gateway", "serve"), ("operator", "admin"), ("owner", "migrate")):
            self.login(name, f"patgate_{role}")

    def populated(self) -> None:
        """Domain, user and role of the quick start, and the key ring in the file `keyring`. The
        server is a copy of one that was made once for all procedures."""
        made = self.procedure.template
        server = self.stack.postgres(like=made / "data")
        self.__dict__["postgres"] = server
        self._programs(server)
        shutil.copy(made / "keyring", self.procedure.folder / "keyring")

    def populate(self) -> None:
        """Makes what `populated` has."""
        self.migrated()
        keyring = self.procedure.folder / "keyring"
        keyring.touch(mode=0o600)
        keyring.write_text(self.procedure.run("patgate", "keyring", "new"))
        url = "http://127.0.0.1:8001"
        self.cli("backend", "create", "model-acme", "--url", url, "--kind", "vllm")
        options = ("--name", "Acme", "--upstream", "model-acme", "--all-models")
        self.cli("domain", "create", "acme", *options)
        self.cli("user", "create", "ada@example.com", "--name", "Ada")
        operations = "llm_chat_completions,llm_read,llm_embeddings"
        self.cli("role", "create", "acme", "developer", "--operation", operations)
        self.cli("role", "member", "add", "acme", "developer", "ada@example.com")

    def environment(self, login: str = "operator", database: str = "patgate") -> dict[str, str]:
        """The settings of a login."""
        found = {
            "PATGATE_POSTGRES_URL": self.url(login, database),
            "PATGATE_KEYRING_FILE": str(self.procedure.folder / "keyring"),
            **self.settings,
        }
        if "valkey" in self.__dict__:
            found["PATGATE_REDIS_URL"] = self.valkey.url
        return found

    def operator(self) -> None:
        """Lets the commands of the documents have the operator's settings."""
        self.procedure.env |= self.environment()

    def cli(self, *arguments: str, login: str = "operator", status: int = 0) -> str:
        env = self.environment(login)
        return self.procedure.run("patgate", *arguments, env=env, status=status)

    def token(self, name: str, scope: str = "acme:models:*:llm_chat_completions,llm_read") -> dict:
        """Creates a token of Ada's. The answer has `token` and `id`."""
        options = ("--user", "ada@example.com", "--expires-in", "90d", "--scope", scope)
        return json.loads(self.cli("token", "create", name, *options, "--output", "json"))

    def token_file(self, file: str, token: dict) -> None:
        path = self.procedure.folder / file
        path.touch(mode=0o600)
        path.write_text(token["token"] + "\n")

    # Replicas and the gateway.

    def replica(self, name: str = "replica", **settings: str) -> "Replica":
        """Starts `patgate serve`, with a copy of the key ring of its own."""
        grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        ring = self.stack.dir / f"{name}.keyring"
        ring.touch(mode=0o600)
        ring.write_text((self.procedure.folder / "keyring").read_text())
        env = {
            **self.environment("gateway"),
            "PATGATE_FEED_URL": self.url("gateway"),
            "PATGATE_KEYRING_FILE": str(ring),
            "PATGATE_LISTEN_GRPC": grpc,
            "PATGATE_LISTEN_HTTP": http,
            "PATGATE_DEADLINE": "2s",
            "PATGATE_DRAIN_DELAY": "0s",
            **settings,
        }
        argv = [self.procedure.patgate, "serve"]
        process = self.stack.process(argv, env=env, name=name, ready=f"http://{http}/livez")
        return Replica(self.procedure, process, grpc, http, ring)

    def gateway(
        self,
        *replicas: "Replica",
        clusters: dict[str, str] | None = None,
        text: str | None = None,
        tls: dict[str, str] | None = None,
    ) -> "Gateway":
        """Starts an Envoy in front of replicas, as shipped, or with the configuration `text`."""
        if clusters is None:
            clusters = {"model-acme": f"127.0.0.1:{self.backend.port}"}
        authz = [replica.grpc for replica in replicas]
        patch = {"authz": authz, "clusters": clusters, "ext_authz": PATIENT}
        if tls:
            patch["tls"] = tls
        shipped = (ROOT / "envoy/envoy.yaml").read_text()
        return Gateway(self.procedure, self.stack.envoy(config_yaml=text or shipped, patch=patch))


class Replica:
    def __init__(self, procedure: Procedure, process, grpc: str, http: str, ring: Path):
        self.procedure, self.process, self.grpc, self.http = procedure, process, grpc, http
        self.ring = ring

    def ready(self) -> "Replica":
        self.procedure.until(
            "a ready replica",
            lambda: answers(f"http://{self.http}/readyz"),
            lambda: self.process.log_tail(),
        )
        return self

    def metric(self, name: str) -> float:
        """The sum of a metric's samples whose line begins so."""
        text = httpx2.get(f"http://{self.http}/metrics").text
        samples = re.findall(rf"^{re.escape(name)}[^ ]* (\S+)$", text, re.M)
        return sum(map(float, samples))

    def takes_up(self, content: str) -> None:
        """Brings a key ring to this replica, and waits until it is in force."""
        before = self.metric('patgate_key_ring_reloads_total{result="ok"}')
        new = self.ring.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(content)
        new.rename(self.ring)
        self.procedure.until(
            "the replica takes up the key ring",
            lambda: self.metric('patgate_key_ring_reloads_total{result="ok"}') > before,
            lambda: self.process.log_tail(),
        )


class Gateway:
    def __init__(self, procedure: Procedure, envoy):
        self.procedure, self.envoy, self.url = procedure, envoy, envoy.url

    def ask(self, token: str | None, path: str = MODELS, method: str = "GET", **more):
        headers = {
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **more.pop("headers", {}),
        }
        return httpx2.request(method, self.url + path, headers=headers, timeout=30, **more)

    def chat(self, token: str | None, model: str = "m"):
        return self.ask(
            token, "/proxy/acme/v1/chat/completions", "POST", json={**CHAT, "model": model}
        )

    def answers(self, status: int, token: str | None, path: str = MODELS, code: str = "") -> None:
        """Waits until a request gets this answer."""
        last = None

        def holds() -> bool:
            nonlocal last
            last = self.ask(token, path)
            return last.status_code == status and code in last.text

        what = f"{status} {code} for GET {path}"
        self.procedure.until(what, holds, lambda: f"but {last.status_code} {last.text}")
