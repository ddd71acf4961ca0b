"""The checkpoints of a run on the disk, and the choice of one to resume from."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from masa import __version__
from masa.errors import ConfigError
from masa.ranks import first_rank
from masa.tracking.manifest import damage, read_manifest


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints under their final name, oldest first."""
    # pathlib would raise for a name that is too long
    return sorted(directory.glob("step-*.ckpt")) if os.path.isdir(directory) else []


def step_of(checkpoint: Path) -> int:
    """Rollouts trained on, from the name."""
    return int(checkpoint.stem.rpartition("-")[2])


def ranked(directory: Path) -> list[tuple[float, Path]]:
    """Validation accuracy and path of the checkpoints that have one, best first, then oldest."""
    manifests = [(read_manifest(path), path) for path in list_checkpoints(directory)]
    scored = [(m.accuracy, path) for m, path in manifests if m and m.accuracy is not None]
    return sorted(scored, key=lambda item: -item[0])


def candidates(ckpt: str | None, run_dir: Path) -> Sequence[Path]:
    """The checkpoints to resume from, the first that is not damaged; none for a new run.

    Args:
        ckpt: null, last, auto, best or a path.
        run_dir: the run's directory.

    Raises:
        ConfigError: no such checkpoint, or a new run in the directory of an old one.
    """
    directory = run_dir / "checkpoints"
    if ckpt is None:
        if os.path.exists(run_dir / "metrics.csv"):
            raise ConfigError(
                f"{run_dir} holds a run already: resume with ckpt=auto, or choose another "
                "hydra.run.dir"
            )
        return []
    if ckpt not in ("last", "auto", "best"):
        path = Path(ckpt)
        if not os.path.exists(path):
            raise ConfigError(f"ckpt={ckpt}: no such checkpoint")
        # the rollout to resume after is read from the name
        if not re.fullmatch(r"step-\d+\.ckpt", path.name):
            raise ConfigError(f"ckpt={ckpt}: a checkpoint is called step-N.ckpt")
        return [path]
    if ckpt == "best":
        checkpoints = [path for _, path in ranked(directory)]
    else:
        checkpoints = list_checkpoints(directory)[::-1]
    if not checkpoints and ckpt != "auto":
        raise ConfigError(f"ckpt={ckpt}: no checkpoint in {directory}")
    return checkpoints


def find_checkpoint(ckpt: str | None, run_dir: Path, by_each_rank: bool = False) -> Path | None:
    """The checkpoint to resume from; None for a new run.

    Args:
        ckpt, run_dir: as of `candidates`.
        by_each_rank: every rank checks the digests; else rank 0, whose choice Lightning passes on.

    Raises:
        ConfigError: as of `candidates`, or it is damaged.
    """
    checkpoints = candidates(ckpt, run_dir)
    checks = by_each_rank or first_rank()
    for path in checkpoints:
        problem = damage(path) if checks else None
        if problem is None:
            return path
        if ckpt not in ("last", "auto", "best"):
            raise ConfigError(f"ckpt={ckpt} is damaged: {problem}; choose another checkpoint")
        print(
            f"warning: {path} is damaged ({problem}): trying the checkpoint before", file=sys.stderr
        )
    if checkpoints:
        raise ConfigError(
            f"every checkpoint in {run_dir / 'checkpoints'} is damaged: remove them to start again "
            "with ckpt=auto"
        )
    return None


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


def require_not_beyond(checkpoint: Path, max_rollouts: int) -> None:
    """Raise ConfigError for a checkpoint after `max_rollouts`."""
    step = step_of(checkpoint)
    if step > max_rollouts:
        raise ConfigError(
            f"trainer.max_rollouts is {max_rollouts}, but {checkpoint} is of rollout {step}: raise "
            "it, or resume from an earlier checkpoint"
        )


def say_if_finished(checkpoint: Path, max_rollouts: int) -> None:
    """Print a line where a run is at its end."""
    if step_of(checkpoint) == max_rollouts and first_rank():
        print(
            f"{checkpoint.parent.parent} is finished; for more rollouts raise "
            f"trainer.max_rollouts (it is {max_rollouts})"
        )
