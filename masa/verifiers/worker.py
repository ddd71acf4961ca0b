"""The worker process of a VerdictPool: `python -m masa.verifiers.worker FUNCTION SECONDS MEMORY`.

Reads one JSON item per line and writes one JSON line. The CPU limit is a kernel timer with its
default action, so it also ends code that never returns to the interpreter. The worker is a plain
program: multiprocessing would import the caller's `__main__` again, or fork its threads.
"""

import importlib
import json
import os
import resource
import signal
import sys


def limit_memory(headroom: int) -> None:
    """Allow `headroom` bytes more than the memory in use."""
    with open("/proc/self/statm") as statm:
        in_use = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + headroom, in_use + headroom))


def main() -> None:
    name, seconds, headroom = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not be read as a reply
    module, _, function = name.partition(":")
    answer = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        limit_memory(headroom)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = answer(json.loads(line))
        except MemoryError:
            os._exit(1)  # the state of this process is undefined
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
