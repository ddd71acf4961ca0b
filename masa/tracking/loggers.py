"""Weights & Biases and TensorBoard: checked, built, and continued where a run resumes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from masa.errors import ConfigError, TrainingError
from masa.plugins import built, load_class
from masa.tracking.manifest import manifest_path
from masa.types import RolloutGroup

COMPLETIONS = ["prompt_id", "level", "kind", "problem", "answer", "text", "tokens", "correct"]
PREDICTIONS = [
    "prompt_id", "level", "pass_rate", "predicted_pass_rate", "length", "predicted_length",
    "predicted_notions",
]  # fmt: skip


class WandbLogger(loggers.WandbLogger):
    """Weights & Biases, with tables of rollouts, and the report's figures at the end.

    Args:
        offline: null follows WANDB_MODE where that is set, else is online exactly where somebody
            has logged in.
        upload_best: keep the best checkpoint as an artifact.
        table_prompts: held-out prompts whose completions are shown per validation.
        others: of Lightning's WandbLogger and of wandb.init.
    """

    def __init__(
        self,
        offline: bool | None = None,
        upload_best: bool = False,
        table_prompts: int = 6,
        **others: Any,
    ) -> None:
        # with a mode set, wandb itself follows it
        if offline is None and "WANDB_MODE" not in os.environ and "mode" not in others:
            offline = not _logged_in()
        if offline:
            # Lightning sets WANDB_MODE, too late where wandb has read its settings
            others.setdefault("mode", "offline")
        super().__init__(offline=bool(offline), **others)
        self.upload_best = upload_best
        self.table_prompts = table_prompts

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, started at the first use.

        Raises:
            TrainingError: W&B cannot start it.
        """
        import wandb

        try:
            return super().experiment
        except wandb.errors.Error as error:
            raise TrainingError(
                f"W&B could not start a run ({' '.join(str(error).split())}): set "
                "logger.wandb.offline=true and send it later with `wandb sync`, or leave out "
                "logger=wandb"
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log, except rollouts that W&B has already.

        W&B cannot delete the rollouts after the checkpoint that a run resumes from; repeated, they
        are the same. A later process that is offline does not know of them and logs them again.
        """
        if step is None or step >= self.experiment.summary.get("trainer/global_step", 0):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_tables(self, groups: Sequence[RolloutGroup], step: int, split: str) -> None:
        """Tables of sampled completions and of predictions against the truth, under `split/`."""
        groups = [group for group in groups if group.solutions]
        # spread over the prompts, which come in order of level
        sampled = groups[:: max(1, len(groups) // max(1, self.table_prompts))][: self.table_prompts]
        self.log_table(f"{split}/completions", COMPLETIONS, completion_rows(sampled), step=step)
        if any(group.meta for group in groups):
            self.log_table(f"{split}/predictions", PREDICTIONS, prediction_rows(groups), step=step)

    @rank_zero_only
    def log_end(self, figures: Sequence[Path], best: Sequence[Path]) -> None:
        """Log the report's figures and, with `upload_best`, the best checkpoint."""
        import wandb

        run = self.experiment
        if figures:
            run.log({f"report/{path.stem}": wandb.Image(str(path)) for path in figures})
        if not (self.upload_best and best):
            return
        artifact = wandb.Artifact(f"best-{run.id}", type="model")
        for path in (*best, *map(manifest_path, best)):
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name)
            else:
                artifact.add_file(str(path))
        run.log_artifact(artifact, aliases=["best"])


def completion_rows(groups: Iterable[RolloutGroup]) -> list[list[Any]]:
    """First prediction and first solution of each prompt; the columns are `COMPLETIONS`."""
    rows = []
    for group in groups:
        prompt = group.prompt
        for kind, completions, correct in (
            ("meta", group.meta[:1], None),
            ("solution", group.solutions[:1], group.correct[:1]),
        ):
            rows += [
                [prompt.id, prompt.level, kind, prompt.problem, prompt.answer, c.text,
                 len(c.token_ids), correct[0] if correct else None]
                for c in completions
            ]  # fmt: skip
    return rows


def prediction_rows(groups: Iterable[RolloutGroup]) -> list[list[Any]]:
    """Each prediction beside the truth of its prompt; the columns are `PREDICTIONS`."""
    return [
        [g.prompt.id, g.prompt.level, g.pass_rate, prediction.pass_rate,
         sum(g.lengths) / len(g.lengths), prediction.length, ", ".join(prediction.notions or ())]
        for g in groups
        for prediction in g.predictions
    ]  # fmt: skip


def check_loggers(nodes: Mapping[str, DictConfig]) -> None:
    """Raise ConfigError for a logger that is not installed or would ask for a login."""
    for name, node in nodes.items():
        kind = load_class(f"logger.{name}", node)
        if issubclass(kind, loggers.TensorBoardLogger) and find_spec("tensorboard") is None:
            raise ConfigError("logger=tensorboard: pip install tensorboard")
        if issubclass(kind, loggers.WandbLogger):
            _check_wandb(node)


def _check_wandb(node: DictConfig) -> None:
    modes = ("online", "offline", "disabled", "shared", "dryrun", "run")
    offline, mode = node.get("offline"), node.get("mode", os.environ.get("WANDB_MODE"))
    if mode is not None and mode not in modes:
        raise ConfigError(f"W&B's mode is {mode!r}, it must be one of {', '.join(modes[:4])}")
    if offline or mode in ("offline", "disabled", "dryrun"):
        return
    if not _logged_in() and not (offline is None and mode is None):
        setting = "logger.wandb.offline is false" if mode is None else f"W&B's mode is {mode}"
        raise ConfigError(
            f"{setting}, but nobody has logged in to W&B here: run `wandb login`, set "
            "WANDB_API_KEY, or set logger.wandb.offline=true"
        )


def build_loggers(
    nodes: Iterable[DictConfig], run_dir: Path, resume_step: int | None
) -> list[loggers.Logger]:
    """Loggers from their `_target_`.

    Args:
        nodes: one config each.
        run_dir: keeps W&B's run id for a resume.
        resume_step: rollout to resume after; None for a new run.
    """
    made = []
    for node in nodes:
        kind = load_class("logger", node)
        resume_options: dict[str, Any] = {}
        if issubclass(kind, loggers.WandbLogger):
            resume_options["id"] = _wandb_id(run_dir / "wandb_id")
        if issubclass(kind, loggers.TensorBoardLogger) and resume_step is not None:
            resume_options["purge_step"] = resume_step + 1
        made.append(built(node, **resume_options))
    return made


@rank_zero_only
def _wandb_id(path: Path) -> str:
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()


def _logged_in() -> bool:
    """True where WANDB_API_KEY or the netrc file has a key for the server; there is no prompt.

    Raises:
        ConfigError: that is no valid key, or W&B refuses another of its settings.
    """
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.errors.Error, ValueError) as error:
        raise ConfigError(
            f"W&B refuses its login or settings ({' '.join(str(error).split())}): correct them in "
            "the environment, run `wandb login`, or leave out logger=wandb"
        ) from error
