"""The parts of a run, built from its config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from masa.algorithm.expert import Write
from masa.algorithm.task_rewards import TaskRewards
from masa.config import AlgorithmConfig, RunConfig
from masa.errors import ConfigError, TrainingError
from masa.tasks.base import Task
from masa.tasks.demonstrations import write_prediction
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.loading import context_of, generation_eos, load_tokenizer, require_context
from masa.training.models import Model
from masa.types import Engine, MetaPrediction, Prompt, TokenIds


def build_task_rewards(config: RunConfig, task: Task, renderer: PromptRenderer) -> TaskRewards:
    """The further rewards of solutions; see `TaskRewards`."""
    wanted = config.task.reward_format
    return TaskRewards(
        config.task.rewards,
        task.train,
        lambda prompt: renderer.templates.solution_text(prompt.problem),
        wanted == "messages" or (wanted == "auto" and renderer.chat),
        config.task.reward_seconds,
        config.trainer.max_rollouts,
    )


def build_writer(task: Task, renderer: PromptRenderer) -> Write:
    """Token ids of a given prediction, in the form of the task and within the limits of parsing."""

    def write(prompt: Prompt, prediction: MetaPrediction) -> TokenIds:
        length = min(max(prediction.length or 0, renderer.min_length), renderer.max_length)
        mixed = None if renderer.mixed_of is None else prediction.mixed
        asked = replace(prediction, length=length, mixed=mixed)
        return renderer.assistant_turn(write_prediction(task, prompt, asked))

    return write


def build_renderer(
    templates: Templates,
    model: Model,
    model_path: Path,
    algorithm: AlgorithmConfig,
    allow_special_tokens: bool = False,
) -> PromptRenderer:
    """Templates over the model's tokenizer; see `PromptRenderer`."""
    return PromptRenderer(
        templates,
        load_tokenizer(model_path, model.trust_remote_code),
        algorithm.meta.min_length,
        algorithm.response_limit,
        generation_eos(model_path),
        allow_special_tokens,
        algorithm.group_size if algorithm.meta.predict_mixed else None,
        room_for_recent(model, model_path, algorithm),
    )


def room_for_recent(model: Model, model_path: Path, algorithm: AlgorithmConfig) -> int:
    """Tokens of the longest q_meta with recent outcomes; 0 where none are shown."""
    if not algorithm.meta.recent:
        return 0
    response = max(algorithm.response_limit, algorithm.meta.response_limit)
    room = (context_of(model_path, model.trust_remote_code) or math.inf) - response
    return int(min(algorithm.prompt_limit, room))


def build_engine(
    config: DictConfig,
    model: Model,
    model_path: Path,
    max_model_len: int,
    eos_token_ids: Sequence[int],
    temperature: float,
) -> Engine:
    """The engine named by `config._target_`, without weights yet.

    Raises:
        ConfigError: it refuses the model or its settings.
        TrainingError: it cannot be built.
    """
    try:
        engine: Any = instantiate(
            config,
            model_path=model_path,
            eos_token_ids=list(eos_token_ids),
            max_model_len=max_model_len,
            temperature=temperature,
            trust_remote_code=model.trust_remote_code,
        )
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise TrainingError(
            f"the engine could not be built ({reason[:300]}); log.txt has the traceback: where "
            "memory is short change engine.gpu_memory_utilization, engine.kv_cache_gib or "
            "algorithm.response_limit, else try engine=hf"
        ) from error
    return engine  # type: ignore[no-any-return]


def longest_sequence(
    prompt: int,
    model: Model,
    model_path: Path,
    algorithm: AlgorithmConfig,
    limits: Mapping[str, int],
) -> int:
    """Tokens of the longest prompt plus the longest response, within the model's context.

    Args:
        prompt: tokens of the longest prompt without a hint.
        limits: tokens of the longest responses, by setting.

    Raises:
        ConfigError: the model's context is shorter.
    """
    if algorithm.control.hint:
        # the longest hint, see solution_request
        prompt += limits.get("algorithm.meta.response_limit", 0)
    prompt = max(prompt, room_for_recent(model, model_path, algorithm))
    longest = max(limits.values())
    settings = [name for name, limit in limits.items() if limit == longest]
    require_context(
        model_path,
        model.trust_remote_code,
        prompt + longest,
        f"prompts of {prompt} tokens and responses of {longest}",
        f"algorithm.prompt_limit or {' and '.join(settings)}",
    )
    return prompt + longest
