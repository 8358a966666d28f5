"""Reads the Markdown documents of this repository: headings, blocks of code, and commands.

What reads the documents reads them by this: `tools/links.py`, the tests that run what the documents
say (`tests/documents`), and those that follow them on a Kubernetes (`tests/cluster`).
"""

import os
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Hidden folders hold installed or built files, except these.
HIDDEN = {".ci", ".github"}
BUILT = {"target", "node_modules", "__pycache__"}

FENCE = re.compile(r"^[ >]*(?:(?:[-*]|\d+\.) +)*(`{3,}|~{3,})")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$")
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
NUMBERED = re.compile(r"^ *(?:\*\*)?\d+\. ")
HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


@dataclass(frozen=True)
class Block:
    """A fenced block. `heading` is the anchor of the heading above it, and `number` counts the
    blocks under that heading from 1. `line` is that of its first line of content."""

    document: str
    line: int
    heading: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Inline:
    """A span of code in the text of a document."""

    document: str
    line: int
    heading: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a block, and the lines that the document shows as its output."""

    line: int
    text: str
    output: tuple[str, ...] = ()


def files() -> list[Path]:
    """Returns the files of the repository, without what was installed or built."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in BUILT and (not name.startswith(".") or name in HIDDEN)
        ]
        found += [Path(folder, name) for name in names]
    return sorted(found)


def lines(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Yields the number, the text and the opening fence of each line: the fence is `None` outside
    of blocks. The lines with the fences themselves are not there."""
    fence = opening = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence, opening = mark[1], line
        elif fence is None:
            yield number, line, None
        elif mark and mark[1].startswith(fence) and line.strip(" >`~") == "":
            fence = None
        else:
            yield number, line, opening


def prose(text: str) -> list[str]:
    """Returns the lines of a document, with blocks of code empty, so that numbers stay right."""
    found = [""] * len(text.splitlines())
    for number, line, fence in lines(text):
        if fence is None:
            found[number - 1] = line
    return found


def slug(heading: str) -> str:
    """Returns the anchor of a heading, as GitHub makes it."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def headings(text: str) -> dict[int, str]:
    """Returns the anchor of each heading by its line."""
    found: dict[int, str] = {}
    times: dict[str, int] = {}
    for number, line in enumerate(prose(text), 1):
        heading = HEADING.match(line)
        if heading:
            name = slug(heading[1])
            found[number] = f"{name}-{times[name]}" if name in times else name
            times[name] = times.get(name, 0) + 1
    return found


def blocks(path: Path) -> tuple[Block, ...]:
    """Returns the fenced blocks of a document, without the columns by which they are indented."""
    return _blocks(named(path), path.read_text())


@cache
def _blocks(document: str, text: str) -> tuple[Block, ...]:
    anchors, all_lines = headings(text), text.splitlines()
    raw: list[tuple[int, str, list[str]]] = []
    for number, line, fence in lines(text):
        if fence is None:
            continue
        if not (raw and raw[-1][0] + len(raw[-1][2]) == number):
            raw.append((number, fence, []))
        raw[-1][2].append(line)
    found: list[Block] = []
    for first, fence, content in raw:
        heading = next((anchors[at] for at in range(first, 0, -1) if at in anchors), "")
        number = 1 + sum(block.heading == heading for block in found)
        language = fence.strip(" >-*0123456789.").lstrip("`~").strip()
        whole = textwrap.dedent("\n".join(content)) + "\n"
        assert FENCE.match(all_lines[first - 2]), f"{document}:{first}"
        found.append(Block(document, first, heading, number, language, whole))
    return tuple(found)


def named(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix()


def spans(path: Path) -> tuple[tuple[Inline, bool], ...]:
    """Returns each span of code, and whether it is in a step of a numbered list."""
    return _spans(named(path), path.read_text())


@cache
def _spans(document: str, text: str) -> tuple[tuple[Inline, bool], ...]:
    anchors, heading, numbered = headings(text), "", False
    found = []
    for number, line in enumerate(prose(text), 1):
        if number in anchors:
            heading, numbered = anchors[number], False
        elif NUMBERED.match(line):
            numbered = True
        elif line and not line.startswith(" "):
            numbered = False
        for code in CODE.finditer(line):
            found.append((Inline(document, number, heading, code[2].strip()), numbered))
    return tuple(found)


def commands(text: str, first: int = 1) -> list[Command]:
    """Returns the commands of a block, each with its further lines. In a block with prompts, the
    other lines are output, unless the command goes on in them. `first` is the line of the block."""
    prompts = text.startswith("$ ")
    found: list[Command] = []
    for number, line in enumerate(text.splitlines(), first):
        if found and not complete(found[-1].text):
            last = found.pop()
            found.append(Command(last.line, f"{last.text}\n{line}"))
        elif not prompts:
            if line.strip() and not line.startswith("#"):
                found.append(Command(number, line))
        elif line.startswith("$ "):
            found.append(Command(number, line.removeprefix("$ ")))
        else:
            last = found.pop()
            found.append(Command(last.line, last.text, (*last.output, line)))
    return found


def complete(command: str) -> bool:
    """Whether a command ends here, as far as a document writes commands."""
    first, *rest = command.split("\n")
    here = HERE_DOCUMENT.search(first)
    if here:
        return here[2] in rest
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True
