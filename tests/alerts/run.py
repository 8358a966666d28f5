"""Causes the alerts about `patgate sync` and `patgate admin` in a real Prometheus.

    make alerts-test
    python tests/alerts/run.py

Each must be silent before its event and fire for it. As in the other test of the alerts, a minute
of the rules is a second. PatgateSyncForeignObjects needs a Kubernetes, and is not caused here.
TESTED_PATGATE is the patgate that runs, by default target/release/patgate.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import yaml  # noqa: E402

from server import ServerError, free_port  # noqa: E402
from stack import Stack  # noqa: E402

PATGATE = Path(os.environ.get("TESTED_PATGATE") or ROOT / "target/release/patgate").resolve()
SHIPPED = ROOT / "deploy/observability"
NOT_CAUSED = {"PatgateSyncForeignObjects"}
JOBS = ("patgate-sync", "patgate-admin")
PATIENCE = 60.0
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def beside() -> list[dict]:
    """The rules of the two jobs."""
    groups = yaml.safe_load((SHIPPED / "alerts.yaml").read_text())["groups"]
    [group] = [group for group in groups if group["name"] == "patgate-beside"]
    return group["rules"]


def hastened() -> str:
    """The rules, with a minute that is a second."""
    text = (SHIPPED / "alerts.yaml").read_text()
    text = re.sub(r"\[(\d+)m\]", r"[\1s]", text)
    text = re.sub(r"\[(\d+)h\]", lambda m: f"[{int(m[1]) * 60}s]", text)
    text = re.sub(r"for: (\d+)m\n", r"for: \1s\n", text)
    # The only bound that is a time.
    return text.replace('{job="patgate-sync"} > 60', '{job="patgate-sync"} > 15')


class Site:
    def __init__(self, stack: Stack):
        self.stack = stack
        self.postgres = stack.postgres()
        self.keyring = stack.dir / "keyring"
        self.keyring.touch(mode=0o600)
        self.keyring.write_text(self.patgate("keyring", "new"))
        self.patgate("migrate")
        for login, role in (("web", "web"), ("router", "sync"), ("operator", "admin")):
            self.sql(f"CREATE ROLE {login} LOGIN IN ROLE patgate_{role}")
        self.patgate("backend", "create", "here", "--url", "http://127.0.0.1:1", "--kind", "vllm")
        self.sync_port, self.metrics, self.web = free_port(), free_port(), free_port()
        folder = stack.dir / "routes"
        folder.mkdir(mode=0o755)
        self.sync = stack.process(
            [PATGATE, "sync", "--for", "envoy", "--dir", folder],
            env={
                "PATGATE_POSTGRES_URL": self.url("router"),
                "PATGATE_ROUTES_NETWORKS": "127.0.0.1/32",
                "PATGATE_ROUTES_LISTEN": f"127.0.0.1:{self.sync_port}",
            },
            name="sync",
            ready=f"http://127.0.0.1:{self.sync_port}/readyz",
        )
        self.admin = stack.process(
            [PATGATE, "admin"],
            env={
                "PATGATE_WEB_POSTGRES_URL": self.url("web"),
                "PATGATE_KEYRING_FILE": str(self.keyring),
                "PATGATE_WEB_LISTEN": f"127.0.0.1:{self.web}",
                "PATGATE_WEB_METRICS_LISTEN": f"127.0.0.1:{self.metrics}",
                "PATGATE_WEB_SIGN_INS_PER_MINUTE": "100000",
                "PATGATE_WEB_REQUESTS_PER_SECOND": "1000",
            },
            name="admin",
            ready=f"http://127.0.0.1:{self.web}/readyz",
        )
        self.prometheus = self._prometheus()

    def _prometheus(self) -> str:
        folder = self.stack.dir / "prometheus"
        folder.mkdir()
        (folder / "alerts.yaml").write_text(hastened())
        targets = {"patgate-sync": self.sync_port, "patgate-admin": self.metrics}
        (folder / "prometheus.yaml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
                    "rule_files": ["alerts.yaml"],
                    "scrape_configs": [
                        {
                            "job_name": job,
                            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
                        }
                        for job, port in targets.items()
                    ],
                }
            )
        )
        port = free_port()
        argv = ["prometheus", f"--config.file={folder}/prometheus.yaml"]
        argv += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        url = f"http://127.0.0.1:{port}"
        self.stack.process(argv, name="prometheus-server", ready=f"{url}/-/ready")
        return url

    def url(self, login: str) -> str:
        return f"postgres://{login}@127.0.0.1:{self.postgres.port}/postgres"

    def sql(self, statement: str) -> None:
        subprocess.run(
            [self.postgres.bin / "psql", "-qc", statement, self.postgres.url], check=True
        )

    def patgate(self, *words: str) -> str:
        env = {**os.environ, "PATGATE_POSTGRES_URL": self.postgres.url}
        env["PATGATE_KEYRING_FILE"] = str(self.keyring)
        ran = subprocess.run([PATGATE, *words], env=env, capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"patgate {words}: {ran.stderr}")
        return ran.stdout

    def firing(self) -> set[str]:
        """The alerts of the two jobs that fire now."""
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/alerts") as answer:
            alerts = json.load(answer)["data"]["alerts"]
        return {
            alert["labels"]["alertname"]
            for alert in alerts
            if alert["labels"].get("job") in JOBS and alert["state"] == "firing"
        }

    def shown(self) -> str:
        """The metrics of self-service that rise with its requests."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return "\n".join(line for line in lines if "_total{" in line and not line.endswith(" 0"))

    def ask(self, path: str, body: dict | None = None, host: str = "") -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{self.web}{path}")
        if host:
            request.add_header("host", host)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def until(self, what: str, names: set[str], act=lambda: None) -> None:
        """Repeats what causes alerts until exactly these fire."""
        deadline = time.monotonic() + PATIENCE
        while (fires := self.firing()) != names:
            if time.monotonic() > deadline:
                sys.exit(
                    f"{what}: expected {sorted(names)} to fire, got {sorted(fires)}\n{self.shown()}"
                )
            act()
            time.sleep(0.02)
        say(f"{what}: {', '.join(sorted(names)) or 'silence'}")


def main() -> int:
    if not shutil.which("prometheus"):
        print("tests/alerts: not run: prometheus is not installed", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    caused: set[str] = set()
    with Stack() as stack:
        try:
            site = Site(stack)
            follow(site, caused)
        except ServerError as error:
            sys.exit(str(error))
    known = {rule["alert"] for rule in beside()}
    if missing := known - caused - NOT_CAUSED:
        sys.exit(f"no event causes {sorted(missing)}")
    say(f"{len(caused)} alerts fired for their events, and no other one")
    return 0


def follow(site: Site, caused: set[str]) -> None:
    def fires(what: str, names: set[str], act=lambda: None) -> None:
        site.until(what, names, act)
        caused.update(names)

    def silence(what: str, act=lambda: None) -> None:
        site.until(what, set(), act)

    def sign_in() -> None:
        site.ask(
            "/api/sessions",
            {"email": "nobody@example.org", "password": "a wrong password, which is long"},
        )

    def probe() -> None:
        site.ask("/readyz")
        time.sleep(0.1)

    quiet = time.monotonic() + 10
    while time.monotonic() < quiet:
        site.ask("/sign-in")
        if fired := site.firing():
            sys.exit(f"without an event, {sorted(fired)} fires")
    say("silence before the events")

    outside = ("outside", "--url", "http://192.0.2.1:1", "--kind", "vllm")
    site.patgate("backend", "create", *outside)
    fires("an address that is not admitted", {"PatgateSyncBackendsRefused"})
    site.patgate("backend", "update", "outside", "--url", "http://127.0.0.1:2")
    silence("the address is admitted")

    status = site.ask(
        "/api/sessions",
        {"email": "nobody@example.org", "password": "a wrong password, which is long"},
    )
    if status != 401:
        sys.exit(f"a wrong password: expected 401, got {status}")
    fires("passwords are guessed", {"PatgateSignInsFailed"}, sign_in)
    silence("nobody guesses")
    fires(
        "another Host",
        {"PatgateAdminRefused"},
        lambda: site.ask("/sign-in", host="other.example.org"),
    )
    silence("nobody asks")

    # Each waits for Postgres for some seconds, so several ask at a time.
    ended = threading.Event()

    def until_ended(act: Callable) -> None:
        while not ended.is_set():
            act()

    asking = [threading.Thread(target=until_ended, args=(sign_in,)) for _ in range(8)]
    asking.append(threading.Thread(target=until_ended, args=(probe,)))
    site.postgres.stop()
    for thread in asking:
        thread.start()
    try:
        fires(
            "Postgres is away",
            {"PatgateSyncStale", "PatgateAdminNotReady", "PatgateAdminFailing"},
        )
    finally:
        ended.set()
        for thread in asking:
            thread.join()
    site.postgres.start()
    silence("Postgres is back", probe)

    site.sync.stop()
    site.admin.stop()
    fires("both have ended", {"PatgateSyncDown", "PatgateAdminDown"})


if __name__ == "__main__":
    sys.exit(main())
