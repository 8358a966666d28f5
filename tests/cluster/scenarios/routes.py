"""`patgate sync` keeps the objects of both gateways on a real API server, under their real CRDs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator

import build
import programs
import readme
import yaml
from kube import named, until
from link import Link
from programs import ROOT, Failed
from sites import Site

sys.path.insert(0, str(ROOT / "tools"))
from stack import Stack  # noqa: E402

DOCUMENT = ROOT / "docs/routes.md"
ACCOUNT = "patgate-sync"
MANAGED = "app.kubernetes.io/managed-by=patgate-sync"
NETWORKS = "routes.networks=10.20.0.0/16"
# As a restore or a replication writes: without triggers.
UNRECORDED = "SET session_replication_role = replica"
KINDS = {
    "envoy-gateway": (
        "backends.gateway.envoyproxy.io",
        "backendtrafficpolicies.gateway.envoyproxy.io",
        "httproutes.gateway.networking.k8s.io",
    ),
    "istio": (
        "serviceentries.networking.istio.io",
        "destinationrules.networking.istio.io",
        "virtualservices.networking.istio.io",
    ),
}
# A field of the last kind, and what others make of it.
CHANGES = {
    "envoy-gateway": {"spec": {"hostnames": ["evil.example"]}},
    "istio": {"spec": {"hosts": ["evil.example"], "exportTo": ["*"]}},
}


def run(site: Site) -> None:
    site.space.make()
    install_definitions(site)
    deployment(site)
    for gateway in KINDS:
        site.say(f"  {gateway}")
        with Routes(site, gateway) as routes:
            routes.show()


def deployment(site: Site) -> None:
    """The Deployment of the document is accepted, and Pod Security warns of nothing."""
    text = readme.block(DOCUMENT, "yaml", "# sync.yaml")
    check = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = site.space.kubectl(*check, stdin=text)
    if done.stderr:
        raise Failed(done.stderr)


def install_definitions(site: Site) -> None:
    """Installs the custom resources of both gateways, from the modules that are built."""
    charts = build.module("envoy-gateway", "github.com/envoyproxy/gateway") / "charts"
    templates = charts / "gateway-crds-helm/templates"
    files = sorted(templates.glob("generated/*.yaml")) + [
        templates / "standard-gatewayapi-crds.yaml"
    ]
    istio = build.module("istio", "istio.io/istio")
    files.append(istio / "manifests/charts/base/files/crd-all.gen.yaml")
    names = {name for kinds in KINDS.values() for name in kinds}
    for file in files:
        # The lines of Helm's own language stand alone.
        lines = [line for line in file.read_text().splitlines() if not line.startswith("{{")]
        for item in yaml.safe_load_all("\n".join(lines)):
            if item and item["metadata"]["name"] in names:
                text = yaml.safe_dump(item)
                apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
                site.space.kubectl(*apply, stdin=text)
                names.discard(item["metadata"]["name"])
    if names:
        raise Failed(f"no definitions of {names}")
    for name in (name for kinds in KINDS.values() for name in kinds):
        condition = "--for=condition=Established"
        site.space.kubectl("wait", condition, f"customresourcedefinition/{name}", "--timeout=60s")


class Routes:
    """A database, and replicas of `patgate sync` for one gateway, whose ways can be cut."""

    def __init__(self, site: Site, gateway: str):
        self.site, self.space, self.gateway = site, site.space, gateway
        self.kinds = KINDS[gateway]
        self.folder = site.folder / gateway
        self.closing = contextlib.ExitStack()

    def __enter__(self) -> "Routes":
        try:
            self._prepare()
        except BaseException:
            self.closing.close()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.closing.close()

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stack = self.closing.enter_context(Stack())
        self.port = stack.postgres().port
        self.operator = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.patgate("migrate")
        self.database = Link("127.0.0.1", self.port)
        self.closing.callback(self.database.close)
        self.psql = stack._postgres_tree() / "bin/psql"
        self.sql("CREATE ROLE router LOGIN IN ROLE patgate_sync")
        config = json.loads(self.space.kubectl("config", "view", "--raw", "-o", "json").stdout)
        server = config["clusters"][0]["cluster"]
        address = urllib.parse.urlsplit(server["server"])
        self.api = Link(address.hostname, address.port or 443)
        self.closing.callback(self.api.close)
        self._account(server)

    def sql(self, text: str) -> None:
        programs.run([self.psql, self.operator, "-v", "ON_ERROR_STOP=1", "-c", text])

    def _account(self, server: dict) -> None:
        """Permits what the document says, and writes a kubeconfig that leads through the link."""
        role = yaml.safe_load(readme.block(DOCUMENT, "yaml", "kind: Role"))
        binding = named("rbac.authorization.k8s.io/v1", "RoleBinding", ACCOUNT)
        binding |= {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT}],
        }
        self.space.apply(named("v1", "ServiceAccount", ACCOUNT), role, binding)
        self._policy()
        token = self.space.kubectl("create", "token", ACCOUNT).stdout.strip()
        cluster = server | {"server": f"https://127.0.0.1:{self.api.port}"}
        names = {"cluster": "test", "user": ACCOUNT, "namespace": self.space.name}
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": ACCOUNT, "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": names}],
                    "current-context": "test",
                }
            )
        )

    def _policy(self) -> None:
        """Limits the account to its own objects, as the document says."""
        text = readme.block(DOCUMENT, "yaml", "# sync-policy.yaml")
        text = text.replace("serviceaccount:authz:", f"serviceaccount:{self.space.name}:")
        text = text.replace("name: patgate-sync", f"name: {self.space.name}")
        text = text.replace("policyName: patgate-sync", f"policyName: {self.space.name}")
        self.space.kubectl("apply", "-f", "-", stdin=text)
        remove = ["delete", "--ignore-not-found", "-f", "-"]
        self.closing.callback(lambda: self.space.kubectl(*remove, stdin=text))
        stray = self._object({})

        def holds() -> bool:
            # The Role may not be in force yet either.
            with contextlib.suppress(Failed):
                return self._refused(["create"], stray)
            return False

        until("the policy holds", holds)

    def _object(self, labels: dict[str, str], name: str = "patgate-stray") -> dict:
        """One of the last kind."""
        spec = {
            "envoy-gateway": {"parentRefs": [{"name": "gateway"}]},
            "istio": {
                "hosts": ["*"],
                "http": [{"directResponse": {"status": 404}}],
            },
        }[self.gateway]
        version = {
            "envoy-gateway": "gateway.networking.k8s.io/v1",
            "istio": "networking.istio.io/v1",
        }
        kind = {"envoy-gateway": "HTTPRoute", "istio": "VirtualService"}
        item = named(version[self.gateway], kind[self.gateway], name)
        item["metadata"] |= {"labels": labels, "namespace": self.space.name}
        return item | {"spec": spec}

    def _refused(self, command: list[str], item: dict) -> bool:
        """Whether the policy refuses it to the account, which may do it otherwise."""
        account = f"--as=system:serviceaccount:{self.space.name}:{ACCOUNT}"
        words = [*command, "--dry-run=server", account, "-f", "-"]
        try:
            self.space.kubectl(*words, stdin=yaml.safe_dump(item))
        except Failed as failed:
            if "only objects of its own instance" not in str(failed):
                raise
            return True
        return False

    # What the operator does.

    def patgate(self, *words: str, **env: str) -> str:
        env = {**self._plain(), "PATGATE_POSTGRES_URL": self.operator, **env}
        return programs.run([self.site.cluster.patgate, *words], env=env).stdout

    def backend(self, what: str, name: str, *more: str) -> None:
        self.patgate("backend", what, name, *more)

    @contextlib.contextmanager
    def sync(self, *words: str) -> Iterator["Replica"]:
        replica = Replica(self, words)
        try:
            yield replica
        finally:
            replica.end()

    def once(self, *words: str) -> subprocess.CompletedProcess:
        command = [*self._command(), "--once", *words]
        return subprocess.run(command, env=self.env(), capture_output=True, text=True, timeout=60)

    def _command(self) -> list[str]:
        return [str(self.site.cluster.patgate), "sync", "--for", self.gateway]

    def env(self) -> dict[str, str]:
        login = f"postgres://router@127.0.0.1:{self.database.port}/postgres"
        return {
            **self._plain(),
            "KUBECONFIG": str(self.kubeconfig),
            "PATGATE_POSTGRES_URL": login,
            "PATGATE_ROUTES_NETWORKS": NETWORKS.partition("=")[2],
            "PATGATE_ROUTES_LISTEN": "127.0.0.1:0",
        }

    def _plain(self) -> dict[str, str]:
        return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    # What is in the cluster.

    def objects(self) -> dict[tuple[str, str], dict]:
        return {
            (kind, item["metadata"]["name"]): item
            for kind in self.kinds
            for item in self.space.objects(kind)
        }

    def ours(self) -> dict[tuple[str, str], dict]:
        return {
            (kind, item["metadata"]["name"]): item
            for kind in self.kinds
            for item in self.space.objects(kind, MANAGED)
        }

    def wanted(self) -> dict[tuple[str, str], dict]:
        """What `export` says at this moment."""
        settings = {
            "PATGATE_ROUTES_NETWORKS": NETWORKS.partition("=")[2],
            "PATGATE_ROUTES_NAMESPACE": self.space.name,
        }
        text = self.patgate("export", "--for", self.gateway, **settings)
        plural = {kind.partition(".")[0]: kind for kind in self.kinds}
        found = {}
        for item in yaml.safe_load_all(text):
            kind = item["kind"].lower()
            kind = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
            found[plural[kind], item["metadata"]["name"]] = item
        return found

    def in_step(self, without: frozenset = frozenset()) -> bool:
        wanted, found = self.wanted(), self.ours()
        wanted = {key: item for key, item in wanted.items() if key not in without}
        return wanted.keys() == found.keys() and all(
            item["spec"] == found[key]["spec"] for key, item in wanted.items()
        )

    def additions(self, kind: str, name: str) -> set[str]:
        """Labels and annotations that `export` does not write."""
        found = self.ours()[kind, name]["metadata"]
        wanted = self.wanted()[kind, name]["metadata"]
        return {
            key for part in ("labels", "annotations") for key in found[part].keys() - wanted[part]
        }

    def await_step(self, what: str, **more) -> None:
        until(f"the objects are in step after {what}", lambda: self.in_step(**more))

    def versions(self) -> dict:
        return {key: item["metadata"]["resourceVersion"] for key, item in self.objects().items()}

    # What is shown.

    def show(self) -> None:
        self.backend("create", "model-acme", "--url", "http://10.20.0.7:8001", "--kind", "vllm")
        self.backend("create", "a.b_", "--url", "http://10.20.0.8:8001", "--kind", "openai")
        with self.sync() as first, self.sync() as second:
            until("both replicas are ready", lambda: first.ready() and second.ready())
            self.await_step("the start")
            if len(self.ours()) != 6:
                raise Failed(f"{len(self.ours())} objects, expected 6")
            both = (first, second)
            self.changes()
            self.drift()
            self.foreign(self.leader(both))
            self.database_away(both)
            # Either of them may have taken the lock.
            self.empty(self.leader(both))
            self.api_away(self.leader(both))
            self.leader(both).process.kill()
            self.backend("create", "last", "--url", "http://10.20.0.10", "--kind", "ollama")
            self.await_step("the end of the leader")
        self.installations()
        self.end()
        self.rights()

    def leader(self, replicas: tuple["Replica", ...]) -> "Replica":
        leaders = lambda: [each for each in replicas if each.metric("leader")]  # noqa: E731
        until("one replica leads", lambda: len(leaders()) == 1)
        return leaders()[0]

    def changes(self) -> None:
        self.backend("create", "gone", "--url", "http://10.20.0.9:8001", "--kind", "ollama")
        self.await_step("a creation")
        before = self.ours()
        self.backend("update", "gone", "--url", "http://10.20.0.9:8002")
        self.await_step("a change")
        # To where no backend may be.
        self.backend("update", "gone", "--url", "http://169.254.169.254:80")
        until("a refused address is gone", lambda: len(self.ours()) == 6)
        self.backend("update", "gone", "--url", "http://10.20.0.9:8001")
        self.await_step("a change back")
        if self.ours().keys() != before.keys():
            raise Failed("other objects than before")
        self.backend("delete", "gone")
        self.await_step("a deletion")
        # Nothing is written while nothing changes.
        before = self.versions()
        self.backend("create", "mark", "--url", "http://10.20.0.9:8001", "--kind", "ollama")
        self.await_step("another creation")
        self.backend("delete", "mark")
        self.await_step("its deletion")
        if self.versions() != before:
            raise Failed("objects were written that had not changed")

    def drift(self) -> None:
        """By deletion, by a patch, and by another manager that takes fields and adds some."""
        route, name = self.kinds[-1], "patgate-model-acme"
        self.space.kubectl("delete", f"{route}/{name}")
        self.await_step("a deletion by hand")
        patch = json.dumps(CHANGES[self.gateway])
        self.space.kubectl("patch", route, name, "--type=merge", "-p", patch)
        self.await_step("a patch")
        taken = self.wanted()[route, name]
        taken["spec"] |= CHANGES[self.gateway]["spec"]
        manager = ["--server-side", "--force-conflicts", "--field-manager=other"]
        command = ["apply", *manager, "-o", "json", "-f", "-"]
        changed = json.loads(self.space.kubectl(*command, stdin=yaml.safe_dump(taken)).stdout)
        if changed["spec"] == self.wanted()[route, name]["spec"]:
            raise Failed("the other manager has changed nothing")
        self.await_step("another manager's change")
        # Under the name of sync itself, but not by apply.
        names = ["--field-manager=patgate-sync", "--type=merge"]
        self.space.kubectl("patch", route, name, *names, "-p", patch)
        self.await_step("a patch under the name of sync")
        self.space.kubectl("label", route, name, "istio.io/rev=other")
        self.space.kubectl("annotate", route, name, "example.org/note=other")
        until("what was added is removed", lambda: not self.additions(route, name))
        label = MANAGED.replace("patgate-sync", "-").partition("=")[0] + "-"
        self.space.kubectl("label", route, "patgate-a--db--u", label)
        key = (route, "patgate-a--db--u")
        # Without the label it is not ours any more, until somebody deletes it.
        self.backend("update", "a.b_", "--url", "http://10.20.0.8:8003")
        self.await_step("a change beside an object that is not ours", without=frozenset({key}))
        self.space.kubectl("delete", f"{route}/{key[1]}")
        self.await_step("its deletion")

    def foreign(self, leader: "Replica") -> None:
        route = self.kinds[-1]
        theirs = self.wanted()[route, "patgate-model-acme"]
        theirs["metadata"] = {"name": "patgate-taken", "labels": {"app": "theirs"}}
        self.space.apply(theirs)
        before = self.space.get(f"{route}/patgate-taken")
        self.backend("create", "taken", "--url", "http://10.20.0.11", "--kind", "vllm")
        until("the foreign object is reported", lambda: leader.metric("foreign_objects") == 1)
        if "belongs to somebody else" not in leader.said():
            raise Failed("the log does not name the foreign object")
        self.backend("delete", "taken")
        self.await_step("the deletion of the backend of that name")
        after = self.space.get(f"{route}/patgate-taken")
        if after != before:
            raise Failed(f"a foreign object was touched: {after}")
        self.space.kubectl("delete", f"{route}/patgate-taken")

    def database_away(self, replicas: tuple["Replica", ...]) -> None:
        before = self.versions()
        self.database.cut()
        until("no replica is ready", lambda: not any(each.ready() for each in replicas))
        if self.versions() != before:
            raise Failed("objects changed while the database was away")
        self.database.mend()
        until("the replicas are ready again", lambda: all(each.ready() for each in replicas))
        self.backend("update", "model-acme", "--url", "http://10.20.0.7:8002")
        self.await_step("the return of the database")

    def empty(self, leader: "Replica") -> None:
        before = self.versions()
        self.sql("CREATE TABLE kept AS SELECT * FROM patgate.backends")
        self.sql(f"{UNRECORDED}; DELETE FROM patgate.backends")
        until("the empty list is reported", lambda: leader.failures("nothing_left") or None)
        if self.versions() != before:
            raise Failed("an empty list has removed objects")
        self.sql(f"{UNRECORDED}; INSERT INTO patgate.backends SELECT * FROM kept")
        until("the leader is ready again", leader.ready)
        if self.versions() != before:
            raise Failed("objects were written although nothing had changed")

    def api_away(self, leader: "Replica") -> None:
        self.api.cut()
        self.backend("update", "model-acme", "--url", "http://10.20.0.7:8003")
        until("the leader is unready", lambda: not leader.ready())
        self.api.mend()
        self.await_step("the return of the API server")
        until("the leader is ready", leader.ready)

    def installations(self) -> None:
        """What another installation has written stays, until somebody takes it over."""
        route, name = self.kinds[-1], "patgate-model-acme"
        self.space.kubectl("delete", f"{route}/patgate-last")
        before = self.ours()
        self.patgate("installation", "renew")
        self.backend("update", "model-acme", "--url", "http://10.20.0.7:8004")
        self.backend("delete", "a.b_")
        with self.sync() as other:
            foreign = len(before)
            until("all are reported", lambda: other.metric("foreign_objects") == foreign)
            until("another round", lambda: other.ready())
            if "another installation" not in other.said():
                raise Failed("the log does not say that they are of another installation")
        found = self.ours()
        # Only the route that is missing was made.
        if found.keys() - before.keys() - {(route, "patgate-last")}:
            raise Failed(f"made: {found.keys() - before.keys()}")
        for key, item in before.items():
            if found.get(key) != item:
                raise Failed(f"{key} of another installation was touched: {found.get(key)}")
        done = self.once("--adopt")
        if done.returncode or not self.in_step():
            raise Failed(f"the objects were not taken over: {done.stderr}")
        if (
            self.ours()[route, name]["metadata"]["annotations"]["patgate/installation"]
            == (before[route, name]["metadata"]["annotations"]["patgate/installation"])
        ):
            raise Failed("the annotation is that of the other installation")

    def end(self) -> None:
        """The last backends go only if that is asked for."""
        self.sql(f"{UNRECORDED}; DELETE FROM patgate.backends")
        done = self.once()
        if done.returncode == 0 or "--allow-empty" not in done.stderr or not self.ours():
            raise Failed(f"the last backends were removed: {done.stderr}")
        done = self.once("--allow-empty")
        if done.returncode or self.ours():
            raise Failed(f"the last backends were not removed: {done.stderr}")

    def rights(self) -> None:
        account = f"--as=system:serviceaccount:{self.space.name}:{ACCOUNT}"
        for verb, what, expected in (
            ("list", self.kinds[0], "yes"),
            ("list", "secrets", "no"),
            ("create", "pods", "no"),
            ("get", "configmaps", "no"),
        ):
            command = ["auth", "can-i", verb, *what.split(), account]
            try:
                said = self.space.kubectl(*command).stdout.strip()
            except Failed as failed:
                said = str(failed).splitlines()[-1]
            if said != expected:
                raise Failed(f"may {verb} {what}: {said}")
        ours = {
            "app.kubernetes.io/managed-by": "patgate-sync",
            "app.kubernetes.io/instance": "patgate",
        }
        for item, expected in (
            (self._object(ours), False),
            (self._object({}), True),
            (self._object(ours | {"app.kubernetes.io/instance": "other"}), True),
            (self._object(ours | {"app.kubernetes.io/managed-by": "other"}), True),
            (self._object(ours, "undecided"), True),
        ):
            if self._refused(["create"], item) != expected:
                raise Failed(f"refused is not {expected}: {item['metadata']}")
        theirs = self._object({}, "patgate-undecided")
        self.space.apply(theirs)
        if not self._refused(["delete"], theirs):
            raise Failed("the account may delete an object that is not its own")
        # With the labels, so that it would be its own afterwards.
        taken = ["patch", "--type=merge", "-p", json.dumps({"metadata": {"labels": ours}})]
        if not self._refused(taken, theirs):
            raise Failed("the account may take over an object that is not its own")
        self.space.kubectl("delete", f"{self.kinds[-1]}/patgate-undecided")


class Replica:
    def __init__(self, routes: Routes, words: tuple[str, ...]):
        self.log = routes.folder / f"sync-{len(list(routes.folder.iterdir()))}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*routes._command(), *words],
                env=routes.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.address = until("sync listens", self._listening)

    def _listening(self) -> str | None:
        if self.process.poll() is not None:
            raise Failed(f"sync has ended: {self.said()}")
        for line in self.said().splitlines():
            with contextlib.suppress(ValueError):
                # Its fields are beside the message, or below it.
                said = json.loads(line)
                if found := said.get("http") or said.get("fields", {}).get("http"):
                    return found
        return None

    def said(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def ready(self) -> bool:
        return self.get("/readyz") is not None

    def metric(self, name: str) -> float:
        for line in (self.get("/metrics") or "").splitlines():
            if line.startswith(f"patgate_sync_{name} "):
                return float(line.split()[-1])
        return 0.0

    def failures(self, part: str) -> float:
        return self.metric(f'failures_total{{part="{part}"}}')

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if self.process.wait(timeout=60):
                raise Failed(f"sync has ended with {self.process.returncode}: {self.said()}")
