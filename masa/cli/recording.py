"""Whether a run's recorded rollouts can be played under the settings that are given now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from masa.cli.resume import flatten
from masa.config import AlgorithmConfig, MetaConfig, RunConfig, TrainerConfig
from masa.engine.recorded import RecordedEngine, Recording
from masa.errors import require
from masa.old_settings import as_of_now
from masa.plugins import load_class
from masa.run_config import run_config

SAME: dict[str, Any] = {
    "seed": RunConfig.seed,
    "allow_special_tokens": RunConfig.allow_special_tokens,
    "algorithm.group_size": AlgorithmConfig.group_size,
    "algorithm.temperature": AlgorithmConfig.temperature,
    "algorithm.meta.enabled": MetaConfig.enabled,
    "algorithm.meta.group_size": MetaConfig.group_size,
    "trainer.prompts_per_rollout": TrainerConfig.prompts_per_rollout,
    "trainer.val_samples": TrainerConfig.val_samples,
    "trainer.val_meta_samples": TrainerConfig.val_meta_samples,
}
"""What was sampled depends on these; with their defaults, which a config.yaml may leave out."""
FREE = ("cache_dir", "dtype", "attn_implementation", "gradient_checkpointing", "trust_remote_code")
"""Settings of the model that may differ: neither its tokens nor its parameters depend on them."""


def plays_recording(cfg: DictConfig) -> bool:
    """True for `engine=recorded`."""
    return issubclass(load_class("engine", cfg.engine), RecordedEngine)


def recording_of(cfg: DictConfig) -> Recording | None:
    """The recording that a run plays; None where an engine samples.

    Raises:
        ConfigError: no run is named.
    """
    if not plays_recording(cfg):
        return None
    run = cfg.engine.run
    require(
        isinstance(run, str), "engine=recorded plays a run once more: name it with engine.run=RUN"
    )
    return Recording(run)


def check_recording(cfg: DictConfig, config: RunConfig) -> None:
    """Raise ConfigError where the run of `engine=recorded` cannot be played with these settings."""
    recording = recording_of(cfg)
    if recording is None:
        return
    run = recording.run
    saved = run / "config.yaml"
    require(run.is_dir(), f"engine.run={run}: there is no such folder")
    require(
        saved.is_file() and (run / "rollouts").is_dir(),
        f"engine.run={run} is no run of masa-train: it has no config.yaml or no rollouts",
    )
    count = recording.rollouts
    require(
        count > 0,
        f"engine.run={run} has no tokens of its first rollout: a run that is to be played needs "
        "trainer.record_tokens=true",
    )
    require(
        config.trainer.max_rollouts <= count,
        f"trainer.max_rollouts is {config.trainer.max_rollouts}, but {run} has the tokens of "
        f"{count} rollouts: lower it",
    )
    require(
        not config.strategy.distributed,
        f"engine=recorded plays on one device: leave out strategy={config.strategy.name}",
    )
    require(
        config.ckpt in (None, "auto"),
        f"ckpt={config.ckpt}: engine=recorded trains nothing, so there are no checkpoints; leave "
        "it out",
    )
    before = SAME | as_of_now(flatten(run_config(run)))
    now = SAME | as_of_now(flatten(cfg))
    name = now.get("model.name")
    if name is not None and Path(name).expanduser().is_dir():
        now["model.name"] = str(Path(name).expanduser().resolve())
    of_model = {key for key in before.keys() | now.keys() if key.startswith("model.")}
    for key in sorted(SAME.keys() | of_model - {f"model.{name}" for name in FREE}):
        require(
            before.get(key) == now.get(key),
            f"{key} is {now.get(key)}, but {run} was recorded with {before.get(key)}: repeat its "
            "settings",
        )
