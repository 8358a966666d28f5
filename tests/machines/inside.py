"""Follows the page from top to bottom, in the namespaces that run.py has made."""

import grp
import pwd
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import machine
import yaml
from machine import ROOT, Machine
from page import Failed, Shell, commands

from stack import Stack

PAGE = ROOT / "deploy/machines/README.md"
ENVOY_PAGE = ROOT / "envoy/README.md"
PATIENCE = 60.0
GATEWAY = "gateway.example.org"
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def expect(what: str, holds: object, detail: object = "") -> None:
    if not holds:
        raise Failed(f"expected: {what}\ngot:      {detail}")


def until(what: str, holds, detail=lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"expected: {what}\ngot:      not within {PATIENCE:.0f} s {detail()}")
        time.sleep(0.05)


class Follower:
    def __init__(self, on: Machine):
        self.machine, self.shell = on, Shell(on.checkout, on.environment)
        self.fills = {"http://10.20.0.21:8001": on.backend.url}

    def follow(self, heading: str, document: Path = PAGE) -> dict[str, str]:
        """Runs the commands below a heading, and returns what each has printed."""
        printed = {}
        for command in commands(document, heading):
            text = command
            for placeholder, value in self.fills.items():
                text = text.replace(placeholder, value)
            start = time.monotonic()
            printed[command] = self.shell.run(text)
            say(f"$ {command[:110]} ({time.monotonic() - start:.1f} s)")
        return printed

    def curl(self, *arguments: str, token: bool = True, status: bool = True) -> str:
        """Asks the gateway over HTTPS, and returns the status."""
        credential = ["-H", "Authorization: Bearer " + self.token()] if token else []
        ran = subprocess.run(
            ["curl", "-sS", "-m", "30", "--cacert", self.authority("ca.crt")]
            + ["--resolve", f"{GATEWAY}:443:127.0.0.1", *credential]
            + (["-o", "/dev/null", "-w", "%{http_code}"] if status else [])
            + [*arguments, f"https://{GATEWAY}/proxy/acme/v1/models"],
            capture_output=True,
            text=True,
        )
        return ran.stdout or ran.stderr

    def token(self) -> str:
        return (self.machine.home / "token").read_text().strip()

    def authority(self, name: str) -> str:
        return str(self.machine.home / "authority" / name)


def pid_of(name: str) -> int:
    return int(Path(f"/run/units/{name}.service").read_text())


def status_of(name: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid_of(name)}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}


def runs_as(name: str, user: str, groups: set[str]) -> None:
    """The kernel's word on a process: who it is, and what is withheld from it."""
    status = status_of(name)
    uid = str(pwd.getpwnam(user).pw_uid)
    expect(f"{name} runs as {user}", status["Uid"].split() == [uid] * 4, status["Uid"])
    own = {grp.getgrgid(int(gid)).gr_name for gid in status["Groups"].split()}
    expect(f"{name} is in {groups} and its own", groups <= own <= groups | {user}, own)
    expect(f"{name} gains nothing", status["NoNewPrivs"] == "1", status["NoNewPrivs"])
    expect(f"{name} has a filter of calls", status["Seccomp"] == "2", status["Seccomp"])
    most = 1 << 10 if name == "envoy" else 0
    expect(f"{name} has no capability", int(status["CapEff"], 16) == most, status["CapEff"])
    limits = Path(f"/proc/{pid_of(name)}/limits").read_text()
    expect(f"{name} dumps no core", re.search(r"Max core file size +0 +0 ", limits), limits)
    probe = f"/proc/{pid_of(name)}/root/usr/.probe"
    try:
        Path(probe).touch()
    except OSError:
        return
    raise Failed(f"{name} could write to /usr")


def cannot_read(user: str, *paths: str) -> None:
    for path in paths:
        expect(f"{path} exists", Path(path).exists())
        ran = subprocess.run(["runuser", "-u", user, "--", "test", "-r", path])
        expect(f"{user} cannot read {path}", ran.returncode == 1, ran.returncode)


