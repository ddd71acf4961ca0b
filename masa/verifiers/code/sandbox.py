"""Run one untrusted Python program in a fresh process group that does not outlive its verdict.

Inside bubblewrap the program sees a read-only /usr and interpreter, a small tmpfs, no network, no
processes but its own and no environment. bubblewrap is refused where it cannot keep that promise.
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
# user ids that own nothing; a fresh one per program makes RLIMIT_NPROC count that program alone
SPARE_UIDS = range(60_001, 65_000)

# First code of the child: it takes the limits upon itself, then becomes the program. The rest of
# the interpreter is `python -I` without `site`, which would cost half of the start.
BOOT = """
import builtins, json, os, resource, sys, _sitebuiltins
order = json.loads(sys.argv.pop())
if order["uid"]:
    os.setgroups([])
    os.setresgid(*[order["uid"]] * 3)
    os.setresuid(*[order["uid"]] * 3)
for name, (soft, hard) in order["limits"].items():
    ceiling = resource.getrlimit(getattr(resource, name))[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(getattr(resource, name), (soft, hard))
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.set_int_max_str_digits(0)  # the limit on CPU time bounds what that guards against
sys.path += order["packages"]
builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "end of file")
with open(order["program"], encoding="utf-8") as file:
    source = file.read()
if order["started"]:
    os.write(order["started"], b"!")
    os.close(order["started"])
