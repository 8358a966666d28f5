"""An installation of patgate with all that surrounds it, made by the commands of the documentation.

Postgres and Valkey are in a namespace beside it, as a server that the chart does not own.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import gateway
import images
import readme
import yaml
from cluster import Cluster
from kube import Namespace, named, ready, until
from load import WORKLOAD, Load
from programs import ROOT, Failed, helm, kubectl, run

sys.path.insert(0, str(ROOT / "tools"))
from cryptography.x509 import DNSName  # noqa: E402

import certificate  # noqa: E402

CHART = ROOT / "deploy/helm/patgate"
RELEASE = "patgate"
# The chart asks for what production needs. A small machine has no room for all replicas at once.
SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}}


# By default, patgate answers 503 if a lookup takes longer than 100 ms. These tests do not look for
# machines that are slow or busy.
PATIENT = {
    "deadline": "9s",
    "postgres": {"query_timeout": "9s"},
    "redis": {"timeout": "2s"},
}


class Site:
    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.images, self.chart = cluster, cluster.images, CHART
        self.name = name
        self.space = Namespace(f"patgate-test-{name}", cluster.kubeconfig)
        self.stores = Namespace(f"patgate-test-{name}-stores", cluster.kubeconfig)
        self.folder = images.BUILT / "sites" / name
        self.passwords = {
            login: secrets.token_hex(16) for login in ("deployer", "gateway", "operator", "web")
        }

    # What is there before the chart.

    def prepare(self, database: bool = True) -> None:
        """Follows the chart's README up to the Secrets, or leaves Postgres empty for now."""
        self._folder()
        self.stores.make()
        self.stores.apply_file("stores.yaml", stores=self.images["stores"].name)
        self.readme_secrets()
        if database:
            self.readme_database()

    def readme_secrets(self) -> None:
        lines = readme.commands(readme.block(readme.CHART, "console", "$ umask"))
        self.follow(lines)
        url = f"postgres://web:{self.passwords['web']}@{self.postgres}:5432/patgate?sslmode=disable"
        self.space.secret("patgate-web", url=url)

    def readme_database(self) -> None:
        self.await_stores()
        self.follow(readme.commands(readme.block(readme.CHART, "console", "$ createdb")))

    def await_stores(self) -> None:
        until("ready stores", lambda: all(map(ready, self.stores.pods())))

    def surround(self, secret: bool = True, edit=lambda config: config, **files: str) -> None:
        """Starts the backend, and an Envoy that asks the Service of the release."""
        self.gateway_certificate()
        shared = (self.folder / "grpc-secret").read_text() if secret else ""
        config = gateway.for_service(self.space.name, shared)
        config = edit(gateway.completed(config, self.host("backend")))
        gateway.written(config, self.folder / "envoy.yaml")
        text = (self.folder / "envoy.yaml").read_text()
        files |= {"envoy.yaml": text, "certificate.yaml": gateway.certificate()}
        self.space.secret("envoy", **files)
        self.backend("backend", "model-acme")
        self.space.apply_file("envoy.yaml", envoy=self.images["envoy"].name)

    def backend(self, name: str, cluster: str) -> None:
        """Starts a backend, which says in its answers that it is `cluster`."""
        workload = self.images["workload"].name
        self.space.apply_file("backend.yaml", workload=workload, name=name, cluster=cluster)

    def gateway_certificate(self) -> None:
        names = [DNSName("gateway.example.org")]
        made = certificate.make(self.folder / "tls", names)
        self.space.secret(
            "gateway-tls", **{key: made[key].read_text() for key in ("tls.crt", "tls.key")}
        )

    # The chart.

    def values(self, **more) -> dict:
        """The values of the chart's README, with the images and with less of the processor."""
        base = readme.values("# values.yaml") | {
            "image": self.image("patgate"),
            "resources": SMALL,
            "redis": {"url": f"redis://{self.postgres}:6379/0"},
            "settings": PATIENT,
        }
        base["migration"]["resources"] = {"requests": {"cpu": "10m"}}
        return helm.merged(base, more)

    def image(self, name: str) -> dict:
        made = self.images[name]
        return {"registry": made.registry, "repository": made.repository, "tag": made.tag}

    def helm(self, version: str, *arguments: str, values: dict | None = None, wait=True) -> str:
        """Runs Helm, which must have nothing to warn of."""
        command = [helm.programs()[version], *arguments, "-n", self.space.name]
        command += ["--kubeconfig", self.cluster.kubeconfig]
        if wait:
            command += ["--wait", "--timeout", "2m"]
        if values is not None:
            file = self.folder / "values.yaml"
            file.write_text(yaml.safe_dump(values))
            command += ["-f", file]
        home = {"HOME": str(self.folder), "PATH": os.environ["PATH"]}
        done = run(command, env=home)
        # The client library's own retries are no matter of the chart.
        said = [
            line for line in (done.stdout + done.stderr).splitlines() if "watch ended" not in line
        ]
        if re.search(r"warn", "\n".join(said), re.I):
            raise Failed(f"helm {arguments[0]} warns:\n{done.stdout}{done.stderr}")
        return done.stdout

    def install(self, version: str, values: dict, chart: Path = CHART) -> str:
        return self.helm(version, "install", RELEASE, str(chart), values=values)

    def upgrade(self, version: str, values: dict, chart: Path = CHART) -> str:
        return self.helm(version, "upgrade", RELEASE, str(chart), values=values)

    def test(self, version: str) -> None:
        self.helm(version, "test", RELEASE, wait=False)

    # What is in the database.

    def populate(self) -> None:
        """Makes domain, user and token of the quick start, and further tokens."""
        with self.operator() as env:
            lines = readme.commands(
                readme.block(readme.QUICK_START, "console", "$ patgate backend create")
            )
            more = [
                "patgate token create one-model --user ada@example.com"
                " --scope acme:models:m-1:llm_chat_completions,llm_read >one-model",
                "patgate token create revoked --user ada@example.com --output json"
                " --scope acme:models:*:llm_read >revoked.json",
                "patgate keyring new >foreign-keyring",
                "patgate user show ada@example.com --output json >ada.json",
            ]
            self.follow(lines + more, env)
            revoked = json.loads((self.folder / "revoked.json").read_text())
            self.follow([f"patgate token revoke {revoked['id']}"], env)
        self.tokens = {
            "good": (self.folder / "token").read_text().strip(),
            "one-model": (self.folder / "one-model").read_text().strip(),
            "revoked": revoked["token"],
        }
        # As if the key ring of another installation had signed it.
        good = self.tokens["good"]
        self.tokens["foreign"] = good[:-1] + ("A" if good[-1] != "A" else "B")
        self.user = json.loads((self.folder / "ada.json").read_text())["id"]
        self._mount_tokens()

    def add_token(self, name: str, token: str) -> None:
        self.tokens[name] = token
        self._mount_tokens()

    def _mount_tokens(self) -> None:
        """Brings the tokens to the pods of the tests, in which they are files."""
        bearer = {name: f"Bearer {token}" for name, token in self.tokens.items()}
        self.space.secret("tokens", **bearer)

    @contextlib.contextmanager
    def operator(self) -> Iterator[dict[str, str]]:
        """Yields the environment for the operator's commands. Postgres is reached through the API
        server, so this also works where this machine is in no network of the cluster's."""
        with self.stores.forward("stores", 5432) as address:
            url = self.folder / "operator.url"
            login = f"operator:{self.passwords['operator']}"
            url.write_text(f"postgres://{login}@{address}/patgate?sslmode=disable")
            url.chmod(0o600)
            keyring = str(self.folder / "keyring")
            yield {"PATGATE_POSTGRES_URL_FILE": "operator.url", "PATGATE_KEYRING_FILE": keyring}

    # Requests and load.

    def get(self, url: str, *headers: str, pod: str = "backend") -> dict:
        return json.loads(self.space.execute(pod, WORKLOAD, "get", url, *headers))

    def peer(self, address: str, name: str, probe: str = "") -> str:
        """Returns the serial number of a server's certificate, shown to the client `probe`."""
        pair = [f"{probe}.crt", f"{probe}.key"] if probe else []
        return json.loads(self.space.execute("backend", WORKLOAD, "peer", address, name, *pair))[
            "serial"
        ]

    def sql(self, statement: str) -> str:
        """Runs a statement as the administrator of Postgres."""
        tuples = "psql -d patgate --tuples-only --no-align --quiet <<'SQL'\n"
        return self.follow([f"{tuples}{statement}\nSQL"])

    def model_list(self, host: str = "envoy", token: str = "good") -> dict:
        headers = [f"authorization: @/tokens/{token}"] if token else []
        return self.get(f"http://{host}/proxy/acme/v1/models", *headers)

    def await_allowed(self, host: str = "envoy") -> None:
        """Waits until a new gateway serves, and checks what clients and backend see of it."""

        def allowed():
            try:
                answer = self.model_list(host)
            except Failed as failed:
                # The Service may still lead to the pod before, whose address nobody has now.
                if not re.search("connection refused|no route to host", str(failed)):
                    raise
                return None
            return answer["status"] == 200 and answer

        until("the gateway serves", lambda: ready(self.space.get("pod", "backend")))
        until("the tokens are mounted", lambda: self.mounted("good"))
        answer = until(f"200 through {host}", allowed, 60)
        seen = json.loads(answer["body"])["headers"]
        expected = {"x-user-id": self.user, "x-domain-slug": "acme"}
        if not expected.items() <= seen.items() or "authorization" in seen:
            raise Failed(f"the backend saw {seen}, expected {expected} and no authorization")
        for token in ("", "revoked", "foreign"):
            refused = self.model_list(host, token)
            if refused["status"] != 401:
                raise Failed(f"token {token or 'missing'}: {refused}, expected 401")

    def mounted(self, token: str) -> bool:
        """Whether the pods of the tests have this token by now."""
        try:
            self.get("http://127.0.0.1:8001/", f"authorization: @/tokens/{token}")
        except Failed as failed:
            if "no such file" not in str(failed):
                raise
            return False
        return True

    def load(self, host: str = "envoy", **more) -> Load:
        return Load(self, host, **more)

    # The rest.

    @property
    def postgres(self) -> str:
        return f"stores.{self.stores.name}.svc.cluster.local"

    def host(self, service: str) -> str:
        return f"{service}.{self.space.name}.svc.cluster.local"

    def follow(self, lines: list[str], env: dict[str, str] | None = None) -> str:
        """Runs commands of the documentation, with the names and passwords of this site."""
        text = "\n".join(lines).replace("db.example.org", self.postgres)
        # The wheel's Postgres has no TLS.
        text = text.replace("sslmode=verify-full", "sslmode=disable")
        text = re.sub(r"\bauthz\b(?!\.sock)", self.space.name, text)
        for login, password in self.passwords.items():
            text = re.sub(rf"(CREATE ROLE {login} .*)'…'", rf"\1'{password}'", text)
            text = text.replace(f"{login}:…", f"{login}:{password}")
        if "…" in text:
            raise Failed(f"these commands have something that no one has filled in:\n{text}")
        return readme.execute([text], self.folder, self.folder / "bin", env or {})

    def _folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        self.folder.chmod(0o700)
        for name in ("deploy", "envoy"):
            (self.folder / name).symlink_to(ROOT / name)
        tool = [kubectl(), f"--kubeconfig={self.cluster.kubeconfig}"]
        readme.stand_in(programs, "kubectl", *tool)
        readme.stand_in(programs, "patgate", self.cluster.patgate)
        # Postgres's administrator has the socket of the server. The file is on this machine.
        inside = [*tool, "-n", self.stores.name, "exec", "-i", "stores", "-c", "postgres", "--"]
        file = (
            "for word do\n    shift\n"
            '    if [ -f "$word" ]; then exec <"$word"; word=-; fi\n'
            '    set -- "$@" "$word"\ndone\n'
        )
        for name in ("psql", "createdb"):
            readme.stand_in(
                programs, name, *inside, name, "-h", "/data", "-U", "postgres", before=file
            )

    def say(self, text: str) -> None:
        self.cluster.say(f"  {self.name}: {text.strip()}")

    def dual_stack(self) -> bool:
        """Whether a Service of this cluster can have addresses of both families."""
        trial = {**named("v1", "Service", "trial"), "spec": {"ports": [{"port": 80}]}}
        trial["spec"]["ipFamilyPolicy"] = "PreferDualStack"
        made = self.space.kubectl(
            "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=yaml.safe_dump(trial)
        )
        return len(json.loads(made.stdout)["spec"]["ipFamilies"]) == 2

    def identities(self, selector: str = "app.kubernetes.io/instance=patgate") -> dict[str, int]:
        """Returns the restarts of each pod of the release, by its uid."""
        return {
            pod["metadata"]["uid"]: sum(
                status["restartCount"]
                for kind in ("containerStatuses", "initContainerStatuses")
                for status in pod["status"].get(kind, [])
            )
            for pod in self.space.pods(selector)
        }

    def expect_none_bad(self, load: Load, result) -> None:
        if result.bad:
            raise Failed(f"requests were not answered as expected: {load.report(result)}")
        self.say(f"  {result}")

    def expect_some_failed(self, load: Load, result) -> None:
        """Whatever fails, nothing passes that must not."""
        if result.bad.keys() != {"failed"}:
            raise Failed(f"only failed requests were expected, and some: {load.report(result)}")
        self.say(f"  as expected: {result}")

    def state(self) -> str:
        return f"{self.space.state()}\n{self.stores.state()}"

    def remove(self) -> None:
        self.space.delete()
        self.stores.delete()

    def await_removed(self) -> None:
        names = {f"namespace/{self.space.name}", f"namespace/{self.stores.name}"}
        until("no namespace is left", lambda: not names & self.space.list_names("namespaces"))
