"""docs/rollout.md: from shadow to enforcing, with the traffic of a day in one minute."""

import json

import yaml
from claims import ROOT
from installation import Gateway, Replica, Site
from procedure import Procedure

DOCUMENT = "docs/rollout.md"
EMBED = "/proxy/acme/v1/embeddings"
BODY = {"model": "m", "input": "x"}


class Rollout:
    """A gateway in front of an old one, which served before."""

    def __init__(self, p: Procedure):
        self.p, self.site = p, Site(p)
        self.site.populated()
        self.site.operator()
        self.old = p.stack.backend("old-gateway")
        self.logs = 0

    def replica(self, mode: str, denials: int = 100) -> Replica:
        self.logs += 1
        log = self.p.folder / f"decisions-{self.logs}.log"
        return self.site.replica(
            f"replica-{self.logs}",
            PATGATE_MODE=mode,
            PATGATE_DECISION_LOG_TO=str(log),
            PATGATE_DECISION_LOG_SAMPLE_ALLOWS="100%",
            PATGATE_DECISION_LOG_DENIALS_PER_SECOND=str(denials),
        ).ready()

    def gateway(self, replica: Replica) -> Gateway:
        """The shipped configuration, with the route of envoy/README.md."""
        config = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
        listener = config["static_resources"]["listeners"][0]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        [host] = manager["route_config"]["virtual_hosts"]
        [route] = yaml.safe_load(self.p.text("envoy/README.md", "rolling-out", 1))
        host["routes"].insert(0, route)
        clusters = {
            "model-acme": f"127.0.0.1:{self.site.backend.port}",
            "old-gateway": f"127.0.0.1:{self.old.port}",
        }
        return self.site.gateway(replica, clusters=clusters, text=yaml.safe_dump(config))

    def log(self) -> list[dict]:
        """The lines of the latest log, as far as they are whole."""
        text = (self.p.folder / f"decisions-{self.logs}.log").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run_rollout(p: Procedure) -> None:
    made = Rollout(p)
    gateway = made.gateway(made.replica("shadow"))
    token = made.site.token("laptop")["token"]

    # Step 1: what patgate would refuse goes to the old gateway.
    for _ in range(3):
        answer = gateway.ask(None, EMBED, "POST", json=BODY)
        p.expect("the old gateway", answer.headers.get("x-backend") == "old-gateway", answer.text)
    refused = gateway.ask(token, EMBED, "POST", json=BODY)
    p.expect("the old gateway", refused.headers.get("x-backend") == "old-gateway", refused.text)
    gateway.ask(token, EMBED, "POST", json=BODY)
    p.expect("the backend", gateway.chat(token).headers["x-backend"] == "model-acme", "another")
    # A path with more than one meaning is refused in every mode.
    twice = gateway.ask(token, "/proxy/acme/v1/models;a")
    p.expect("400", twice.status_code == 400, twice.text)
    p.until("the last decision in the log", lambda: "bad_request" in str(made.log()))
    # Another replica logs one denial per second without a verified token, and counts the others. Of
    # its log, only the counts are kept: how many it logs depends on the machine.
    other = made.gateway(made.replica("shadow", denials=1))
    for _ in range(20):
        other.ask("pat_nothing", EMBED, "POST", json=BODY)
    p.until("the counts in its log", lambda: "left_out" in str(made.log()))
    p.given("cp decisions-1.log replica-1.log; grep left_out decisions-2.log >replica-2.log")
    p.given("cat replica-1.log replica-2.log >decisions.log")

    # Step 2.
    p.follow(DOCUMENT, "from-shadow-to-enforcing", 1, numbers=True)
    p.fill("6f1c…", refused.headers["x-request-id"])
    for ran in p.follow(DOCUMENT, "the-decision-log", 2):
        p.expect("the decision", "permission_denied" in ran.text(), ran.text())

    # Step 3: nothing changes.
    p.follow(DOCUMENT, "from-shadow-to-enforcing", 2)
    gateway = made.gateway(made.replica("per-domain"))
    answer = gateway.ask(None, EMBED, "POST", json=BODY)
    p.expect("the old gateway", answer.headers.get("x-backend") == "old-gateway", answer.text)

    # Step 4: a share of the tokens.
    shown = p.follow(DOCUMENT, "a-ramp")[-1].text()
    p.expect("the share", "10%" in shown, shown)
    gateway.answers(401, None, code="missing_credential")
    made.site.cli("domain", "update", "acme", "--enforced-share", "100%")
    p.until(
        "403 for the token",
        lambda: gateway.ask(token, EMBED, "POST", json=BODY).status_code == 403,
    )
    # Step 5.
    gateway = made.site.gateway(made.replica("enforce"))
    answer = gateway.ask(token, EMBED, "POST", json=BODY)
    p.expect("403", answer.status_code == 403, answer.text)
