"""A namespace of the cluster: reads and writes objects with kubectl, and awaits conditions."""

import contextlib
import json
import re
import string
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from programs import Failed, kubectl, run

MANIFESTS = Path(__file__).resolve().parent / "manifests"
# In seconds, for what takes no more than a few on a machine that is idle.
PATIENCE = 120


@dataclass
class Namespace:
    name: str
    kubeconfig: Path

    def kubectl(self, *arguments, stdin: str | None = None):
        command = [kubectl(), f"--kubeconfig={self.kubeconfig}", "-n", self.name, *arguments]
        return run(command, stdin)

    def get(self, *what: str) -> dict:
        return json.loads(self.kubectl("get", *what, "-o", "json").stdout)

    def objects(self, kind: str, selector: str = "") -> list[dict]:
        return self.get(kind, *([f"--selector={selector}"] if selector else []))["items"]

    def apply(self, *objects: dict) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def apply_file(self, name: str, /, **values: str) -> None:
        """Applies a file of `manifests`, with its placeholders replaced."""
        text = string.Template((MANIFESTS / name).read_text()).substitute(values)
        self.kubectl("apply", "-f", "-", stdin=text)

    def secret(self, name: str, **files: str) -> None:
        """Makes a Secret, or replaces it."""
        self.apply({**named("v1", "Secret", name), "stringData": files})

    def execute(self, pod: str, *command: str, stdin: str | None = None) -> str:
        interactive = ["-i"] if stdin is not None else []
        return self.kubectl("exec", *interactive, pod, "--", *command, stdin=stdin).stdout

    @contextlib.contextmanager
    def forward(self, pod: str, port: int) -> Iterator[str]:
        """Yields an address on this machine that leads to a port of a pod, which may be on the
        loopback of the pod: the connection goes through the API server."""
        command = [kubectl(), f"--kubeconfig={self.kubeconfig}", "-n", self.name]
        command += ["port-forward", f"pod/{pod}", f":{port}", "--address=127.0.0.1"]
        forward = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            line = forward.stdout.readline()
            match = re.search(r"127\.0\.0\.1:\d+(?= )", line)
            if not match:
                raise Failed(f"kubectl port-forward: {line}{forward.stdout.read()}")
            yield match[0]
        finally:
            forward.kill()
            forward.communicate()

    def make(self) -> None:
        """Makes the namespace, which accepts only pods that Pod Security `restricted` permits."""
        label = "pod-security.kubernetes.io"
        levels = {f"{label}/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        self.apply(
            {
                **named("v1", "Namespace", self.name),
                "metadata": {"name": self.name, "labels": levels},
            }
        )
        # Pods of a namespace without it are refused.
        until("its default service account", lambda: self.list_names("serviceaccounts"))

    def delete(self) -> None:
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")

    def list_names(self, kinds: str) -> set[str]:
        return set(self.kubectl("get", kinds, "-o", "name").stdout.split())

    def everything(self) -> set[str]:
        """Returns the names of all objects that are not just traces of others."""
        asked = ["api-resources", "--namespaced", "--verbs=list", "-o", "name"]
        kinds = set(self.kubectl(*asked).stdout.split())
        kinds = {kind for kind in kinds if not kind.startswith(("events", "podmetrics"))}
        return self.list_names(",".join(sorted(kinds)))

    def pods(self, selector: str = "") -> list[dict]:
        """Returns the pods that are not about to end."""
        pods = self.objects("pods", selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def warnings(self) -> list[str]:
        """Returns what Kubernetes warns of, except that pods are not ready while they start."""
        since = {pod["metadata"]["name"]: ready_since(pod) for pod in self.objects("pods")}
        found = []
        for event in self.get("events", "--field-selector=type=Warning")["items"]:
            about, message = event["involvedObject"], event["message"]
            last = event["lastTimestamp"] or event["eventTime"]
            early = last <= since.get(about["name"], "")
            if not (early and message.startswith("Readiness probe failed")):
                found.append(f"{about['kind']} {about['name']}: {event['reason']}: {message}")
        return found

    def state(self) -> str:
        """Returns what is needed to understand a failure: pods, events, and the pods' logs."""
        parts = [self._try("get", "pods,jobs,deployments", "-o", "wide")]
        parts.append(self._try("get", "events", "--sort-by=.lastTimestamp"))
        for pod in self.list_names("pods"):
            for more in ([], ["--previous"]):
                log = self._try("logs", pod, "--all-containers", "--prefix", "--tail=300", *more)
                # Not the decisions, of which there is one for each request.
                lines = [line for line in log.splitlines() if '"outcome":' not in line]
                parts.append("\n".join(lines[-40:]))
        return "\n".join(part for part in parts if part)

    def _try(self, *arguments: str) -> str:
        try:
            return self.kubectl(*arguments).stdout
        except Failed as failed:
            return "" if "--previous" in arguments else str(failed)


def named(version: str, kind: str, name: str) -> dict:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def ready(pod: dict) -> bool:
    return ready_since(pod) != ""


def ready_since(pod: dict) -> str:
    """Returns the time, which is empty if the pod is not ready."""
    for item in pod["status"].get("conditions", []):
        if item["type"] == "Ready" and item["status"] == "True":
            return item["lastTransitionTime"]
    return ""


def until(what: str, holds: Callable, patience: float = PATIENCE, every: float = 0.25):
    """Returns what `holds` returns, once that is true."""
    end = time.monotonic() + patience
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"after {patience:.0f} s, still not: {what}")
        time.sleep(every)
