"""What any gateway with patgate must answer, whichever control plane has configured it.

A case is a request with what must become of it. The manifests of a control plane may deviate where
its proxy answers before patgate is asked; a deviation replaces the expectation of a case by name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from load import WORKLOAD
from programs import Failed
from sites import Site

HOST = "gateway.example.org"
CHAT = "/proxy/acme/v1/chat/completions"
MODELS = "/proxy/acme/v1/models"
# What only patgate sets. A client sends all of them with the name of another.
IDENTITY = (
    "x-domain-id",
    "x-domain-slug",
    "x-user-id",
    "x-pat-id",
    "x-auth-operation",
    "x-auth-model",
)
# Some of the headers by which software takes a request for another one.
MISLEADING = (
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-user",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-remote-user",
    "x-tenant-id",
    "x-user",
)
# Paths that another reader could take for `MODELS`. None of them may reach a backend unless patgate
# has allowed it under the same path.
ODD_PATHS = (
    "//proxy/acme/v1/models",
    "/proxy//acme/v1/models",
    "/PROXY/acme/v1/models",
    "/Proxy/acme/v1/models",
    "/proxy",
    "/proxy/",
    "/proxy/acme",
    "/proxy/./acme/v1/models",
    "/proxy/beta/../acme/v1/models",
    "/proxy/acme/../beta/v1/models",
    "/proxy/acme/%2e%2e/beta/v1/models",
    "/proxy/acme/v1%2Fmodels",
    "/proxy%2Facme/v1/models",
    "/proxy/acme/v1%5Cmodels",
    "/proxy/acme;x=/v1/models",
    "/proxy/%61cme/v1/models",
    "/proxy/acme/v1/models/",
    "/proxy/acme/v1/models%00",
    "/other/../proxy/acme/v1/models",
    "/v1/models",
    "/",
)


@dataclass(frozen=True)
class Case:
    name: str
    path: str = MODELS
    # The name of a token of the site; empty for none.
    token: str = ""
    method: str = "GET"
    host: str = HOST
    headers: tuple[tuple[str, str], ...] = ()
    # The model that the body names; without one, there is no body.
    model: str = ""
    # How long the body is about, in bytes, and whether the model is its last member.
    length: int = 0
    last: bool = False
    http: tuple[int, ...] = (1, 2)
    # The expectation: one of these statuses.
    status: tuple[int, ...] = (200,)
    # The backend that answers; empty if none may be asked, except `may`.
    backend: str = ""
    may: str = ""
    # The path at the backend.
    asked: str = ""
    # The host at the backend.
    called: str = ""
    # Headers at the backend; `None` for those that must not be there.
    seen: dict[str, str | None] = field(default_factory=dict)
    # What the body of the answer must contain.
    says: str = ""

    def sent(self, site: Site, to: str, http: int, tls: bool = False) -> dict:
        headers = list(self.headers)
        if self.token:
            headers.append(("authorization", f"Bearer {site.tokens[self.token]}"))
        body = ""
        if self.model:
            members = [f'"model":{json.dumps(self.model)}', '"messages":[{"content":"PAD"}]']
            body = "{" + ",".join(reversed(members) if self.last else members) + "}"
            headers.append(("content-type", "application/json"))
        return {
            "to": to,
            "tls": tls,
            "http": http,
            "method": self.method,
            "path": self.path,
            "host": self.host,
            "headers": headers,
            "body": body,
            "pad": max(0, self.length - len(body)),
            "timeout": 40_000,
        }

    def fault(self, answer: dict) -> str:
        """Says what is wrong with an answer, if anything is."""
        if answer["error"]:
            # A connection that the gateway closes reaches no backend.
            return "" if 0 in self.status else f"no answer: {answer['error']}"
        if answer["status"] not in self.status:
            return f"status {answer['status']}, expected {self.status}: {answer['body'][:300]}"
        echo = echoed(answer)
        if not self.backend:
            if echo and echo["backend"] != self.may:
                return f"backend {echo['backend']} has answered, at {echo['path']}"
        elif not echo or echo["backend"] != self.backend:
            return f"expected an answer of {self.backend}: {answer['body'][:300]}"
        else:
            if self.asked and echo["path"] != self.asked:
                return f"the backend was asked for {echo['path']}, expected {self.asked}"
            if self.called and echo["host"] != self.called:
                return f"the backend was called {echo['host']}, expected {self.called}"
            for name, value in self.seen.items():
                if echo["headers"].get(name) != value:
                    found = "other than expected" if name in echo["headers"] else "missing"
                    return f"the backend's header {name} is {found}"
        if self.says not in answer["body"]:
            return f"expected {self.says!r} in the answer: {answer['body'][:300]}"
        return ""


def echoed(answer: dict) -> dict | None:
    """Returns what the backend saw, if it was the backend that answered."""
    try:
        body = json.loads(answer["body"])
    except ValueError:
        return None
    return body if isinstance(body, dict) and "backend" in body else None


def populate(site: Site) -> None:
    """Adds to the quick start's data another domain with its backend, and one in shadow."""
    site.populate()
    with site.operator() as env:
        operations = "llm_chat_completions,llm_read"
        lines = [
            "patgate backend create model-beta --url http://127.0.0.1:8002 --kind vllm",
            "patgate domain create beta --name Beta --upstream model-beta --all-models",
            f"patgate role create beta developer --operation {operations}",
            "patgate role member add beta developer ada@example.com",
            "patgate token create beta --user ada@example.com"
            f" --scope 'beta:models:*:{operations}' >beta",
            "patgate domain create shade --name Shade --upstream model-acme --all-models"
            " --mode shadow",
        ]
        site.follow(lines, env)
    site.add_token("beta", (site.folder / "beta").read_text().strip())


