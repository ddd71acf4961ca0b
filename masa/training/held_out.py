"""Validation: when the policy is measured on what is held out, and where that is logged."""

from __future__ import annotations

import time
from typing import Any

import lightning as L

from masa.config import TrainerConfig


class HeldOutCallback(L.Callback):
    """Measures before the first step, every `val_every` and after the last. A subclass says how.

    Args:
        trainer: how often.
    """

    def __init__(self, trainer: TrainerConfig) -> None:
        self.settings = trainer
        self.step = -1
        """Steps that the policy measured last was trained on."""
        self.accuracy = 0.0
        """What the best checkpoints are chosen by; of `masa-sft`, minus the loss."""

    def measure(self, trainer: L.Trainer, module: Any, step: int) -> dict[str, float]:
        """Metrics of the policy as it is, and `accuracy`; none where it is not measured now."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the policy before it has learned anything, or where a run was stopped at it."""
        self._measure_where_due(trainer, pl_module, pl_module.version)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure where it is due."""
        self._measure_where_due(trainer, pl_module, batch.step)

    def _measure_where_due(self, trainer: L.Trainer, module: Any, step: int) -> None:
        due = step % self.settings.val_every == 0 or step == self.settings.max_rollouts
        if not due or step == self.step:
            return
        started = time.perf_counter()
        metrics = self.measure(trainer, module, step)
        if not metrics:
            return
        timings = {"timing_s/validation": time.perf_counter() - started}
        for name, value in metrics.items():
            module.log(name, value, rank_zero_only=True, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics(metrics | timings, step=step)
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        """What was measured last."""
        return {"step": self.step, "accuracy": self.accuracy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.step, self.accuracy = state_dict["step"], state_dict["accuracy"]
