"""docs/rollout.md: from shadow to enforcing, with the traffic of a day in one minute."""

import json

import httpx2
import yaml
from checkout import Checkout
from claims import ROOT
from installation import CHAT, Site
from procedure import Procedure

from server import answers

DOCUMENT = "docs/rollout.md"
STEPS = "from-shadow-to-enforcing"


class Rollout:
    """The gateway of the document: one replica, which its commands start, and an old gateway, which
    served before."""

    def __init__(self, p: Procedure):
        self.p, self.site, self.tree = p, Site(p), Checkout(p)
        self.site.populated()
        self.old = p.stack.backend("old-gateway")
        self.http = f"127.0.0.1:{self.tree.port(9192)}"
        for name, login in (("server", "gateway"), ("operator", "operator")):
            file = p.folder / f"{name}.url"
            file.touch(mode=0o600)
            file.write_text(self.site.url(login))
        settings = self.tree.settings() | {
            "PATGATE_POSTGRES_URL_FILE": str(p.folder / "operator.url"),
            "PATGATE_KEYRING_FILE": str(p.folder / "keyring"),
            "PATGATE_DECISION_LOG_SAMPLE_ALLOWS": "100%",
            "PATGATE_DRAIN_DELAY": "0s",
        }
        for name, value in settings.items():
            p.given(f"export {name}='{value}'")
        # The role of the quick start, and the tokens of the document.
        self.site.cli("role", "revoke", "acme", "developer", "llm_embeddings")
        self.site.cli("user", "create", "bob@example.com", "--name", "Bob")
        self.site.cli("role", "member", "add", "acme", "developer", "bob@example.com")
        self.laptop, self.ci = (self.site.token(name)["token"] for name in ("laptop", "ci"))
        scope = "acme:models:*:llm_chat_completions,llm_read"
        options = ("--user", "bob@example.com", "--scope", scope, "--output", "json")
        self.notebook = json.loads(self.site.cli("token", "create", "notebook", *options))["token"]
        self.envoy = p.stack.envoy(config_yaml=self.config(), patch=self.patch())

    def config(self) -> str:
        """The shipped configuration, with the route of envoy/README.md."""
        config = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
        listener = config["static_resources"]["listeners"][0]
        [host] = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"][
            "virtual_hosts"
        ]
        [route] = yaml.safe_load(self.p.text("envoy/README.md", "rolling-out", 1))
        host["routes"].insert(0, route)
        return yaml.safe_dump(config)

    def patch(self) -> dict:
        backends = {"model-acme": self.site.backend, "old-gateway": self.old}
        clusters = {name: f"127.0.0.1:{backend.port}" for name, backend in backends.items()}
        return {"authz": f"127.0.0.1:{self.tree.port(9191)}", "clusters": clusters}

    def ready(self) -> None:
        self.p.until("a replica", lambda: answers(f"http://{self.http}/readyz"))

    def ask(self, token: str | None, path: str, method: str = "POST"):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = {"json": CHAT} if method == "POST" else {}
        url = self.envoy.url + path
        return httpx2.request(method, url, headers=headers, timeout=30, **body)

    def served_by(self, backend: str | None, token: str | None, path: str, status: int = 200):
        """Waits until this backend answers, because Envoy may not have found the replica yet."""
        last = None

        def holds() -> bool:
            nonlocal last
            last = self.ask(token, path)
            return (last.status_code, last.headers.get("x-backend")) == (status, backend)

        what = f"{status} by {backend} for {path}"
        self.p.until(what, holds, lambda: f"{last.status_code} {last.headers} {last.text}")
        return last

    def traffic(self) -> dict[str, str]:
        """The requests of the document. Returns the id of one of each path."""
        chat, wrong = "/proxy/acme/v1/chat/completions", "/proxy/acme/v1/chat/completion"
        assistants, jobs = "/proxy/acme/v1/assistants", "/proxy/acme/v1/fine_tuning/jobs"
        ids = {}
        for token, path, times in (
            (self.laptop, chat, 3),
            (self.laptop, "/proxy/acme/v1/embeddings", 3),
            (self.ci, jobs, 3),
            (self.notebook, wrong, 3),
            (self.notebook, assistants, 1),
            ("pat_nothing", assistants, 3),
            (None, chat, 3),
            (None, "/nowhere", 1),
            (self.laptop, "/proxy/acme/v1/models;a", 1),
        ):
            for _ in range(times):
                # Of the same denials in a second, the log has the first.
                ids.setdefault(path, self.ask(token, path).headers["x-request-id"])
        return ids

    def log(self) -> str:
        return (self.p.folder / "decisions.log").read_text()


def run_rollout(p: Procedure) -> None:
    made = Rollout(p)
    chat, embeddings = "/proxy/acme/v1/chat/completions", "/proxy/acme/v1/embeddings"
    p.follow(DOCUMENT, STEPS, 1)
    made.ready()
    # Until Envoy has found the replica, requests are no traffic of the document.
    made.served_by("model-acme", made.laptop, chat)
    p.until("the log", lambda: "allow" in made.log())
    (p.folder / "decisions.log").rename(p.folder / "before.log")
    p.given("kill -HUP $!")
    p.until("a new log", lambda: (p.folder / "decisions.log").exists())
    ids = made.traffic()
    counted = '"path":"/proxy/acme/v1/fine_tuning/jobs"'
    p.until("all counts", lambda: made.log().count(counted) >= 2, made.log)
    p.until("the last decision", lambda: "bad_request" in made.log(), made.log)
    p.follow(DOCUMENT, STEPS, 2)
    p.fill("cc975422…", ids["/proxy/acme/v1/fine_tuning/jobs"])
    p.follow(DOCUMENT, STEPS, 3)
    made.served_by("old-gateway", made.laptop, embeddings)

    # One request of the log, by its id.
    p.fill("6f1c…", ids[embeddings])
    p.given("cp decisions.log replica-1.log; cp before.log replica-2.log")
    for ran in p.follow(DOCUMENT, "one-request", 1):
        p.expect("the decision", "permission_denied" in ran.text(), ran.text())

    # Nothing changes yet, except for what belongs to no domain.
    p.follow(DOCUMENT, STEPS, 4)
    made.ready()
    made.served_by("old-gateway", None, chat)
    made.served_by("old-gateway", made.laptop, embeddings)
    made.served_by(None, None, "/nowhere", 401)

    p.follow(DOCUMENT, "a-ramp", 1)
    made.served_by(None, None, chat, 401)
    p.follow(DOCUMENT, STEPS, 5)
    p.follow(DOCUMENT, STEPS, 6, cut=True)
    p.follow(DOCUMENT, STEPS, 7)
    made.served_by(None, made.laptop, embeddings, 403)

    listed = p.follow(DOCUMENT, STEPS, 8)[0].text()
    p.expect("enforce, without a share", "%" not in listed and "enforce" in listed, listed)
    made.ready()
    made.served_by(None, made.laptop, embeddings, 403)
    made.served_by("model-acme", made.laptop, chat)
