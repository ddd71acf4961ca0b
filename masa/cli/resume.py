"""Whether a run may be resumed under the settings it is given now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.errors import ConfigError
from masa.evaluation.eval_config import is_run
from masa.layout_settings import LAYOUT
from masa.old_settings import as_of_now
from masa.run_config import run_config

ADDED = {
    "algorithm.meta.first": None,
    "algorithm.meta.recent": 0,
    "algorithm.selection.max_draws": 4,
    "algorithm.selection.max_tokens": None,
    "algorithm.selection.refill": False,
    "allow_special_tokens": False,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.schedule": "constant",
}
"""Settings that runs of before do not have, and the values they were run with."""


def check_resume_config(
    cfg: DictConfig, run: Path, finished: bool = False, but: Iterable[str] = ()
) -> None:
    """Raise ConfigError where a run would go on under settings that change its numbers.

    Args:
        cfg: its settings now.
        run: its directory, with those of before, where it has begun.
        finished: it is at its end, so that its length may not differ either.
        but: settings that are not compared.
    """
    if not os.path.exists(run / "config.yaml"):
        return
    before = as_of_now(flatten(run_config(run)))
    now = as_of_now(flatten(cfg))
    for settings in (before, now):
        for key, value in ADDED.items():
            settings.setdefault(key, value)
    free = {*LAYOUT, "sft.table", *but}
    if "sft" not in cfg:
        free.add("task.columns.solution")
    # other schedules would have had other rates from the start
    if not finished and before["optimizer.schedule"] == "constant":
        free.add("trainer.max_rollouts")
    groups = (
        *("algorithm", "optimizer", "task", "model", "sampler", "seed", "trainer", "benchmark"),
        "sft",
    )
    single = ("engine._target_", "engine.dtype", "allow_special_tokens")
    # an adapter stands on the weights that it was made for, and so does the KL term
    exactly = now.get("model.lora.rank") is not None or now.get("algorithm.kl_beta", 0) > 0
    for settings in (before, now):
        name = settings.get("model.name")
        if name is not None and not (exactly and Path(name).parent.name == "model"):
            settings["model.name"] = origin(name)
    for key in sorted(before.keys() | now.keys()):
        counts = key.split(".")[0] in groups or key in single
        if counts and key not in free and before.get(key) != now.get(key):
            raise ConfigError(
                f"{key} is {now.get(key)}, but {run} was run with {before.get(key)}: "
                "repeat its settings to go on, or choose another directory"
            )


def origin(name: str) -> str:
    """What a `model.name` goes back to: the run whose weights the folder has, a folder by its full
    path, or a name of the hub."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return name
    path = path.resolve()
    run = path.parent.parent
    return str(run if path.parent.name == "model" and is_run(str(run)) else path)


def flatten(cfg: Any) -> dict[str, Any]:
    """Resolved values by dotted key, without the copy of the task that a warm start has."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                key = f"{prefix}.{name}" if prefix else str(name)
                if key != "model.warmstart.task":
                    walk(value, key)
        else:
            flat[prefix] = node

    walk(plain, "")
    return flat
