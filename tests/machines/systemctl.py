"""The commands of `systemctl` that the page of the machines has, where no systemd runs.

It starts what the units say, as the units say; see unit.py. In a PID namespace, everything ends
with it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from unit import Unit

UNITS = Path("/etc/systemd/system")
STATE, JOURNAL = Path("/run/units"), Path("/run/journal")
HERE = Path(__file__).resolve().parent


def pid_of(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((STATE / name).read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return pid if state != "Z" else None
    return None


def act(unit: Unit, what: str, *more: str) -> list[str]:
    return [sys.executable, str(HERE / "unit.py"), str(unit.file), what, *more]


def start(unit: Unit) -> None:
    if pid_of(unit.name):
        return
    with (JOURNAL / unit.name).open("ab") as log:
        process = subprocess.Popen(
            act(unit, "start"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (STATE / unit.name).write_text(str(process.pid))


def stop(unit: Unit) -> None:
    pid = pid_of(unit.name)
    if not pid:
        return
    with (JOURNAL / unit.name).open("ab") as log:
        subprocess.run(act(unit, "stop"), stdout=log, stderr=log, check=True)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + int(unit.one("TimeoutStopSec"))
    while pid_of(unit.name):
        if time.monotonic() > deadline:
            sys.exit(f"{unit.name} has not ended within TimeoutStopSec")
        time.sleep(0.05)


def main() -> None:
    for folder in (STATE, JOURNAL):
        folder.mkdir(exist_ok=True)
    command, *names = [word for word in sys.argv[1:] if word != "--now"]
    if command == "daemon-reload":
        return
    for name in names:
        unit = Unit(UNITS / (name if name.endswith(".service") else f"{name}.service"))
        if command in ("stop", "restart"):
            stop(unit)
        if command in ("enable", "start", "restart"):
            start(unit)
        elif command == "reload":
            pid = pid_of(unit.name) or sys.exit(f"{unit.name} does not run")
            subprocess.run(act(unit, "reload", str(pid)), check=True)
        elif command != "stop":
            sys.exit(f"systemctl {command}: not known here")


if __name__ == "__main__":
    main()