def table(site: Site, longest: int, called: str = "") -> Iterator[Case]:
    """Yields the cases. `longest` is the longest body that the manifests let patgate see, and
    `called` the host that the backend of acme gets, if the manifests choose it."""
    ada = {
        "x-user-id": site.user,
        "x-domain-slug": "acme",
        "authorization": None,
        "x-upstream-cluster": "model-acme",
    }
    acme = Case("", token="good", backend="model-acme", asked="/v1/models", seen=ada)
    chat = replace(
        acme, method="POST", path=CHAT, model="m-2", asked="/v1/chat/completions", seen=ada
    )
    yield replace(acme, name="list of models")
    yield replace(chat, name="chat")
    one = replace(chat, token="one-model", model="m-1", seen=ada | {"x-auth-model": "m-1"})
    yield replace(one, name="chat with the only model")
    yield replace(
        chat, name="chat with another model", token="one-model", status=(403,), backend=""
    )
    yield Case("list that patgate answers", token="one-model", says='"m-1"')
    yield replace(
        acme,
        name="another domain",
        token="beta",
        path="/proxy/beta/v1/models",
        backend="model-beta",
        seen={"x-domain-slug": "beta", "x-upstream-cluster": "model-beta"},
    )
    yield replace(
        chat,
        name="Azure's form",
        path="/proxy/acme/openai/deployments/m-2/chat/completions?api-version=2024-10-21",
    )
    yield replace(acme, name="Ollama's form", path="/proxy/acme/api/tags", asked="/api/tags")
    # By the host, a proxy before several services would choose who gets the credential.
    if called:
        mine = {"host": "mine.example.org", "seen": ada | {"x-forwarded-host": None}}
        yield replace(acme, name="a client's host", called=called, **mine)

    denied = Case("", status=(401,))
    yield replace(denied, name="no token", says="missing_credential")
    yield replace(denied, name="revoked token", token="revoked", says="token_revoked")
    yield replace(denied, name="foreign token", token="foreign", says="invalid_token")
    two = (("authorization", f"Bearer {site.tokens['good']}"),)
    yield Case("two credentials", token="good", headers=two, status=(400,))
    denied = Case("", token="good", status=(403,))
    yield replace(denied, name="domain of others", path="/proxy/beta/v1/models")
    yield replace(denied, name="unknown domain", path="/proxy/none/v1/models")
    yield Case("no such call", "/proxy/acme/v1/nothing", "good", status=(404,))
    yield replace(denied, name="upgrade", headers=WEBSOCKET, http=(1,), status=(403, 404))

    yield from spoofed(acme, chat, one)
    yield from bodies(chat, one, longest)
    yield from in_shadow(site)
    # Whatever these mean, they reach no backend without a token, and with one only as it may.
    for path in ODD_PATHS:
        refused = (0, 301, 302, 307, 308, 400, 401, 403, 404, 503)
        yield Case(f"no token at {path}", path, http=(1,), status=refused)
        # A gateway that makes a path canonical before patgate is asked may let it through.
        other = Case(f"another's token at {path}", path, "beta", http=(1,), may="model-beta")
        yield replace(other, status=(*refused, 200))


