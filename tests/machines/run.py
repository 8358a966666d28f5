"""Follows deploy/machines/README.md, and checks the units that it ships.

    make machines-test
    python tests/machines/run.py --units    only checks the units, with systemd-analyze

Root follows the page in namespaces of its own: with another /etc, /run, /var/log and
/usr/local/bin, and a network that nobody else sees. No systemd runs there: systemctl.py starts
what the units say, with what they give. TESTED_PATGATE is the patgate that is installed, by default
target/release/patgate.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from unit import Unit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SHIPPED = ROOT / "deploy/machines"
# What `systemd-analyze security` may find at most, in tenths; a unit without hardening has 96.
MOST_EXPOSED = 20
NEEDED = ("unshare", "ip", "setpriv", "runuser", "systemd-sysusers", "logrotate", "nginx", "curl")
SECONDS = 37  # drain.delay, drain.grace, and two seconds


def units() -> list[str]:
    """Returns what is wrong with the units."""
    faults = []
    files = sorted(SHIPPED.glob("*.service"))
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            # The programs are not installed here.
            copy = Path(folder, file.name)
            copy.write_text(file.read_text().replace("/usr/local/bin/", f"{folder}/"))
        for name in ("patgate", "envoy"):
            shutil.copy("/bin/true", Path(folder, name))
        copies = sorted(map(str, Path(folder).glob("*.service")))
        ran = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *copies], capture_output=True, text=True
        )
        said = [line for line in ran.stderr.splitlines() if ".service" in line]
        faults += said or (["systemd-analyze verify failed: " + ran.stderr] * bool(ran.returncode))
        for file in copies:
            ran = subprocess.run(
                ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
                + [f"--threshold={MOST_EXPOSED}", file],
                capture_output=True,
                text=True,
            )
            line = ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr
            print(line.replace("→ ", ""), flush=True)
            if ran.returncode:
                faults.append(f"{Path(file).name} is more exposed than {MOST_EXPOSED / 10}")
    for file in files:
        unit = Unit(file)
        if unit.one("User") in ("", "root"):
            faults.append(f"{file.name}: it has no user of its own")
        if unit.one("Restart") != "on-failure":
            faults.append(f"{file.name}: Restart is not on-failure")
        if int(unit.one("TimeoutStopSec", "0")) < SECONDS + 3:
            faults.append(f"{file.name}: TimeoutStopSec is too short for a drain")
        if unit.one("LimitCORE") != "0":
            faults.append(f"{file.name}: it may dump its memory")
    return faults


def missing(programs: tuple[str, ...]) -> str:
    return ", ".join(name for name in programs if not shutil.which(name))


def main() -> int:
    if absent := missing(("systemd-analyze",)):
        return skipped(f"{absent} is not installed (Debian: systemd)")
    if faults := units():
        print("\n".join(["", *faults]), file=sys.stderr)
        return 1
    if "--units" in sys.argv:
        return 0
    if os.geteuid():
        return skipped("it needs root, for namespaces")
    if absent := missing(NEEDED):
        return skipped(f"{absent}: not installed. Debian: apt-get install nginx logrotate iproute2")
    inside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run([*inside, sys.executable, str(HERE / "inside.py")]).returncode


def skipped(why: str) -> int:
    print(f"tests/machines: not run: {why}", file=sys.stderr)
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
