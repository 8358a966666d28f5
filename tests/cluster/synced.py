"""A domain that is made by the commands is served by a gateway, with nothing restarted."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

from cases import Case, Gateway
from kube import Namespace, ready, until
from programs import Failed
from scenarios.routes import KINDS
from sites import Site

OPERATIONS = "llm_chat_completions,llm_read"
LABEL = "app.kubernetes.io/managed-by=patgate-sync"


def show(site: Site, gateway: Gateway, target: str, space: Namespace) -> None:
    """`space` is the namespace of the gateway."""
    kinds = ",".join(KINDS[target])
    site.backend("gamma", "model-gamma")
    until("the new backend", lambda: ready(site.space.get("pod", "gamma")))
    before = site.identities()
    url = f"http://{site.host('gamma')}:8001"
    new = Case(
        "the new domain",
        "/proxy/gamma/v1/models",
        "gamma",
        backend="model-gamma",
        asked="/v1/models",
        seen={"x-domain-slug": "gamma"},
    )
    with site.operator() as env, running(site, target, space.name, env):
        site.follow(
            [
                # One that stays: the last backend is not removed.
                f"patgate backend create model-delta --url {url} --kind vllm",
                "patgate domain create gamma --name Gamma --upstream model-delta --all-models",
                f"patgate role create gamma developer --operation {OPERATIONS}",
                "patgate role member add gamma developer ada@example.com",
                "patgate token create gamma --user ada@example.com"
                f" --scope 'gamma:models:*:{OPERATIONS}' >gamma",
            ],
            env,
        )
        site.tokens["gamma"] = (site.folder / "gamma").read_text().strip()
        site.follow(
            [
                f"patgate backend create model-gamma --url {url} --kind vllm",
                "patgate domain set-upstream gamma model-gamma",
            ],
            env,
        )
        began = time.monotonic()
        upstream = new.seen | {"x-upstream-cluster": "model-gamma"}
        until("the new domain is served", lambda: not gateway.faults([new]))
        took = time.monotonic() - began
        gateway.expect([replace(new, seen=upstream)])
        site.say(f"  a domain that was made just now is served after {took:.1f} s")

        site.follow(
            [
                "patgate domain set-upstream gamma model-delta",
                "patgate backend delete model-gamma",
            ],
            env,
        )
        gone = lambda: {n for n in found(space, kinds) if "gamma" in n}  # noqa: E731
        until("the objects of a backend that was deleted are gone", lambda: not gone())
        until("the other backend serves", lambda: not gateway.faults([new]))
        if not found(space, kinds):
            raise Failed("patgate sync has removed the last backend")
    if site.identities() != before:
        raise Failed("pods of patgate were replaced")
    space.kubectl("delete", kinds, "-l", LABEL)


def found(space: Namespace, kinds: str) -> set[str]:
    names = space.kubectl("get", kinds, "-l", LABEL, "-o", "name").stdout
    return set(names.split())


@contextlib.contextmanager
def running(site: Site, target: str, namespace: str, env: dict[str, str]) -> Iterator[None]:
    """Runs `patgate sync` as from an operator's machine."""
    settings = {
        "PATGATE_ROUTES_HOSTS": f"http://{site.host('gamma')}:8001",
        "PATGATE_ROUTES_NAMESPACE": namespace,
        "PATGATE_ROUTES_LISTEN": "",
        "KUBECONFIG": str(site.cluster.kubeconfig),
        "PATH": os.environ["PATH"],
    }
    log = site.folder / "sync.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [site.cluster.patgate, "sync", "--for", target],
            cwd=site.folder,
            env={**settings, **env},
            stdout=output,
            stderr=output,
        )
        try:
            yield
            if process.poll() is not None:
                raise Failed(f"patgate sync has ended:\n{log.read_text()}")
        except Failed as failed:
            raise Failed(f"{failed}\npatgate sync says:\n{log.read_text()[-4000:]}") from None
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
