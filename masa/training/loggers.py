"""The loggers beside metrics.csv, told to go on with the curves of a run that was stopped."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig


class WandbLogger(loggers.WandbLogger):
    """W&B cannot take back the rollouts after the checkpoint that a run goes on from. When they
    come again they are the same, and left out."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log unless W&B has got further already."""
        if step is None or step >= self.experiment.summary.get("trainer/global_step", 0):
            super().log_metrics(metrics, step)


def build_loggers(
    nodes: Iterable[DictConfig], run_dir: Path, resume_step: int | None
) -> list[loggers.Logger]:
    """Loggers from their `_target_`.

    Args:
        nodes: one config each.
        run_dir: keeps W&B's run id for the next time.
        resume_step: rollout that the run goes on after; None for a new run.
    """
    built = []
    for node in nodes:
        kind = get_class(node._target_)
        going_on: dict[str, Any] = {}
        if issubclass(kind, loggers.WandbLogger):
            going_on["id"] = _wandb_id(run_dir / "wandb_id")
        if issubclass(kind, loggers.TensorBoardLogger) and resume_step is not None:
            going_on["purge_step"] = resume_step + 1
        built.append(instantiate(node, **going_on))
    return built


@rank_zero_only
def _wandb_id(path: Path) -> str:
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()
