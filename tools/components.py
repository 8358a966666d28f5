"""What is linked into a binary that `cargo auditable` has built: its bill of materials, and the
notices that its licences ask to keep.

    python tools/components.py BINARY DIR [NAME=VERSION ...]

writes DIR/sbom.cdx.json (CycloneDX 1.6) and DIR/THIRD-PARTY.txt. The list is the one in the binary:
what was linked, not what was planned. `cargo metadata` adds licences and sources, Cargo.lock the
checksums. NAME=VERSION says what the image contains besides, as in OTHERS. SOURCE_DATE_EPOCH is the
time in the bill. The same binary always gives the same files.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import uuid
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTION = ".dep-v0"
NOTICE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
# More than a notice, or none.
NOT_A_NOTICE = re.compile(r"\.(rs|toml|json|html|py|sh|c|h)$", re.IGNORECASE)
# What cargo does not know of, with the words under which it may be passed on.
OTHERS = {
    "rust-std": (
        "MIT OR Apache-2.0",
        "The standard library of Rust, https://www.rust-lang.org. Copyright (c) The Rust Project "
        "Contributors.",
    ),
    "glibc": (
        "LGPL-2.1-or-later",
        "The GNU C Library, https://www.gnu.org/software/libc, linked statically and not changed. "
        "The source code of patgate and the commands that link it are public, so that you can link "
        "it with another version of the library. Copyright (c) Free Software Foundation, Inc. and "
        "others.",
    ),
    "ca-certificates": (
        "MPL-2.0",
        "The file /etc/ssl/certs/ca-certificates.crt: the certificate authorities that Mozilla "
        "trusts, as the Python package certifi collects them, "
        "https://github.com/certifi/python-certifi.",
    ),
}


def linked(binary):
    """The packages in the binary, without those that were only needed to build it."""
    with tempfile.TemporaryDirectory() as folder:
        dumped = Path(folder) / "section"
        subprocess.run(
            ["objcopy", f"--dump-section={SECTION}={dumped}", binary, os.devnull], check=True
        )
        audited = json.loads(zlib.decompress(dumped.read_bytes()))["packages"]
    kept = [package for package in audited if package.get("kind", "runtime") == "runtime"]
    if not any(package.get("root") for package in kept):
        sys.exit(f"components.py: {binary} does not say which package is its root")
    return audited, kept


def described():
    """What cargo knows of each package, by name and version."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    # Otherwise cargo would download what only other platforms need.
    platform = _output(["rustc", "--print", "host-tuple"]).strip()
    packages = json.loads(_output([*command, "--filter-platform", platform]))["packages"]
    return {(package["name"], package["version"]): package for package in packages}


def _output(command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def checksums():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licence(known):
    # Before SPDX expressions, "MIT/Apache-2.0" meant a choice.
    return (known.get("license") or "").replace(" / ", "/").replace("/", " OR ") or None


def component(package, known, checksum):
    made = {
        "type": "application" if package.get("root") else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if known.get("description"):
        made["description"] = " ".join(known["description"].split())
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if expression := licence(known):
        made["licenses"] = [{"expression": expression}]
    if known.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": known["repository"]}]
    return made


def other(name, version):
    expression, text = OTHERS[name]
    return {
        "type": "data" if name == "ca-certificates" else "library",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "description": text,
        "licenses": [{"expression": expression}],
    }


def bill(binary, audited, kept, known, others):
    sums = checksums()
    components, root = [], None
    for package in kept:
        key = (package["name"], package["version"])
        made = component(package, known[key], sums.get(key))
        if package.get("root"):
            root = made
        else:
            components.append(made)
    components += [other(name, version) for name, version in others.items()]
    components.sort(key=lambda made: made["bom-ref"])
    references = {reference(package) for package in kept}
    dependencies = []
    for package in kept:
        on = {reference(audited[index]) for index in package.get("dependencies", [])} & references
        if package.get("root"):
            on |= {f"{name}@{version}" for name, version in others.items()}
        dependencies.append({"ref": reference(package), "dependsOn": sorted(on)})
    digest = hashlib.sha256(Path(binary).read_bytes()).hexdigest()
    root["hashes"] = [{"alg": "SHA-256", "content": digest}]
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(),
            "lifecycles": [{"phase": "build"}],
            "component": root,
        },
        "components": components,
        "dependencies": sorted(dependencies, key=lambda one: one["ref"]),
    }


def notices(kept, known, others):
    """Each text once, after the packages that have it."""
    texts, lacking = {}, []
    for package in kept:
        if package.get("root") or package.get("source") == "local":
            continue
        described_so = known[(package["name"], package["version"])]
        title = f"{package['name']} {package['version']} ({licence(described_so)})"
        folder = Path(described_so["manifest_path"]).parent
        found = sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and NOTICE.match(path.name) and not NOT_A_NOTICE.search(path.name)
        )
        for path in found:
            text = "\n".join(path.read_text(errors="replace").split("\r\n")).strip()
            texts.setdefault(text, []).append(title)
        if not found:
            authors = ", ".join(described_so["authors"]) or described_so["repository"]
            lacking.append(f"{title}, by {authors}")
    rule = "=" * 78
    parts = [
        "This image contains patgate, whose licence is in the file LICENSE, and the following."
    ]
    for name, version in others.items():
        expression, words = OTHERS[name]
        parts.append(f"{name} {version} ({expression}). {words}")
    if lacking:
        parts.append("These packages come without the text of their licence:")
        parts.append("\n".join(sorted(lacking)))
    for text, titles in sorted(texts.items(), key=lambda item: (sorted(item[1]), item[0])):
        parts.append(f"{rule}\n" + "\n".join(sorted(set(titles))) + f"\n{rule}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: components.py BINARY DIR [NAME=VERSION ...]")
    binary, folder, *pairs = sys.argv[1:]
    others = dict(pair.split("=", 1) for pair in pairs)
    audited, kept = linked(binary)
    known = described()
    written = json.dumps(bill(binary, audited, kept, known, others), indent=2) + "\n"
    Path(folder, "sbom.cdx.json").write_text(written)
    Path(folder, "THIRD-PARTY.txt").write_text(notices(kept, known, others))
    print(f"{len(kept)} packages, and {len(others)} that cargo does not know", file=sys.stderr)


if __name__ == "__main__":
    main()
