"""Saving checkpoints, which are either complete or absent."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from masa.config import TrainerConfig
from masa.errors import ConfigError, TrainingError
from masa.tracking.checkpoints import list_checkpoints, ranked, step_of
from masa.tracking.files import atomic_replace
from masa.tracking.manifest import (
    Manifest,
    digests,
    manifest_path,
    read_manifest,
    write_manifest,
)
from masa.training.collectives import max_over_ranks, world_size
from masa.training.held_out import HeldOutCallback
from masa.training.module import MasaModule
from masa.training.random_state import random_state, set_random_state
from masa.training.stopping import Stopped, StopSignal

KEEP = 2
"""Newest checkpoints that are kept, beside the best."""


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes directly to the path; Lightning's goes through memory and the system's /tmp."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Save one file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


class CheckpointCallback(L.Callback):
    """Saves `checkpoints/step-NNNNNN.ckpt` every n rollouts, after the last, at the best
    validations, and when a signal stops the run.

    Lightning's own ModelCheckpoint counts optimizer steps, and a fully gated rollout has none.

    Args:
        directory: of the checkpoints.
        trainer: how often to save and how many to keep.
        validation: source of the accuracy; comes before this among the callbacks.
        stop: the signal that stops the run.
    """

    def __init__(
        self,
        directory: Path,
        trainer: TrainerConfig,
        validation: HeldOutCallback,
        stop: StopSignal,
    ) -> None:
        self.directory = directory
        self.settings = trainer
        self.validation = validation
        self.stop = stop
        self._random_state: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the random state, and remove later checkpoints: damaged or abandoned ones. Note
        the accuracy of one whose validation a stop left out."""
        assert isinstance(pl_module, MasaModule)
        if self._random_state is not None:
            set_random_state(self._random_state)
        if trainer.is_global_zero:
            for path in list_checkpoints(self.directory):
                if step_of(path) > pl_module.version:
                    _remove(path)
            saved = self._path(pl_module.version)
            manifest = read_manifest(saved)
            if manifest is not None and self.validation.step == manifest.step:
                write_manifest(replace(manifest, accuracy=self.validation.accuracy), saved)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is due, and stop after a signal."""
        assert isinstance(pl_module, MasaModule)
        stop = self.stop.agreed()
        due = batch.step % self.settings.checkpoint_every == 0
        last = batch.step == self.settings.max_rollouts
        if stop or due or last or self._best(trainer, pl_module.version):
            self._save(trainer, pl_module)
        if stop:
            raise Stopped

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save what came before an aborted rollout, which has changed nothing yet."""
        assert isinstance(pl_module, MasaModule)
        unchanged = isinstance(exception, Stopped) or getattr(exception, "nothing_changed", False)
        if not unchanged or pl_module.version == 0:
            return
        # several ranks save together, and the others may be anywhere
        if world_size() > 1 or self._path(pl_module.version).exists():
            return
        try:
            self._save(trainer, pl_module)
        except TrainingError as error:
            print(error, file=sys.stderr)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:06d}.ckpt"

    def _best(self, trainer: L.Trainer, version: int) -> bool:
        """True where the policy was just validated and is among the best; the same on all ranks."""
        best = False
        validation = self.validation
        if trainer.is_global_zero and validation.step == version:
            best_saved = ranked(self.directory)[: self.settings.keep_best]
            better = [1 for accuracy, _ in best_saved if accuracy >= validation.accuracy]
            best = len(better) < self.settings.keep_best
        return max_over_ranks(float(best)) > 0

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, MasaModule)
        step = pl_module.version
        partial, final = self.directory / "partial", self._path(step)
        if trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            _delete(partial)
        trainer.strategy.barrier()
        try:
            trainer.save_checkpoint(partial)
            trainer.strategy.barrier()
            if trainer.is_global_zero:
                if final.exists():
                    _remove(final)
                validated = self.validation.step == step
                manifest = Manifest(
                    step,
                    self.validation.accuracy if validated else None,
                    shapes(pl_module.policy),
                    digests(partial, final.name),
                )
                write_manifest(manifest, final)
                atomic_replace(partial, final)
                self._prune()
        # torch raises RuntimeError for a failed write, its sharded writer an error of its own
        except Exception as error:
            if trainer.is_global_zero:
                _delete(partial)
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"the checkpoint of rollout {step} could not be saved in {self.directory} "
                f"({_first_line(error)}); earlier ones are untouched: free space there, then "
                "resume with ckpt=auto"
            ) from error
        trainer.strategy.barrier()

    def _prune(self) -> None:
        best = [path for _, path in ranked(self.directory)[: self.settings.keep_best]]
        checkpoints = list_checkpoints(self.directory)
        for path in checkpoints[:-KEEP]:
            if path not in best:
                _remove(path)
        for path in self.directory.glob("step-*.json"):
            if path.with_suffix(".ckpt") not in checkpoints:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """The global random generators."""
        return {"random": random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts: what is built before may draw numbers."""
        self._random_state = state_dict["random"]


def require_same_model(checkpoint: Path, policy: torch.nn.Module) -> None:
    """Raise ConfigError where the checkpoint's weights do not fit the policy."""
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return
    saved, current = manifest.parameters, shapes(policy)
    for name in sorted(saved.keys() | current.keys()):
        if saved.get(name) != current.get(name):
            raise ConfigError(
                f"{checkpoint} is of another model: {name} is {_shape(saved, name)} there and "
                f"{_shape(current, name)} here: repeat the model settings of its run"
            )


def shapes(policy: torch.nn.Module | None) -> dict[str, list[int]]:
    """Full shape of each parameter, also where it is sharded."""
    assert policy is not None
    return {name: list(parameter.shape) for name, parameter in policy.named_parameters()}


def _shape(parameters: Mapping[str, Sequence[int]], name: str) -> str:
    return "x".join(map(str, parameters[name])) if name in parameters else "missing"


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first, as under its name it must be complete."""
    removed = checkpoint.parent / "removed"
    _delete(removed)
    os.replace(checkpoint, removed)
    manifest_path(checkpoint).unlink(missing_ok=True)
    _delete(removed)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def require_plain(name: str, state: Any) -> None:
    """Raise TrainingError where a checkpoint with `state` could not be read again.

    Checkpoints are read with `weights_only`, which knows numbers, texts, tensors and the common
    containers.
    """
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    # objects that are local to a function raise AttributeError
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise TrainingError(
            f"{name} returns what a checkpoint cannot hold: return numbers, texts, lists and dicts "
            f"of them ({' '.join(str(error).split())[:200]})"
        ) from error
