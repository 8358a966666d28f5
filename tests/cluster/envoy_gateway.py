"""Envoy Gateway in its Kubernetes mode, and the Gateway of deploy/envoy-gateway: installed by the
commands of its README, with the namespaces, images and time limits of the tests."""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import build
import readme
import yaml
from disturb import SERVE, processes
from kube import Namespace, named, ready, until
from programs import ROOT, Failed, helm
from sites import Site

SHIPPED = ROOT / "deploy/envoy-gateway"
README = SHIPPED / "README.md"
MODULE = "github.com/envoyproxy/gateway"
CHART = "oci://docker.io/envoyproxy/gateway-helm --version v1.9.0"
SYSTEM = "envoy-gateway-system"
ENVOY = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
# What the cluster would have from a load balancer.
ADDRESS = "192.0.2.10"
# Of the manifests, in the order of the README.
FILES = (
    "admission.yaml",
    "gateway.yaml",
    "policies.yaml",
    "tls.yaml",
    "patches.yaml",
    "backend.yaml",
)
DUMP = "config_dump?include_eds"
AUTHORIZER = "cluster.securitypolicy/{}/patgate/extauth/0"
MEMBERS = "stats?format=json&filter=extauth/0.membership_"
# How the doctor ends if a finding is severe.
FINDINGS = 4
CLUSTER_WIDE = (
    "gatewayclass/patgate",
    "validatingadmissionpolicy/patgate-routes-stay-closed",
    "validatingadmissionpolicybinding/patgate-routes-stay-closed",
    "validatingadmissionpolicy/patgate-endpoints-are-addresses",
    "validatingadmissionpolicybinding/patgate-endpoints-are-addresses",
)


