"""The check of an engine's settings, before models are loaded."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from masa.cpu import slow_bfloat16
from masa.engine.recorded import RecordedEngine
from masa.errors import ConfigError, require
from masa.plugins import load_class, refusing

RUN_ARGUMENTS = (
    *("model_path", "eos_token_ids", "max_model_len", "temperature", "trust_remote_code"),
    "self",
)
"""Arguments that the run passes to the engine; they are no settings."""
METHODS = ("generate", "load_weights", "sleep", "wake", "close", "check_available")
"""Of every engine; see docs/write/engine.md."""


def check_engine(engine: Any, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for an engine that is not installed, and for settings that it does not
    have; their values are checked before (`masa.errors.engine_values`).

    Args:
        engine: its class.
        settings: `engine.*`.
    """
    name = engine.__name__
    lacking = [method for method in METHODS if not callable(getattr(engine, method, None))]
    require(not lacking, f"engine: {name} has no method {', '.join(lacking)}")
    engine.check_available()
    accepted = sorted(set(inspect.signature(engine.__init__).parameters) - set(RUN_ARGUMENTS))
    for key in settings:
        if key != "_target_" and key not in accepted:
            close = difflib.get_close_matches(str(key), accepted, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(accepted)}"
            raise ConfigError(f"there is no setting engine.{key}; {hint}")


def check_sampling_engine(settings: DictConfig) -> None:
    """Raise ConfigError for an engine that cannot sample from a given model as it is set, and say
    where it is slow."""
    require(
        settings.get("lora_rank") is None,
        "engine.lora_rank is for training: an adapter is merged before the evaluation",
    )
    require(
        settings.get("tensor_parallel_size", 1) == 1,
        "engine.tensor_parallel_size is for training: one device samples here, set it to 1",
    )
    with refusing():
        engine = load_class("engine", settings)
        require(
            not issubclass(engine, RecordedEngine),
            "engine=recorded plays rollouts of masa-train: use engine=vllm or engine=hf",
        )
        check_engine(engine, settings)
    import torch

    if not torch.cuda.is_available():
        used = {"engine.dtype=float32": settings.get("dtype") == "bfloat16"}
        if line := slow_bfloat16(used, torch.cpu.get_capabilities()):
            logging.getLogger("masa").warning(line)


def check_arguments(engine: Any) -> None:
    """Raise ConfigError for an engine that does not take what a run passes by name."""
    parameters = inspect.signature(engine.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    missing = [argument for argument in RUN_ARGUMENTS if argument not in parameters]
    require(
        not missing,
        f"engine: {engine.__name__} has no argument {', '.join(missing)}, which the run passes by "
        "name",
    )
