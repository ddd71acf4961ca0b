"""Hostile programs, their verdicts, and the time of an honest program after each.

python experiments/verifiers/hostile.py [allow_unsafe_execution=true]
"""

import os
import socket
import sys
from dataclasses import dataclass

from masa.verifiers.code.programs import FunctionTests, ProgramVerdict, StdioTests, verify_program
from masa.verifiers.code.sandbox import Sandbox, SandboxLimits

SECRET = "MASA_HOSTILE_SECRET"
LIMITS = SandboxLimits(cpu_seconds=1, wall_seconds=4, memory_mb=500, output_mb=1)
FUNCTION = FunctionTests("assert answer(1) == 8731\nassert answer(2) == 4409", ("answer",))
PRINTED = StdioTests((("1\n", "8731\n"),))
HONEST = "def answer(n):\n    return {1: 8731, 2: 4409}[n]\n"
# an attack on the machine returns this where it succeeds: to pass the tests is to escape
PRIZE = HONEST.replace("answer", "prize")


@dataclass(frozen=True)
class Hostile:
    """A hostile program."""

    name: str
    code: str
    tests: FunctionTests | StdioTests = FUNCTION
    harmless: bool = True
    """True where it does no harm without bubblewrap."""


def attack(name: str, body: str) -> Hostile:
    """A program that returns the correct answers where its attack succeeds."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    code = f"import ctypes, importlib, os, socket, sys\n{PRIZE}\ndef answer(n):\n{lines}\n"
    return Hostile(name, code, harmless=False)


def programs(port: int) -> list[Hostile]:
    """All hostile programs; this machine listens on `port`."""
    return [
        Hostile("infinite loop", "while True:\n    pass"),
        Hostile("sleeps", "import time\ntime.sleep(1e6)"),
        Hostile(
            "infinite loop, signals ignored",
            "import signal\n"
            "for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
            "    signal.signal(number, signal.SIG_IGN)\n"
            "while True:\n    pass",
        ),
        Hostile("fork bomb", "import os\nwhile True:\n    os.fork()", harmless=False),
        Hostile(
            "fork bomb that keeps trying",
            "import os\n"
            "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
            harmless=False,
        ),
        Hostile(
            "daemon that outlives it",
            "import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(1e6)\nos._exit(0)",
            harmless=False,
        ),
        Hostile("100 GB allocation", "hoard = bytearray(100 * 2**30)"),
        Hostile(
            "small allocations for ever", "hoard = []\nwhile True:\n    hoard.append([0] * 10**5)"
        ),
        Hostile("huge output", "while True:\n    print('8731' * 10**5)", PRINTED),
        Hostile("huge result", "def answer(n):\n    return [[n]] * 10**8"),
        attack(
            "fills the disk",
            """
written = 0
for number in range(400):
    with open(f"/tmp/{number}", "wb") as file:
        written += file.write(bytes(2**20 - 1))
return prize(n) if written > 300 * 2**20 else 0""",
        ),
        attack(
            "writes outside tmp",
            f"""
for folder in ("/", "/usr", "/dev/shm", sys.prefix, {os.getcwd()!r}):
    try:
        with open(folder + "/escaped", "w"):
            return prize(n)
    except OSError:
        pass""",
        ),
        attack("reads /etc/passwd", "return prize(n) if open('/etc/passwd').read() else 0"),
        attack(
            "reads the parent's environment",
            f"""
places = [str(os.environ)]
for pid in os.listdir("/proc"):
    try:
        places.append(open("/proc/" + pid + "/environ").read())
    except OSError:
        pass
return prize(n) if any({SECRET!r} in place for place in places) else 0""",
        ),
        attack(
            "opens a socket",
            f"socket.create_connection(('127.0.0.1', {port}), timeout=1)\nreturn prize(n)",
        ),
        attack(
            "system calls by ctypes",
            """
libc = ctypes.CDLL(None)
calls = [
    libc.mount(b"none", b"/usr", b"tmpfs", 0, None),
    libc.umount2(b"/usr", 2),
    libc.ptrace(16, os.getppid(), 0, 0),
    libc.chroot(b"/tmp"),
    libc.sethostname(b"escaped", 7),
]
return prize(n) if 0 in calls else 0""",
        ),
        attack(
            "reloads os",
            """
