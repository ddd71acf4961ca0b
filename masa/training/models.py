"""Models: the source of the initial policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from masa.errors import ConfigError, require
from masa.tasks.arithmetic import ArithmeticTask
from masa.training.lora import LoraConfig, add_adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Shard = Callable[["torch.nn.Module"], None]
"""Places a model's parameters on the devices."""


class Model(Protocol):
    """A source of the initial policy."""

    @property
    def trust_remote_code(self) -> bool:
        """True where the model's own code may run."""
        ...

    def check(self, task: Any) -> None:
        """Raise ConfigError for errors that show without loading weights."""
        ...

    def resolve(self, task: Any) -> Path:
        """Local folder of the model."""
        ...

    def load(self, path: Path, weights: bool = True, shard: Shard | None = None) -> PreTrainedModel:
        """The policy in that folder, ready for training.

        Args:
            path: the folder.
            weights: else it has shapes alone, on the device `meta`.
            shard: places it on several devices, before the weights are read.
        """
        ...


class WarmStartedModel:
    """A small model of the built-in task; see `masa.training.warmstart` for its first weights.

    Args:
        architecture: `model_type` and shape of a transformers config.
        warmstart: settings of `masa-sft`, nested as there; null: random weights, as `masa-sft`
            itself begins with.
        cache_dir: folder of finished models; ~ is the home directory.
        seed: of random weights.
    """

    trust_remote_code = False

    def __init__(
        self,
        architecture: Mapping[str, Any],
        warmstart: Mapping[str, Any] | None,
        cache_dir: str,
        seed: int = 0,
    ) -> None:
        self.architecture = dict(architecture)
        self.warmstart = warmstart
        self.cache_dir = Path(cache_dir).expanduser()
        self.seed = seed

    def check(self, task: object) -> None:
        """Raise ConfigError where the task has no tokenizer, or cannot make the first weights."""
        if not isinstance(task, ArithmeticTask):
            raise ConfigError("this model warm-starts on task=arithmetic only; use model=hub")
        mixed = ((self.warmstart or {}).get("sft") or {}).get("mixed_predictions")
        require(
            not mixed or task.templates.meta_mixed is not None,
            f"model.warmstart.sft.mixed_predictions is {mixed}, but predictions of this task have "
            "no field mixed: set it to 0, as experiment=arithmetic_uniform does",
        )

    def resolve(self, task: ArithmeticTask) -> Path:
        """Folder of the model, which is made now where it is missing."""
        from masa.training.warmstart import untrained, warm_started

        if self.warmstart is None:
            return untrained(self.architecture, task.tokenizer(), self.seed, self.cache_dir)
        return warm_started(self.architecture, task, self.warmstart, self.cache_dir)

    def load(self, path: Path, weights: bool = True, shard: Shard | None = None) -> PreTrainedModel:
        """The policy in `path`, in float32."""
        from masa.training.loading import load_policy

        model = load_policy(path, weights=weights)
        if shard is not None:
            shard(model)
        return model


class HubModel:
    """Any causal LM of the Hugging Face hub or in a local folder.

    Args:
        name: repository id or folder.
        revision: branch, tag or commit; only for the hub.
        dtype: dtype of the trained weights. float32 keeps the sums of small updates;
            trainer.precision=bf16-mixed still computes in bfloat16.
        attn_implementation: eager, sdpa, flash_attention_2 ...; null lets transformers choose.
        gradient_checkpointing: recompute activations in the backward pass.
        trust_remote_code: run the code that comes with the model.
        lora: adapters instead of the whole model.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        dtype: str = "float32",
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        trust_remote_code: bool = False,
        lora: LoraConfig | None = None,
    ) -> None:
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"model.dtype is {dtype!r}, it must be float32 or bfloat16")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"model.name is {name!r}, it must name a folder or a hub id")
        self.name = name
        self.revision = revision
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code
        self.lora = lora or LoraConfig()
        self._context: int | None = None

    def context(self) -> int | None:
        """Tokens that the model can read, after `check`; None where its config does not say."""
        return self._context

    def check_name(self) -> None:
        """Raise ConfigError where there is no such model; it imports nothing slow."""
        folder = Path(os.path.expanduser(self.name))
        if os.path.exists(folder):
            _check_folder(self.name, folder)
        else:
            _check_repository(self.name, self.revision)

    def check(self, task: object) -> None:
        """Raise ConfigError where there is no such model, or it cannot be trained so."""
        self.check_name()
        from masa.training.loading import check_model

        folder = Path(os.path.expanduser(self.name))
        self._context = check_model(
            self.name,
            folder if os.path.exists(folder) else None,
            self.attn_implementation,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )

    def resolve(self, task: object) -> Path:
        """Local folder of the model, downloaded where it is missing."""
        folder = Path(os.path.expanduser(self.name))
        if os.path.isdir(folder):
            return folder
        from huggingface_hub import snapshot_download

        from masa.training.loading import WEIGHTS, loading

        patterns = ["*.json", "*.model", "*.txt", "*.jinja", "*.py", "README.md"]
        # some repositories have the weights a second time, in another format
        for weights in WEIGHTS:
            with loading(f"model.name={self.name}", ""):
                path = snapshot_download(
                    self.name,
                    revision=self.revision,
                    allow_patterns=[*patterns, weights],
                    ignore_patterns=["original/*", "consolidated*"],
                )
            if any(Path(path).glob(weights)):
                return Path(path)
        raise ConfigError(
            f"model.name={self.name}: the repository has no weights ({', '.join(WEIGHTS)})"
        )

    def load(self, path: Path, weights: bool = True, shard: Shard | None = None) -> PreTrainedModel:
        """The policy in `path`, with a new adapter where `lora` sets one.

        With `shard`, each rank reads its own part of the weights, where the names of the parameters
        are those of the files; else every rank reads all of them first.
        """
        import torch

        from masa.training.loading import (
            allocate,
            has_names_of_files,
            load_policy,
            refuse_recurrent,
            without_dropout,
        )
        from masa.training.sharding import read_shards

        options = (getattr(torch, self.dtype), self.attn_implementation, self.trust_remote_code)
        by_parts = False
        if weights and shard is not None:
            model = load_policy(path, *options, weights=False, revision=self.revision)
            by_parts = has_names_of_files(model, path, self.trust_remote_code)
        if by_parts:
            allocate(model)
        else:
            model = load_policy(path, *options, weights=weights, revision=self.revision)
        refuse_recurrent(model, path)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # it is off in evaluation mode
            without_dropout(model)
        if self.lora.rank is not None:
            add_adapter(model, self.lora)
        if shard is not None:
            shard(model)
        if by_parts:
            read_shards(model, path)
        return model


def _check_repository(name: str, revision: str | None) -> None:
    """Raise ConfigError where this is no repository of the hub that can be read."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(
            f"model.name={name}: there is no such folder, and it is no repository of the hub "
            "(ORG/NAME)"
        ) from error
    # without a connection a request takes half a minute to fail, and what is there needs none
    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    try:
        hf_hub_download(name, "config.json", revision=revision)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model.name={name} is no folder here and cannot be loaded ({reason[:400]})"
        ) from error


def _check_folder(name: str, folder: Path) -> None:
    """Raise ConfigError where this is not the folder of a model."""
    if not folder.is_dir():
        raise ConfigError(f"model.name={name} is a file, not the folder of a model")
    if not (folder / "config.json").is_file():
        run = (folder / "config.yaml").is_file()
        hint = ": it is a run, of which masa-export makes a model" if run else ""
        raise ConfigError(f"model.name={name}: the folder has no config.json{hint}")
