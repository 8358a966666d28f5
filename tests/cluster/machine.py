"""What a node needs of the machine: mounts and a network in the namespaces of the run, and control
groups, which are the only thing that outlives them."""

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

from configuration import ADDRESSES, STATE

from server import ServerError

CGROUPS = Path("/sys/fs/cgroup")
# Where containerd, its shims, CNI and the kubelet write, whatever their configuration says.
HIDDEN = ("/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
# The kubelet would set these for the whole machine. It finds the wanted values, in files of ours.
KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def prepare_mounts() -> None:
    for path in map(Path, HIDDEN):
        path.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=755", "patgate", path)
    (STATE / "kernel").mkdir(parents=True)
    for name, value in KERNEL.items():
        file = STATE / "kernel" / name.replace("/", ".")
        file.write_text(f"{value}\n")
        run("mount", "--bind", file, Path("/proc/sys") / name)


def prepare_network() -> None:
    """The node's addresses stand on one end of a pair: the kernel may have no dummy device."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1")
    for device in ("all", "default", "node0"):
        # An address is not used before the kernel has looked for duplicates, for a second.
        sysctl(f"net/ipv6/conf/{device}/accept_dad", 0)
        sysctl(f"net/ipv6/conf/{device}/forwarding", 1)
    sysctl("net/ipv4/ip_forward", 1)
    for device in ("node0", "node1"):
        run("ip", "link", "set", device, "up")
    for address in ADDRESSES:
        six = ["-6"] if ":" in address else []
        run("ip", *six, "address", "add", f"{address}/{64 if six else 24}", "dev", "node0")
        run("ip", *six, "route", "add", "default", "dev", "node0")


def sysctl(name: str, value: int) -> None:
    (Path("/proc/sys") / name).write_text(f"{value}\n")


def check_overlays(folder: Path) -> None:
    """Fails if a container's root cannot be mounted there: the reason would be hard to see."""
    parts = {name: folder / f"try-{name}" for name in ("lowerdir", "upperdir", "workdir")}
    target = folder / "try-target"
    for part in (*parts.values(), target):
        part.mkdir()
    options = ",".join(f"{name}={part}" for name, part in parts.items())
    try:
        run("mount", "-t", "overlay", "-o", options, "overlay", target)
    except ServerError as error:
        raise ServerError(
            f"{folder} takes no overlays ({error}). Put the project on a file system that does, "
            "such as ext4; inside a container, on a volume."
        ) from error
    run("umount", target)
    for part in (*parts.values(), target):
        shutil.rmtree(part)


def prepare_cgroups(name: str) -> None:
    """The kubelet wants its root to exist for each controller."""
    for group in cgroups(name):
        group.mkdir(exist_ok=True)


def cgroups(name: str) -> list[Path]:
    """Returns a folder per controller in version 1 of control groups, one folder in version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / name.strip("/")]
    return [each / name.strip("/") for each in CGROUPS.iterdir() if each.is_dir()]


def remove_cgroups(name: str) -> None:
    """Removes the control groups of a run whose first process has ended."""
    for group in cgroups(name):
        for folder, _, _ in os.walk(group, topdown=False):
            remove_empty(Path(folder))


def remove_empty(cgroup: Path) -> None:
    """After a kill, the kernel may still be ending the last processes."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return cgroup.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def run(*command) -> None:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{' '.join(words)}: {done.stderr.strip()}")
