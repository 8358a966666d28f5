"""What a procedure is made of: the commands of the documents, what fills their placeholders, and
what must hold afterwards."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import masks
from claims import ROOT, Block, Inline, blocks, steps
from shell import Ran, Shell

from documents import Command, commands
from stack import ENVOY, Stack

# In seconds: for what happens soon on any machine.
PATIENCE = 60.0
# Without hot restart there is no shared memory for which several Envoys would contend.
ALONE = "--disable-hot-restart --concurrency 1 --log-level warning"
# Programs of the system that the documents name.
NEEDED = ("bash", "curl", "openssl", "sha256sum", "sed", "grep", "df", "xargs")


class Failed(Exception):
    """A command of a document has failed, or something is not as the document says."""


class Procedure:
    """One procedure: a folder, a shell in it, and the commands of documents that it has run."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        patgate: Path,
        say: Callable[[str], None],
        template: Path | None = None,
    ):
        self.name, self.stack, self.say, self.template = name, stack, say, template
        self.taken: list[Block | Inline] = []
        self._fills: dict[str, str] = {}
        self._unused: set[str] = set()
        self._shell: Shell | None = None
        self.folder = stack.dir / "here"
        self.programs = stack.dir / "bin"
        self._outputs = stack.dir / "outputs"
        for folder in (self.folder, self.programs, self._outputs):
            folder.mkdir(mode=0o700)
        self.patgate = patgate
        for program in NEEDED:
            if not shutil.which(program):
                raise Failed(f"{program} is not installed, and the documents name it")
        self.program("patgate", f'exec {patgate} "$@"')
        self.program("envoy", f'exec {ENVOY} {ALONE} "$@"')
        self.program("python", f'exec {ROOT}/.venv/bin/python "$@"')
        # What commands find in their environment. No setting of the caller's patgate is there.
        self.env = {
            "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LC_ALL": "C",
            "no_proxy": "127.0.0.1,localhost",
        }

    # Preparation.

    def program(self, name: str, line: str) -> None:
        """Puts a program into the path of the commands."""
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def fill(self, placeholder: str, value: str, *, optional: bool = False) -> None:
        """Replaces a placeholder in the commands that follow. It must be in one of them, unless it
        is `optional`."""
        self._fills[placeholder] = value
        if not optional:
            self._unused.add(placeholder)

    def given(self, script: str) -> str:
        """Runs lines that are in no document, in the same shell."""
        ran = self.shell().run(script)
        if ran.status:
            raise Failed(f"preparation: {script}\nended with {ran.status}\n{ran.text()}")
        return ran.text()

    def shell(self) -> Shell:
        if self._shell is None:
            self._shell = Shell(self.folder, self._outputs, self.env)
        return self._shell

    # What the documents say.

    def block(self, document: str, heading: str, number: int = 1) -> Block:
        """Takes a block for this procedure."""
        found = [
            block
            for block in blocks(ROOT / document)
            if (block.heading, block.number) == (heading, number)
        ]
        if not found:
            raise Failed(f"{document} has no block {number} under #{heading}")
        self.taken.append(found[0])
        return found[0]

    def follow(
        self,
        document: str,
        heading: str,
        number: int = 1,
        *,
        exits: dict[str, int] | None = None,
        stdin: dict[str, str] | None = None,
        stays: dict[str, Callable[[], object]] | None = None,
        before: dict[str, Callable[[], object]] | None = None,
        numbers: bool = False,
        cut: bool = False,
    ) -> list[Ran]:
        """Runs a block as it is written, and compares what it prints with what the document shows.

        The keys are beginnings of commands: `exits` has the statuses of those that fail as the
        document says, `stdin` what a person types, `stays` those that serve until they are ended,
        with what is true once they do, and `before` what must hold or be done before a command.
        `numbers` says that numbers in the shown output are examples, and `cut` that the document
        says that it shows only the beginning."""
        block = self.block(document, heading, number)
        unused = {key for given in (exits, stdin, stays, before) for key in given or {}}
        done = []
        for command in commands(block.text, block.line):
            if before and (key := beginning(command, before)):
                unused.discard(key)
                before[key]()
            status, typed, serves = 0, None, None
            if exits and (key := beginning(command, exits)):
                unused.discard(key)
                status = exits[key]
            if stdin and (key := beginning(command, stdin)):
                unused.discard(key)
                typed = stdin[key]
            if stays and (key := beginning(command, stays)):
                unused.discard(key)
                serves = stays[key]
            done.append(self._run(block, command, status, typed, serves, numbers, cut))
        if unused:
            raise Failed(f"{block}: no command of the block begins with {sorted(unused)}")
        return done

    def step(self, document: str, heading: str, text: str, status: int = 0) -> Ran:
        """Runs a command that a step of a document has in its text."""
        span = self._span(document, heading, text)
        return self._run(span, Command(span.line, text), status, None, None, False, False)

    def _span(self, document: str, heading: str, text: str) -> Inline:
        """Takes a command of a step for this procedure."""
        found = [
            span for span in steps(ROOT / document) if (span.heading, span.text) == (heading, text)
        ]
        if not found:
            raise Failed(f"{document} has no step under #{heading} with `{text}`")
        self.taken.append(found[0])
        return found[0]

    def statement(self, document: str, heading: str, text: str, url: str) -> None:
        """Runs a statement that a step of a document has in its text."""
        span = self._span(document, heading, text)
        script = (
            f"psql -qv ON_ERROR_STOP=1 '{url}' <<'END_OF_SQL'\n{self._filled(text)}\nEND_OF_SQL"
        )
        self._checked(span, Command(span.line, text), script, 0, None, None)

    def text(self, document: str, heading: str, number: int = 1) -> str:
        """Takes a block that is the content of a file, or a part of one."""
        return self._filled(self.block(document, heading, number).text)

    def sql(self, document: str, heading: str, number: int, url: str) -> None:
        """Runs a block of SQL with psql."""
        block = self.block(document, heading, number)
        text = self._filled(block.text)
        script = f"psql -qv ON_ERROR_STOP=1 '{url}' <<'END_OF_SQL'\n{text}END_OF_SQL"
        self._checked(block, Command(block.line, block.text.strip()), script, 0, None, None)

    def _run(self, block, command, status, typed, serves, numbers, cut) -> Ran:
        text = self._filled(command.text)
        ran = self._checked(block, command, text, status, typed, serves)
        if command.output:
            printed = ran.text().splitlines()
            printed = printed[: len(command.output)] if cut else printed
            difference = masks.differs(list(command.output), printed, numbers)
            if difference:
                raise Failed(
                    f"{block.document}:{command.line}: $ {command.text}\n"
                    f"prints something else than the document shows\n{difference}\n"
                    f"all of it:\n{ran.text()}"
                )
        return ran

    def _checked(self, block, command, text, status, typed, serves) -> Ran:
        start = time.monotonic()
        mode = "stays" if serves else "may" if status else "must"
        ran = self.shell().run(text, mode, typed)
        where = f"{block.document}:{command.line}: $ {command.text}"
        if "…" in text.split("#")[0]:
            raise Failed(f"{where}\nhas something that nothing fills in")
        if ran.status != status:
            raise Failed(
                f"{where}\nrun as: {text}\nexpected: exit status {status}\n"
                f"got:      {ran.status}\n{ran.text()}"
            )
        if serves:
            self.until(f"{where} serves", serves, lambda: ran.text())
        took = time.monotonic() - start
        first = command.text.splitlines()[0]
        self.say(f"{block.document}:{command.line} $ {first[:100]} ({took:.1f} s)")
        return ran

    def _filled(self, text: str) -> str:
        for placeholder, value in self._fills.items():
            if placeholder in text:
                self._unused.discard(placeholder)
                text = text.replace(placeholder, value)
        return text

    # What must hold.

    def expect(self, what: str, true: object, detail: object = "") -> None:
        if not true:
            raise Failed(f"expected: {what}\ngot:      {detail}")

    def until(self, what: str, holds: Callable, detail: Callable = lambda: "") -> object:
        """Waits until something holds, and returns it."""
        deadline = time.monotonic() + PATIENCE
        while not (got := holds()):
            if time.monotonic() > deadline:
                raise Failed(f"expected: {what}\ngot:      not within {PATIENCE:.0f} s {detail()}")
            time.sleep(0.05)
        return got

    def run(self, *command: object, env: dict[str, str] | None = None, status: int = 0) -> str:
        """Runs a program outside of the shell, and returns its standard output."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.env, **(env or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode != status:
            shown = " ".join(str(part) for part in command)
            raise Failed(f"{shown}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    # The end.

    def finish(self) -> None:
        if self._unused:
            raise Failed(f"no command has what is to be filled in: {sorted(self._unused)}")

    def close(self) -> None:
        if self._shell is not None:
            self._shell.close()


def beginning(command: Command, table: dict) -> str | None:
    found = [key for key in table if command.text.startswith(key)]
    return max(found, key=len) if found else None
