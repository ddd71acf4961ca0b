"""The loggers beside metrics.csv, told to go on with the curves of a run that was stopped."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from masa.errors import ConfigError, TrainingError
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
        offline: null goes by WANDB_MODE where that is set, else online exactly where somebody has
            logged in.
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
        # with a mode set wandb itself goes by it
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
        """W&B's run, begun when first asked for.

        Raises:
            TrainingError: W&B cannot begin it.
        """
        import wandb

        try:
            return super().experiment
        except wandb.errors.Error as error:
            raise TrainingError(
                f"W&B could not begin a run ({' '.join(str(error).split())}): set "
                "logger.wandb.offline=true and send it later with `wandb sync`, or leave out "
                "logger=wandb"
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log unless W&B has got further already: it cannot take back the rollouts after the
        checkpoint that a run goes on from. When they come again they are the same. A later
        process that is offline cannot tell, and writes them once more."""
        if step is None or step >= self.experiment.summary.get("trainer/global_step", 0):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_validation(self, groups: Sequence[RolloutGroup], step: int) -> None:
        """Tables of sampled completions and of predictions against the truth."""
        # spread over the prompts, which come in order of level
        shown = groups[:: max(1, len(groups) // self.table_prompts)][: self.table_prompts]
        self.log_table("val/completions", COMPLETIONS, completion_rows(shown), step=step)
        if any(group.meta for group in groups):
            self.log_table("val/predictions", PREDICTIONS, prediction_rows(groups), step=step)

    @rank_zero_only
    def log_end(self, figures: Sequence[Path], best: Sequence[Path]) -> None:
        """Figures of the report and, where asked for, the best checkpoint."""
        import wandb

        run = self.experiment
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
    """First prediction and first solution of each prompt, under `COMPLETIONS`."""
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
    """Each prediction beside what its prompt's solutions did, under `PREDICTIONS`."""
    return [
        [group.prompt.id, group.prompt.level, group.pass_rate, said.pass_rate,
         sum(group.lengths) / len(group.lengths), said.length, ", ".join(said.notions or ())]
        for group in groups
        for said in group.predictions
    ]  # fmt: skip


def check_loggers(nodes: Mapping[str, DictConfig]) -> None:
    """Raise ConfigError for a logger that is not installed or would ask for a login."""
    for node in nodes.values():
        kind = get_class(node._target_)
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
        wanted = "logger.wandb.offline is false" if mode is None else f"W&B's mode is {mode}"
        raise ConfigError(
            f"{wanted}, but nobody has logged in to W&B here: run `wandb login`, set "
            "WANDB_API_KEY, or set logger.wandb.offline=true"
        )


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


def _logged_in() -> bool:
    """True where WANDB_API_KEY or the netrc file has a key for the server; asks nobody.

    Raises:
        ConfigError: what is there cannot be a key, or W&B refuses another of its settings.
    """
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except (wandb.errors.Error, ValueError) as error:
        raise ConfigError(
            f"W&B refuses its login or settings ({' '.join(str(error).split())}): correct them in "
            "the environment, run `wandb login`, or leave out logger=wandb"
        ) from error
