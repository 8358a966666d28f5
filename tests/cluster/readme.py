"""Takes commands and files out of the documentation, so that what users read is what is tested."""

import shlex
import sys
from pathlib import Path

import yaml
from programs import ROOT, Failed, run

sys.path.append(str(ROOT / "tools"))
import documents  # noqa: E402

CHART = ROOT / "deploy/helm/patgate/README.md"
ENVOY = ROOT / "envoy/README.md"
QUICK_START = ROOT / "README.md"


def block(file: Path, language: str, first: str) -> str:
    """Returns the block of code in which `first` is the beginning of a line."""
    chosen = [
        block.text
        for block in documents.blocks(file)
        if block.language == language
        and any(line.lstrip().startswith(first) for line in block.text.splitlines())
    ]
    if len(chosen) != 1:
        raise Failed(
            f"{file} has {len(chosen)} blocks of {language} with a line that begins {first!r}"
        )
    return chosen[0]


def values(first: str) -> dict:
    return yaml.safe_load(block(CHART, "yaml", first))


def commands(text: str) -> list[str]:
    """Returns the commands of a console block, each with the lines that belong to it."""
    return [command.text for command in documents.commands(text)]


def execute(lines: list[str], folder: Path, programs: Path, env: dict[str, str]) -> str:
    """Runs commands as a user would who copies them, and returns what they print. `programs` is a
    folder of stand-ins that lead to the cluster."""
    given = {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **env}
    script = "set -e\n" + "\n".join(lines) + "\n"
    return run(["/bin/sh", "-s"], stdin=script, env=given, cwd=folder).stdout


def stand_in(folder: Path, name: str, *command: str | Path, before: str = "") -> None:
    """Writes a program that runs `command` with the arguments that it gets."""
    quoted = shlex.join(str(part) for part in command)
    file = folder / name
    file.write_text(f'#!/bin/sh\n{before}exec {quoted} "$@"\n')
    file.chmod(0o755)
