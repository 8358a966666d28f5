"""What becomes of each block of the documents: `claims.toml`, compared with the documents."""

import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tools"))
from documents import Block, Inline, blocks, commands, files, named, slug, spans  # noqa: E402

TABLE = HERE / "claims.toml"
# What becomes of a block.
HERE_RUN, ELSEWHERE, NOT_RUN, PICTURE = "here", "elsewhere", "not_run", "picture"
MEMBERS = {
    HERE_RUN: {"by"},
    ELSEWHERE: {"test", "finds", "reads"},
    NOT_RUN: {"reason"},
    PICTURE: set(),
}
# Only these may be in a picture.
DRAWN = {"text", "mermaid", "json"}
# The commands of numbered steps, and of what the runbook says to do.
COMMAND = re.compile(
    r"(?:\(umask 077; )?"
    r"(?:patgate|psql|pg_\w+|createdb|createuser|redis-cli|kubectl|helm|docker|sed|make) \S|"
    r"(?:GRANT|REVOKE|UPDATE|DELETE|ALTER|CREATE|ACL|SELECT) "
)
# The names of processes; a step that mentions one says nothing to type.
PROCESSES = {"patgate serve", "patgate admin"}


@dataclass
class Claim:
    """One table of claims.toml. `blocks` are numbers under the heading, `inline` texts of steps."""

    kind: str
    document: str
    heading: str | None = None
    language: str | None = None
    blocks: list[int] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    by: str = ""
    test: str = ""
    finds: str = ""
    reads: str = ""
    reason: str = ""

    def __str__(self) -> str:
        where = f"{self.document}#{self.heading}" if self.heading else self.document
        return f"claims.toml, [[{self.kind}]] {where} {self.blocks or self.inline or self.language}"

    def covers(self, item: Block | Inline) -> bool:
        if item.document != self.document:
            return False
        if self.heading is not None and item.heading != self.heading:
            return False
        if isinstance(item, Inline):
            return item.text in self.inline
        if self.language is not None:
            return item.language == self.language
        return item.number in self.blocks


@dataclass
class Found:
    """All blocks and commands of the documents, each with its claim, and what is wrong."""

    claims: list[Claim]
    claimed: list[tuple[Block | Inline, Claim]]
    faults: list[str]

    def run_here(self, by: str) -> list[Block | Inline]:
        return [item for item, claim in self.claimed if claim.by == by and claim.kind == HERE_RUN]

    def numbers(self) -> Counter:
        return Counter((claim.kind, isinstance(item, Inline)) for item, claim in self.claimed)


def documents() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def steps(path: Path) -> list[Inline]:
    """Returns the commands in numbered steps, and those that an alert's entry says to do."""
    return _steps(path, path.read_text())


@cache
def _steps(path: Path, text: str) -> list[Inline]:
    lines = text.splitlines()
    # What a block under the same heading has is that block's, and what has been found is no other.
    seen = {
        (block.heading, command.text.split("  #")[0].strip())
        for block in blocks(path)
        for command in commands(block.text)
    }
    found = []
    for span, numbered in spans(path):
        told = numbered or lines[span.line - 1].startswith("**Do**")
        command = COMMAND.match(span.text) and "…" not in span.text
        if told and command and span.text not in PROCESSES:
            known = any(heading == span.heading and span.text in other for heading, other in seen)
            if not known:
                seen.add((span.heading, span.text))
                found.append(span)
    return found


