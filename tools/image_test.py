"""Runs the image that `make image` has built, and checks what deploy/image/README.md says about it.

    python tools/image_test.py ARCHIVE

It needs root, Linux and runc. The root of each container is the image, read-only; the user is one
that no file knows, without capabilities, with the seccomp profile that container engines use. The
network is that of this machine, so that a Postgres on it can be reached.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from cryptography.x509 import DNSName  # noqa: E402

import certificate  # noqa: E402
from server import answers, free_port  # noqa: E402
from stack import Stack  # noqa: E402

EXPECTED = {
    "etc/ssl/certs/ca-certificates.crt": 0o644,
    "usr/local/bin/patgate": 0o755,
    "usr/share/doc/patgate/LICENSE": 0o644,
    "usr/share/doc/patgate/THIRD-PARTY.txt": 0o644,
}
PATGATE = "/usr/local/bin/patgate"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# As OpenShift gives to a namespace.
USER = 1000680000
# Only our DNS server knows the first, only the container's /etc/hosts the second.
BY_DNS, BY_HOSTS = "db.patgate.test", "other.patgate.test"
SECCOMP = Path("/usr/share/containers/seccomp.json")
# The newest Postgres of Debian or Ubuntu.
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)
# In seconds. `drain.delay` is set to it; what comes on top is for a loaded machine.
DRAIN, PATIENCE = 1, 30


class Checks:
    """What was checked, printed as it goes."""

    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, what, holds, otherwise=""):
        if holds:
            self.passed += 1
            print(f"ok      {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {what}: {otherwise}", flush=True)


class Image:
    """An OCI layout in an archive, with every blob compared with its digest."""

    def __init__(self, archive):
        self._archive = tarfile.open(archive)  # noqa: SIM115 (open as long as the image)
        [listed] = json.loads(self._read("index.json"))["manifests"]
        self.digest = listed["digest"]
        self.manifest = json.loads(self._blob(listed))
        self.config = json.loads(self._blob(self.manifest["config"]))

    def _read(self, name):
        return self._archive.extractfile(name).read()

    def _blob(self, described):
        algorithm, _, expected = described["digest"].partition(":")
        content = self._read(f"blobs/{algorithm}/{expected}")
        if hashlib.new(algorithm, content).hexdigest() != expected:
            raise ValueError(f"the content of {described['digest']} has another digest")
        return content

    def layers(self):
        for described in self.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(self._blob(described))) as layer:
                yield layer

    def unpack(self, folder):
        for layer in self.layers():
            layer.extractall(folder, filter="tar")


class Runc:
    """Containers from one root file system."""

    def __init__(self, home, root, config):
        self._home, self._root, self._config = home, root, config
        self._numbers = itertools.count(1)
        self._running = []

    def _bundle(self, arguments, env, mounts, user):
        bundle = self._home / f"container-{next(self._numbers)}"
        bundle.mkdir()
        # What the image says, with the arguments in place of its own.
        given = self._config["config"]
        variables = dict(pair.split("=", 1) for pair in given["Env"]) | env
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": 0 if user == USER else user},
                "args": [*given["Entrypoint"], *arguments],
                "env": [f"{name}={value}" for name, value in variables.items()],
                "cwd": given.get("WorkingDir") or "/",
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self._root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "noexec", "mode=755", "size=64k", "ro"],
                },
                *(
                    {
                        "destination": inside,
                        "type": "bind",
                        "source": str(outside),
                        "options": ["bind", "ro"],
                    }
                    for inside, outside in mounts.items()
                ),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "seccomp": seccomp(),
            },
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle

    def _command(self, bundle):
        state = self._home / "state"
        return ["runc", "--root", str(state), "run", "--bundle", str(bundle), self._id(bundle)]

    def _id(self, bundle):
        return f"{self._home.parent.name}-{bundle.name}"

    def run(self, *arguments, env, mounts, user=USER, stdin=""):
        return subprocess.run(
            self._command(self._bundle(arguments, env, mounts, user)),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 4,
        )

    def start(self, *arguments, env, mounts, user=USER):
        bundle = self._bundle(arguments, env, mounts, user)
        log = (bundle / "log").open("wb")
        process = subprocess.Popen(
            self._command(bundle), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self._running.append((self._id(bundle), process))
        return Running(self._home / "state", self._id(bundle), process, bundle / "log")

    def close(self):
        state = str(self._home / "state")
        for id, process in self._running:
            if process.poll() is None:
                subprocess.run(["runc", "--root", state, "delete", "--force", id], check=False)
                process.wait()


class Running:
    def __init__(self, state, id, process, log):
        self._state, self.id, self.process, self.log = state, id, process, log

    def state(self):
        command = ["runc", "--root", str(self._state), "state", self.id]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def wait_until(self, url):
        started = time.monotonic()
        while not answers(url):
            if self.process.poll() is not None or time.monotonic() - started > PATIENCE:
                raise RuntimeError(f"no 200 from {url}; the log:\n{self.log.read_text()}")
            time.sleep(0.02)
        return time.monotonic() - started


def seccomp():
    """The profile of container engines, as it applies without capabilities."""
    profile = json.loads(SECCOMP.read_text())
    machine = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
    arch, architecture = machine[platform.machine()]
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if includes.get("caps") or arch not in (includes.get("arches") or [arch]):
            continue
        if arch in (excludes.get("arches") or []):
            continue
        kept = {key: rule[key] for key in ("names", "action", "errnoRet") if rule.get(key)}
        kept["args"] = [
            {
                key: value
                for key, value in argument.items()
                if key in ("index", "value", "valueTwo", "op")
            }
            for argument in rule.get("args") or []
        ]
        rules.append(kept)
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": [architecture],
        "syscalls": rules,
    }


@contextlib.contextmanager
def name_server(names):
    """Answers questions for the address of `names` with 127.0.0.1, and all others with NXDOMAIN. On
    an address of its own, since a resolver asks port 53 only."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{max(os.getpid() & 255, 2)}"
    server.bind((address, 53))
    asked = []

    def serve():
        while True:
            try:
                question, client = server.recvfrom(512)
            except OSError:
                return
            labels, at = [], 12
            while length := question[at]:
                labels.append(question[at + 1 : at + 1 + length].decode())
                at += 1 + length
            name = ".".join(labels).lower()
            kind, at = struct.unpack("!H", question[at + 1 : at + 3])[0], at + 5
            asked.append(name)
            found = name in names
            addresses = found and kind == 1
            head = struct.pack("!HHHHH", 0x8180 if found else 0x8183, 1, int(addresses), 0, 0)
            answer = question[:2] + head + question[12:at]
            if addresses:
                answer += struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
            server.sendto(answer, client)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield address, asked
    finally:
        server.close()


