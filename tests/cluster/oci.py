"""Writes images as archives of an OCI layout, without a registry, root or a program for it."""

import hashlib
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NAME, REFERENCE = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@dataclass
class Image:
    """What an image holds: files by their path in it, from files here or as bytes."""

    entrypoint: list[str]
    files: dict[str, Path | bytes]
    env: list[str] = field(default_factory=list)

    def save(self, archive: Path, name: str) -> None:
        """Writes the archive. `name` is the image's whole name, with its tag."""
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            layer = Path(folder) / "layer"
            digest = self._write_layer(layer)
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": self.entrypoint, "Env": self.env, "User": "65532:65532"},
                "rootfs": {"type": "layers", "diff_ids": [digest]},
            }
            blobs = {"layer": layer, "config": encoded(config)}
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described(CONFIG, blobs["config"]),
                "layers": [{"mediaType": LAYER, "digest": digest, "size": layer.stat().st_size}],
            }
            blobs["manifest"] = encoded(manifest)
            unfinished = archive.with_suffix(".unfinished")
            with tarfile.open(unfinished, "w") as tar:
                for blob in blobs.values():
                    add(tar, f"blobs/sha256/{sha256(blob).removeprefix('sha256:')}", blob)
                add(tar, "oci-layout", encoded({"imageLayoutVersion": "1.0.0"}))
                add(tar, "index.json", encoded(index(described(MANIFEST, blobs["manifest"]), name)))
            unfinished.rename(archive)

    def _write_layer(self, layer: Path) -> str:
        with tarfile.open(layer, "w") as tar:
            folders = {str(parent) for path in self.files for parent in Path(path).parents}
            for folder in sorted(folders - {"."}):
                item = tarfile.TarInfo(folder)
                item.type, item.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(item)
            for path, content in sorted(self.files.items()):
                mode = 0o644
                if isinstance(content, Path):
                    mode = 0o755 if content.stat().st_mode & 0o100 else 0o644
                add(tar, path, content, mode)
        return sha256(layer)


def renamed(archive: Path, target: Path, name: str) -> None:
    """Copies an archive, with another name for the image in it."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for item in old:
            if item.name in ("index.json", "manifest.json"):
                continue
            new.addfile(item, old.extractfile(item) if item.isfile() else None)
        [manifest] = json.load(old.extractfile("index.json"))["manifests"]
        manifest.pop("annotations", None)
        add(new, "index.json", encoded(index(manifest, name)))


def extracted(archive: Path, path: str, target: Path) -> None:
    """Writes one file of an image to `target`."""
    with tarfile.open(archive) as tar:
        blob = lambda of: tar.extractfile("blobs/" + of["digest"].replace(":", "/"))  # noqa: E731
        [listed] = json.load(tar.extractfile("index.json"))["manifests"]
        for described_layer in json.load(blob(listed))["layers"]:
            with tarfile.open(fileobj=blob(described_layer)) as layer:
                for item in layer:
                    if item.name.removeprefix("./") == path:
                        target.write_bytes(layer.extractfile(item).read())
                        target.chmod(0o755)
                        return
    raise FileNotFoundError(f"{archive} has no {path}")


def index(manifest: dict, name: str) -> dict:
    # containerd reads the first annotation; others read the second one.
    annotations = {NAME: name, REFERENCE: name}
    return {"schemaVersion": 2, "manifests": [{**manifest, "annotations": annotations}]}


def encoded(value) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def described(kind: str, blob: bytes) -> dict:
    return {"mediaType": kind, "digest": sha256(blob), "size": len(blob)}


def sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def add(tar: tarfile.TarFile, path: str, content: bytes | Path, mode: int = 0o644) -> None:
    item = tarfile.TarInfo(path)
    item.mode = mode
    if isinstance(content, bytes):
        item.size = len(content)
        tar.addfile(item, io.BytesIO(content))
    else:
        item.size = content.stat().st_size
        with content.open("rb") as file:
            tar.addfile(item, file)
