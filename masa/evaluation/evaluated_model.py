"""The model that is evaluated: a folder, a hub id, or none with engine=gold_answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from masa.rollout.build import build_engine
from masa.tasks.chat import ending_tokens
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.loading import (
    generation_eos,
    load_policy,
    load_tokenizer,
    require_context,
)
from masa.training.models import Model
from masa.types import Engine


@dataclass(frozen=True)
class EvaluatedModel:
    """A model's tokenizer, and an engine with its weights."""

    tokenizer: PreTrainedTokenizerBase
    eos: Sequence[int]
    """Tokens that end a completion, beside the tokenizer's."""
    path: Path
    """Folder of the model; unused with engine=gold_answers."""
    model: Model | None
    """None with engine=gold_answers."""

    def weights(self) -> str:
        """What tells these weights from others of the same name: the commit of a snapshot of the
        hub, else a digest of the folder's files."""
        if self.path.parent.name == "snapshots":
            return self.path.name
        digest = hashlib.sha256()
        for file in sorted(self.path.iterdir()):
            if file.suffix in (".safetensors", ".bin", ".json", ".jinja"):
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()[:16]

    def renderer(self, templates: Templates, config: Any) -> PromptRenderer:
        """Templates over the model's tokenizer, with the limits of an evaluation's or inference's
        settings."""
        return PromptRenderer(
            templates,
            self.tokenizer,
            config.min_length,
            config.max_tokens,
            self.eos,
            config.allow_special_tokens,
            config.mixed_of,
        )

    def engine(self, config: DictConfig, longest: int, temperature: float) -> Engine:
        """The engine, with the model's weights.

        Args:
            config: the engine's settings.
            longest: tokens of the longest prompt and completion.
            temperature: of sampling.

        Raises:
            ConfigError: the model's context is shorter than `longest`.
        """
        assert self.model is not None
        require_context(
            self.path,
            self.model.trust_remote_code,
            longest,
            "the longest prompt and its completion",
            "max_tokens or meta_max_tokens",
        )
        engine = build_engine(
            config,
            self.model,
            self.path,
            longest,
            ending_tokens(self.tokenizer, self.eos),
            temperature,
        )
        dtype = getattr(torch, config.dtype)
        policy = load_policy(self.path, dtype, None, self.model.trust_remote_code)
        engine.load_weights(policy.named_parameters(), 0)
        return engine


def evaluated_model(model: Model | None) -> EvaluatedModel:
    """The model of the disk or the hub; None is no model, whose tokens are bytes."""
    if model is None:
        return EvaluatedModel(ByT5Tokenizer(), (), Path(), None)
    path = model.resolve(None)
    tokenizer = load_tokenizer(path, model.trust_remote_code)
    return EvaluatedModel(tokenizer, generation_eos(path), path, model)
