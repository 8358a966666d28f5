"""A machine for the page: namespaces with an empty /etc/patgate, servers, and programs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from stack import ENVOY, Stack  # noqa: E402

PATGATE = Path(os.environ.get("TESTED_PATGATE") or ROOT / "target/release/patgate").resolve()
# The addresses that the page has.
ADDRESSES = ("10.20.0.11",)
RULES = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


def call(*argv: object) -> None:
    subprocess.run([str(arg) for arg in argv], check=True)


class Machine:
    def __init__(self, stack: Stack):
        self.stack = stack
        self._file_systems()
        call("ip", "link", "set", "lo", "up")
        for address in ADDRESSES:
            call("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.postgres = stack.postgres({"port": 5432})
        (self.postgres.data / "pg_hba.conf").write_text(RULES)
        psql = self.postgres.bin / "psql"
        self.admin = "postgres://postgres@127.0.0.1:5432/postgres"
        call(psql, self.admin, "-qc", "SELECT pg_reload_conf()")
        self.backend = stack.backend("model-acme")
        self.checkout = self._checkout()
        self.home = stack.dir / "home"
        self.home.mkdir(mode=0o700)
        programs = Path("/run/programs")
        programs.mkdir()
        for name, line in (
            ("psql", f'exec {psql} "$@"'),
            # Perhaps not on the path of the services.
            ("logrotate", f'exec {shutil.which("logrotate")} --state /run/logrotate "$@"'),
            ("systemctl", f'exec {sys.executable} {HERE / "systemctl.py"} "$@"'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ADMIN_URL": self.admin,
        }

    def _file_systems(self) -> None:
        """Everything that the page writes goes into memory."""
        call("mount", "--make-rprivate", "/")
        etc = self.stack.dir / "etc"
        call("cp", "-a", "/etc", etc)
        for name in ("patgate", "envoy"):
            shutil.rmtree(etc / name, ignore_errors=True)
        call("mount", "--bind", etc, "/etc")
        for folder in ("/run", "/var/log"):
            call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        Path("/run/lock").mkdir()
        installed = Path("/run/installed")
        installed.mkdir()
        call("mount", "--bind", "/usr/local/bin", installed)
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/usr/local/bin")
        for program in installed.iterdir():
            if program.name not in ("patgate", "envoy"):
                Path("/usr/local/bin", program.name).symlink_to(program)

    def _checkout(self) -> Path:
        """A checkout in which everything is built and downloaded."""
        checkout = self.stack.dir / "checkout"
        (checkout / "target/release").mkdir(parents=True)
        for name in ("deploy", "envoy", "tools"):
            (checkout / name).symlink_to(ROOT / name)
        (checkout / "target/release/patgate").symlink_to(PATGATE)
        (checkout / "envoy-1.40.0-linux-x86_64").symlink_to(ENVOY)
        return checkout
