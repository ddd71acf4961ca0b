"""Where the policy's first weights come from: a folder in Hugging Face form."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from masa.config import ConfigError
from masa.data.cost import ModelSize
from masa.engine.hf import faithful_attention
from masa.tasks.arithmetic import ArithmeticTask
from masa.training.lora import LoraConfig, add_adapter
from masa.training.warmstart import WarmstartConfig, cached_warm_start

WEIGHTS = ("*.safetensors", "*.bin")
"""Files of weights."""


class Model(Protocol):
    """A source of first weights."""

    @property
    def trust_remote_code(self) -> bool:
        """True where the model's own code may run."""
        ...

    def check(self, task: Any) -> None:
        """Raise ConfigError for what can be refused without loading weights."""
        ...

    def resolve(self, task: Any) -> Path:
        """Local folder of the model."""
        ...

    def load(self, path: Path) -> PreTrainedModel:
        """The policy in that folder, ready to be trained."""
        ...


class WarmStartedModel:
    """A small model that learns the embedded domain's form from demonstrations, once per machine.

    Args:
        architecture: `model_type` and shape of a transformers config.
        warmstart: how long and on what.
        cache_dir: where finished models are kept; ~ is the home directory.
    """

    trust_remote_code = False

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

    def load(self, path: Path) -> PreTrainedModel:
        """The policy in `path`, in float32."""
        return load_policy(path)


class HubModel:
    """Any causal LM of the Hugging Face hub or in a local folder.

    Args:
        name: repository id or folder.
        revision: branch, tag or commit; only for the hub.
        dtype: dtype of the trained weights. float32 keeps what small learning rates add up to;
            trainer.precision=bf16-mixed computes in bfloat16 all the same.
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
        self.name = name
        self.revision = revision
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code
        self.lora = lora or LoraConfig()

    def check(self, task: object) -> None:
        """Raise ConfigError where there is no such model, or none that can be trained so."""
        folder = Path(self.name).expanduser()
        if folder.exists() and not (folder / "config.json").is_file():
            raise ConfigError(f"model.name={self.name}: the folder has no config.json")
        where = str(folder) if folder.exists() else self.name
        options = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        try:
            config = AutoConfig.from_pretrained(where, **options)
        except (OSError, ValueError) as error:
            # the folder or id, then what the hub said to it; a remedy may be among the words
            said = " ".join(str(error).split())
            raise ConfigError(f"model.name={self.name} cannot be loaded: {said}") from error
        faithful_attention(config, self.attn_implementation)
        _require_attention(self.attn_implementation)
        _refuse_recurrent(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), where)
        if folder.exists():
            if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
                raise ConfigError(
                    f"model.name={self.name}: the folder has no weights ({', '.join(WEIGHTS)})"
                )
            load_tokenizer(folder, self.trust_remote_code)

    def resolve(self, task: object) -> Path:
        """Local folder of the model, downloaded where it is not there yet."""
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            return folder
        from huggingface_hub import snapshot_download

        # some repositories hold the weights a second time in their maker's own format
        wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "README.md"]
        path = snapshot_download(
            self.name,
            revision=self.revision,
            allow_patterns=wanted,
            ignore_patterns=["original/*", "consolidated*"],
        )
        return Path(path)

    def load(self, path: Path) -> PreTrainedModel:
        """The policy in `path`, with a fresh adapter where one is asked for."""
        model = load_policy(
            path, getattr(torch, self.dtype), self.attn_implementation, self.trust_remote_code
        )
        _refuse_recurrent(model, path)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # it is off in evaluation mode
        if self.lora.rank is not None:
            add_adapter(model, self.lora)
        return model


def _refuse_recurrent(model: object, where: str | Path) -> None:
    """Raise ConfigError for a class of models whose layers carry a state from token to token: a
    packed row holds several sequences, and one's state would leak into the next. Padded rows hold
    one, but are refused as well, being untested."""
    if getattr(model, "_is_stateful", False):
        raise ConfigError(
            f"model.name={where}: recurrent layers (Mamba, gated DeltaNet and the like) cannot be "
            "trained on packed sequences: use a model with attention alone"
        )


def _require_attention(wanted: str | None) -> None:
    """Raise ConfigError for an attention implementation that is unknown or not installed."""
    # a kernel of the hub, by its repository
    if wanted is None or "/" in wanted:
        return
    known = ("eager", *sorted(ALL_ATTENTION_FUNCTIONS))
    if wanted not in known:
        raise ConfigError(
            f"model.attn_implementation is {wanted!r}, it must be one of {', '.join(known)}"
        )
    package = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
    if wanted in package and find_spec(package[wanted]) is None:
        raise ConfigError(
            f"model.attn_implementation={wanted}: {package[wanted]} is not installed: install it, "
            "or use sdpa"
        )


def load_policy(
    path: Path,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The causal LM in `path`.

    Raises:
        ConfigError: it cannot be loaded so.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=faithful_attention(config, attn_implementation),
            trust_remote_code=trust_remote_code,
        )
    except torch.OutOfMemoryError:
        raise
    # a damaged file, weights of other shapes, attention that is not installed or not known
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"the model in {path} cannot be loaded ({said[:200]}): mend the folder, or change "
            "model.name or model.attn_implementation"
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model


def model_size(model: torch.nn.Module) -> ModelSize:
    """Parameters that compute; an input embedding only looks up, unless it is the head as well."""
    table = getattr(model, "get_input_embeddings", lambda: None)()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    lookup = None if table is None or (head and head.weight is table.weight) else table.weight
    computing = [p for p in model.parameters() if p is not lookup]
    return ModelSize(
        sum(p.numel() for p in computing), sum(p.numel() for p in computing if p.requires_grad)
    )


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`.

    Raises:
        ConfigError: it has no end-of-sequence token.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer in {path} has no end-of-sequence token: set eos_token in its "
            "tokenizer_config.json"
        )
    return tokenizer


def generation_eos(path: Path) -> list[int]:
    """`eos_token_id` of the model's generation config, a list in several model families."""
    if not (path / "generation_config.json").is_file():
        return []
    ids = GenerationConfig.from_pretrained(path).eos_token_id
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
