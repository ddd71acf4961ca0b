"""Sandbox for untrusted Python programs: each has a process group that ends with its verdict.

Inside bubblewrap the program sees a read-only /usr and interpreter, a small tmpfs, no network, only
its own processes and no environment. Where bubblewrap cannot guarantee that, it is refused.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Literal

from masa.errors import ConfigError, VerdictError

Status = Literal["exited", "crashed", "timeout", "flood"]

MB = 2**20
MAX_PROCESSES = 8
MAX_OPEN_FILES = 64
TMPFS_MB = 64
# package managers that keep every library in a folder of its own below these
STORES = ("/nix/store", "/gnu/store")
PACKAGES = ("site-packages", "dist-packages")
# user ids without files; a new one per program makes RLIMIT_NPROC count that program alone
SPARE_UIDS = range(60_001, 65_000)

# First code of the child: it sets its limits and then runs the program. The interpreter is
# `python -I` without `site`, which takes half of the start.
BOOT = """
import builtins, json, os, resource, sys, _sitebuiltins
settings = json.loads(sys.argv.pop())
if settings["uid"]:
    os.setgroups([])
    os.setresgid(*[settings["uid"]] * 3)
    os.setresuid(*[settings["uid"]] * 3)
for name, (soft, hard) in settings["limits"].items():
    ceiling = resource.getrlimit(getattr(resource, name))[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(getattr(resource, name), (soft, hard))
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.set_int_max_str_digits(0)  # the limit on CPU time bounds what that guards against
sys.path += settings["packages"]
builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "end of file")
with open(settings["program"], encoding="utf-8") as file:
    source = file.read()
if settings["started"]:
    os.write(settings["started"], b"!")
    os.close(settings["started"])