def check_contents(check, image):
    found, odd = {}, []
    for layer in image.layers():
        for member in layer:
            if (member.uid, member.gid) != (0, 0) or member.mode & 0o7022:
                odd.append(f"{member.name}: {member.uid}:{member.gid} {member.mode:o}")
            if member.isfile():
                found[member.name] = stat.S_IMODE(member.mode)
            elif not member.isdir():
                odd.append(f"{member.name} is neither a file nor a directory")
    check("the image holds what is listed, and nothing else", found == EXPECTED, found)
    check("all of it belongs to root, and nobody else may write it", not odd, odd)
    config = image.config["config"]
    check("its user is 65532", config["User"] == "65532:65532", config["User"])
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in config["Labels"].items()}
    needed = {"title", "description", "licenses", "version", "revision", "created"}
    check("its labels are those of OCI", needed <= labels.keys() <= needed | {"source"}, labels)
    check(
        "it was created when its sources were", image.config["created"] == labels["created"], labels
    )
    print(f"        {image.digest}")
    size = sum(layer["size"] for layer in image.manifest["layers"]) / 2**20
    print(f"        {size:.1f} MiB compressed, version {labels['version']} of {labels['revision']}")


def check_files(check, root):
    program = root / "usr/local/bin/patgate"
    said = subprocess.run(["readelf", "-ldSW", program], capture_output=True, text=True).stdout
    dynamic = [line.strip() for line in said.splitlines() if "INTERP" in line or "NEEDED" in line]
    check("the program is static", said and not dynamic, dynamic)
    check("it is position independent", "PIE" in said)
    check("it holds the list of its packages", ".dep-v0" in said)
    cargo = os.environ.get("CARGO_HOME", Path.home() / ".cargo")
    named = [str(place) for place in (ROOT, cargo) if str(place).encode() in program.read_bytes()]
    check("it does not name the folders of its builder", not named, named)
    bundle = ssl.create_default_context(cafile=root / AUTHORITIES[1:]).get_ca_certs()
    check("there are more than 100 authorities", len(bundle) > 100, len(bundle))


