"""The progress bar."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from tqdm import tqdm

from masa.training.module import MasaModule


class ProgressCallback(L.Callback):
    """Rollouts done, time left, reward, held-out accuracy, skipped share and tokens per second.

    Args:
        total: rollouts of the run.
        label: name of the run.
        unit: what a step is called; steps of `masa-sft` show the loss.
    """

    def __init__(self, total: int, label: str, unit: str = "rollout") -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, from the resumed rollout on."""
        assert isinstance(pl_module, MasaModule)
        self.bar = tqdm(
            total=self.total,
            initial=pl_module.version,
            desc=self.label,
            unit=self.unit,
            disable=not trainer.is_global_zero,
            # a log file gets a line per 15 s and not one per rollout
            mininterval=0.1 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
        )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance by one rollout."""
        assert self.bar is not None
        metrics = outputs["metrics"]
        shown, digits = ("reward", 2) if self.unit == "rollout" else ("loss", 3)
        postfix = {
            shown: f"{metrics.get(shown, float('nan')):.{digits}f}",
            "tok/s": f"{metrics['perf/throughput']:.0f}",
        }
        accuracy = trainer.callback_metrics.get("val/accuracy")
        if accuracy is not None:
            postfix["val_acc"] = f"{float(accuracy):.3f}"
        if "gate/fraction" in metrics:
            postfix["skipped"] = f"{metrics['gate/fraction']:.0%}"
        self.bar.set_postfix(postfix, refresh=False)
        self.bar.update(1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar and keep its last state on the screen."""
        assert self.bar is not None
        self.bar.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error has a line of its own."""
        if self.bar is not None:
            self.bar.close()
