"""Validation on held-out prompts and benchmarks: accuracy as avg@k, and meta-alignment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L

from masa.algorithm.step import Verify
from masa.algorithm.task_rewards import TaskRewards
from masa.config import AlgorithmConfig, TrainerConfig
from masa.rollout.callback import RolloutCallback
from masa.rollout.loader import Draws
from masa.tasks.limits import prompt_tokens
from masa.tasks.templates import PromptRenderer
from masa.tracking.loggers import WandbLogger
from masa.tracking.metrics import meta_metrics, rollout_metrics
from masa.training.collectives import world_size
from masa.training.held_out import HeldOutCallback
from masa.types import Prompt, RolloutGroup


@dataclass(frozen=True)
class HeldOut:
    """Prompts to validate on: the task's, or a benchmark's."""

    name: str
    """Of a benchmark, empty for the task. Metrics are `val/<name>/...`, and the rollouts lie in
    `<name>-<step>.parquet`, those of the task in `val-<step>.parquet`."""
    prompts: Sequence[Prompt]
    renderer: PromptRenderer
    verify: Verify

    @property
    def split(self) -> str:
        """What its rollouts are called."""
        return self.name or "val"

    @property
    def longest_prompt(self) -> int:
        """Tokens."""
        return max(prompt_tokens(prompt, self.renderer) for prompt in self.prompts)


class ValidationCallback(HeldOutCallback):
    """Samples what is held out from the policy, and judges that.

    Args:
        held_out: what to validate on; the task's prompts come first, `val/accuracy` is theirs.
        rollout: the rollout callback, whose engine and weight sync are used.
        available: whether a split can be rolled out after a rollout, where not all can; the others
            are left out.
    """

    def __init__(
        self,
        held_out: Sequence[HeldOut],
        rollout: RolloutCallback,
        available: Callable[[str, int], bool] | None = None,
    ) -> None:
        super().__init__(rollout.settings)
        self.held_out = held_out
        self.available = available
        self.rollout = rollout
        self.config = validation_config(rollout.algorithm, rollout.settings)

    def measure(self, trainer: L.Trainer, module: Any, step: int) -> dict[str, float]:
        """Metrics of all parts that can be rolled out."""
        # a run that is about to be stopped validates when it goes on
        if self.rollout.stop.agreed():
            return {}
        per_engine = self.rollout.ranks_per_engine
        metrics: dict[str, float] = {}
        shown: Sequence[RolloutGroup] = ()
        for part in self.held_out:
            if self.available is not None and not self.available(part.split, step):
                continue
            context = replace(
                # the same seeds at every step: the curve shows the policy alone
                self.rollout.context(step=0),
                config=self.config,
                renderer=part.renderer,
                verify=part.verify,
                task_rewards=TaskRewards({}),
            )
            mine = part.prompts[trainer.global_rank // per_engine :: world_size() // per_engine]
            groups = self.rollout.roll_out(mine, context, Draws(list), step, part.split)
            prefix = f"val/{part.name}" if part.name else "val"
            measured = validation_metrics(groups)
            metrics |= {f"{prefix}/{name}": value for name, value in measured.items()}
            if not part.name:
                shown = groups
        self.rollout.records.wait()
        for logger in trainer.loggers:
            if metrics and isinstance(logger, WandbLogger):
                logger.log_tables(shown, step, "val")
        self.accuracy = metrics.get("val/accuracy", math.nan)
        return metrics


def validation_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """avg@k accuracy over all prompts and per level, lengths and meta-alignment."""
    metrics = {"accuracy": _accuracy(groups)}
    levels = sorted({group.prompt.level for group in groups})
    if len(levels) > 1:
        for level in levels:
            of_level = [group for group in groups if group.prompt.level == level]
            metrics[f"accuracy/level_{level}"] = _accuracy(of_level)
    rolled = rollout_metrics(groups, 0)
    metrics["mean_length"] = rolled["completions/mean_length"]
    metrics["clipped_ratio"] = rolled["completions/clipped_ratio"]
    if any(group.meta for group in groups):
        metrics |= {k: v for k, v in meta_metrics(groups).items() if not math.isnan(v)}
    return metrics


def _accuracy(groups: Sequence[RolloutGroup]) -> float:
    return sum(group.pass_rate for group in groups) / len(groups)


def validation_config(algorithm: AlgorithmConfig, trainer: TrainerConfig) -> AlgorithmConfig:
    """The algorithm as a measurement: no control, avg@k solutions and a few predictions each."""
    return replace(
        algorithm,
        group_size=trainer.val_samples,
        meta=replace(
            algorithm.meta,
            enabled=trainer.val_meta_samples > 0,
            group_size=max(1, trainer.val_meta_samples),
            first=None,
            extra_updates=0,
        ),
        bc=replace(algorithm.bc, mode="off"),
        gate=replace(algorithm.gate, enabled=False),
        cutoff=replace(algorithm.cutoff, enabled=False),
        control=replace(algorithm.control, hint=False),
        selection=replace(algorithm.selection, refill=False),
        dynamic_sampling=0,
    )