def check_running(check, stack, runc, root):
    home = stack.dir / "image"
    tls = certificate.make(home / "tls", [DNSName(BY_DNS), DNSName(BY_HOSTS)])
    key = tls["tls.key"]
    if os.geteuid() == 0:
        # Postgres does not run as root.
        shutil.chown(key, "nobody")
    for path in (home, home / "tls"):
        path.chmod(0o755)
    postgres = stack.postgres(
        {"ssl": "on", "ssl_cert_file": tls["tls.crt"], "ssl_key_file": key},
        tree=POSTGRES.parent.parent,
    )

    def psql(sql):
        command = [postgres.bin / "psql", postgres.url, "-qc", sql]
        subprocess.run(command, check=True, capture_output=True)

    hosts, resolver, ring = home / "hosts", home / "resolv.conf", home / "keyring"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {BY_HOSTS}\n")

    with name_server({BY_DNS}) as (address, asked):
        resolver.write_text(f"nameserver {address}\noptions timeout:2 attempts:2\n")
        trusting = {
            "/etc/hosts": hosts,
            "/etc/resolv.conf": resolver,
            "/etc/patgate/keyring": ring,
            AUTHORITIES: tls["ca.crt"],
        }
        as_shipped = {key: value for key, value in trusting.items() if key != AUTHORITIES}

        def url(login, host=BY_DNS):
            return f"postgres://{login}@{host}:{postgres.port}/postgres?sslmode=verify-full"

        env = {
            "PATGATE_POSTGRES_URL": url("postgres"),
            "PATGATE_KEYRING_FILE": "/etc/patgate/keyring",
            "PATGATE_DEADLINE": "2s",
        }

        def patgate(*arguments, stdin="", **settings):
            run = runc.run(*arguments, env={**env, **settings}, mounts=trusting, stdin=stdin)
            if run.returncode:
                said = f"{run.stdout}{run.stderr}"
                raise RuntimeError(f"patgate {' '.join(arguments)} failed:\n{said}")
            return run.stdout

        for user in (0, 65532, USER):
            ran = runc.run("--version", env={}, mounts={}, user=user)
            check(f"it starts as user {user}", ran.stdout.startswith("patgate "), ran)

        made = runc.run("keyring", "new", env={}, mounts={})
        ring.write_text(made.stdout)
        shutil.chown(ring, USER, USER)
        ring.chmod(0o400)

        patgate("migrate")
        check("DNS finds Postgres, and its certificate is trusted", BY_DNS in asked, asked)
        psql("CREATE ROLE gateway LOGIN IN ROLE patgate_serve")
        psql("CREATE ROLE web LOGIN IN ROLE patgate_web")
        serving = {"PATGATE_POSTGRES_URL": url("gateway")}

        by_hosts = {"PATGATE_POSTGRES_URL": url("gateway", BY_HOSTS)}
        ran = runc.run("config", "check", "--connect", env={**env, **by_hosts}, mounts=trusting)
        check("/etc/hosts is read, too", ran.returncode == 0, f"{ran.stdout}{ran.stderr}")
        ran = runc.run("config", "check", "--connect", env={**env, **serving}, mounts=as_shipped)
        refused = ran.returncode == 1 and "UnknownIssuer" in ran.stdout + ran.stderr
        check("an authority that is not in the image is refused", refused, ran)

        patgate("backend", "create", "model", "--url", "http://127.0.0.1:1", "--kind", "vllm")
        patgate("domain", "create", "acme", "--name", "Acme", "--upstream", "model", "--all-models")
        patgate("user", "create", "ada@example.com", "--name", "Ada")
        patgate("role", "member", "add", "acme", "admin", "ada@example.com")
        scope = ("--scope", "acme:domains:*:llm_read")
        token = patgate("token", "create", "t", "--user", "ada@example.com", *scope)

        grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        listening = {
            **env,
            **serving,
            "PATGATE_LISTEN_GRPC": grpc,
            "PATGATE_LISTEN_HTTP": http,
            "PATGATE_DRAIN_DELAY": f"{DRAIN}s",
        }
        replica = runc.start("serve", env=listening, mounts=trusting)
        took = replica.wait_until(f"http://{http}/readyz")
        print(f"        ready after {took:.2f} s")
        check_process(check, replica.state()["pid"])

        def ask(presented, path="/proxy/acme/v1/models"):
            command = ("check", "--method", "GET", "--path", path, "--server", grpc)
            return runc.run(*command, env=env, mounts=trusting, stdin=presented)

        ran = ask(token)
        check("it allows a Check with a token", ran.returncode == 0, f"{ran.stdout}{ran.stderr}")
        ran = ask(token, "/proxy/other/v1/models")
        said = ran.stdout + ran.stderr
        check("it refuses another domain", ran.returncode != 0 and "403" in said, said)
        counted = urllib.request.urlopen(f"http://{http}/metrics", timeout=5).read().decode()
        wanted = 'patgate_decisions_total{outcome="allow",code="ok",enforced="true"} 1\n'
        check(
            "and counts both",
            wanted in counted,
            [line for line in counted.splitlines() if line.startswith("patgate_decisions_total")],
        )

        check_end(check, runc, replica, http)

        web = {
            **env,
            "PATGATE_WEB_POSTGRES_URL": url("web"),
            "PATGATE_WEB_LISTEN": f"127.0.0.1:{free_port()}",
            "PATGATE_DRAIN_DELAY": "0s",
        }
        admin = runc.start("admin", env=web, mounts=trusting)
        admin.wait_until(f"http://{web['PATGATE_WEB_LISTEN']}/readyz")
        page = urllib.request.urlopen(f"http://{web['PATGATE_WEB_LISTEN']}/sign-in", timeout=5)
        check("patgate admin serves its pages", page.status == 200, page.status)
        os.kill(admin.state()["pid"], signal.SIGINT)
        check("and ends on SIGINT with 0", admin.process.wait(PATIENCE) == 0, admin.log.read_text())
        left = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
        names = {str(path.relative_to(root)) for path in left}
        check("nothing was written into its root", names == set(EXPECTED), names)


