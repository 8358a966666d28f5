"""The cluster of a run: that of KUBECONFIG, or one that is made here."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from images import Made
from programs import run


@dataclass
class Cluster:
    kubeconfig: Path
    images: dict[str, Made]
    # The program of the image, for the operator's commands.
    patgate: Path
    say: Callable[[str], None]
    # Whether its processes are among those of this machine.
    on_this_machine: bool = False


def given() -> Path | None:
    """Returns the file of the cluster that the user names."""
    named = os.environ.get("KUBECONFIG")
    if not named:
        return None
    file = Path(named).resolve()
    if not file.is_file():
        raise SystemExit(f"make cluster-test: KUBECONFIG names {named}, which is no file")
    return file


def registry() -> str:
    """Returns the registry of the images: `localhost` for those that are loaded into the nodes."""
    return os.environ.get("CLUSTER_REGISTRY", "localhost").rstrip("/")


def deliver(made: dict[str, Made], say: Callable[[str], None]) -> None:
    """Brings the images to a cluster of the user's, with the command that the user names."""
    load = os.environ.get("CLUSTER_LOAD", "")
    if registry() == "localhost" and not load:
        raise SystemExit(
            "make cluster-test: with KUBECONFIG, say how images come to the nodes. CLUSTER_LOAD is "
            "a command that gets the path of an archive, such as 'kind load image-archive', or "
            "CLUSTER_REGISTRY a registry from which nodes pull, such as registry.example.org/test"
        )
    for image in made.values():
        say(f"Bringing {image.name} to the nodes")
        if load:
            run([*shlex.split(load), image.archive])
        else:
            run(["skopeo", "copy", f"oci-archive:{image.archive}", f"docker://{image.name}"])
