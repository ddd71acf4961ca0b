"""The LightningModule of a run whose rollouts are recorded ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from masa.training.module import MasaModule
from masa.types import StepBatch


class ReplayModule(MasaModule):
    """Logs each rollout and trains nothing: there are no weights, and the updates are left out."""

    def configure_model(self) -> None:
        """Measure the model, whose weights are on no device."""
        self._describe(self.build_policy(None))

    def configure_optimizers(self) -> None:
        """None."""

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Nothing."""
        return iter(())

    def training_step(self, batch: StepBatch, batch_idx: int) -> dict[str, Any]:
        """Log the metrics of one rollout at step = rollout number."""
        started = time.perf_counter()
        self.version += 1
        return self._log_step(batch, dict(batch.metrics), started)
