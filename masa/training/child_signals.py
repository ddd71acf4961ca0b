"""Signals to a process that waits for another one."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """While it lasts, whoever stops this process stops that one instead, which then leaves a
    checkpoint. What was received is in the list."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), pass_on) for name in names}
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
