"""Istio on the cluster, and a gateway of it that asks the patgate of a site: installed by the
commands and with the files of deploy/istio."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable

import build
import readme
import yaml
from kube import Namespace, named, ready, until
from load import WORKLOAD
from programs import ROOT, Failed, helm, kubectl, run
from sites import Site

SOURCE = ROOT / "deploy/istio"
README = SOURCE / "README.md"
# In place of the random word of the README.
WORD = "gateway-7"
GATEWAY = "patgate-gateway"
# The exit code of a doctor that has found something severe.
FINDINGS = 4
# The README's charts, in the module that the programs are built from.
CHARTS = {
    "istio/base": "manifests/charts/base",
    "istio/istiod": "manifests/charts/istio-control/istio-discovery",
    "istio/gateway": "manifests/charts/gateway",
}
# The filters of Istio's own build of Envoy, which the tests do not have.
WITHOUT_OWN_FILTERS = {
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
}
GROUP = "admissionregistration.k8s.io"
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
# Time for a slow machine, as for a plain Envoy.
PATIENT = {"0.25s": "20s", "0.2s": "16s", "0.1s": "2s"}


class Istio:
    def __init__(self, site: Site):
        self.site, self.folder = site, site.folder / "istio"
        space = lambda part: Namespace(f"{site.space.name}-{part}", site.cluster.kubeconfig)  # noqa: E731
        self.system, self.ingress, self.team = map(space, ("system", "ingress", "team"))
        self._marks = 0

    # What is there before the gateway.

    def install(self) -> None:
        """Follows the README up to patgate, which the site installs."""
        self._folder()
        self._values()
        self.follow("$ helm upgrade --install istio-base")

    def gateway(self) -> None:
        """Follows the README from the Secrets on."""
        self.follow("$ kubectl create namespace istio-ingress")
        self.follow("$ GUARD_WORD=")
        self.team.make()

    def uninstall(self) -> None:
        """Follows the README, and leaves Istio itself."""
        self.follow("$ kubectl delete -f deploy/istio/gateway.yaml")
        # Another control plane may run beside this one, with policies of its own.
        shipped = {
            f"{item['kind'].lower()}.{GROUP}/{item['metadata']['name']}"
            for item in self._policies()
        }
        shipped.add(f"namespace/{self.ingress.name}")
        kinds = "namespaces,validatingadmissionpolicies,validatingadmissionpolicybindings"
        if left := shipped & self.system.list_names(kinds):
            raise Failed(f"the README leaves: {sorted(left)}")

    def remove(self) -> None:
        """Removes what is in no namespace, and the namespaces."""
        self.drop(*self._policies())
        hooks = "validatingwebhookconfiguration,mutatingwebhookconfiguration"
        for kind in hooks.split(","):
            for name in self.system.list_names(kind):
                if "istio" in name:
                    self.system.kubectl("delete", name, "--ignore-not-found")
        for space in (self.team, self.ingress, self.system):
            space.delete()

    def await_removed(self) -> None:
        names = {f"namespace/{space.name}" for space in (self.system, self.ingress, self.team)}
        until("Istio is gone", lambda: not names & self.system.list_names("namespaces"))

    def _policies(self) -> list[dict]:
        """The shipped objects that are in no namespace."""
        text = (SOURCE / "admission.yaml").read_text()
        return [item for item in yaml.safe_load_all(text) if item]

    def state(self) -> str:
        return f"{self.system.state()}\n{self.ingress.state()}"

    def certificates(self) -> dict:
        """Makes the certificates, and returns the chart's values about that of patgate's port."""
        self.follow("$ openssl req")
        (self.folder / "guard-word").write_text(WORD)
        added = yaml.safe_load(readme.block(README, "yaml", "# values-istio.yaml"))
        added["settings"]["guard"]["word"] = WORD
        return added

    def _folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        (self.folder / "deploy/istio").mkdir(parents=True)
        for file in SOURCE.glob("*.yaml"):
            (self.folder / "deploy/istio" / file.name).write_text(self.here(file.read_text()))
        shutil.copy(self.site.folder / "grpc-secret", self.folder / "grpc-secret")
        kubeconfig = f"--kubeconfig={self.site.cluster.kubeconfig}"
        readme.stand_in(programs, "kubectl", kubectl(), kubeconfig)
        readme.stand_in(programs, "helm", helm.programs()["4"], kubeconfig)

    def _values(self) -> None:
        """Writes values for what these tests have in place of Istio's images."""
        image = self.site.images["istiod"].name
        proxy = self.site.images["istio-proxy"].name
        values = {
            "image": image,
            "autoscaleEnabled": False,
            "resources": SMALL,
            "env": WITHOUT_OWN_FILTERS,
            "telemetry": {"enabled": False},
            "global": {
                "istioNamespace": self.system.name,
                "proxy": {"image": proxy, "resources": SMALL},
                "proxy_init": {"image": proxy},
            },
        }
        (self.folder / "istiod-here.yaml").write_text(yaml.safe_dump(values))
        values = {"service": {"type": "ClusterIP"}, "autoscaling": {"enabled": False}}
        # Kubernetes takes the image `auto` of the chart for one that must be pulled.
        values |= {"resources": SMALL, "imagePullPolicy": "IfNotPresent"}
        (self.folder / "gateway-here.yaml").write_text(yaml.safe_dump(values))

    def here(self, text: str) -> str:
        """Replaces the names of the documentation by those of this run."""
        text = re.sub(r"\bistio-system\b", self.system.name, text)
        text = re.sub(r"\bistio-ingress\b", self.ingress.name, text)
        text = re.sub(r"\bauthz(?=[/.]|\b)", self.site.space.name, text)
        return text.replace("backend.models.svc.cluster.local", self.site.host("backend"))

    def follow(self, first: str) -> str:
        """Runs the commands of a block of the README."""
        text = "\n".join(readme.commands(readme.block(README, "console", first)))
        module = build.module("istio", "istio.io/istio")
        for chart, path in CHARTS.items():
            text = text.replace(f" {chart} ", f" {module / path} ")
        text = self.here(text)
        for name, file in (("istiod.yaml", "istiod"), ("gateway-values.yaml", "gateway")):
            text = text.replace(
                f"-f deploy/istio/{name}", f"-f deploy/istio/{name} -f {file}-here.yaml"
            )
        # The base chart makes roles that mention Istio's namespace.
        text = text.replace(
            "--create-namespace",
            f"--create-namespace --set global.istioNamespace={self.system.name}",
        )
        return readme.execute([text], self.folder, self.folder / "bin", {})

    # The manifests.

    def file(self, name: str) -> list[dict]:
        text = (self.folder / "deploy/istio" / name).read_text().replace("GUARD_WORD", WORD)
        return [item for item in yaml.safe_load_all(text) if item]

    def apply(self, name: str, edit: Callable[[list[dict]], object] = lambda items: None) -> None:
        """Applies a file as it is shipped, or with an edit."""
        items = self.file(name)
        edit(items)
        self.put(*items)

    def put(self, *objects: dict, user: str = "", dry: bool = False) -> None:
        """Applies objects to the namespaces that they name, as a user if one is named."""
        more = [f"--as={user}"] if user else []
        more += ["--dry-run=server"] if dry else []
        self._kubectl("apply", *more, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def restore(self, name: str) -> None:
        """Applies a file as the tests need it: with more time, and with HTTP on port 80."""
        self.apply(name, HERE.get(name, patient))

    def delete(self, name: str) -> None:
        """Removes the objects of a file."""
        text = yaml.safe_dump_all(self.file(name))
        self._kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)

    def drop(self, *objects: dict) -> None:
        text = yaml.safe_dump_all(objects)
        self._kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)

    def _kubectl(self, *arguments, stdin: str):
        run([kubectl(), f"--kubeconfig={self.site.cluster.kubeconfig}", *arguments], stdin)

    def patient(self, name: str) -> None:
        """Applies a file with more time for a check than it is shipped with."""
        self.apply(name, patient)

    def backend(self, name: str, service: str) -> None:
        """Adds a backend as backend.yaml says: by a copy of it."""
        text = (self.folder / "deploy/istio/backend.yaml").read_text()
        text = text.replace("model-acme", name).replace(
            self.site.host("backend"), self.site.host(service)
        )
        self.ingress.apply(*yaml.safe_load_all(text))

    # The proxy.

    def pod(self) -> str:
        pods = [pod for pod in self.ingress.pods(f"istio={GATEWAY}") if ready(pod)]
        if not pods:
            raise Failed("no pod of the gateway is ready")
        return pods[0]["metadata"]["name"]

    def address(self) -> str:
        return self.ingress.get("pod", self.pod())["status"]["podIP"]

    def admin(self, path: str) -> str:
        url = f"http://127.0.0.1:15000/{path}"
        command = ["exec", self.pod(), "-c", "istio-proxy", "--", f"{WORKLOAD}", "get", url]
        return json.loads(self.ingress.kubectl(*command).stdout)["body"]

    def expect_closed_admin(self) -> None:
        """The port by which another pod could reach the admin interface is closed to it."""
        try:
            answer = self.site.get(f"http://{self.address()}:15090/stats/prometheus")
        except Failed as failed:
            if "connection refused" in str(failed):
                return
            raise
        raise Failed(f"port 15090 of the gateway answers a pod: {answer['status']}")

    def add_provider(self, name: str, **fields) -> None:
        """Adds a provider that is the shipped one except for these fields."""
        config = self.system.get("configmap", "istio")
        mesh = yaml.safe_load(config["data"]["mesh"])
        shipped = mesh["extensionProviders"]
        [patgate] = [one for one in shipped if one["name"] == "patgate"]
        added = {"name": name, "envoyExtAuthzGrpc": patgate["envoyExtAuthzGrpc"] | fields}
        mesh["extensionProviders"] = [*shipped, added]
        data = config["data"] | {"mesh": yaml.safe_dump(mesh, sort_keys=False)}
        self.system.apply({**named("v1", "ConfigMap", "istio"), "data": data})

    def refusals(self) -> int:
        """Returns how many requests the guard has refused, as Prometheus reads it from the pod."""
        found = re.findall(
            r"^envoy_http_rbac_patgate_guard_denied\{.*\} (\d+)$",
            self.site.get(f"http://{self.address()}:15092/stats/prometheus")["body"],
            re.M,
        )
        return sum(map(int, found))

    def log(self) -> list[dict]:
        """Returns the lines of the access log."""
        lines = self.ingress.kubectl("logs", self.pod(), "-c", "istio-proxy").stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"')]

    def dump(self) -> dict:
        return json.loads(self.admin("config_dump?include_eds"))

    def settle(self) -> None:
        """Waits until the proxy has everything that the API server has accepted so far."""
        self._marks += 1
        mark = f"mark-{self._marks}"
        spec = {
            "exportTo": ["."],
            "gateways": ["patgate"],
            "hosts": ["mark.patgate.internal"],
            "http": [{"name": mark, "directResponse": {"status": 404}}],
        }
        service = {**named("networking.istio.io/v1", "VirtualService", "mark"), "spec": spec}
        self.ingress.apply(service)
        # Routes come after clusters and listeners.
        until(
            "the proxy has the new routes",
            lambda: mark in self.admin("config_dump?resource=dynamic_route_configs"),
        )
        until(
            "no listener is warming",
            lambda: "warming_state" not in self.admin("config_dump?resource=dynamic_listeners"),
        )

    def errors(self) -> list[str]:
        """Returns what Envoy has refused."""
        found = []

        def walk(node):
            if isinstance(node, dict):
                if "error_state" in node:
                    found.append(node["error_state"].get("details", "refused"))
                for child in node.values():
                    walk(child)
            elif isinstance(node, list):
                for child in node:
                    walk(child)

        walk(self.dump())
        return found

    def doctor(self, dump: dict | None = None, *more: str) -> dict:
        """Returns the doctor's report about the proxy."""
        text = json.dumps(dump or self.dump())
        command = [self.site.cluster.patgate, "doctor", "-", "--output", "json", *more]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode not in (0, FINDINGS):
            raise Failed(f"the doctor ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)


def with_time(items: list[dict]) -> None:
    """Gives the first step, whose timeout is that of the provider, as much time as the second."""
    [first, _] = items[0]["spec"]["configPatches"]
    first["patch"]["value"]["typed_config"]["grpc_service"]["timeout"] = "0.25s"
    patient(items)


def over_http(items: list[dict]) -> None:
    """Lets port 80 serve requests, so that tests can send what no client of TLS sends."""
    del items[0]["spec"]["servers"][1]["tls"]


def patient(node) -> None:
    """Gives a slow machine time for a check."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("timeout", "max_interval", "connectTimeout") and value in PATIENT:
                node[key] = PATIENT[value]
            patient(value)
    elif isinstance(node, list):
        for child in node:
            patient(child)


# How the tests change what is shipped.
HERE = {"authorizer.yaml": with_time, "gateway.yaml": over_http}