def rights() -> None:
    runs_as("patgate", "patgate", {"patgate-authz", "patgate-keys"})
    runs_as("patgate-sync", "patgate-sync", set())
    runs_as("envoy", "envoy", {"patgate-authz"})
    secrets = ("/etc/patgate/keyring", "/etc/patgate/serve/postgres.password")
    cannot_read("envoy", *secrets, "/etc/patgate/serve.yaml", "/etc/patgate/operator/owner.url")
    cannot_read("patgate-sync", *secrets, "/etc/envoy/tls/tls.key", "/run/patgate/authz.sock")
    cannot_read("patgate", "/etc/envoy/tls/tls.key", "/etc/patgate/admin/postgres.password")
    cannot_read("patgate-admin", "/run/patgate/authz.sock", "/etc/patgate/serve/postgres.password")
    for path in Path("/etc/patgate").rglob("*"):
        expect(f"root owns {path}", path.stat().st_uid == 0, path.stat().st_uid)
        expect(
            f"only root writes {path}", not path.stat().st_mode & 0o022, oct(path.stat().st_mode)
        )


def metric(url: str, name: str) -> float:
    text = subprocess.run(["curl", "-sS", f"{url}/metrics"], capture_output=True, text=True).stdout
    return sum(float(n) for n in re.findall(rf"^{re.escape(name)}[^ ]* (\S+)$", text, re.M))


def admin(path: str) -> str:
    url = f"http://127.0.0.1:9901{path}"
    return subprocess.run(["curl", "-sS", url], capture_output=True, text=True).stdout


def stat(name: str) -> int:
    found = re.search(rf"^{re.escape(name)}: (\d+)$", admin(f"/stats?filter={name}"), re.M)
    return int(found[1]) if found else 0


def lds() -> str:
    return admin("/stats?filter=listener_manager.lds.update_")


def the_first_request(f: Follower) -> None:
    f.follow("An authority of your own", ENVOY_PAGE)
    f.shell.run("umask 022; cd " + str(f.machine.checkout))
    printed = f.follow("From an empty machine to the first request")
    listed, refused = [text for command, text in printed.items() if "/v1/models" in command]
    expect("a list of models", '"object"' in listed and "model" in listed, listed)
    expect("401 without a token", "missing_credential" in refused, refused)
    [doctor] = [text for command, text in printed.items() if "patgate doctor" in command]
    say("the doctor: " + doctor.strip().splitlines()[-1])
    word = Path("/etc/patgate/operator/guard.word").read_text().strip()
    expect("the guard's word in Envoy, once", admin("/config_dump").count(word) >= 1)
    expect("no shipped word", '"exact": "patgate"' not in admin("/config_dump"))
    for name in ("serve", "sync"):
        told = printed_errors(name)
        expect(f"no warning about the files of {name}", not told, told)
    rights()


def printed_errors(name: str) -> list[str]:
    unit = {"serve": "patgate", "sync": "patgate-sync"}[name]
    lines = Path(f"/run/journal/{unit}.service").read_text().splitlines()
    return [
        line for line in lines if '"level":"ERROR"' in line or "read" in line and "WARN" in line
    ]


def the_key_ring_is_taken_up(f: Follower) -> None:
    """root changes the file in its place, and the group that may read it stays."""
    before = metric("http://127.0.0.1:9192", 'patgate_key_ring_reloads_total{result="ok"}')
    f.shell.run("patgate keyring add")
    until(
        "the service takes up the key ring",
        lambda: (
            metric("http://127.0.0.1:9192", 'patgate_key_ring_reloads_total{result="ok"}') > before
        ),
        lambda: Path("/run/journal/patgate.service").read_text()[-2000:],
    )


def the_decision_log(f: Follower) -> None:
    log = Path("/var/log/patgate/decisions.log")
    until("a denial in the log", lambda: "missing_credential" in log.read_text())
    f.follow("The decision log")
    expect("the renamed file", Path(f"{log}.1").exists(), list(log.parent.iterdir()))
    expect("401", f.curl(token=False) == "401")
    until("the new file", lambda: log.exists() and "missing_credential" in log.read_text())


