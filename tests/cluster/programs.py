"""The programs that the tests call: kubectl and both versions of Helm, for one cluster."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import build

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# At the end: both folders have a module `cases`.
sys.path.append(str(ROOT / "tests/chart"))
import helm  # noqa: E402, F401 (for those that import it from here)

# In seconds: a command that takes this long will never end.
HANGS_AFTER = 300


class Failed(Exception):
    """A command has failed, or the cluster is not as a test expects."""


@functools.cache
def kubectl() -> str:
    """Returns the path of kubectl, which comes with Helm 4. `KUBECTL` replaces it."""
    if given := os.environ.get("KUBECTL"):
        return given
    build.BIN.mkdir(parents=True, exist_ok=True)
    build.kubectl()
    return str(build.BIN / "kubectl")


def run(
    command: list, stdin: str | None = None, env: dict | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Runs a command to its end, and raises if it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd,
        timeout=HANGS_AFTER,
    )
    if done.returncode:
        shown = " ".join(command)
        raise Failed(f"{shown}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done
