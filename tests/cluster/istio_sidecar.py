"""Enforcement at a sidecar that Istio has injected into the pod of a backend, by the README.

The image of the tests has no iptables to redirect connections, so the sidecar listens on a port of
its own, by Istio's interception mode NONE.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from cases import CHAT, Case, Gateway
from istio_site import SOURCE, WORD, Istio, patient, with_time
from kube import Namespace, named, ready, until
from load import WORKLOAD
from programs import Failed, helm, run
from sites import Site

PORT = 9080
FILES = ("connection.yaml", "authorizer.yaml", "answers.yaml", "patgate.yaml", "log.yaml")


def show(site: Site, istio: Istio, values: dict) -> None:
    site.say("a sidecar")
    site.upgrade("4", helm.merged(values, {"service": {"clusterIP": True}}))
    host = f"patgate-clusterip.{site.space.name}"
    service = f"{site.space.name}/{host}.svc.cluster.local"
    istio.add_provider("patgate-sidecar", service=service)
    with backends(istio) as space:
        applied(istio, space)
        started(site, istio, space)
        gateway = Gateway(site, f"model.{space.name}.svc.cluster.local:{PORT}")
        served = [Case("good token", token="good", backend="model-acme")]
        until("the sidecar serves", lambda: not gateway.faults(served), every=1)
        gateway.expect([*served, *requests()])
        sound(istio, space)


def requests() -> list[Case]:
    beta = {"path": "/proxy/beta/v1/models", "token": "beta"}
    spoofed = (("x-upstream-cluster", "model-acme"),)
    return [
        Case("no token", status=(401,)),
        Case("no token at an odd path", "/PROXY/x", http=(1,), status=(401,)),
        # patgate permits these at the backend of beta, and this one is another.
        Case("another domain", **beta, status=(503,)),
        Case("another domain, spoofed", **beta, headers=spoofed, status=(503,)),
        Case(
            "a body of 30 MB that is read",
            CHAT,
            "one-model",
            "POST",
            model="m-1",
            length=30_000_000,
            last=True,
            backend="model-acme",
        ),
        Case("another model", CHAT, "one-model", "POST", model="m-2", status=(403,)),
    ]


@contextmanager
def backends(istio: Istio) -> Iterator[Namespace]:
    space = Namespace(f"{istio.site.space.name}-models", istio.site.cluster.kubeconfig)
    space.apply({**named("v1", "Namespace", space.name)})
    until("its service account", lambda: space.list_names("serviceaccounts"))
    try:
        yield space
    finally:
        space.delete()


def applied(istio: Istio, space: Namespace) -> None:
    """Applies the files as the README says."""
    for name in FILES:
        text = sed(istio, name).replace(istio.ingress.name, space.name)
        items = list(yaml.safe_load_all(in_space(text, space)))
        (with_time if name == "authorizer.yaml" else patient)(items)
        istio.put(*items)
    text = (istio.folder / "deploy/istio/sidecar.yaml").read_text()
    istio.put(*yaml.safe_load_all(in_space(text, space)))
    secret = (istio.folder / "grpc-secret").read_text()
    space.secret("patgate-grpc", secret=secret)
    authority = (istio.folder / "ca.crt").read_text()
    space.apply({**named("v1", "ConfigMap", "patgate-ca"), "data": {"ca.crt": authority}})


def sed(istio: Istio, name: str) -> str:
    script = istio.here((SOURCE / "sidecar.sed").read_text())
    return run(["sed", script, istio.folder / "deploy/istio" / name]).stdout


def in_space(text: str, space: Namespace) -> str:
    text = text.replace("namespace: models", f"namespace: {space.name}")
    text = text.replace("configmap://models/", f"configmap://{space.name}/")
    return text.replace("GUARD_WORD", WORD)


def started(site: Site, istio: Istio, space: Namespace) -> None:
    secret = {"secretKeyRef": {"name": "patgate-grpc", "key": "secret"}}
    containers = [
        {
            "name": "backend",
            "image": site.images["workload"].name,
            "args": ["backend", "127.0.0.1:8001", "model-acme"],
        },
        {
            "name": "istio-proxy",
            "image": "auto",
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "PATGATE_GRPC_SECRET", "valueFrom": secret}],
        },
    ]
    annotations = yaml.safe_load((SOURCE / "gateway-values.yaml").read_text())["podAnnotations"]
    pod = named("v1", "Pod", "model")
    pod["metadata"] |= {
        "labels": {"app": "model-acme", "sidecar.istio.io/inject": "true"},
        "annotations": {"sidecar.istio.io/interceptionMode": "NONE", **annotations},
    }
    pod["spec"] = {"terminationGracePeriodSeconds": 1, "containers": containers}
    ingress = {
        "port": {"number": PORT, "protocol": "HTTP", "name": "http"},
        "defaultEndpoint": "127.0.0.1:8001",
        "captureMode": "NONE",
    }
    # Without interception, Envoy opens a port for each service that the pod may call.
    authorizer = f"{site.space.name}/{site.host('patgate-clusterip')}"
    sidecar = {
        **named("networking.istio.io/v1", "Sidecar", "model"),
        "spec": {
            "workloadSelector": {"labels": {"app": "model-acme"}},
            "ingress": [ingress],
            "egress": [{"hosts": [authorizer]}],
        },
    }
    ports = [{"name": "http", "port": PORT}]
    service = {
        **named("v1", "Service", "model"),
        "spec": {"selector": {"app": "model-acme"}, "ports": ports},
    }
    space.apply(sidecar, service, pod)
    until("the pod with its sidecar", lambda: ready(space.get("pod", "model")))


def sound(istio: Istio, space: Namespace) -> None:
    url = "http://127.0.0.1:15000/config_dump?include_eds"
    command = ["exec", "model", "-c", "istio-proxy", "--", WORKLOAD, "get", url]
    dump = json.loads(json.loads(space.kubectl(*command).stdout)["body"])
    if findings := istio.doctor(dump)["findings"]:
        found = [(one["rule"], one["found"]) for one in findings]
        raise Failed(f"the doctor finds in the sidecar: {found}")