def listeners_change(f: Follower) -> None:
    """Under load, with connections that stay and with new ones."""
    answers, ended = [], threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answers.append(f.curl())

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    before = stat("listener_manager.lds.update_success")
    f.follow("Changing Envoy without an outage")
    until("Envoy takes it up", lambda: stat("listener_manager.lds.update_success") > before)
    until("in force", lambda: '"request_timeout": "300s"' in admin("/config_dump"))
    seen = len(answers)
    until("requests after it", lambda: len(answers) > seen + 40)
    ended.set()
    for thread in asking:
        thread.join()
    expect(
        "no failed request", set(answers) == {"200"}, {a: answers.count(a) for a in set(answers)}
    )
    expect("nothing refused", stat("listener_manager.lds.update_rejected") == 0)
    say(f"{len(answers)} requests while the listeners changed, all 200")
    # A wrong file changes nothing.
    file = Path("/etc/envoy/listeners/listeners.yaml")
    wrong = file.with_name("wrong")
    wrong.write_text(file.read_text().replace("normalize_path: true", "normalise_path: true"))
    kept = file.read_text()
    wrong.rename(file)
    until("Envoy refuses it", lambda: "update_rejected: 1" in lds() or "update_failure: 1" in lds())
    say("a wrong file: " + ", ".join(re.findall(r"update_\w+: [1-9]\d*", lds())))
    expect("200 all the same", f.curl() == "200")
    f.shell.run(f"install -m 0640 -g envoy /dev/null {file}.new")
    Path(f"{file}.new").write_text(kept)
    Path(f"{file}.new").rename(file)


def other_machines(f: Follower) -> None:
    [before, after] = [
        part for part in (split(commands(PAGE, "patgate on other machines"))) if part
    ]
    f_run(f, before)
    until("200 over TLS", lambda: f.curl() == "200", f.curl)
    # The document about Envoy shows what the script writes.
    written = yaml.safe_load(Path("/etc/envoy/envoy.yaml").read_text())
    [cluster] = written["static_resources"]["clusters"]
    blocks = re.findall(r"```yaml\n(transport_socket:\n.*?)```", ENVOY_PAGE.read_text(), re.S)
    shown = yaml.safe_load(blocks[0])["transport_socket"]
    expect("the cluster of envoy/README.md", cluster["transport_socket"] == shown, cluster)
    secret = re.search(r"```yaml\n(resources:\n.*?)```", ENVOY_PAGE.read_text(), re.S)[1]
    shipped = yaml.safe_load((ROOT / "deploy/machines/client.yaml").read_text())
    expect("the secret of envoy/README.md", yaml.safe_load(secret) == shipped, shipped)
    # Without a certificate of Envoy's name, nobody is answered.
    check = "patgate check --method GET --path /proxy/acme/v1/models --server 10.20.0.11:9191"
    check += " --server-ca-file ~/authority/ca.crt --server-name patgate"
    refused = f.shell.run(f"{check} <~/token", status=1)
    say("without a certificate: " + refused.strip().splitlines()[-1])
    own = " --client-certificate-file ~/authority/{0}.crt --client-key-file ~/authority/{0}.key"
    f.shell.run(f"{check}{own.format('patgate')} <~/token", status=1)
    f.shell.run(f"{check}{own.format('envoy')} <~/token")
    # The next certificate, by the same command.
    [again] = [c for c in commands(ENVOY_PAGE, "An authority of your own") if "CN=envoy" in c]
    old = serial(f.authority("envoy.crt"))
    f.shell.run(f"cd ~/authority; (umask 077; {again}); cd -")
    new = serial(f.authority("envoy.crt"))
    expect("another certificate", old != new)
    expect("the old one in use", old in certificates())
    f_run(f, after)
    until("Envoy shows the new certificate", lambda: new in certificates(), certificates)
    expect("200 with it", f.curl() == "200")


def split(found: list[str]) -> tuple[list[str], list[str]]:
    """Before and after the certificate is renewed."""
    first = next(i for i, command in enumerate(found) if "tls.key.new" in command)
    return found[:first], found[first:]


