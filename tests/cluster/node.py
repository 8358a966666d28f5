"""A Kubernetes of one node on this machine, which leaves nothing behind when it ends.

    python tests/cluster/node.py                  start it, and keep it until Ctrl-C
    python tests/cluster/node.py -- COMMAND…      start it, run a command in it, and end it
    python tests/cluster/node.py enter -- COMMAND…    run a command in the one that runs

A command finds kubectl, helm, helm4 and ctr on its PATH, and the cluster in KUBECONFIG. Logs are in
target/cluster/run/logs until the next start. It needs root; build.py says what else is missing.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import configuration  # noqa: E402
from build import BIN, build, say  # noqa: E402
from configuration import STATE  # noqa: E402
from isolation import isolated  # noqa: E402
from machine import (  # noqa: E402
    check_overlays,
    prepare_cgroups,
    prepare_mounts,
    prepare_network,
    remove_cgroups,
)

from server import Server, ServerError, answers  # noqa: E402

RUN = ROOT / "target/cluster/run"
LOGS = RUN / "logs"
# One of its own for each clone of the project.
CGROUP = f"/patgate-cluster-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
# A loaded machine takes a multiple of the usual twenty seconds.
READY_TIMEOUT = 180


class Node:
    """A cluster, whose servers are in `servers` by name. Only inside `in_cluster`, and a server
    ends with the thread that has started it."""

    def __init__(self):
        self.kubeconfig = STATE / "kubeconfig"
        self.env = environment()
        self.servers: dict[str, Server] = {}

    def start(self) -> "Node":
        prepare_mounts()
        prepare_network()
        prepare_cgroups(CGROUP)
        self._serve("etcd", configuration.etcd(STATE))
        self._serve("containerd", self._containerd())
        self.wait("etcd accepts connections", lambda: answers("127.0.0.1:2379"))
        self._serve("kube-apiserver", configuration.api_server(STATE))
        self.wait("containerd is up", lambda: answers(f"unix:{configuration.SOCKET}"))
        self.load_image(BIN / "pause.tar")
        self.wait("the API server is ready", lambda: self.found("/readyz"))
        self._serve("kube-controller-manager", configuration.controller_manager(STATE))
        self._serve("kube-scheduler", configuration.scheduler(STATE))
        self._serve("kubelet", configuration.kubelet(STATE, LOGS, CGROUP))
        self._serve("kube-proxy", configuration.proxy(STATE))
        self._serve("coredns", configuration.coredns(STATE))
        self.wait("the node is Ready", self._ready)
        self.wait("CoreDNS is ready", lambda: answers("http://127.0.0.1:8181/ready"))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.wait("a pod has an account", lambda: self.found(account))
        return self

    def load_image(self, archive: Path | str) -> None:
        """Loads what `buildah push … docker-archive:` or `oci-archive:` has written."""
        # The images of this process are this cluster's only, so none is ever pulled.
        command = ["ctr", "--namespace", "k8s.io", "images", "import", str(archive)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"{archive} could not be loaded: {done.stderr}")

    def stop(self) -> None:
        """Ends the servers. Pods end with the namespaces."""
        for server in reversed(self.servers.values()):
            server.stop()

    def get(self, path: str) -> dict:
        """Returns an object of the API."""
        request = urllib.request.Request(configuration.API + path)
        token = (STATE / "tokens.csv").read_text().partition(",")[0]
        request.add_header("Authorization", f"Bearer {token}")
        trusted = ssl.create_default_context(cafile=STATE / "ca.crt")
        with urllib.request.urlopen(request, timeout=5, context=trusted) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else {"text": text.decode()}

    def found(self, path: str) -> dict | None:
        """As `get`, but `None` if the object does not exist or the API does not answer."""
        try:
            return self.get(path)
        except OSError:
            return None

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        """Waits until a condition is true, and fails with the logs' ends if a server has ended."""
        deadline = time.monotonic() + READY_TIMEOUT
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                tails = "\n".join(map(end_of, self.servers.values()))
                raise ServerError(f"After {READY_TIMEOUT} s it is not so that {what}.\n{tails}")
            time.sleep(0.1)

    def check(self) -> None:
        """Fails if a server has ended."""
        for server in self.servers.values():
            state = server.status()
            if not state["running"]:
                raise ServerError(f"{server.id} has ended with {state['exit']}.\n{end_of(server)}")

    def _containerd(self) -> list:
        images = RUN / "containerd"
        images.mkdir()
        check_overlays(images)
        return configuration.containerd(STATE, images)

    def _serve(self, name: str, command: list) -> None:
        program, *arguments = command
        path = shutil.which(program, path=self.env["PATH"])
        log = LOGS / f"{name}.log"
        self.servers[name] = Server(name, [path, *arguments], log, env=self.env).start()

    def _ready(self) -> bool:
        node = self.found(f"/api/v1/nodes/{configuration.NAME}")
        conditions = node["status"].get("conditions", []) if node else []
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        # The taint of a node that is not ready goes a moment later.
        return ready and not node["spec"].get("taints")


