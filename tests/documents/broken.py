"""Defects that these tests must find: in the table, in documents, and in what commands do."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import claims
import mentions
import procedure

import documents
from stack import Stack

# A document or the table, a part of its text, what replaces it, and what is said then.
CLAIMS = (
    (
        "docs/models.md",
        "$ patgate domain model",
        "$ true\n```\n\n```console\n$ patgate domain model",
        "block 2, console): '$ patgate domain model set acme org/m-7b",
    ),
    ("docs/models.md", "```console\n$ patgate backend", "```text\n$ patgate backend", None),
    ("docs/routes.md", "## The login", "## The logins", "(#the-logins, block 1, sql)"),
    ("docs/routes.md", "# sync.yaml", "# synced.yaml", "does not have '# sync.yaml'"),
    (
        "docs/runbook.md",
        "`patgate migrate`",
        "`patgate migrate --now`",
        "the command `patgate migrate --now` in a step is not claimed",
    ),
    ("NEW.md", "", "# New\n\n```sh\ntrue\n```\n", "NEW.md:4 (#new, block 1, sh)"),
    ("NEW.md", "", "# New\n\n1. Run `kubectl get pods`.\n", "the command `kubectl get pods`"),
    (
        "claims.toml",
        'heading = "from-nothing"\nblocks = [1, ',
        'heading = "from-nothing"\nblocks = [',
        "(#from-nothing, block 1, sh)",
    ),
    ("claims.toml", 'by = "restore"', 'by = "restored"', "there is no procedure 'restored'"),
    (
        "claims.toml",
        'test = "tests/cluster/istio_site.py"',
        'test = "tests/cluster/gone.py"',
        "there is no file tests/cluster/gone.py",
    ),
    (
        "claims.toml",
        'reads = "tests/cluster/istio_site.py:README"',
        'reads = "tests/cluster/envoy_gateway.py:README"',
        "tests/cluster/istio_site.py does not read deploy/istio/README.md",
    ),
    (
        "claims.toml",
        'test = "tests/cluster/scenarios/routes.py"',
        'test = "tests/cluster/run.py"',
        "tests/cluster/run.py does not read docs/routes.md",
    ),
    (
        "claims.toml",
        'finds = "# sync.yaml"',
        'finds = "apiVersion: apps/v1"',
        "does not have 'apiVersion: apps/v1'",
    ),
    (
        "claims.toml",
        'finds = "The decision log"',
        'finds = "Upgrading"',
        "does not have 'Upgrading'",
    ),
    (
        "deploy/machines/README.md",
        "```console\n$ install -D -m 0644 deploy/machines/patgate.logrotate",
        "```sh\n$ install -D -m 0644 deploy/machines/patgate.logrotate",
        "does not have 'The decision log'",
    ),
    (
        "claims.toml",
        "",
        '[[not_run]]\ndocument = "docs/models.md"\nheading = "models"\n'
        'blocks = [1]\nreason = "It is claimed twice here."\n\n',
        "is claimed 2 times",
    ),
    (
        "claims.toml",
        "",
        '[[not_run]]\ndocument = "docs/models.md"\nheading = "lists-of-models"\n'
        'blocks = [1]\nreason = "There is no such block."\n\n',
        "does not have block 1 there",
    ),
    (
        "claims.toml",
        "[[picture]]\n",
        '[[picture]]\nlanguage = "sh"\n',
        "does not have a block of sh",
    ),
)

# A document, what a procedure does with it, and what is said then.
RUNS = (
    ("```console\n$ true\n$ false | cat\n```", {}, "d.md:5: $ false | cat"),
    ('```console\n$ echo "$NOT_SET"\n```', {}, "NOT_SET: unbound variable"),
    ("```console\n$ echo 'a …'\n```", {}, "has something that nothing fills in"),
    ("```console\n$ echo 401 a\n403 a\n```", {}, "expected: 403 a\ngot:      401 a"),
    ("```console\n$ echo a; echo b\na\n```", {}, "expected: (no line)\ngot:      b"),
    ("```console\n$ true\n```", {"exits": {"true": 3}}, "expected: exit status 3"),
    ("```console\n$ true\n```", {"exits": {"false": 1}}, "no command of the block begins with"),
    ("```console\n$ sleep 60\n```", {"stays": {"sleep": lambda: False}}, "serves"),
    ("```console\n$ true\n```", {"fill": ("NAME", "a")}, "no command has what is to be filled in"),
)
# These must pass: the same commands without the defect.
PASSES = (
    ('```console\n$ cd /tmp\n$ test "$PWD" = /tmp\n```', {}),
    (
        "```console\n$ echo id 0190aaaa-0000-7000-8000-000000000000 at 2026-01-01T00:00:00Z, 2 s\n"
        "id 0190… at 2027-02-20T09:00:00Z, 4.1 s\n```",
        {},
    ),
    ("```console\n$ false\n```", {"exits": {"false": 1}}),
    ("```console\n$ sleep 60\n```", {"stays": {"sleep": lambda: True}}),
    ("```console\n$ echo NAME\na\n```", {"fill": ("NAME", "a")}),
    ("```sh\n# A comment.\ncat <<'END'\n$ x\nEND\n```", {}),
)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the documents and of the tests that read them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for path in documents.files():
            name = path.relative_to(documents.ROOT)
            if path.suffix == ".md" or name.parts[0] == "tests":
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / name)
        table = root / claims.TABLE.relative_to(documents.ROOT)
        with (
            mock.patch.object(documents, "ROOT", root),
            mock.patch.object(claims, "ROOT", root),
            mock.patch.object(claims, "TABLE", table),
            mock.patch.object(procedure, "ROOT", root),
        ):
            yield root


# Commands that do not exist, and one that does.
UNKNOWN = (
    "patgate token revoke --waits TOKEN_ID",
    "patgate token revokes TOKEN_ID",
    "patgate config check --connect --force",
    "patgate … sync --for envoy --never",
)
KNOWN = "patgate --set routes.networks=10.0.0.0/8 … sync --for envoy --once"


def missed(names: set[str], patgate: Path) -> list[str]:
    """Returns the defects that are not found."""
    known = [text for text in UNKNOWN if not mentions.unknown(patgate, text)]
    known += [KNOWN] if mentions.unknown(patgate, KNOWN) else []
    with copied() as root:
        found = [fault for one in CLAIMS if (fault := of_claims(root, names, *one))]
        with mock.patch.object(procedure, "PATIENCE", 0.5):
            for text, options, said in RUNS:
                got = followed(root, patgate, text, options)
                if said not in got:
                    found.append(f"{text}\nshould fail with {said!r}, and says {got!r}")
            for text, options in PASSES:
                if got := followed(root, patgate, text, options):
                    found.append(f"{text}\nshould pass, and says {got!r}")
    found += [f"{text!r} is taken for what it is not" for text in known]
    return [f"tests/documents/broken.py: {fault}" for fault in found]


def of_claims(root: Path, names: set[str], file: str, old: str, new: str, said: str | None) -> str:
    path = claims.TABLE if file == "claims.toml" else root / file
    before = path.read_text() if path.exists() else None
    if old not in (before or ""):
        return f"{file} does not have {old!r}, which is to be changed"
    path.write_text(new + (before or "") if not old else before.replace(old, new, 1))
    try:
        faults = claims.load(names).faults
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
    if said is None:
        return "" if not faults else f"{new!r} in {file}: {faults}"
    if any(said in fault for fault in faults):
        return ""
    return f"{new!r} in {file} should be found with {said!r}, and is: {faults}"


def followed(root: Path, patgate: Path, text: str, options: dict) -> str:
    """Follows a document, and returns what failed."""
    (root / "d.md").write_text(f"# D\n\n{text}\n")
    options = dict(options)
    with Stack() as stack:
        one = procedure.Procedure("broken", stack, patgate, lambda _: None)
        try:
            if filled := options.pop("fill", None):
                one.fill(*filled)
            one.follow("d.md", "d", **options)
            one.finish()
        except procedure.Failed as fault:
            return str(fault)
        finally:
            one.close()
            (root / "d.md").unlink()
    return ""