exec(compile(source, "<program>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
"""

# Says "bounded" where the process limit holds, from which the kernel exempts the real root, and
# where the standard library and the packages can be read.
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
class Limits:
    """What one program may use."""

    cpu_seconds: int = 6
    """CPU seconds of a process; the measure of slowness, since it does not depend on the load."""
    wall_seconds: float = 30.0
    """Seconds after which a program is killed whatever it does, sleeping included."""
    memory_mb: int = 2048
    """Address space of a process in MiB."""
    output_mb: int = 16
    """Output that is read, and size of a file, in MiB."""

    def __post_init__(self) -> None:
        for name in ("cpu_seconds", "wall_seconds", "memory_mb", "output_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name} is {getattr(self, name)}, it must be > 0")


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    status: Status
    """exited: with code 0; crashed: with another code or by a signal; timeout: CPU or wall; flood:
    more output than is read."""
    stdout: bytes
    """What it printed until then."""


class Sandbox:
    """Starts programs under limits.

    Args:
        limits: of each program.
        allow_unsafe_execution: where bubblewrap is missing or forbidden, run programs with limits
            and a time limit alone. They can then read, write and signal what this user can.

    Raises:
        ConfigError: bubblewrap does not work here and unsafe execution is not allowed.
    """

    def __init__(self, limits: Limits | None = None, allow_unsafe_execution: bool = False) -> None:
        self.limits = limits or Limits()
        prefix, error = _bubblewrap()
        if error and not allow_unsafe_execution:
            raise ConfigError(error)
        self.isolated = not error
        self._prefix = prefix

    def with_time(self, times: int) -> Sandbox:
        """The same sandbox with so many times the CPU and wall time."""
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
        """A running program; whatever is left of it is killed at the end of the block.

        Args:
            program: Python source.
            stdin, stdout: as for subprocess.
            fds: descriptors it inherits under the same numbers.

        Raises:
            VerdictError: it never started.
        """
        started, tell = os.pipe()
        with (
            tempfile.TemporaryFile() as file,
            open(started, "rb") as sign,
            open(tell, "wb") as teller,
        ):
            file.write(program.encode("utf-8", "replace"))
            file.seek(0)
            process = subprocess.Popen(
                _command(self._prefix, self.limits, file.fileno(), tell),
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                env={},
                pass_fds=(file.fileno(), tell, *fds),
                start_new_session=True,
            )
            teller.close()
            try:
                yield process
            finally:
                # bubblewrap takes its process namespace with it, a bare program its group
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdout:
                    process.stdout.close()
            if not sign.read(1):
                raise VerdictError(
                    "a sandbox did not start: see that memory, processes and time are left for it"
                )

    def run(self, program: str, stdin: str = "") -> Outcome:
        """Run a program to its end on the given standard input."""
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode("utf-8", "replace"))
            given.seek(0)
            with self.start(program, stdin=given, stdout=subprocess.PIPE) as process:
                return self.finish(process)

    def finish(self, process: subprocess.Popen[bytes]) -> Outcome:
        """Read a program started with `stdout=PIPE` until it ends or a limit is reached."""
        assert process.stdout is not None
        deadline = time.monotonic() + self.limits.wall_seconds
        chunks: list[bytes] = []
        left = self.limits.output_mb * MB
        while left >= 0:
            patience = deadline - time.monotonic()
            if patience <= 0 or not select.select([process.stdout], [], [], patience)[0]:
                return Outcome("timeout", b"".join(chunks))
            chunk = os.read(process.stdout.fileno(), MB)
            if not chunk:
                return Outcome(ending(process, deadline), b"".join(chunks))
            chunks.append(chunk)
            left -= len(chunk)
        return Outcome("flood", b"".join(chunks))


def ending(process: subprocess.Popen[bytes], deadline: float) -> Status:
    """How a process ends that has nothing more to say, waiting until `deadline` (monotonic)."""
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "timeout"
    if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return "timeout"
    return "exited" if code == 0 else "crashed"


# processes that run programs side by side start at different ids
_started = itertools.count(os.getpid() * 101)


def _spare_uid() -> int:
    """The next id, so that no two programs that run at once share one."""
    return SPARE_UIDS[next(_started) % len(SPARE_UIDS)]


def _command(
    prefix: Sequence[str], limits: Limits, program: int, started: int | None = None
) -> list[str]:
    order = {
        "uid": _spare_uid() if "CAP_SETUID" in prefix else None,
        "limits": {
            # the soft limit ends a program by a signal of its own, the hard one whoever ignores it
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
    return [*prefix, *python, json.dumps(order)]


def _python() -> str:
    """The interpreter behind an environment, whose links may lead through any folder."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@cache
def _bubblewrap() -> tuple[tuple[str, ...], str]:
    """A command prefix that was seen to work, and "", or nothing and what is wrong."""
    program = shutil.which("bwrap")
    otherwise = "or set allow_unsafe_execution=true to run generated code with your own rights"
    if program is None:
        return (), f"running generated code needs bubblewrap: apt install bubblewrap, {otherwise}"
    # root runs programs under the ids of nobody
    readable = " and may be read by every user (chmod -R o+rX)" if os.geteuid() == 0 else ""
    complaint = ""
    for privileges in _PRIVILEGES if os.geteuid() == 0 else _PRIVILEGES[1:]:
        prefix = (program, *privileges, *_SESSION, *_filesystem())
        with tempfile.TemporaryFile() as file:
            file.write(PROBE.encode())
            file.seek(0)
            command = _command(prefix, Limits(), file.fileno())
            done = subprocess.run(
                command, capture_output=True, env={}, pass_fds=(file.fileno(),), timeout=60
            )
        if done.stdout == b"bounded\n":
            return prefix, ""
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        complaint = lines[-1] if lines else "the process limit does not bind root here"
        if lines and not complaint.startswith("bwrap:") or "execvp" in complaint:
            return (), (
                f"the interpreter {_python()} does not run inside bubblewrap ({complaint}), which "
                f"shows it /usr, {', '.join(_needed())} and nothing else: see that all it needs "
                "lies there" + readable + f", {otherwise}"
            )
    return (), (
        f"bubblewrap does not work here ({complaint}): run as a user who may create user "
        "namespaces (containers forbid it by default; Docker: --security-opt "
        f"seccomp=unconfined), {otherwise}"
    )


# Root needs no user namespace, and has to leave its user id for the process limit to count.
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
    """Folders of installed packages that this interpreter imports from, as they really lie."""
    return [
        os.path.realpath(path)
        for path in sys.path
        if os.path.basename(path) in PACKAGES and os.path.isdir(path)
    ]


def _needed() -> list[str]:
    """What the interpreter and its packages need of the disk beside /usr, without links.

    The folders inside a prefix and not the prefix: that may be closed to the user id of a program.
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
    kept: list[str] = []
    for path in sorted(path for path in needed if os.path.exists(path)):
        if not any(Path(path).is_relative_to(other) for other in ("/usr", *kept)):
            kept.append(path)
    return kept


def _targets(link: str) -> list[str]:
    """Every path that a link leads through, the last one without links."""
    targets: list[str] = []
    while os.path.islink(link) and len(targets) < 40:
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
        targets.append(link)
    return [*targets, os.path.realpath(link)]


def _private(path: str) -> bool:
    """Does a path hold more than packages: the home of this user, or what the run reads?"""
    own = (os.path.realpath(os.path.expanduser("~")), os.getcwd())
    return any(Path(folder).is_relative_to(path) for folder in own)


def _installed(path: str) -> str:
    """The folder of packages that a path lies in, so that a farm of links is one folder."""
    folder = os.path.dirname(path)
    return folder if os.path.basename(folder) in PACKAGES else path


def _library_path() -> list[str]:
    """Folders of LD_LIBRARY_PATH that hold the interpreter's own library."""
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [
        os.path.realpath(folder)
        for folder in folders
        if library.endswith(".so") and os.path.isfile(os.path.join(folder, library))
    ]


def _filesystem() -> list[str]:
    """bubblewrap's options for what a program sees: all of it read-only but /tmp."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("/lib", "/lib32", "/lib64", "/bin", "/sbin"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    options += ["--perms", "0755", "--dir", "/etc"]
    options += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    options += ["--dev", "/dev"]
    # before what may lie below it
    options += ["--perms", "1777", "--size", str(TMPFS_MB * MB), "--tmpfs", "/tmp"]
    for path in _needed():
        for parent in reversed(Path(path).parents[:-1]):
            # bubblewrap would make them for its own user alone
            options += ["--perms", "0755", "--dir", str(parent)]
        options += ["--ro-bind", path, path]
    if folders := _library_path():
        options += ["--setenv", "LD_LIBRARY_PATH", ":".join(folders)]
    return [*options, "--remount-ro", "/dev", "--chdir", "/tmp", "--remount-ro", "/"]
