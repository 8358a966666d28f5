"""Compares what a document shows with what a command has printed.

What differs from one run to the next is replaced in both: ids, times, durations, and numbers where
a procedure says so. Nothing else may differ, except the width of columns.
"""

import re

ALWAYS = (
    # A document shortens ids: `0190…`.
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "ID"),
    (r"\b[0-9a-f]{4,}…|…[0-9a-f]{4,}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\b\d+(\.\d+)? (s|ms|µs)\b", "DURATION"),
)
NUMBERS = ((r"\b\d+\b", "N"),)


def masked(line: str, numbers: bool) -> str:
    for pattern, name in (*ALWAYS, *(NUMBERS if numbers else ())):
        line = re.sub(pattern, name, line)
    return " ".join(line.split())


def differs(shown: list[str], printed: list[str], numbers: bool = False) -> str | None:
    """Returns the first difference as two lines, or `None`."""
    expected = [masked(line, numbers) for line in shown]
    got = [masked(line, numbers) for line in printed]
    for number in range(max(len(expected), len(got))):
        one = expected[number] if number < len(expected) else "(no line)"
        other = got[number] if number < len(got) else "(no line)"
        if one != other:
            return f"expected: {one}\ngot:      {other}"
    return None
