"""A unit of systemd, read from its file, and what it gives to its processes, without systemd.

    python tests/machines/unit.py FILE start|stop|reload [PID]

runs what the unit says for this, with its user, groups, folders, capabilities, limits, read-only
file systems and system calls. It must run as root, in a mount namespace of its own.
"""

import ctypes
import grp
import os
import pwd
import resource
import shlex
import subprocess
import sys
from pathlib import Path

# Applied below.
APPLIED = {
    "User",
    "Group",
    "ExecStart",
    "ExecStartPre",
    "ExecStop",
    "ExecReload",
    "TimeoutStopSec",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "LogsDirectory",
    "LogsDirectoryMode",
    "ReadWritePaths",
    "UMask",
    "LimitNOFILE",
    "LimitCORE",
    "NoNewPrivileges",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "MemoryDenyWriteExecute",
    "RestrictAddressFamilies",
    "SystemCallFilter",
    "SystemCallErrorNumber",
}
# Only systemd itself, a cgroup or a boot can do these; nothing of ours depends on what they take.
LEFT = {
    "Restart",
    "RestartSec",
    "MemoryMax",
    "PrivateDevices",
    "ProtectProc",
    "ProcSubset",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectControlGroups",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "LockPersonality",
    "RemoveIPC",
    "SystemCallArchitectures",
}
LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_PRIVATE, MS_REC = 1, 32, 4096, 1 << 18, 16384
CLONE_NEWNS = 0x00020000
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
EPERM, EAFNOSUPPORT = 1, 97
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_CMP_EQ = 0x7FFF0000, 0x00050000, 4
# Of these, `/proc` and the like stay as they are, as with ProtectSystem=strict.
API = ("/proc", "/sys", "/dev")


class Unit:
    def __init__(self, file: Path):
        self.file, self.name = file, file.name
        self.settings: dict[str, list[str]] = {}
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and line[0] not in "#;" and section == "Service":
                key, _, value = line.partition("=")
                self.settings.setdefault(key, []).append(value)
        unknown = self.settings.keys() - APPLIED - LEFT
        if unknown:
            sys.exit(f"{file}: not known here: {', '.join(sorted(unknown))}")

    def all(self, key: str) -> list[str]:
        return self.settings.get(key, [])

    def one(self, key: str, default: str = "") -> str:
        return self.all(key)[-1] if self.all(key) else default

    def commands(self, key: str) -> list[list[str]]:
        return [shlex.split(line) for line in self.all(key)]


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    text = [None if part is None else part.encode() for part in (source, target, kind)]
    if LIBC.mount(text[0], text[1], text[2], flags, data.encode()):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {target}: {os.strerror(error)}")


def mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def folders(unit: Unit, uid: int, gid: int) -> list[str]:
    """Makes the folders of the unit, and returns where it may write."""
    writable = unit.one("ReadWritePaths").split()
    for key, base in (("RuntimeDirectory", "/run"), ("LogsDirectory", "/var/log")):
        for name in unit.one(key).split():
            path = f"{base}/{name}"
            Path(path).mkdir(exist_ok=True)
            os.chown(path, uid, gid)
            Path(path).chmod(int(unit.one(f"{key}Mode", "0755"), 8))
            writable.append(path)
    return writable


def file_systems(unit: Unit, writable: list[str]) -> None:
    if unit.one("ProtectSystem") != "strict":
        sys.exit(f"{unit.name}: ProtectSystem is not strict")
    if LIBC.unshare(CLONE_NEWNS):
        sys.exit(f"{unit.name}: no mount namespace: {os.strerror(ctypes.get_errno())}")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    for path in writable:
        mount(path, path, None, MS_BIND | MS_REC)
    private = []
    if unit.one("PrivateTmp") == "yes":
        private += ["/tmp", "/var/tmp"]
    for path in private:
        mount("tmpfs", path, "tmpfs", 0, "mode=1777")
    kept = (*API, *writable, *private)
    for path in sorted(set(mounts()), key=len):
        if not within(path, kept):
            try:
                mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
            except OSError as error:
                # Below a folder that another mount hides.
                if error.errno not in (2, 13, 22):
                    raise
    if unit.one("ProtectHome") == "yes":
        for path in ("/home", "/root", "/run/user"):
            if Path(path).is_dir():
                mount("tmpfs", path, "tmpfs", MS_RDONLY, "mode=000")


