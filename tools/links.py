"""Checks that what the documents of this repository link to exists: `make lint` runs it.

It reads every Markdown file, and finds links to files that do not exist, and to anchors that no
heading of the file has, with anchors as GitHub makes them. In all other files, it checks the
documents that they name by a path from the root, such as `docs/runbook.md#patgatedown`. It uses no
network, so addresses of other sites are not checked.
"""

import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from documents import CODE, ROOT, files, headings, prose

# `](target "title")` ends a link or a picture; the target may hold one pair of brackets.
INLINE = re.compile(r"\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?([^\s>]+)>?")
HTML = re.compile(r"<(?:a|img|source)\s[^>]*?(?:href|src|srcset)=\"([^\"]*)\"")
NAMED = re.compile(r"<a\s[^>]*?(?:id|name)=\"([^\"]*)\"")
SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
MENTION = re.compile(
    r"(?<![\w./-])((?:docs|envoy|deploy|tests|benches|fuzz)/(?:[\w-]+/)*[\w-]+\.md)(?:#([\w-]+))?"
)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Returns what links may name in a document: its headings, and anchors in HTML."""
    text = path.read_text()
    found = set(headings(text).values())
    for line in prose(text):
        found.update(NAMED.findall(line))
    return frozenset(found)


def fault(source: Path, target: str) -> str | None:
    """Says what is wrong with a link, or returns `None`."""
    if SCHEME.match(target):
        return None
    path, _, anchor = unquote(target).partition("#")
    if path.startswith("/"):
        return "begins with `/`, which means another place on each host"
    file = (source.parent / path).resolve() if path else source
    if not file.exists():
        return "no such file"
    if not file.is_relative_to(ROOT):
        return "outside the repository"
    if file.is_dir():
        return "a folder, which the site cannot show: link to a file in it"
    if not anchor:
        return None
    if file.suffix != ".md":
        return "only documents have anchors"
    return None if anchor in anchors(file) else f"no heading `#{anchor}`"


def of_document(path: Path) -> list[str]:
    """Returns the faults of a Markdown file."""
    found = []
    for number, line in enumerate(prose(path.read_text()), 1):
        # Code is no link; a code span within the text of a link is empty then.
        text = CODE.sub(lambda code: "`" * len(code[0]), line)
        targets = INLINE.findall(text) + HTML.findall(text) + REFERENCE.findall(text)
        for target in targets:
            wrong = fault(path, target)
            if wrong:
                found.append(f"{path.relative_to(ROOT)}:{number}: {target}: {wrong}")
    return found


def of_other(path: Path) -> list[str]:
    """Returns the faults of another file: documents that it names and that do not exist."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for document, anchor in MENTION.findall(line):
            wrong = fault(ROOT / "x", f"{document}#{anchor}" if anchor else document)
            if wrong:
                found.append(f"{path.relative_to(ROOT)}:{number}: {document}: {wrong}")
    return found


def main() -> None:
    found = []
    for path in files():
        found += of_document(path) if path.suffix == ".md" else of_other(path)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        sys.exit(f"links.py: {len(found)} dead links")


if __name__ == "__main__":
    main()
