"""One bash for a procedure: it runs command after command, and ends at the first that fails."""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

# In seconds: a command that takes this long will never end.
HANGS_AFTER = 120

# Descriptor 9 brings the commands, 8 takes the status of each; commands have neither. With `must`,
# a command that fails ends this shell, as it would with a script. A document may forbid `>` to
# replace files, so the file of the output is opened by `>|`.
DRIVER = r"""
exec 9<&"$1" 8>&"$2"
eval "exec $1<&- $2>&-"
set -euo pipefail
set --
while read -r -d '' -u 9 _mode && read -r -d '' -u 9 _input && read -r -d '' -u 9 _output \
    && read -r -d '' -u 9 _command; do
    case $_mode in
        must) eval "$_command" <"$_input" >|"$_output" 2>&1 8>&- 9<&-; _status=0 ;;
        may)
            _status=0
            eval "$_command" <"$_input" >|"$_output" 2>&1 8>&- 9<&- || _status=$?
            ;;
        stays) { eval "$_command"; } <"$_input" >|"$_output" 2>&1 8>&- 9<&- & _status=0 ;;
    esac
    echo "$_status" >&8
done
"""


@dataclass
class Ran:
    """A command that has ended, or stays in the background, with what it has printed so far."""

    status: int
    output: Path

    def text(self) -> str:
        return self.output.read_text(errors="replace")


class Shell:
    def __init__(self, folder: Path, outputs: Path, env: dict[str, str]):
        self._outputs, self._count = outputs, 0
        commands, self._commands = os.pipe()
        self._statuses, statuses = os.pipe()
        # Beyond the numbers that the driver uses.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (commands, statuses)]
        self._process = subprocess.Popen(
            ["bash", "--norc", "-c", DRIVER, "bash", *map(str, given)],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(outputs / "bash").open("wb"),
            # Without a terminal, programs read passwords from standard input.
            start_new_session=True,
            pass_fds=given,
        )
        for end in (commands, statuses, *given):
            os.close(end)

    def run(self, command: str, mode: str = "must", stdin: str | None = None) -> Ran:
        """Runs a command. `must` says that it succeeds, `may` that it may fail, and `stays` that it
        does not end. Returns the status, which is that of the shell if it has ended."""
        self._count += 1
        output = self._outputs / f"{self._count}.output"
        given = Path("/dev/null")
        if stdin is not None:
            given = self._outputs / f"{self._count}.input"
            given.write_text(stdin)
        output.touch()
        parts = (mode, str(given), str(output), command)
        os.write(self._commands, b"".join(part.encode() + b"\0" for part in parts))
        ready, _, _ = select.select([self._statuses], [], [], HANGS_AFTER)
        if not ready:
            self.close()
            return Ran(-1, output)
        answer = os.read(self._statuses, 16)
        # The end of the pipe is that of the shell.
        return Ran(int(answer) if answer else self._process.wait(HANGS_AFTER), output)

    def interrupt(self) -> None:
        """Ends what commands have left in the background, and waits for that."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(children, timeout=HANGS_AFTER)

    def close(self) -> None:
        """Ends the shell, and whatever it has left in the background."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for end in (self._commands, self._statuses):
            with contextlib.suppress(OSError):
                os.close(end)