def check_process(check, pid):
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    check("it runs as that user", status["Uid"].split() == [str(USER)] * 4, status["Uid"])
    capabilities = {
        name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    }
    none = all(int(value, 16) == 0 for value in capabilities.values())
    check("without any capability", none, capabilities)
    confined = (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    check("with seccomp, and can gain no privilege", confined, status)
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    [top] = [fields[5] for fields in mounts if fields[4] == "/"]
    check("on a read-only root", "ro" in top.split(","), top)
    print(f"        resident memory {int(status['VmRSS'].split()[0]) / 1024:.0f} MiB")


def check_end(check, runc, replica, http):
    began = time.monotonic()
    os.kill(replica.state()["pid"], signal.SIGTERM)
    draining = False
    while not draining and replica.process.poll() is None and time.monotonic() - began < PATIENCE:
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(f"http://{http}/readyz", timeout=1)
            except urllib.error.HTTPError as error:
                draining = error.code == 503 and b"draining" in error.read()
    check("after SIGTERM it says that it drains", draining)
    code = replica.process.wait(PATIENCE)
    took = time.monotonic() - began
    check("it ends with 0", code == 0, replica.log.read_text())
    check(f"not before drain.delay, after {took:.1f} s", DRAIN <= took < DRAIN + PATIENCE)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: image_test.py ARCHIVE")
    if os.geteuid() != 0 or not shutil.which("runc") or not SECCOMP.exists() or not POSTGRES:
        sys.exit(
            "make image-test: needs root, runc, the seccomp profile of container engines, and a "
            "Postgres with TLS. Debian and Ubuntu: "
            "apt-get install runc golang-github-containers-common postgresql"
        )
    check = Checks()
    image = Image(sys.argv[1])
    check_contents(check, image)
    with Stack() as stack:
        home = stack.dir / "image"
        root = home / "root"
        root.mkdir(parents=True)
        image.unpack(root)
        check_files(check, root)
        runc = Runc(home, root, image.config)
        try:
            check_running(check, stack, runc, root)
        finally:
            runc.close()
    print(f"\n{check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    # Leaving the `with` of the stack stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