class Comparison(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def allowed_calls(group: str) -> set[str]:
    """What a group of systemd stands for."""
    ran = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group],
        check=True,
        capture_output=True,
        text=True,
    )
    calls = set()
    for line in ran.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= allowed_calls(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def system_calls(unit: Unit) -> list:
    """Makes the filters, which `load` puts in force."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    for name in ("seccomp_load", "seccomp_rule_add_array"):
        getattr(seccomp, name).argtypes = None
    group = unit.one("SystemCallFilter")
    calls = allowed_calls(group)
    if len(calls) < 200:
        sys.exit(f"{unit.name}: SystemCallFilter={group} stands for {len(calls)} calls")
    only = ctypes.c_void_p(seccomp.seccomp_init(SCMP_ACT_ERRNO | EPERM))
    # systemd itself permits these, to start the program.
    for call in calls | {"execve"}:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            rule = (only, ctypes.c_uint32(SCMP_ACT_ALLOW), number, 0)
            if seccomp.seccomp_rule_add_array(*rule, None):
                sys.exit(f"{unit.name}: no rule for {call}")
    import socket

    families = {getattr(socket, name) for name in unit.one("RestrictAddressFamilies").split()}
    sockets = ctypes.c_void_p(seccomp.seccomp_init(SCMP_ACT_ALLOW))
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in set(range(64)) - families:
        compared = Comparison(0, SCMP_CMP_EQ, family, 0)
        action = ctypes.c_uint32(SCMP_ACT_ERRNO | EAFNOSUPPORT)
        if seccomp.seccomp_rule_add_array(sockets, action, number, 1, ctypes.byref(compared)):
            sys.exit(f"{unit.name}: no rule for sockets")
    return [(seccomp, sockets), (seccomp, only)]


def as_the_unit(unit: Unit, command: list[str]) -> None:
    """Turns this process into the program, as the unit says."""
    user = pwd.getpwnam(unit.one("User"))
    group = unit.one("Group")
    gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    filters = system_calls(unit)
    file_systems(unit, folders(unit, user.pw_uid, gid))
    for key, limit in (
        ("LimitNOFILE", resource.RLIMIT_NOFILE),
        ("LimitCORE", resource.RLIMIT_CORE),
    ):
        if value := unit.one(key):
            # Where this container may not raise it, what there is must do.
            hard = resource.getrlimit(limit)[1]
            most = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
            resource.setrlimit(limit, (most, most))
    os.umask(int(unit.one("UMask", "0022"), 8))
    os.chdir("/")
    # The rest by setpriv, which does it in the right order.
    keep = [name.removeprefix("CAP_").lower() for name in unit.one("AmbientCapabilities").split()]
    bounding = [
        name.removeprefix("CAP_").lower() for name in unit.one("CapabilityBoundingSet").split()
    ]
    privileges = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(gid)]
    # As systemd does it: the user's own group is not among them if `Group=` names another one.
    groups = {gid, *os.getgrouplist(user.pw_name, gid)}
    privileges += ["--groups", ",".join(map(str, sorted(groups)))]
    privileges += ["--bounding-set", ",".join(["-all", *(f"+{name}" for name in bounding)])]
    privileges += ["--inh-caps", ",".join(["-all", *(f"+{name}" for name in keep)])]
    if keep:
        privileges += ["--ambient-caps", ",".join(f"+{name}" for name in keep)]
    if unit.one("NoNewPrivileges") == "yes":
        privileges += ["--no-new-privs"]
    # No setting of the test's own environment reaches the service.
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "USER": user.pw_name,
    }
    if unit.one("MemoryDenyWriteExecute") == "yes" and LIBC.prctl(
        PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0
    ):
        print("unit.py: this kernel has no PR_SET_MDWE", file=sys.stderr, flush=True)
    for seccomp, made in filters:
        # Without privileges, a filter needs this; with it, setpriv could not change them.
        if seccomp.seccomp_load(made):
            sys.exit(f"{unit.name}: the filter of system calls cannot be loaded")
    os.execvpe(privileges[0], [*privileges, "--", *command], environment)


def in_turn(unit: Unit, key: str, values: dict[str, str] | None = None) -> None:
    """Runs commands one after the other, each as the unit says."""
    for command in unit.commands(key):
        ready = [(values or {}).get(word, word) for word in command]
        child = os.fork()
        if not child:
            as_the_unit(unit, ready)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{unit.name}: {key}={shlex.join(ready)} ended with {status}")


def main() -> None:
    unit, what = Unit(Path(sys.argv[1])), sys.argv[2]
    if what == "start":
        in_turn(unit, "ExecStartPre")
        [command] = unit.commands("ExecStart")
        as_the_unit(unit, command)
    elif what == "reload":
        in_turn(unit, "ExecReload", {"$MAINPID": sys.argv[3]})
    else:
        in_turn(unit, "ExecStop")


if __name__ == "__main__":
    main()