def load(procedures: set[str]) -> Found:
    """Reads the table, and compares it with the documents and the procedures."""
    table = tomllib.loads(TABLE.read_text())
    claims, faults = [], []
    for kind, entries in table.items():
        if kind not in MEMBERS:
            faults.append(f"claims.toml: unknown table [[{kind}]]")
            continue
        for entry in entries:
            claim = Claim(kind, **entry)
            claims.append(claim)
            given = set(entry) - {"document", "heading", "language", "blocks", "inline"}
            needed = MEMBERS[kind] - {"reads"}
            if not needed <= given <= MEMBERS[kind]:
                faults.append(f"{claim}: needs {sorted(needed)}, has {sorted(given)}")
            if claim.kind == HERE_RUN and claim.by not in procedures:
                faults.append(f"{claim}: there is no procedure {claim.by!r}")
            if claim.kind == NOT_RUN and len(claim.reason.split()) < 4:
                faults.append(f"{claim}: the reason must be a sentence")
    items: list[Block | Inline] = []
    for path in documents():
        items += blocks(path)
        if path.name != "CHANGELOG.md":
            items += steps(path)
    claimed = []
    for item in items:
        covering = [claim for claim in claims if claim.covers(item)]
        if len(covering) == 1:
            claimed.append((item, covering[0]))
            continue
        what = described(item)
        if covering:
            faults.append(
                f"{what} is claimed {len(covering)} times: {', '.join(map(str, covering))}"
            )
        else:
            faults.append(
                f"{what} is not claimed in {named(TABLE)}: say who runs it, or why nobody does"
            )
    for claim in claims:
        faults += unused(claim, [item for item, owner in claimed if owner is claim])
    faults += [fault for item, claim in claimed for fault in wrong(item, claim)]
    return Found(claims, claimed, faults)


def described(item: Block | Inline) -> str:
    if isinstance(item, Inline):
        return f"{item} (#{item.heading}): the command `{item.text}` in a step"
    first = item.text.splitlines()[0]
    return f"{item} (#{item.heading}, block {item.number}, {item.language}): {first!r}"


def unused(claim: Claim, items: list[Block | Inline]) -> list[str]:
    """Returns what a claim names and the documents do not have."""
    numbers = {item.number for item in items if isinstance(item, Block)}
    texts = {item.text for item in items if isinstance(item, Inline)}
    missing = [f"block {number}" for number in claim.blocks if number not in numbers]
    missing += [f"the command `{text}` in a step" for text in claim.inline if text not in texts]
    if claim.language and not items:
        missing.append(f"a block of {claim.language}")
    if not (claim.blocks or claim.inline or claim.language):
        missing.append("anything: it names no blocks and no commands")
    return [f"{claim}: the document does not have {what} there" for what in missing]


def wrong(item: Block | Inline, claim: Claim) -> list[str]:
    """Returns what is wrong with a claim about this block."""
    if claim.kind == PICTURE and item.language not in DRAWN:
        return [f"{described(item)} is claimed as a picture, and is {item.language}"]
    if claim.kind != ELSEWHERE:
        return []
    test = ROOT / claim.test
    if not test.is_file():
        return [f"{claim}: there is no file {claim.test}"]
    text = test.read_text()
    found = []
    if not reads(text, claim):
        found.append(f"{claim}: {claim.test} does not read {claim.document}")
    if claim.finds not in text:
        found.append(f"{claim}: {claim.test} does not have {claim.finds!r}")
    # What the test looks for must be in the block: a line of it, or its kind. Or the test follows
    # the commands below a heading.
    block = item.text if isinstance(item, Inline) else f"```{item.language}\n{item.text}"
    followed = block.startswith("```console\n") and slug(claim.finds) == item.heading
    if claim.finds not in block and not followed:
        found.append(
            f"{described(item)} does not have {claim.finds!r}, by which {claim.test} finds it"
        )
    return found


def reads(text: str, claim: Claim) -> bool:
    """Whether a test names the document, itself or by a constant of the file in `reads`."""
    if claim.document in text:
        return True
    if not claim.reads:
        return False
    # Such as `readme.py:CHART`, used as `readme.CHART`.
    file, _, constant = claim.reads.rpartition(":")
    other = (ROOT / file).read_text()
    value = re.search(rf"^{constant} = .*$", other, re.M)
    if value is None or constant not in text:
        return False
    parts = re.findall(r'"([^"]+)"', value[0])
    if parts and parts[-1] == claim.document:
        return True
    # A folder that another constant names.
    base = re.search(rf"^{constant} = (\w+) / \"([^\"]+)\"$", other, re.M)
    folder = base and re.search(rf"^{base[1]} = ROOT / \"([^\"]+)\"$", other, re.M)
    return bool(folder and f"{folder[1]}/{base[2]}" == claim.document)
