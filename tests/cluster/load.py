"""A load of requests whose answers are all known, sent from a pod."""

import json
import time
from dataclasses import dataclass

from kube import until
from programs import Failed

WORKLOAD = "/usr/local/bin/workload"
# In seconds, in which a load ends by itself if the tests are killed.
LIMIT = 900
CHAT = "/proxy/acme/v1/chat/completions"
MODELS = "/proxy/acme/v1/models"


@dataclass
class Result:
    seconds: float
    sent: int
    bad: dict[str, int]
    first: list[dict]
    half: float
    most: float
    longest: float

    def __str__(self) -> str:
        bad = ", ".join(f"{count} {kind}" for kind, count in sorted(self.bad.items())) or "none bad"
        return (
            f"{self.sent} requests in {self.seconds:.0f} s, {bad}; half took {self.half:.0f} ms, "
            f"99 of 100 {self.most:.0f} ms, the longest {self.longest:.0f} ms"
        )


class Load:
    def __init__(self, site, host: str, rate: float = 60, workers: int = 24):
        self._site, self._steps = site, []
        self._spec = {
            "url": f"http://{host}",
            "workers": workers,
            "rate": rate,
            "limit": LIMIT,
            # Envoy gives up a check after less.
            "timeout": 40,
            "requests": requests(site),
        }

    def __enter__(self):
        space = self._site.space
        space.secret("load", **{"load.json": json.dumps(self._spec)})
        space.apply_file("load.yaml", workload=self._site.images["workload"].name)
        until("the load runs", lambda: self._running())
        return self

    def __exit__(self, *_):
        self._site.space.kubectl("delete", "pod", "load", "--grace-period=1", "--ignore-not-found")

    def _running(self) -> bool:
        if self._site.space.get("pod", "load")["status"].get("phase") != "Running":
            return False
        try:
            return self.count().sent > 0
        except Failed:
            return False

    def step(self, what: str) -> None:
        """Says what is done to the cluster from now on, so that a failure can be assigned to it."""
        self._steps.append((time.time(), what))
        self._site.say(f"under load: {what}")

    def count(self) -> Result:
        return Result(**json.loads(self._site.space.execute("load", WORKLOAD, "count")))

    def flow(self, seconds: float = 5) -> None:
        """Waits until as many requests have been sent as about this time brings."""
        # Workers that wait for slow answers send less.
        wanted = self.count().sent + seconds * self._spec["rate"] / 2
        until(f"{wanted:.0f} requests sent", lambda: self.count().sent >= wanted)

    def end(self) -> Result:
        space = self._site.space
        space.execute("load", WORKLOAD, "end")
        until("the load has ended", lambda: self._phase() in ("Succeeded", "Failed"))
        return Result(**json.loads(space.kubectl("logs", "load").stdout))

    def _phase(self) -> str:
        return self._site.space.get("pod", "load")["status"]["phase"]

    def report(self, result: Result) -> str:
        """Says when which requests were not answered as expected."""
        lines = [str(result), *(f"  {at(began)} {what}" for began, what in self._steps)]
        for bad in result.first:
            answer = bad["error"] or f"{bad['status']} {bad['body']}"
            lines.append(f"  {bad['time'][11:23]} {bad['request']} {bad['kind']}: {answer}")
        return "\n".join(lines)


def at(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(moment))


def requests(site) -> list[dict]:
    """Half of them pass. POST is what no client repeats by itself when a connection ends."""
    seen = {"x-user-id": site.user, "x-domain-slug": "acme", "authorization": ""}
    bearer = {name: f"Bearer {token}" for name, token in site.tokens.items()}

    def request(name, token, status, path=MODELS, model="", takes=0, **seen):
        body = json.dumps({"model": model, "messages": []}) if model else ""
        return {
            "name": name,
            "method": "POST" if model else "GET",
            "path": path,
            "authorization": bearer.get(token, ""),
            "body": body,
            "takes": takes,
            "status": status,
            "seen": seen,
        }

    return [
        request("list", "good", 200, **seen),
        request("no token", "", 401),
        request("chat", "good", 200, CHAT, "m-2", **seen),
        request("revoked token", "revoked", 401),
        # These are decided by their bodies, in two steps.
        request("chat with its model", "one-model", 200, CHAT, "m-1", **seen),
        request("chat with another model", "one-model", 403, CHAT, "m-2"),
        request("another list", "good", 200, **seen),
        request("foreign token", "foreign", 401, CHAT, "m-1"),
        # A model that thinks.
        request("slow chat", "good", 200, CHAT, "m-2", takes=2000, **seen),
    ]
