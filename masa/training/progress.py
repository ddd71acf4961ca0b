"""The one line a user watches."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from tqdm import tqdm

from masa.training.module import MasaModule


class ProgressCallback(L.Callback):
    """Rollouts done, time left, reward, held-out accuracy, gated share and tokens per second.

    Args:
        total: rollouts of the run.
        label: name of the run.
    """

    def __init__(self, total: int, label: str) -> None:
        self.total = total
        self.label = label
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar from where the run stands."""
        assert isinstance(pl_module, MasaModule)
        self.bar = tqdm(
            total=self.total,
            initial=pl_module.version,
            desc=self.label,
            unit="rollout",
            disable=not trainer.is_global_zero,
            # a log file gets a line now and then instead of one per rollout
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
        shown = {
            "reward": f"{metrics.get('reward', float('nan')):.2f}",
            "tok/s": f"{metrics['perf/throughput']:.0f}",
        }
        accuracy = trainer.callback_metrics.get("val/accuracy")
        if accuracy is not None:
            shown["val_acc"] = f"{float(accuracy):.3f}"
        if "gate/fraction" in metrics:
            shown["gated"] = f"{metrics['gate/fraction']:.0%}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the last state on the screen."""
        assert self.bar is not None
        self.bar.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the line, so that what is said next has one of its own."""
        if self.bar is not None:
            self.bar.close()
