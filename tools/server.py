"""One supervised server process, and the conditions that show that it is up."""

import contextlib
import ctypes
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
POLL = 0.01


class ServerError(Exception):
    """An error of a server, with the end of its log."""


class Server:
    """One supervised process, which can be stopped and started again on the same port and data."""

    def __init__(
        self,
        id,
        argv,
        log,
        *,
        ready=None,
        env=None,
        user=None,
        cwd=None,
        stop_signal=signal.SIGTERM,
        **facts,
    ):
        self.id = id
        self.log = Path(log)
        # What there is to know of this kind of server, such as its port: members here, and part
        # of the supervisor's answer.
        self.facts = facts
        vars(self).update(facts)
        self._argv = [str(arg) for arg in argv]
        self._ready = ready
        self._env = env
        self._user = user
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._process = None

    @property
    def pid(self):
        return self._process.pid

    def status(self):
        code = self._process.poll()
        return {"running": code is None, "exit": code}

    def start(self):
        with self.log.open("ab") as log:
            # A separate session, so that Ctrl-C in a terminal does not end the servers: the
            # supervisor does.
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=die_with_parent(),
                **identity(self._user),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while self._ready:
            # Asked first, because another process may answer on a port that ours failed to get.
            if self._process.poll() is not None:
                raise ServerError(
                    f"{self.id} ended with {self._process.returncode} at start, "
                    f"its log ends:\n{self.log_tail()}"
                )
            if self._ready(self):
                break
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(
                    f"{self.id} was not ready within {START_TIMEOUT:.0f} s, "
                    f"its log ends:\n{self.log_tail()}"
                )
            time.sleep(POLL)
        return self

    def stop(self):
        if self._process.poll() is None:
            # A frozen process would never receive SIGTERM.
            self.signal(signal.SIGCONT)
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.status()

    def kill(self):
        self.signal(signal.SIGKILL)

    def restart(self):
        self.stop()
        return self.start()

    def signal(self, number):
        """Freezing, thawing and killing concern the whole tree: a Postgres whose first process
        is frozen still answers on the connections that it has. Returns from a kill once all
        of it is dead."""
        if self._process.poll() is not None:
            return
        if number not in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
            self._process.send_signal(number)
            return
        root = psutil.Process(self.pid)
        if number == signal.SIGKILL:
            # Frozen, it starts no children while they are counted.
            root.suspend()
        children = root.children(recursive=True)
        for process in (root, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()
            self._wait_for(children)

    def _wait_for(self, children):
        """What they held, such as memory that they share, keeps a new server from starting."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while left := [child.pid for child in children if not ended(child)]:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.id} was killed, but not all of it has ended within "
                    f"{STOP_TIMEOUT:.0f} s: processes {left}"
                )
            time.sleep(POLL)

    def log_tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


_given = set()


def free_port(count=1):
    """The first of `count` free ports in a row, below the range that the kernel gives to outgoing
    connections: a server that is down for a moment would otherwise find its port taken by
    somebody's connection, or a client reconnecting to it would connect to itself. None is given
    twice: whoever asked for one may not have taken it yet."""
    while True:
        first = random.randrange(15000, 32000)
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(map(_is_free, ports)):
            _given.update(ports)
            return first


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def ended(process):
    """Whether it holds nothing any more. A zombie does not, and in a container nobody may reap the
    orphans."""
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def accepts(port):
    return answers(f"127.0.0.1:{port}")


def answers(target):
    """Whether a TCP address or Unix socket accepts connections, or a URL answers with 200."""
    try:
        if target.startswith("http://"):
            host, _, path = target.removeprefix("http://").partition("/")
            connection = http.client.HTTPConnection(host, timeout=1)
            try:
                connection.request("GET", "/" + path)
                return connection.getresponse().status == 200
            finally:
                connection.close()
        if target.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(target.removeprefix("unix:"))
                return True
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except (OSError, http.client.HTTPException):
        return False


def identity(user):
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def die_with_parent():
    """Linux ends our children even when we are killed outright. Elsewhere only a kill of the
    supervisor itself leaves them running."""
    if sys.platform != "linux":
        return None
    prctl, us, PR_SET_PDEATHSIG = ctypes.CDLL(None).prctl, os.getpid(), 1

    def child():
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != us:
            os._exit(1)

    return child
