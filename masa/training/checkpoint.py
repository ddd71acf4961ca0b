"""Checkpoints that are either complete or absent, and the choice of one to resume from."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from masa import __version__
from masa.config import TrainerConfig
from masa.errors import ConfigError, TrainingError
from masa.tracking.files import atomic_replace
from masa.tracking.manifest import (
    Manifest,
    damage,
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


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints under their final name, oldest first."""
    return sorted(directory.glob("step-*.ckpt"))


def step_of(checkpoint: Path) -> int:
    """Rollouts trained on, from the name."""
    return int(checkpoint.stem.rpartition("-")[2])


def ranked(directory: Path) -> list[tuple[float, Path]]:
    """Validation accuracy and path of the checkpoints that have one, best first, then oldest."""
    manifests = [(read_manifest(path), path) for path in list_checkpoints(directory)]
    scored = [(m.accuracy, path) for m, path in manifests if m and m.accuracy is not None]
    return sorted(scored, key=lambda item: -item[0])


def find_checkpoint(ckpt: str | None, run_dir: Path, by_each_rank: bool = False) -> Path | None:
    """The checkpoint to resume from; None for a new run.

    Args:
        ckpt: null, last, auto, best or a path.
        run_dir: the run's directory.
        by_each_rank: every rank checks the digests; else rank 0, whose choice Lightning passes on.

    Raises:
        ConfigError: no such checkpoint, a damaged one, or a new run in the directory of an old one.
    """
    directory = run_dir / "checkpoints"
    if ckpt is None:
        if (run_dir / "metrics.csv").exists():
            raise ConfigError(
                f"{run_dir} holds a run already: resume with ckpt=auto, or choose another "
                "hydra.run.dir"
            )
        return None
    if ckpt not in ("last", "auto", "best"):
        path = Path(ckpt)
        if not os.path.exists(path):
            raise ConfigError(f"ckpt={ckpt}: no such checkpoint")
        # the rollout to resume after is read from the name
        if not re.fullmatch(r"step-\d+\.ckpt", path.name):
            raise ConfigError(f"ckpt={ckpt}: a checkpoint is called step-N.ckpt")
        problem = _damage(path)
        if problem:
            raise ConfigError(f"ckpt={ckpt} is damaged: {problem}; choose another checkpoint")
        return path
    if ckpt == "best":
        candidates = [path for _, path in ranked(directory)]
    else:
        candidates = list_checkpoints(directory)[::-1]
    if not candidates and ckpt == "auto":
        return None
    if not candidates:
        raise ConfigError(f"ckpt={ckpt}: no checkpoint in {directory}")
    for path in candidates:
        problem = damage(path) if by_each_rank else _damage(path)
        if problem is None:
            return path
        print(
            f"warning: {path} is damaged ({problem}): trying the checkpoint before", file=sys.stderr
        )
    raise ConfigError(
        f"every checkpoint in {directory} is damaged: remove them to start again with ckpt=auto"
    )


def require_strategy(checkpoint: Path, strategy: str) -> None:
    """Raise ConfigError where one device would resume from a sharded checkpoint."""
    if strategy == "single" and checkpoint.is_dir():
        raise ConfigError(
            f"{checkpoint} is sharded, strategy=single reads single files: resume with "
            "strategy=fsdp, on any number of devices (strategy.devices=1 is one)"
        )


def require_version(checkpoint: Path) -> None:
    """Raise ConfigError for a checkpoint of another version: its content may differ."""
    manifest = read_manifest(checkpoint)
    if manifest and manifest.version.split(".")[:2] != __version__.split(".")[:2]:
        raise ConfigError(
            f"{checkpoint} is of masa {manifest.version}, this is {__version__}: resume with that "
            "version, or start a new run in another directory"
        )


def require_rollouts_left(checkpoint: Path, max_rollouts: int) -> None:
    """Raise ConfigError for a checkpoint after `max_rollouts`; print a line for the last one."""
    step = step_of(checkpoint)
    if step > max_rollouts:
        raise ConfigError(
            f"trainer.max_rollouts is {max_rollouts}, but {checkpoint} is of rollout {step}: raise "
            "it, or resume from an earlier checkpoint"
        )
    if step == max_rollouts and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(
            f"{checkpoint.parent.parent} is finished; for more rollouts raise "
            f"trainer.max_rollouts (it is {step})"
        )


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


def _damage(path: Path) -> str | None:
    return damage(path) if rank_zero_only.rank == 0 else None  # type: ignore[attr-defined]


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