def f_run(f: Follower, found: list[str]) -> None:
    for command in found:
        start = time.monotonic()
        f.shell.run(command)
        say(f"$ {command[:110]} ({time.monotonic() - start:.1f} s)")


def serial(file: str) -> str:
    text = subprocess.run(
        ["openssl", "x509", "-in", file, "-noout", "-serial"], capture_output=True, text=True
    ).stdout
    return text.strip().removeprefix("serial=").lower()


def certificates() -> str:
    return admin("/certs").lower()


def self_service(f: Follower) -> None:
    printed = f.follow("Self-service")
    [invited] = [text for command, text in printed.items() if "user invite" in command]
    link = "https://tokens.example.org/invitation"
    expect("the link of the proxy", link in invited, invited)
    runs_as("patgate-admin", "patgate-admin", {"patgate-keys"})
    proxied(f)


def proxied(f: Follower) -> None:
    """nginx as shipped. Envoy has port 443 of this machine, so nginx gets another address."""
    f.shell.run("systemctl stop envoy.service")
    folder = f.machine.stack.dir / "nginx"
    folder.mkdir()
    f.shell.run("install -d /etc/nginx/tls && cd ~/authority")
    [like] = [
        c for c in commands(PAGE, "From an empty machine to the first request") if "CN=gat" in c
    ]
    f.shell.run(like.replace(GATEWAY, "tokens.example.org").replace("gateway.", "tokens."))
    f.shell.run("cp tokens.crt tokens.key /etc/nginx/tls/; cd -")
    site = ROOT / "deploy/machines/self-service.nginx"
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log stderr;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\ninclude {site};\n"
        + "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + "}\n"
    )
    nginx = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    base = ["curl", "-sS", "-m", "30", "--cacert", f.authority("ca.crt")]
    base += ["--resolve", "tokens.example.org:443:127.0.0.1"]

    def get(path: str, *more: str) -> str:
        url = f"https://tokens.example.org{path}"
        return subprocess.run([*base, *more, url], capture_output=True, text=True).stdout

    try:
        until("the page through nginx", lambda: "<form" in get("/sign-in"), lambda: get("/sign-in"))

        # Ten sign-ins a minute for a client, each for another account: accounts have limits too.
        def sign_in(number: int, *more: str) -> str:
            account = (
                f'{{"email":"nobody-{number}@example.org","password":"a wrong password, long"}}'
            )
            code = ("-o", "/dev/null", "-w", "%{http_code}")
            return get("/api/sessions", "--json", account, *code, *more)

        # A client that claims to be many is one.
        statuses = [sign_in(n, "-H", f"x-forwarded-for: 192.0.2.{n}") for n in range(12)]
        expect("429 at the end", statuses[-1] == "429" and statuses[0] == "401", statuses)
        # Another client behind the same proxy has a rate of its own: that is web.proxies.
        other = sign_in(12, "--interface", "127.0.0.2")
        expect("401 for another client", other == "401", other)
    finally:
        nginx.terminate()
        nginx.wait()


def ends(f: Follower) -> None:
    f.follow("Upgrading")
    f.shell.run("systemctl stop envoy patgate patgate-sync patgate-admin")
    for unit in ("patgate", "patgate-sync", "patgate-admin"):
        # Nobody has waited for it, so it may still have an entry.
        file = Path(f"/proc/{pid_of(unit)}/stat")
        state = file.read_text().rpartition(")")[2].split()[0] if file.exists() else "Z"
        expect(f"{unit} has ended", state == "Z", state)


def main() -> int:
    if not machine.PATGATE.exists():
        sys.exit(f"{machine.PATGATE} is missing: run make build, or set TESTED_PATGATE")
    with Stack() as stack:
        follower = Follower(Machine(stack))
        try:
            the_first_request(follower)
            the_key_ring_is_taken_up(follower)
            the_decision_log(follower)
            listeners_change(follower)
            other_machines(follower)
            self_service(follower)
            ends(follower)
        except Failed as error:
            print(f"\n{error}", file=sys.stderr)
            for log in sorted(Path("/run/journal").glob("*")):
                print(f"\n{log.name}:\n{log.read_text()[-1500:]}", file=sys.stderr)
            return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