WEBSOCKET = (
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def spoofed(acme: Case, chat: Case, one: Case) -> Iterator[Case]:
    """Yields requests that bring what only patgate may set."""
    liar = tuple((name, "mallory") for name in IDENTITY)
    other = (("x-upstream-cluster", "model-beta"),)
    yield replace(acme, name="spoofed backend", headers=other)
    yield replace(acme, name="spoofed backend, twice", headers=other * 2)
    yield replace(chat, name="spoofed backend, with a body", headers=other)
    yield replace(one, name="spoofed backend, in two steps", headers=other + liar)
    nothing = {"x-auth-model": None}
    yield replace(acme, name="spoofed identity", headers=liar, seen=acme.seen | nothing)
    yield Case("spoofed identity, no token", headers=liar + other, status=(401,))
    under = tuple((name.replace("-", "_"), value) for name, value in liar + other)
    yield replace(acme, name="spoofed identity, underscores", headers=under, status=(200, 400))
    many = tuple((name, "mallory") for name in MISLEADING)
    gone = dict.fromkeys(MISLEADING)
    yield replace(acme, name="misleading headers", headers=many, seen=acme.seen | gone)


def bodies(chat: Case, one: Case, longest: int) -> Iterator[Case]:
    """Yields bodies that patgate need not read, and some that it must."""
    for length in (60_000, 1_000_000, 8_000_000):
        yield replace(chat, name=f"body of {length}", length=length)
    known = sorted({60_000, 1_000_000, longest - 1_000})
    for length in known:
        if length > longest:
            continue
        yield replace(one, name=f"body of {length} that is read", length=length)
        end = replace(one, length=length, last=True)
        yield replace(end, name=f"body of {length} that is read to its end")
        other = replace(end, model="m-2", status=(403,), backend="")
        yield replace(other, name=f"body of {length} with another model")
    yield replace(
        one,
        name="body that is too long",
        length=longest + 100_000,
        last=True,
        status=(413,),
        backend="",
    )


def in_shadow(site: Site) -> Iterator[Case]:
    """Yields requests of a domain that enforces nothing yet: they pass as what they came."""
    nobody = dict.fromkeys(IDENTITY)
    path = "/proxy/shade/v1/models"
    shade = Case("", path, backend="model-acme", asked="/v1/models", seen=nobody)
    liar = tuple((name, "mallory") for name in IDENTITY)
    yield replace(shade, name="shadow: no token", headers=liar)
    other = (("x-upstream-cluster", "model-beta"),)
    yield replace(shade, name="shadow: another backend", headers=other)
    odd = Case("shadow: bad path", "/proxy/shade//v1/models", http=(1,), may="model-acme")
    yield replace(odd, status=(200, 307, 400, 404))


class Gateway:
    """A gateway to which the tests send requests, from the pod of the first backend."""

    def __init__(self, site: Site, to: str, tls: bool = False):
        self.site, self.to, self.tls = site, to, tls

    def send(self, cases: list[Case]) -> list[tuple[Case, int, dict]]:
        """Sends the cases by each version of HTTP that they name."""
        pairs = [(case, http) for case in cases for http in case.http]
        sent = [case.sent(self.site, self.to, http, self.tls) for case, http in pairs]
        done = self.site.space.execute("backend", WORKLOAD, "send", stdin=json.dumps(sent))
        return [(*pair, answer) for pair, answer in zip(pairs, json.loads(done), strict=True)]

    def faults(self, cases: list[Case]) -> list[str]:
        """Returns what is wrong with the answers."""
        found = []
        for case, http, answer in self.send(cases):
            if fault := case.fault(answer):
                found.append(f"{case.name} by HTTP/{http}: {fault}")
        return found

    def expect(self, cases: list[Case]) -> None:
        """All of them must be answered as they say."""
        if faults := self.faults(cases):
            raise Failed(f"{len(faults)} answers are not as expected:\n" + "\n".join(faults))
        sent = sum(len(case.http) for case in cases)
        self.site.say(f"  {sent} requests were answered as expected")


def deviating(cases: Iterator[Case], **of: dict) -> list[Case]:
    """Replaces expectations by the names of their cases, each of which must exist."""
    cases = list(cases)
    if unknown := of.keys() - {case.name for case in cases}:
        raise Failed(f"no case is called {unknown}")
    return [replace(case, **of.get(case.name, {})) for case in cases]