exec(compile(source, "<program>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
"""

# Prints "bounded" where the process limit applies (the kernel exempts the real root) and where the
# standard library and the packages can be read.
PROBE = f"""
import decimal, os, sys, time
for path in sys.path:
    if os.path.basename(path) in {PACKAGES}:
        os.listdir(path)
children = []
try:
    while len(children) <= {MAX_PROCESSES}:
        child = os.fork()
        if not child:
            time.sleep(60)
        children.append(child)
except OSError:
    print("bounded")
for child in children:
    os.kill(child, 9)
"""


@dataclass(frozen=True)
class SandboxLimits:
    """Resource limits of one program."""

    cpu_seconds: int = 6
    """CPU seconds of a process; unlike wall time they do not depend on the load."""
    wall_seconds: float = 30.0
    """Seconds after which a program is killed, also while it sleeps."""
    memory_mb: int = 2048
    """Address space of a process in MiB."""
    output_mb: int = 16
    """Output that is read, and size of a file, in MiB."""

    def __post_init__(self) -> None:
        for name in ("cpu_seconds", "wall_seconds", "memory_mb", "output_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name} is {getattr(self, name)}, it must be > 0")


@dataclass(frozen=True)
class Execution:
    """How a program ended."""

    status: Status
    """exited: with code 0; crashed: with another code or by a signal; timeout: CPU or wall; flood:
    more output than is read."""
    stdout: bytes
    """Its output until then."""


class Sandbox:
    """Starts programs under limits.

    Args:
        limits: of each program.
        allow_unsafe_execution: where bubblewrap is missing or forbidden, run programs with resource
            limits alone. They can then read, write and signal whatever this user can.

    Raises:
        ConfigError: bubblewrap does not work here and unsafe execution is not allowed.
    """

    def __init__(
        self, limits: SandboxLimits | None = None, allow_unsafe_execution: bool = False
    ) -> None:
        self.limits = limits or SandboxLimits()
        prefix, error = _bubblewrap()
        if error and not allow_unsafe_execution:
            raise ConfigError(error)
        self.isolated = not error
        self._prefix = prefix

    def with_time(self, times: int) -> Sandbox:
        """The same sandbox with CPU and wall time multiplied by `times`."""
        longer = copy(self)
        longer.limits = replace(
            self.limits,
            cpu_seconds=self.limits.cpu_seconds * times,
            wall_seconds=self.limits.wall_seconds * times,
        )
        return longer

    @contextmanager
    def start(
        self,
        program: str,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        fds: Sequence[int] = (),
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A running program; its processes are killed at the end of the block.

        Args:
            program: Python source.
            stdin, stdout: as for subprocess.
            fds: descriptors it inherits under the same numbers.

        Raises:
            VerdictError: it never started.
        """
        read_end, write_end = os.pipe()
        with (
            tempfile.TemporaryFile() as file,
            open(read_end, "rb") as started,
            open(write_end, "wb") as writer,
        ):
            file.write(program.encode("utf-8", "replace"))
            file.seek(0)
            process = subprocess.Popen(
                _command(self._prefix, self.limits, file.fileno(), write_end),
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                env={},
                pass_fds=(file.fileno(), write_end, *fds),
                start_new_session=True,
            )
            writer.close()
            try:
                yield process
            finally:
                # bubblewrap takes its process namespace with it, a bare program its group
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdout:
                    process.stdout.close()
            if not started.read(1):
                raise VerdictError(
                    "a sandbox did not start: check that memory, processes and time are available"
                )

    def run(self, program: str, stdin: str = "") -> Execution:
        """Run a program to its end on the given standard input."""
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode("utf-8", "replace"))
            file.seek(0)
            with self.start(program, stdin=file, stdout=subprocess.PIPE) as process:
                return self.finish(process)

    def finish(self, process: subprocess.Popen[bytes]) -> Execution:
        """Read a program started with `stdout=PIPE` until it ends or a limit is reached."""
        assert process.stdout is not None
        deadline = time.monotonic() + self.limits.wall_seconds
        chunks: list[bytes] = []
        remaining = self.limits.output_mb * MB
        while remaining >= 0:
            timeout = deadline - time.monotonic()
            if timeout <= 0 or not select.select([process.stdout], [], [], timeout)[0]:
                return Execution("timeout", b"".join(chunks))
            chunk = os.read(process.stdout.fileno(), MB)
            if not chunk:
                return Execution(ending(process, deadline), b"".join(chunks))
            chunks.append(chunk)
            remaining -= len(chunk)
        return Execution("flood", b"".join(chunks))


def ending(process: subprocess.Popen[bytes], deadline: float) -> Status:
    """How a process ends after its output, waiting until `deadline` (monotonic)."""
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "timeout"
    if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return "timeout"
    return "exited" if code == 0 else "crashed"


# parallel processes start at different ids
_started = itertools.count(os.getpid() * 101)


def _spare_uid() -> int:
    """The next id, so that no two programs that run at once share one."""
    return SPARE_UIDS[next(_started) % len(SPARE_UIDS)]


def _command(
    prefix: Sequence[str], limits: SandboxLimits, program: int, started: int | None = None
) -> list[str]:
    settings = {
        "uid": _spare_uid() if "CAP_SETUID" in prefix else None,
        "limits": {
            # the soft limit sends SIGXCPU, the hard one kills a program that ignores it
            "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + 1),
            "RLIMIT_AS": (limits.memory_mb * MB,) * 2,
            "RLIMIT_FSIZE": (limits.output_mb * MB,) * 2,
            "RLIMIT_NOFILE": (MAX_OPEN_FILES,) * 2,
            "RLIMIT_NPROC": (MAX_PROCESSES,) * 2,
            "RLIMIT_CORE": (0, 0),
        },
        "packages": _packages(),
        "program": program,
        "started": started,
    }
    python = [_python() if prefix else sys.executable, "-I", "-S", "-X", "utf8", "-c", BOOT]
    return [*prefix, *python, json.dumps(settings)]


def _python() -> str:
    """The interpreter behind a virtual environment, without links."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@cache
def _bubblewrap() -> tuple[tuple[str, ...], str]:
    """A command prefix that works here, and ""; or () and the problem."""
    program = shutil.which("bwrap")
    alternative = "or set allow_unsafe_execution=true to run generated code with your own rights"
    if program is None:
        return (), f"running generated code needs bubblewrap: apt install bubblewrap, {alternative}"
    # root runs programs under unused user ids
    readable = " and may be read by every user (chmod -R o+rX)" if os.geteuid() == 0 else ""
    message = ""
    for privileges in _PRIVILEGES if os.geteuid() == 0 else _PRIVILEGES[1:]:
        prefix = (program, *privileges, *_SESSION, *_filesystem())
        with tempfile.TemporaryFile() as file:
            file.write(PROBE.encode())
            file.seek(0)
            command = _command(prefix, SandboxLimits(), file.fileno())
            probe = subprocess.run(
                command, capture_output=True, env={}, pass_fds=(file.fileno(),), timeout=60
            )
        if probe.stdout == b"bounded\n":
            return prefix, ""
        lines = probe.stderr.decode(errors="replace").strip().splitlines()
        message = lines[-1] if lines else "the process limit does not bind root here"
        if lines and not message.startswith("bwrap:") or "execvp" in message:
            return (), (
                f"the interpreter {_python()} does not run inside bubblewrap ({message}), which "
                f"shows it /usr, {', '.join(_needed())} and nothing else: see that all it needs "
                "is there" + readable + f", {alternative}"
            )
    return (), (
        f"bubblewrap does not work here ({message}): run as a user who may create user "
        "namespaces (containers forbid it by default; Docker: --security-opt "
        f"seccomp=unconfined), {alternative}"
    )


# Root needs no user namespace, and must change its user id for the process limit to apply.
_PRIVILEGES = (
    (
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--unshare-cgroup-try", "--cap-drop", "ALL"),
        *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
    ),
    ("--unshare-all", "--cap-drop", "ALL"),
)
_SESSION = ("--die-with-parent", "--new-session", "--clearenv")


def _packages() -> list[str]:
    """Folders of installed packages that this interpreter imports from, without links."""
    return [
        os.path.realpath(path)
        for path in sys.path
        if os.path.basename(path) in PACKAGES and os.path.isdir(path)
    ]


def _needed() -> list[str]:
    """Paths outside /usr that the interpreter and its packages need, without links.

    Folders inside a prefix and not the prefix, which the program's user id may not be able to read.
    """
    needed = {_python(), *_packages()}
    for prefix in (sys.base_prefix, str(Path(_python()).parents[1])):
        needed |= {os.path.realpath(f"{prefix}/{name}") for name in ("lib", "lib64")}
    library = sysconfig.get_config_var("LDLIBRARY")
    needed |= {os.path.realpath(f"{folder}/{library}") for folder in _library_path()}
    for folder in _packages():
        for entry in os.scandir(folder):
            if entry.is_symlink():
                needed |= {_installed(path) for path in _targets(entry.path) if not _private(path)}
    for store in STORES:
        if any(Path(path).is_relative_to(store) for path in needed):
            needed.add(store)
    mounts: list[str] = []
    for path in sorted(path for path in needed if os.path.exists(path)):
        if not any(Path(path).is_relative_to(other) for other in ("/usr", *mounts)):
            mounts.append(path)
    return mounts


def _targets(link: str) -> list[str]:
    """Every path that a link leads through, the last one without links."""
    targets: list[str] = []
    while os.path.islink(link) and len(targets) < 40:
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
        targets.append(link)
    return [*targets, os.path.realpath(link)]


def _private(path: str) -> bool:
    """Does a path contain more than packages: the user's home or the working directory?"""
    folders = (os.path.realpath(os.path.expanduser("~")), os.getcwd())
    return any(Path(folder).is_relative_to(path) for folder in folders)


def _installed(path: str) -> str:
    """The folder of packages around a path, so that many links into it give one folder."""
    folder = os.path.dirname(path)
    return folder if os.path.basename(folder) in PACKAGES else path


def _library_path() -> list[str]:
    """Folders of LD_LIBRARY_PATH with the interpreter's own library."""
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [
        os.path.realpath(folder)
        for folder in folders
        if library.endswith(".so") and os.path.isfile(os.path.join(folder, library))
    ]


def _filesystem() -> list[str]:
    """bubblewrap's options for the file system of a program: read-only except /tmp."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("/lib", "/lib32", "/lib64", "/bin", "/sbin"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    options += ["--perms", "0755", "--dir", "/etc"]
    options += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    options += ["--dev", "/dev"]
    # before mounts below it
    options += ["--perms", "1777", "--size", str(TMPFS_MB * MB), "--tmpfs", "/tmp"]
    for path in _needed():
        for parent in reversed(Path(path).parents[:-1]):
            # else bubblewrap creates them for its own user alone
            options += ["--perms", "0755", "--dir", str(parent)]
        options += ["--ro-bind", path, path]
    if folders := _library_path():
        options += ["--setenv", "LD_LIBRARY_PATH", ":".join(folders)]
    return [*options, "--remount-ro", "/dev", "--chdir", "/tmp", "--remount-ro", "/"]
