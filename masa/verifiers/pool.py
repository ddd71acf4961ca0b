"""A pool of worker processes, in which every item has a time and a memory limit."""

import atexit
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from masa.errors import VerdictError

T = TypeVar("T", bound=Hashable)

_ROOT = str(Path(__file__).parents[2])
_START_SECONDS = 300.0
_RECYCLE = 5000
"""Items after which a worker is replaced, so that caches of libraries do not fill its memory."""


class _Worker:
    """One process, started at the first use. Not shared between threads."""

    def __init__(self, function: str, seconds: float, memory: int) -> None:
        self.arguments = [function, str(seconds), str(memory)]
        self.wall = 60.0 + 20 * seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.answered = 0

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONHASHSEED": "0",  # the order of sets, and with it SymPy's route, is the same
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "masa.verifiers.worker", *self.arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is the parent's to handle
                )
            except OSError as error:
                raise _not_started(str(error)) from error
            self.process, self.answered = process, 0
            if self._read(process, _START_SECONDS) != b"ready\n":
                self.stop()
                errors.seek(0)
                raise _not_started(errors.read().decode(errors="replace"))
        return process

    @staticmethod
    def _read(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """One line, or b"" if the process ended or `seconds` of wall time passed."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline() if ready else b""

    def call(self, item: str) -> Any:
        """The function's value on a JSON item, or None if the item ran into a limit."""
        if self.answered >= _RECYCLE:
            self.stop()
        process = self.process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(item.encode() + b"\n")
            process.stdin.flush()
            reply = self._read(process, self.wall)
        except BrokenPipeError:
            reply = b""
        if reply.endswith(b"\n"):
            self.answered += 1
            return json.loads(reply)
        reused = self.answered
        out_of_time = self.stop() == -signal.SIGPROF
        # Memory of earlier items must not count: try again in a new process.
        return self.call(item) if reused and not out_of_time else None

    def stop(self) -> int | None:
        """End the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # the process ended before it read an item
        return process.returncode


def _not_started(stderr: str) -> VerdictError:
    reason = (stderr.strip().splitlines() or ["no message"])[-1]
    return VerdictError(
        f"a verdict worker did not start ({reason[-300:]}): check that there is free memory, that "
        "it may start processes and that `python -m masa.verifiers.worker` runs here"
    )


class VerdictPool:
    """Applies a function to items in worker processes; safe to use from several threads.

    Args:
        function: `package.module:name`, importable without torch; takes and returns JSON values.
        workers: processes at most; each starts when the others are busy.
        seconds: CPU seconds per item. Wall time depends on the load; its limit is only a safeguard,
            at 60 s + 20 times as much.
        memory: bytes per worker beyond its imports (Linux).
    """

    def __init__(self, function: str, workers: int, seconds: float, memory: int) -> None:
        if workers < 1 or seconds <= 0 or memory <= 0:
            raise ValueError("A verdict pool needs workers >= 1, seconds > 0 and memory > 0")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._workers = [_Worker(function, seconds, memory) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verdict")
        self._closing = threading.Lock()

    def map(self, items: Sequence[Any]) -> list[Any]:
        """The function's values in the order of the items; None where an item ran into a limit.

        Raises:
            VerdictError: a worker could not be started.
        """
        return list(self._threads.map(self._one, [json.dumps(item) for item in items]))

    def verdicts(self, items: Iterable[T]) -> dict[T, bool]:
        """Per distinct item whether the function returns True; False where it runs into a limit."""
        distinct = list(dict.fromkeys(items))
        values = self.map(distinct) if distinct else []
        return {item: value is True for item, value in zip(distinct, values, strict=True)}

    def _one(self, item: str) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(item)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Wait for running items, then end the workers."""
        with self._closing:
            self._threads.shutdown(wait=True, cancel_futures=True)
            for worker in self._workers:
                worker.stop()

    def __enter__(self) -> "VerdictPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: dict[tuple[int, str], VerdictPool] = {}
_sharing = threading.Lock()


def default_workers() -> int:
    """The default number of workers of a pool."""
    return min(8, os.cpu_count() or 1)


def shared_pool(function: str, seconds: float, memory: int) -> VerdictPool:
    """The only pool of this process for a function, made at first use; a fork makes its own."""
    key = (os.getpid(), function)
    with _sharing:
        if key not in _shared:
            _shared[key] = VerdictPool(function, default_workers(), seconds, memory)
            atexit.register(_shared[key].close)
        return _shared[key]
