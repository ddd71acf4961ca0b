"""Where the policy's first weights come from: a folder in Hugging Face form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from masa.config import ConfigError
from masa.tasks.arithmetic import ArithmeticTask
from masa.training.warmstart import WarmstartConfig, cached_warm_start


class WarmStartedModel:
    """A small model that learns the embedded domain's form from demonstrations, once per machine.

    Args:
        architecture: `model_type` and shape of a transformers config.
        warmstart: how long and on what.
        cache_dir: where finished models are kept; ~ is the home directory.
    """

    def __init__(
        self, architecture: Mapping[str, Any], warmstart: WarmstartConfig, cache_dir: str
    ) -> None:
        self.architecture = dict(architecture)
        self.warmstart = warmstart
        self.cache_dir = Path(cache_dir).expanduser()

    def check(self, task: object) -> None:
        """Raise ConfigError where the task has no demonstrations."""
        if not isinstance(task, ArithmeticTask):
            raise ConfigError("this model warm-starts on task=arithmetic only; use model=hub")

    def resolve(self, task: ArithmeticTask) -> Path:
        """Folder of the model, trained now where it is not there yet."""
        config = AutoConfig.for_model(**self.architecture)
        return cached_warm_start(task, config, self.warmstart, self.cache_dir)


class HubModel:
    """Any causal LM of the Hugging Face hub or in a local folder.

    Args:
        name: repository id or folder.
        revision: branch, tag or commit; only for the hub.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = name
        self.revision = revision

    def check(self, task: object) -> None:
        """Raise ConfigError where a local folder holds no model."""
        folder = Path(self.name).expanduser()
        if folder.exists() and not (folder / "config.json").is_file():
            raise ConfigError(f"model.name={self.name}: the folder has no config.json")

    def resolve(self, task: object) -> Path:
        """Local folder of the model, downloaded where it is not there yet."""
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            return folder
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.name, revision=self.revision))


def load_policy(path: Path) -> torch.nn.Module:
    """The causal LM in `path`, in float32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert isinstance(model, torch.nn.Module)
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer in {path} has no end-of-sequence token")
    return tokenizer
