"""Runs a function in namespaces of its own, so that the kernel ends and removes everything that it
has started, mounted or connected, even if the first process is killed outright."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def isolated(main: Callable[[], int], started: Callable[[int], None] = lambda pid: None) -> int:
    """Runs `main` in a new PID, mount and network namespace, and returns its exit code.

    `started` is called with the number of a process to enter by. SIGTERM and SIGINT reach `main` as
    one SystemExit. Once this returns, all processes of the namespace have ended. The caller can
    then start no others, because its own would belong to the namespace that is gone.
    """
    alive, ours = os.pipe()
    unshare(CLONE_NEWPID)
    first = os.fork()
    if first == 0:
        os.close(ours)
        ends_with_parent(alive)
        os._exit(reaping(main))
    os.close(alive)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(first, signal.SIGTERM))
    started(first)
    _, status = os.waitpid(first, 0)
    return os.waitstatus_to_exitcode(status)


def unshare(flags: int) -> None:
    if LIBC.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"new namespaces (unshare): {os.strerror(number)}")


def ends_with_parent(alive: int) -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before: then the pipe, of which it has the other end, is closed. Its
    # number tells nothing, because it has none here.
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)


def reaping(main: Callable[[], int]) -> int:
    """The first process of the namespace: it inherits every orphan, and with it all others end."""
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    second = os.fork()
    if second == 0:
        os._exit(reporting(main))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(second, signal.SIGTERM))
    while True:
        process, status = os.wait()
        if process == second:
            return as_shells_do(os.waitstatus_to_exitcode(status))


def reporting(main: Callable[[], int]) -> int:
    signal.signal(signal.SIGTERM, interrupted)
    # Ctrl-C in a terminal reaches every process, and the caller passes it on as SIGTERM. A program
    # that this one starts inherits no function, but would inherit that a signal is ignored.
    signal.signal(signal.SIGINT, nothing)
    try:
        # The new mounts are nobody else's, and /proc shows the processes of the namespace.
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
        return as_shells_do(main())
    except SystemExit as end:
        if isinstance(end.code, str):
            os.write(2, f"{end.code}\n".encode())
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()


def as_shells_do(code: int) -> int:
    """Python gives the number of the signal that has ended a process as a negative one."""
    return code if code >= 0 else 128 - code


def interrupted(number, frame):
    # Once: what is cleaned up is not interrupted again.
    signal.signal(signal.SIGTERM, nothing)
    raise SystemExit(128 + number)


def nothing(number, frame):
    pass
