"""Runs the procedures of the documents as they are written.

    make procedures-test
    python tests/documents/run.py [WORD]     only the procedures whose name has WORD
    python tests/documents/run.py --claims   only compares claims.toml with the documents

Each block of code in a Markdown file of this repository, and each command in a numbered step, has a
claim in claims.toml: a procedure in `procedures` runs it, another test does, or nobody does, for a
reason. TESTED_PATGATE is the patgate that is run, by default target/release/patgate.
"""

import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(ROOT / "tools"), str(ROOT / "demo")]

import broken  # noqa: E402
import claims  # noqa: E402
import mentions  # noqa: E402
from installation import Site  # noqa: E402
from procedure import Failed, Procedure  # noqa: E402

from server import ServerError  # noqa: E402
from stack import Stack  # noqa: E402

PATGATE = Path(os.environ.get("TESTED_PATGATE") or ROOT / "target/release/patgate").resolve()
STARTED = time.monotonic()
# Each waits for its servers most of the time.
AT_A_TIME = 3


def procedures() -> dict[str, str]:
    """Returns the name of each procedure with its module: the functions that begin with `run_`."""
    found = {}
    for file in sorted((HERE / "procedures").glob("*.py")):
        module = importlib.import_module(f"procedures.{file.stem}")
        for name in vars(module):
            if name.startswith("run_"):
                found[name.removeprefix("run_")] = file.stem
    return found


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


@contextmanager
def template() -> Iterator[Path]:
    """Makes once what most procedures begin with, and returns its folder."""
    with Stack() as stack:
        made = Procedure("template", stack, PATGATE, say)
        try:
            site = Site(made)
            site.populate()
            site.postgres.stop()
            site.postgres.data.rename(stack.dir / "data")
            shutil.move(made.folder / "keyring", stack.dir / "keyring")
            say("what most procedures begin with is made")
            yield stack.dir
        finally:
            made.close()


def run(name: str, module: str, made: Path) -> tuple[list[tuple], float, str]:
    """Runs one procedure. Returns what it has taken of the documents, its time, and what failed."""
    start, fault, taken = time.monotonic(), "", []
    with Stack() as stack:
        procedure = None
        try:
            told = lambda text: say(f"{name}: {text}")  # noqa: E731
            procedure = Procedure(name, stack, PATGATE, told, made)
            getattr(importlib.import_module(f"procedures.{module}"), f"run_{name}")(procedure)
            procedure.finish()
        except (Failed, ServerError) as error:
            fault = str(error)
        finally:
            if procedure is not None:
                taken = [key(item) for item in procedure.taken]
                procedure.close()
    return taken, time.monotonic() - start, fault


def key(item: claims.Block | claims.Inline) -> tuple:
    what = item.text if isinstance(item, claims.Inline) else item.number
    return item.document, item.heading, what


def compared(name: str, taken: list[tuple], found: claims.Found) -> list[str]:
    """Returns where what a procedure has run is not what the table says that it runs."""
    claimed = {key(item): str(item) for item in found.run_here(name)}
    # What another procedure runs as well may be a part of this one.
    known = {key(item) for item, claim in found.claimed if claim.kind == claims.HERE_RUN}
    faults = [f"{where}: {name} does not run it" for k, where in claimed.items() if k not in taken]
    faults += [
        f"{k}: {name} runs it, and claims.toml does not say so" for k in taken if k not in known
    ]
    return faults


def report(found: claims.Found) -> None:
    """Prints what is not run, with the reasons, and the totals."""
    print("\nNot run:")
    for claim in found.claims:
        if claim.kind == claims.NOT_RUN:
            items = [str(item) for item, owner in found.claimed if owner is claim]
            print(f"  {', '.join(items)}\n      {claim.reason}")
    numbers = found.numbers()
    for kind, words in (
        (claims.HERE_RUN, "run here"),
        (claims.ELSEWHERE, "run by other tests"),
        (claims.NOT_RUN, "not run"),
        (claims.PICTURE, "no commands"),
    ):
        blocks, steps = numbers[kind, False], numbers[kind, True]
        print(f"{blocks:4} blocks and {steps:2} commands in steps: {words}")


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    known = procedures()
    found = claims.load(set(known))
    faults = list(found.faults)
    if word == "--claims":
        report(found)
        return ended(faults, 0)
    # Those with many commands first, because they take long.
    order = sorted(known, key=lambda name: -len(found.run_here(name)))
    chosen = {name: known[name] for name in order if word in name}
    if not chosen:
        sys.exit(f"no procedure has {word!r} in its name; there are {', '.join(known)}")
    if not PATGATE.exists():
        sys.exit(f"{PATGATE} is missing: run make build, or set TESTED_PATGATE")
    unused = {name for name in known if not found.run_here(name)}
    faults += [f"procedures: nothing in claims.toml is run by {name}" for name in sorted(unused)]
    if word:
        # About one procedure only.
        faults = []
    elif not faults:
        faults = broken.missed(set(known), PATGATE)
        planted = len(broken.CLAIMS) + len(broken.RUNS) + len(broken.UNKNOWN)
        say(f"{planted} planted defects, of which {len(faults)} are not found")
        unknown = mentions.wrong(PATGATE)
        count = len(list(mentions.mentioned()))
        say(f"{count} commands of patgate in the documents, of which {len(unknown)} do not exist")
        faults += unknown
    if faults:
        return ended(faults, 0)
    seconds = {}
    with template() as made, ProcessPoolExecutor(AT_A_TIME) as pool:
        running = {pool.submit(run, name, module, made): name for name, module in chosen.items()}
        for future in as_completed(running):
            name = running[future]
            taken, seconds[name], fault = future.result()
            if fault:
                faults.append(f"{name} failed:\n{fault}")
            else:
                faults += compared(name, taken, found)
            say(f"{name} {'FAILED' if fault else 'done'} after {seconds[name]:.1f} s")
            if fault:
                print(fault, flush=True)
    if not word:
        report(found)
    return ended(faults, len(chosen))


def ended(faults: list[str], count: int) -> int:
    for fault in faults:
        print(f"\n{fault}", file=sys.stderr)
    took = time.monotonic() - STARTED
    print(f"\n{count} procedures, {len(faults)} faults, {took:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
