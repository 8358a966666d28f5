"""Gives the rendered settings to a real patgate, with files as Kubernetes mounts them."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from helm import ROOT
from rules import configs, containers, label, pods

LOGIN = "postgres://login@db.example.org:5432/patgate?sslmode=verify-full"
# What the key of a Secret holds, by the name of its volume, and otherwise by its key.
HELD = {
    ("redis", "url"): "redis://patgate@redis.example.org:6379/0",
    ("grpc-secret", "secret"): "0123456789abcdef" * 4,
    ("telemetry-headers", "headers"): "authorization=Bearer abc",
    ("token", "authorization"): "Bearer pat_abc",
    "url": LOGIN,
    "password": "a-password",
    "client-secret": "a-client-secret",
}
PURPOSE = {"serve": [], "config": [], "admin": ["--self-service"], "migrate": ["--admin"]}
PURPOSE |= {"check": ["--admin"]}


def patgate() -> str:
    return os.environ.get("TESTED_PATGATE", str(ROOT / "target/release/patgate"))


class Files:
    """Files that Secrets and ConfigMaps outside of the release hold."""

    def __init__(self, kept: Path):
        self.certificates = kept
        certificate = [sys.executable, str(ROOT / "tools/certificate.py"), str(kept)]
        subprocess.run(certificate, check=True, capture_output=True)
        ring = subprocess.run([patgate(), "keyring", "new"], check=True, capture_output=True)
        self.ring = ring.stdout

    def held(self, volume: str, key: str) -> bytes:
        if volume == "keyring":
            return self.ring
        if key in ("ca.crt", "tls.crt", "tls.key"):
            return (self.certificates / key).read_bytes()
        return (HELD.get((volume, key)) or HELD[key]).encode()


def check(objects, values, files: Files):
    """Yields an error for each container whose settings patgate refuses."""
    for item, _, spec in pods(objects):
        for container in containers(spec):
            verb = container.get("args", [""])[0]
            if verb in PURPOSE:
                for error in refused(objects, item, spec, container, files):
                    yield f"{label(item)}, {container['name']}: {error}"


def refused(objects, item, spec, container, files: Files):
    with tempfile.TemporaryDirectory() as place:
        mount(Path(place), objects, spec, container, files)
        env = {}
        for variable in container["env"]:
            env[variable["name"]] = variable["value"].replace("/etc/patgate", place)
        command = [patgate(), "config", "check", *PURPOSE[container["args"][0]]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        if done.returncode:
            yield done.stderr.replace(place, "/etc/patgate").strip()
        # A file that the settings do not name would be mounted without effect.
        shown = done.stdout + "".join(env.values())
        for name in () if done.returncode else mounted(container):
            if name not in UNNAMED and f"{place}/{name}" not in shown:
                yield f"no setting names a file of {name}"


# The rest of a Secret may be named in a URL.
UNNAMED = {"postgres", "web-postgres", "redis", "token"}


def mounted(container) -> set[str]:
    paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    return {Path(path).name for path in paths if path.startswith("/etc/patgate/")}


def mount(place: Path, objects, spec, container, files: Files) -> None:
    """Writes what the container would see below /etc/patgate, with paths that lead to `place`."""
    maps = configs(objects)
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    # Which keys of an existing Secret the settings name.
    config = maps.get(volumes.get("config", {}).get("configMap", {}).get("name"), {})
    text = config.get("data", {}).get("patgate.yaml", "")
    text += "".join(f'\n"{variable["value"]}"' for variable in container["env"])
    for one in container.get("volumeMounts", []):
        name, path = one["name"], one["mountPath"]
        if not path.startswith("/etc/patgate/"):
            continue
        to = place / Path(path).relative_to("/etc/patgate")
        to.mkdir(parents=True)
        source = volumes[name]
        if item := maps.get(source.get("configMap", {}).get("name")):
            for key, data in item["data"].items():
                write(to / key, data.replace("/etc/patgate", str(place)).encode())
        elif name == "apis":
            write(to / "own.yaml", (ROOT / "deploy/apis/scim.yaml").read_bytes())
        else:
            for word in text.replace('"', " ").split():
                if word.startswith(f"{path}/"):
                    write(to / word.removeprefix(f"{path}/"), files.held(name, Path(word).name))


def write(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    file.chmod(0o440)


def choices(chart, values):
    """A setting that has choices has those of patgate in the schema, and no others."""
    schema = json.loads((chart / "values.schema.json").read_text())
    with tempfile.TemporaryDirectory() as place:
        known = {
            "PATGATE_KEYRING_FILE": f"{place}/keyring",
            "PATGATE_POSTGRES_URL": LOGIN.partition("?")[0],
        }
        ring = subprocess.run([patgate(), "keyring", "new"], check=True, capture_output=True)
        write(Path(place) / "keyring", ring.stdout)
        for key, part in chosen(schema["properties"]["settings"]):
            env = {**known, f"PATGATE_{key.upper().replace('.', '_')}": "neither"}
            command = [patgate(), "config", "check"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            if set(part["enum"]) != set(re.findall("`([^`]+)`", done.stderr)) - {"neither"}:
                yield f"settings.{key} can be {part['enum']}, patgate says: {done.stderr}"


def chosen(node, prefix=""):
    for key, part in node["properties"].items():
        if "properties" in part:
            yield from chosen(part, f"{prefix}{key}.")
        elif "enum" in part:
            yield f"{prefix}{key}", part
