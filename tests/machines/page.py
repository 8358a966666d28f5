"""The page of the machines: its commands, and a shell that runs them as they are written."""

import re
import subprocess
from pathlib import Path

FENCE = re.compile(r"^```(\w*)$")


def commands(document: Path, heading: str) -> list[str]:
    """Returns the commands of the console blocks below a heading, to the next one of its level."""
    found, level, fence = [], 0, None
    for line in document.read_text().splitlines():
        mark = FENCE.match(line)
        if mark:
            fence = None if fence is not None else mark[1]
        elif fence is None and line.startswith("#"):
            signs = len(line) - len(line.lstrip("#"))
            if line.lstrip("# ") == heading:
                level = signs
            elif level and signs <= level:
                break
        elif level and fence == "console" and line.startswith("$ "):
            found.append(line.removeprefix("$ "))
    if not found:
        raise LookupError(f"{document} has no commands under {heading!r}")
    return found


class Failed(Exception):
    """A command of the page failed, or something is not as the page says."""


class Shell:
    """One bash, as that of a person who copies commands into it."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, command: str, status: int = 0) -> str:
        """Runs a command, and returns what it prints."""
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null 2>&1; printf '\\001%d\\n' $?\n")
        self._bash.stdin.flush()
        text = ""
        while line := self._bash.stdout.readline():
            printed, mark, got = line.partition("\001")
            text += printed
            if mark:
                if int(got) != status:
                    raise Failed(f"$ {command}\nexit status {got.strip()}, not {status}\n{text}")
                return text
        raise Failed(f"$ {command}\nended the shell\n{text}")
