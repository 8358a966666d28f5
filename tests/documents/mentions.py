"""Commands of patgate that the documents mention anywhere: they exist, with the options given."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import claims

from documents import blocks, commands, spans

# Labels of the token's format begin like commands.
NO_COMMANDS = {"v1"}
HISTORY = {"CHANGELOG.md"}


def wrong(patgate: Path) -> list[str]:
    """Returns the mentions of commands and options that patgate does not have."""
    found, seen = [], 0
    for where, text in mentioned():
        seen += 1
        if fault := unknown(patgate, text):
            found.append(f"{where}: `{text}`: {fault}")
    if seen < 300:
        found.append(f"tests/documents/mentions.py: only {seen} commands found in the documents")
    return found


def mentioned() -> Iterator[tuple[str, str]]:
    for path in claims.documents():
        if path.name in HISTORY:
            continue
        texts = [(str(span), span.text) for span, _ in spans(path)]
        for block in blocks(path):
            if block.language in ("console", "sh"):
                texts += [
                    (f"{block.document}:{command.line}", command.text)
                    for command in commands(block.text, block.line)
                ]
        for where, text in texts:
            # In pipes, and after assignments and parentheses.
            for part in re.split(r"[|;&(]|\$\(", text.split("  #")[0]):
                one = re.match(r"\s*(?:[A-Z_]+=\S+ )*(patgate \S.*)", part, re.S)
                if one:
                    yield where, re.split(r" [<>]", one[1])[0].replace("\\\n", " ").strip()


def unknown(patgate: Path, text: str) -> str:
    """Says what of a command does not exist."""
    words = text.split()[1:]
    path: tuple[str, ...] = ()
    options = [word.split("=")[0].strip("`)',.") for word in words if word.startswith("--")]
    values = False
    for word in words:
        known = subcommands(patgate, path)
        if word.startswith("-"):
            # Of the options before a command, only these have a value.
            values = word in ("--set", "--config")
        elif values or word == "…":
            values = False
        elif word in known:
            path += (word,)
        elif known and re.fullmatch(r"[a-z][a-z-]+", word):
            return "" if word in NO_COMMANDS else f"there is no command {word!r} there"
        else:
            break
    shown = shown_help(patgate, path)
    for option in options:
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown):
            return f"`patgate {' '.join(path)}` has no option {option}"
    return ""


@cache
def shown_help(patgate: Path, path: tuple[str, ...]) -> str:
    done = subprocess.run([patgate, *path, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


@cache
def subcommands(patgate: Path, path: tuple[str, ...]) -> frozenset[str]:
    _, _, listed = shown_help(patgate, path).partition("\nCommands:\n")
    listed = listed.partition("\n\n")[0]
    return frozenset(re.findall(r"^  ([a-z][a-z-]*)", listed, re.M)) - {"help"}