fresh = importlib.reload(os)
return prize(n) if fresh.system("cat /etc/passwd > /tmp/loot") == 0 else 0""",
        ),
        attack(
            "kills its parent",
            """
for target in (os.getppid(), 1, -1):
    try:
        os.kill(target, 9)
    except OSError:
        pass
return 0""",
        ),
        attack(
            "deletes the tests",
            f"""
import shutil
for folder in ("/usr/bin", {os.getcwd()!r}, sys.prefix + "/bin"):
    shutil.rmtree(folder, ignore_errors=True)
return prize(n) if not os.path.exists(sys.executable) else 0""",
        ),
        Hostile(
            "is equal to everything",
            "class Yes:\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n"
            "    __bool__ = lambda *_: True\n    __hash__ = lambda *_: 0\n"
            "def answer(n):\n    return Yes()",
        ),
        Hostile(
            "is a number equal to everything",
            "class Yes(int):\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n"
            "def answer(n):\n    return Yes(1)",
        ),
        Hostile(
            "walks frames and objects for the answer",
            "import gc, re, sys\n"
            "def answer(n):\n"
            "    texts, frame = [], sys._getframe()\n"
            "    while frame:\n"
            "        texts.append(str(frame.f_locals) + str(frame.f_globals))\n"
            "        frame = frame.f_back\n"
            "    texts += [item for item in gc.get_objects() if isinstance(item, str)]\n"
            "    for text in texts:\n"
            "        found = re.search(rf'answer\\({n}\\) == (\\d+)', text)\n"
            "        if found:\n"
            "            return int(found[1])",
        ),
        Hostile("leaves before the checks", "import os\nos._exit(0)"),
        Hostile("leaves when called", "import os\ndef answer(n):\n    os._exit(0)"),
        Hostile("leaves before it prints", "import os\nos._exit(0)", PRINTED),
        Hostile(
            "forges the report",
            "import os\n"
            'report = b\'["passed", ""]\\n["value", true]\\n\'\n'
            "for fd in range(64):\n"
            "    try:\n        os.write(fd, report)\n"
            "    except OSError:\n        pass",
        ),
        Hostile(
            "ends the tests by StopIteration",
            "def answer(n):\n    raise StopIteration",
            FunctionTests("assert all(map(lambda n: answer(n) == 8731, [1, 1]))", ("answer",)),
        ),
        Hostile(
            "deep recursion",
            "import sys\nsys.setrecursionlimit(10**9)\n"
            "def answer(n):\n    return answer(n + 1) + 1",
        ),
        Hostile(
            "deeply nested result",
            "def answer(n):\n    nest = []\n"
            "    for _ in range(10**6):\n        nest = [nest]\n    return nest",
        ),
    ]


def trial(hostile: Hostile, sandbox: Sandbox) -> tuple[ProgramVerdict, ProgramVerdict]:
    """The verdict on a hostile program and on an honest one right after it."""
    verdict = verify_program(hostile.tests, hostile.code, sandbox)
    return verdict, verify_program(FUNCTION, HONEST, sandbox)


def main() -> None:
    sandbox = Sandbox(LIMITS, "allow_unsafe_execution=true" in sys.argv)
    os.environ[SECRET] = "1"
    print(f"limits: {LIMITS.cpu_seconds} s CPU, {LIMITS.wall_seconds:g} s wall,", end=" ")
    print(f"{LIMITS.memory_mb} MB memory, {LIMITS.output_mb} MB output\n")
    print("| program | verdict | seconds | reason | honest program after it |")
    print("|---|---|---|---|---|")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for hostile in programs(listener.getsockname()[1]):
            if sandbox.isolated or hostile.harmless:
                verdict, after = trial(hostile, sandbox)
                print(
                    f"| {hostile.name} | {verdict.status} | {verdict.seconds:.2f} | "
                    f"{verdict.reason[:60]} | {after.status}, {after.seconds:.2f} s |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
