"""The model that is evaluated: a folder, a hub id, or none where answers are replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers import AutoConfig, ByT5Tokenizer, PreTrainedTokenizerBase

from masa.evaluation.sampling import fits
from masa.tasks.chat import ending_tokens
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.models import Model, generation_eos, load_policy, load_tokenizer
from masa.types import Engine


@dataclass(frozen=True)
class EvaluatedModel:
    """A model's tokenizer, and its weights in an engine once samples are to be drawn."""

    tokenizer: PreTrainedTokenizerBase
    eos: Sequence[int]
    """Ends of a completion beside the tokenizer's."""
    path: Path
    """Folder of the model; unused where answers are replayed."""
    trust_remote_code: bool

    def renderer(
        self,
        templates: Templates,
        min_length: int,
        max_length: int,
        allow_special_tokens: bool = False,
    ) -> PromptRenderer:
        """Templates over the model's tokenizer; see `PromptRenderer`."""
        return PromptRenderer(
            templates, self.tokenizer, min_length, max_length, self.eos, allow_special_tokens
        )

    def engine(self, config: DictConfig, longest: int, temperature: float) -> Engine:
        """The engine, holding the model's weights.

        Args:
            config: the engine's settings.
            longest: tokens of the longest prompt and completion.
            temperature: of sampling.

        Raises:
            ConfigError: the model's context is shorter than `longest`.
        """
        settings = AutoConfig.from_pretrained(
            self.path, trust_remote_code=self.trust_remote_code
        ).get_text_config()
        fits(longest, settings.to_dict())
        engine: Any = instantiate(
            config,
            model_path=self.path,
            eos_token_ids=list(ending_tokens(self.tokenizer, self.eos)),
            max_model_len=longest,
            temperature=temperature,
            trust_remote_code=self.trust_remote_code,
        )
        policy = load_policy(
            self.path, getattr(torch, config.dtype), trust_remote_code=self.trust_remote_code
        )
        engine.load_weights(policy.named_parameters(), 0)
        return engine  # type: ignore[no-any-return]


def evaluated_model(model: Model | None) -> EvaluatedModel:
    """The model as it is on disk or the hub; None stands for no model: text as bytes."""
    if model is None:
        return EvaluatedModel(ByT5Tokenizer(), (), Path(), False)
    path = model.resolve(None)
    tokenizer = load_tokenizer(path, model.trust_remote_code)
    return EvaluatedModel(tokenizer, generation_eos(path), path, model.trust_remote_code)
