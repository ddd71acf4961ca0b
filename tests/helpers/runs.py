"""Real `masa-train` runs in subprocesses, small enough for a test."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import processes
import torch

HELPERS = Path(__file__).parent

SMALL = [
    "task._target_=toy_task.EvenTask",
    "task.config.train_size=600",
    "task.config.validation_size_per_level=2",
    "model.warmstart.sft.steps=200",
    "algorithm.group_size=4",
    "algorithm.response_limit=48",
    "algorithm.meta.response_limit=30",
    "trainer.prompts_per_rollout=6",
    "trainer.max_rollouts=4",
    "trainer.val_every=2",
    "trainer.val_samples=2",
    "trainer.val_meta_samples=2",
    "trainer.checkpoint_every=2",
    "optimizer.lr=1e-3",
    "optimizer.warmup_steps=0",
]
MASA = [
    "algorithm=masa_efficient",
    "algorithm.meta.group_size=4",
    "algorithm.bc.mode=joint",
    "algorithm.bc.pool_size=8",
    # AdamW makes a whole step of what a smaller one leaves of a gradient, rounding included
    "algorithm.bc.coef=0.1",
    "algorithm.control.start_step=2",
    "algorithm.gate.sigma=1",
    "algorithm.gate.tolerance=0.3",
    "algorithm.gate.min_parsed=0.1",
    "algorithm.cutoff.min_parsed=0.1",
    "algorithm.gate.min_precision=0",
    "algorithm.control.audit_fraction=0.3",
    "algorithm.cutoff.max_lost=1",
]
SHORT = [
    *MASA,
    "trainer.max_rollouts=3",
    "trainer.val_every=3",
    "algorithm.control.start_step=1",
]


def environment(cache: Path) -> dict[str, str]:
    """The environment of a user without a login to W&B."""
    without_wandb = {
        key: value for key, value in os.environ.items() if not key.startswith("WANDB_")
    }
    return without_wandb | {
        "MASA_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])]),
        "OMP_NUM_THREADS": "1",
        "NETRC": str(cache / "no-netrc"),
    }


def command(out: Path, *overrides: str, ranks: int = 1) -> list[str]:
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone", "-m"]
    # which takes seconds to draw, and most tests do not look at
    settings = [*SMALL, "trainer.report=false", *overrides]
    return [*launcher, "masa.train", *settings, f"hydra.run.dir={out}"]


def masa_train(out: Path, cache: Path, *overrides: str, ranks: int = 1) -> str:
    """Run to the end in `out`; returns the output."""
    process = processes.run(command(out, *overrides, ranks=ranks), env=environment(cache))
    return process.stdout + process.stderr


def same_after_a_stop_and_on_two_ranks(
    one: Path, cache: Path, settings: Sequence[str], columns: Sequence[str]
) -> Path:
    """Make a finished run again: from its last checkpoint but one, where all metrics must be the
    same to the last bit, and on two ranks, where these columns of its rollouts must be.

    Returns:
        The run on two ranks.
    """
    resumed, two = one.with_name("resumed"), one.with_name("two")
    shutil.copytree(one, resumed)
    max((resumed / "checkpoints").glob("step-*.ckpt")).unlink()
    masa_train(resumed, cache, *settings, "ckpt=last")
    assert metrics(resumed) == metrics(one)
    masa_train(two, cache, *settings, "strategy=fsdp", "trainer.accelerator=cpu", ranks=2)
    columns = list(columns)
    pd.testing.assert_frame_equal(rollouts(one)[columns], rollouts(two)[columns])
    return two


def from_first_weights(out: Path, cache: Path) -> Path:
    """One rollout of the built-in task from the first weights of the package, which know the form
    of predictions."""
    small = [
        "engine=hf", "algorithm=masa", "trainer.max_rollouts=1", "trainer.prompts_per_rollout=2",
        "task.config.validation_size_per_level=2", "trainer.val_samples=2",
        "trainer.val_meta_samples=0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "masa.train", *small, f"hydra.run.dir={out}"]
    processes.run(command, env=environment(cache))
    return out


def metrics(run: Path) -> str:
    return (run / "metrics.csv").read_text()


def rollouts(run: Path, split: str = "train") -> pd.DataFrame:
    files = sorted((run / "rollouts").glob(f"{split}-*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    path = run / "checkpoints" / f"step-{step:06d}.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def all_end(pids: list[int], seconds: float) -> bool:
    """True once none of the processes runs any more."""
    until = time.monotonic() + seconds
    while any(map(_runs, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