def end_of(server: Server) -> str:
    return f"--- {server.log.relative_to(ROOT)} ends:\n{server.log_tail(8)}"


def environment() -> dict[str, str]:
    programs = [str(BIN), str(ROOT / ".venv/chart/bin"), os.environ["PATH"], "/usr/sbin", "/sbin"]
    return {**os.environ, "PATH": ":".join(programs), "KUBECONFIG": str(STATE / "kubeconfig")}


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One cluster at a time in each clone of the project."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        # One that was just killed holds it for a moment more.
        deadline = time.monotonic() + 3
        while not free(lock):
            if time.monotonic() > deadline:
                sys.exit("A cluster of this project is running already: end it first.")
            time.sleep(0.05)
        yield


def free(lock) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_cluster(main: Callable[[Node], int], meshes: bool = False) -> int:
    """Builds and starts a cluster, runs `main` in it, and returns its exit code once it is gone."""
    with locked():
        build(meshes)
        remove_rest()
        LOGS.mkdir(parents=True)

        def inside() -> int:
            say("Starting a Kubernetes of one node")
            started = time.monotonic()
            try:
                node = Node().start()
                say(f"The node is ready after {time.monotonic() - started:.0f} s")
                (RUN / "ready").touch()
                return main(node)
            except ServerError as error:
                say(f"The cluster has failed: {error}")
                return 1

        try:
            return isolated(inside, lambda pid: (RUN / "pid").write_text(f"{pid}\n"))
        finally:
            remove_rest(logs=False)


def remove_rest(logs: bool = True) -> None:
    """Removes the folders and the control groups of the run before, whose processes have ended."""
    for name in ("containerd", "pid", "ready", *(["logs"] if logs else [])):
        path = RUN / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    remove_cgroups(CGROUP)


def stay(node: Node) -> int:
    say("Enter it by: python tests/cluster/node.py enter -- kubectl get pods -A\nEnd it by Ctrl-C.")
    with contextlib.suppress(SystemExit):
        while True:
            time.sleep(1)
            node.check()
    return 0


def command_in(node: Node, command: list[str]) -> int:
    try:
        return subprocess.run(command, env=node.env).returncode
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}")
        return 127


def enter(command: list[str]) -> None:
    with contextlib.suppress(FileNotFoundError), (RUN / "lock").open() as lock:
        if not free(lock):
            if not (RUN / "ready").exists():
                sys.exit("The cluster of this project is still starting.")
            target = ["--target", (RUN / "pid").read_text().strip(), "--mount", "--net", "--pid"]
            words = ["nsenter", *target, f"--wdns={Path.cwd()}", "--", *command]
            os.execvpe("nsenter", words, environment())
    sys.exit("No cluster of this project runs. Start one: python tests/cluster/node.py")


def main(arguments: list[str]) -> int:
    match arguments:
        case []:
            return in_cluster(stay)
        case ["--", *command] if command:
            return in_cluster(lambda node: command_in(node, command))
        case ["enter", "--", *command] if command:
            enter(command)
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