class EnvoyGateway:
    """One of a site. Its objects can be left out, changed and put back."""

    def __init__(self, site: Site):
        self.site, self.space = site, site.space
        self.system = Namespace(SYSTEM, site.cluster.kubeconfig)
        self.folder = site.folder / "manifests"

    # Installation.

    def install_controller(self) -> None:
        """The first step of the README."""
        readme.stand_in(
            self.site.folder / "bin",
            "helm",
            helm.programs()["4"],
            "--kubeconfig",
            self.site.cluster.kubeconfig,
        )
        self.follow("$ helm upgrade --install eg")

    def install_patgate(self, **more) -> None:
        """The second step, after those of the chart's README."""
        line = yaml.safe_load(readme.block(README, "yaml", "# values.yaml, in place of"))
        values = self.site.values(**more) | line
        # A line that the README adds would take their place.
        own = {"settings": values.pop("settings")}
        for name, given in (("values.yaml", values), ("site.yaml", own)):
            (self.site.folder / name).write_text(yaml.safe_dump(given))
        self.follow("$ openssl req -subj '/CN=example authority'")
        self.follow("$ kubectl -n authz create secret tls patgate-tls")

    def install_gateway(self) -> None:
        """The third and the fourth step."""
        self.adapt()
        self.site.gateway_certificate()
        # The README makes it anew.
        self.space.kubectl("delete", "secret", "gateway-tls")
        for name in ("tls.crt", "tls.key"):
            shutil.copy(self.site.folder / "tls" / name, self.site.folder / name)
        self.follow("$ kubectl -n authz create secret tls gateway-tls")
        self.give_address()
        self.follow("$ kubectl -n authz wait --for=condition=Programmed")

    def install_backends(self) -> None:
        """The fifth step, with Services whose names are those of the manifests."""
        for name, pod in (("model-acme", "backend"), ("model-beta", "beta")):
            service = named("v1", "Service", name)
            service["spec"] = {"selector": {"app": pod}, "ports": [{"port": 8001}]}
            self.space.apply(service)
        self.follow("$ kubectl apply -f deploy/envoy-gateway/backend.yaml")

    def follow(self, first: str) -> str:
        """Runs a block of the README."""
        lines = readme.commands(readme.block(README, "console", first))
        text = "\n".join(lines).replace(CHART, f"{self._chart()} -f images.yaml")
        # The values for Envoy Gateway need no change.
        kept = text.replace("deploy/envoy-gateway/values.yaml", "VALUES")
        kept = kept.replace("deploy/envoy-gateway/", "manifests/")
        kept = kept.replace("-f values.yaml", "-f site.yaml -f values.yaml")
        return self.site.follow([kept.replace("VALUES", "deploy/envoy-gateway/values.yaml")])

    def adapt(self) -> None:
        """Copies the manifests, with the namespace of the site, and time for a slow machine."""
        self.folder.mkdir(exist_ok=True)
        for file in SHIPPED.glob("*.yaml"):
            text = re.sub(r"\bauthz\b(?!\.sock)", self.space.name, file.read_text())
            text = text.replace("timeout: 250ms", "timeout: 20s")
            text = text.replace("maxInterval: 200ms", "maxInterval: 16s")
            text = text.replace("timeout: 500ms", "timeout: 10s")
            # A long body keeps a connection busy.
            text = text.replace("interval: 5s, timeout: 1s", "interval: 30s, timeout: 20s")
            # The pods of a site that has failed must not wait for a minute.
            text = text.replace("drainTimeout: 60s", "drainTimeout: 5s")
            text = text.replace("minDrainDuration: 10s", "minDrainDuration: 3s")
            text = text.replace(ENVOY, self.site.images["envoy"].name)
            text = text.replace("cpu: 100m, memory: 512Mi", "cpu: 20m, memory: 128Mi")
            (self.folder / file.name).write_text(text)

    def give_address(self) -> None:
        """Does what a load balancer's controller does."""
        service = until("the Service of the Gateway", self.service)
        status = {"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
        self.system.kubectl(
            "patch", "service", service, "--subresource=status", "--type=merge",
            "-p", json.dumps(status),
        )  # fmt: skip

    def _chart(self) -> Path:
        """Returns the chart of the module, which lacks its values until a release is made."""
        target = self.site.folder / "gateway-helm"
        if target.exists():
            return target
        source = build.module("envoy-gateway", MODULE) / "charts/gateway-helm"
        shutil.copytree(source, target)
        for path in target.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        image = self.site.images["envoy-gateway"].name
        values = (target / "values.tmpl.yaml").read_text()
        values = values.replace("${GatewayImage}", image)
        values = values.replace("${GatewayImagePullPolicy}", "IfNotPresent")
        (target / "values.yaml").write_text(values)
        small = {"requests": {"cpu": "20m", "memory": "128Mi"}}
        images = {"deployment": {"envoyGateway": {"resources": small}}}
        (self.site.folder / "images.yaml").write_text(yaml.safe_dump(images))
        return target

    def remove(self) -> None:
        """Removes what is not in the namespaces of the site."""
        for name in CLUSTER_WIDE:
            # A cluster may not know the kind yet.
            with contextlib.suppress(Failed):
                self.space.kubectl("delete", name, "--ignore-not-found", "--wait=false")
        self.system.delete()

    def await_removed(self) -> None:
        self.remove()
        name = f"namespace/{SYSTEM}"
        until("no namespace is left", lambda: name not in self.space.list_names("namespaces"))

    # Objects.

    def objects(self, *files: str) -> list[dict]:
        """Returns the shipped objects, with the words of this site."""
        found = []
        script = dict(
            line.split("/")[1:3] for line in (self.site.folder / "patches.sed").read_text().split()
        )
        for file in files or FILES:
            text = (self.folder / file).read_text()
            for word, value in script.items():
                text = text.replace(word, value)
            found += [item for item in yaml.safe_load_all(text) if item]
        return found

    def object(self, kind: str, name: str) -> dict:
        [found] = [
            item
            for item in self.objects()
            if item["kind"] == kind and item["metadata"]["name"] == name
        ]
        return copy.deepcopy(found)

    def apply(self, *items: dict, space: Namespace | None = None) -> None:
        text = yaml.safe_dump_all(items)
        command = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        (space or self.space).kubectl(*command, stdin=text)

    def delete(self, *items: dict, space: Namespace | None = None) -> None:
        text = yaml.safe_dump_all(items)
        command = ["delete", "--ignore-not-found", "-f", "-"]
        (space or self.space).kubectl(*command, stdin=text)

    @contextlib.contextmanager
    def without(self, *items: tuple[str, str]) -> Iterator[None]:
        """Leaves objects out."""
        objects = [self.object(*item) for item in items]
        self.delete(*objects)
        try:
            yield
        finally:
            self.apply(*objects)

    @contextlib.contextmanager
    def changed(self, kind: str, name: str, edit) -> Iterator[None]:
        """Changes an object, and puts it back as it was."""
        # Istio has a kind `Gateway` as well.
        group, _, version = self.object(kind, name)["apiVersion"].partition("/")
        before = self.space.get(f"{kind}.{version}.{group}", name)
        kept = ("name", "namespace", "labels", "annotations")
        metadata = before["metadata"]
        before["metadata"] = {key: metadata[key] for key in kept if key in metadata}
        before.pop("status", None)
        other = copy.deepcopy(before)
        edit(other["spec"])
        self._replace(other)
        try:
            yield
        finally:
            self._replace(before)

    def _replace(self, item: dict) -> None:
        # An apply would leave what the object does not mention.
        self.space.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(item))

    # What runs.

    def service(self) -> str:
        """Returns the Service of the Gateway, which Envoy Gateway has made and named."""
        found = self.system.objects("services", self.selector)
        return found[0]["metadata"]["name"] if found else ""

    @property
    def selector(self) -> str:
        return (
            "gateway.envoyproxy.io/owning-gateway-name=gateway,"
            f"gateway.envoyproxy.io/owning-gateway-namespace={self.space.name}"
        )

    @property
    def host(self) -> str:
        return f"{self.service()}.{SYSTEM}.svc.cluster.local"

    def await_proxies(self) -> None:
        def serving() -> bool:
            pods = self.system.pods(self.selector)
            return len(pods) == 2 and all(map(ready, pods))

        until("two Envoys are ready", serving)

    @contextlib.contextmanager
    def admin(self, pod: dict | None = None) -> Iterator[str]:
        """Yields the address of the admin interface of one Envoy."""
        pod = (pod or self.system.pods(self.selector)[0])["metadata"]["name"]
        with self.system.forward(pod, 19000) as address:
            yield f"http://{address}"

    def doctor(self) -> dict:
        """Returns what the doctor says of one Envoy."""
        with self.admin() as address:
            command = [self.site.cluster.patgate, "doctor", address, "--output", "json"]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in (0, FINDINGS):
            raise Failed(f"the doctor ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def members(self) -> list[tuple[int, int]]:
        """Returns for each Envoy how many replicas of patgate it knows, and how many of them are
        healthy."""
        found = []
        for pod in self.system.pods(self.selector):
            with self.admin(pod) as address, urlopen(f"{address}/{MEMBERS}") as answer:
                stats = {one["name"]: one["value"] for one in json.loads(answer.read())["stats"]}
            cluster = AUTHORIZER.format(self.space.name)
            names = [f"{cluster}.membership_{what}" for what in ("total", "healthy")]
            found.append(tuple(stats.get(name, 0) for name in names))
        return found

    def dump(self) -> dict:
        with self.admin() as address, urlopen(f"{address}/{DUMP}") as answer:
            return json.loads(answer.read())

    def findings(self) -> set[tuple[str, str, str]]:
        """Returns the rule of each finding, what was found, and where."""
        return {
            (one["rule"], one["found"], json.dumps(place, sort_keys=True))
            for one in self.doctor()["findings"]
            for place in one["places"]
        }

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops all processes of patgate, which are among those of this machine."""
        found = [
            process
            for pod in self.space.pods(SERVE)
            for process in processes(pod["metadata"]["uid"], b"patgate")
        ]
        signalled(found, signal.SIGSTOP)
        try:
            yield
        finally:
            signalled(found, signal.SIGCONT)

    def refusals(self) -> dict[str, int]:
        """Returns why the Envoys have answered 503 lately, and how often."""
        found: dict[str, int] = {}
        for pod in self.system.pods(self.selector):
            name = pod["metadata"]["name"]
            log = self.system.kubectl("logs", name, "-c", "envoy", "--since=60s").stdout
            for line in log.splitlines():
                if '"response_code":503' in line:
                    one = json.loads(line)
                    why = f"{one['response_code_details']} {one['response_flags']} {one['route']}"
                    found[why] = found.get(why, 0) + 1
        return found

    def state(self) -> str:
        kinds = "httproutes,securitypolicies,clienttrafficpolicies,envoypatchpolicies"
        conditions = [
            f"{item['kind']} {item['metadata']['name']}: {one['type']} {one['message']}"
            for item in self.space.get(kinds)["items"]
            for of in [item.get("status", {})]
            for parent in [of, *of.get("parents", []), *of.get("ancestors", [])]
            for one in parent.get("conditions", [])
            if one["status"] != "True"
        ]
        selected = "--selector=control-plane=envoy-gateway"
        log = self.system.kubectl("logs", selected, "--tail=-1").stdout
        bad = [line[:600] for line in log.splitlines() if "\terror\t" in line][-15:]
        return "\n".join([self.system.state(), *conditions[-60:], *bad])


def signalled(found: list[int], number: int) -> None:
    for process in found:
        # Kubernetes may have ended it meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
