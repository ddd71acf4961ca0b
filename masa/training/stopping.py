"""SIGTERM and SIGUSR1: a run that is told to stop leaves a checkpoint behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lightning as L

from masa.training.collectives import max_over_ranks, world_size

EXIT_STOPPED = 75
"""Exit status of a run that was told to stop and can go on: EX_TEMPFAIL of sysexits.h."""


class Stopped(BaseException):
    """The run was told to stop. No `except Exception` is to take it for an error."""


class StopSignal(L.Callback):
    """Remembers that a signal came, and leaves at once where nothing is lost by it.

    A second signal ends a process of one rank; several may get it twice, once from their launcher.
    Comes before all callbacks that generate.
    """

    def __init__(self) -> None:
        self.received = False
        self._may_leave = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over from Lightning, whose handlers call collectives and requeue SLURM jobs."""
        signal.signal(signal.SIGTERM, self._receive)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if world_size() == 1:
            signal.signal(number, signal.SIG_DFL)
        if self._may_leave:
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that a signal cuts short by raising Stopped.

        Not on several ranks: the ranks that the signal did not reach would wait for this one.
        """
        self._may_leave = world_size() == 1
        try:
            if self.received and self._may_leave:
                raise Stopped
            yield
        finally:
            self._may_leave = False

    def agreed(self) -> bool:
        """True where any rank received a signal; a collective call."""
        return max_over_ranks(float(self.received)) > 0
