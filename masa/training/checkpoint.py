"""Checkpoints that are either complete or not there, and which one to go on from."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L

from masa.config import ConfigError, TrainerConfig

KEEP = 2
"""Newest checkpoints that are kept."""


class CheckpointCallback(L.Callback):
    """Saves `checkpoints/step-NNNNNN.ckpt` every n rollouts and after the last.

    Lightning's own ModelCheckpoint counts optimizer steps, and a fully gated rollout has none.

    Args:
        directory: where to.
        trainer: how often.
    """

    def __init__(self, directory: Path, trainer: TrainerConfig) -> None:
        self.directory = directory
        self.settings = trainer

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is due."""
        last = batch.step == self.settings.max_rollouts
        if not last and batch.step % self.settings.checkpoint_every:
            return
        partial = self.directory / "partial"
        trainer.save_checkpoint(partial)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            final = self.directory / f"step-{batch.step:06d}.ckpt"
            if final.exists():
                _remove(final)
            os.replace(partial, final)
            for old in list_checkpoints(self.directory)[:-KEEP]:
                _remove(old)
        trainer.strategy.barrier()


def list_checkpoints(directory: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(directory.glob("step-*.ckpt"))


def find_checkpoint(ckpt: str | None, run_dir: Path) -> Path | None:
    """Where to go on from: None for a new run.

    Raises:
        ConfigError: no such checkpoint, or a new run in the directory of an old one.
    """
    directory = run_dir / "checkpoints"
    if ckpt is None:
        if (run_dir / "metrics.csv").exists():
            raise ConfigError(
                f"{run_dir} holds a run already: go on with ckpt=last, or choose another output_dir"
            )
        return None
    if ckpt not in ("last", "auto"):
        if not Path(ckpt).exists():
            raise ConfigError(f"ckpt={ckpt}: no such checkpoint")
        # the rollout to go on after is read from the name
        if not re.fullmatch(r"step-\d+\.ckpt", Path(ckpt).name):
            raise ConfigError(f"ckpt={ckpt}: a checkpoint is called step-N.ckpt")
        return Path(ckpt)
    found = list_checkpoints(directory)
    if not found and ckpt == "auto":
        return None
    if not found:
        raise ConfigError(f"ckpt=last: no checkpoint in {directory}")
    return found[-1]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
