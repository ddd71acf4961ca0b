"""SIGTERM, SIGUSR1 and Ctrl-C: a run that gets one saves a checkpoint and stops."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lightning as L

from masa.training.collectives import max_over_ranks, world_size

EXIT_STOPPED = 75
"""Exit status of a run that a signal stopped and that can resume: EX_TEMPFAIL of sysexits.h."""


class Stopped(BaseException):
    """A signal stopped the run. This is no Exception, so that nobody handles it as an error."""


class StopSignal(L.Callback):
    """Records a signal, and raises `Stopped` at once where no work is lost.

    A second signal ends a process of one rank; several ranks may get it twice, once from their
    launcher. Comes before all callbacks that generate.
    """

    def __init__(self) -> None:
        self.received = False
        self._interruptible = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace Lightning's handlers, which call collectives and requeue SLURM jobs."""
        signal.signal(signal.SIGTERM, self._receive)
        if world_size() == 1:
            signal.signal(signal.SIGINT, self._receive)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number == signal.SIGINT:
            print("\nstopping with a checkpoint; Ctrl-C again: at once, without", file=sys.stderr)
        if world_size() == 1:
            signal.signal(number, signal.SIG_DFL)
        if self._interruptible:
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context of work that a signal interrupts by raising Stopped.

        On several ranks it does not: ranks without the signal would wait for this one.
        """
        self._interruptible = world_size() == 1
        try:
            if self.received and self._interruptible:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def agreed(self) -> bool:
        """True where any rank received a signal; a collective call."""
        return max_over_ranks(float(self.received)) > 0
