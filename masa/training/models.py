"""Where the policy's first weights come from: a folder in Hugging Face form."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open
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

from masa.engine.hf import faithful_attention
from masa.errors import ConfigError
from masa.tasks.arithmetic import ArithmeticTask
from masa.tasks.chat import check_chat_template
from masa.tracking.cost import ModelSize
from masa.training.demonstrations import WarmstartConfig, cached_warm_start
from masa.training.lora import LoraConfig, add_adapter

_log = logging.getLogger(__name__)
_REMEDY = ": correct the folder, or choose another model.name"
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
    """A small model that learns the built-in task's form from demonstrations, once per machine.

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
        if not isinstance(name, str) or not name:
            raise ConfigError(f"model.name is {name!r}, it must name a folder or a hub id")
        self.name = name
        self.revision = revision
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code
        self.lora = lora or LoraConfig()

    def check(self, task: object) -> None:
        """Raise ConfigError where there is no such model, or none that can be trained so."""
        folder = Path(os.path.expanduser(self.name))
        there = os.path.exists(folder)
        if there:
            _check_folder(self.name, folder)
        else:
            try:
                validate_repo_id(self.name)
            except HFValidationError as error:
                raise ConfigError(
                    f"model.name={self.name}: there is no such folder, and it is no repository of "
                    "the hub (ORG/NAME)"
                ) from error
        where = str(folder) if there else self.name
        options = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        what = f"model.name={self.name}" + ("" if there else " is no folder here and")
        with _loading(what, _REMEDY if there else ""):
            config = AutoConfig.from_pretrained(where, **options)
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if model_class is None and not self.trust_remote_code:
            raise ConfigError(
                f"model.name={self.name}: {config.model_type} is no causal language model"
            )
        faithful_attention(config, self.attn_implementation)
        _require_attention(self.attn_implementation)
        _refuse_recurrent(model_class, where)
        if there:
            _check_weights(self.name, folder)
            generation_eos(folder)
            load_tokenizer(folder, self.trust_remote_code)

    def resolve(self, task: object) -> Path:
        """Local folder of the model, downloaded where it is not there yet."""
        folder = Path(os.path.expanduser(self.name))
        if os.path.isdir(folder):
            return folder
        from huggingface_hub import snapshot_download

        # some repositories hold the weights a second time in their maker's own format
        wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "README.md"]
        with _loading(f"model.name={self.name}", ""):
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


@contextmanager
def _loading(what: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Raise ConfigError where something cannot be loaded.

    A folder's files are anybody's, and may bring code of their own: there is nothing that reading
    them may not raise.
    """
    try:
        yield
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # of OSError the message alone: it says what the hub answered, and maybe a remedy
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ConfigError(f"{what} cannot be loaded ({reason[:400]}){remedy}") from error


def _check_folder(name: str, folder: Path) -> None:
    """Raise ConfigError for what is no folder of a model."""
    if not folder.is_dir():
        raise ConfigError(f"model.name={name} is a file, not the folder of a model")
    if not (folder / "config.json").is_file():
        run = (folder / "config.yaml").is_file()
        hint = ": it is a run, of which masa-export makes a model" if run else ""
        raise ConfigError(f"model.name={name}: the folder has no config.json{hint}")


def _check_weights(name: str, folder: Path) -> None:
    """Raise ConfigError where files of weights are missing or cut off; they are not loaded."""
    weights = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    if not weights:
        raise ConfigError(f"model.name={name}: the folder has no weights ({', '.join(WEIGHTS)})")
    for index in folder.glob("*.index.json"):
        with _loading(str(index)):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shards - {path.name for path in weights})
        if missing:
            raise ConfigError(f"model.name={name}: the folder has no {', '.join(missing)}")
    for path in weights:
        with _loading(str(path), ": it is damaged, or not the file itself; fetch it again"):
            if path.suffix == ".safetensors":
                # reads the header, and compares it with the size of the file
                with safe_open(path, "pt"):
                    pass
            # torch writes zip archives, whose table is at the end; before 1.6 it wrote pickles
            elif not is_zipfile(path) and not _is_pickle(path):
                raise ValueError("no file of torch")


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


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
    remedy = ": correct the folder, or change model.name or model.attn_implementation"
    with _loading(f"the model in {path}", remedy):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=faithful_attention(config, attn_implementation),
            trust_remote_code=trust_remote_code,
            generation_config=generation_config(path),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model, info = loaded
    # transformers would go on with random numbers; buffers it computes
    missing = sorted(set(info["missing_keys"]) & dict(model.named_parameters()).keys())
    if missing:
        raise ConfigError(
            f"the model in {path} has no weights for {', '.join(missing[:3])}{remedy}"
        )
    if info["mismatched_keys"]:
        name, there, wanted = sorted(info["mismatched_keys"])[0]
        raise ConfigError(
            f"the model in {path} has weights of another shape than its config.json says: {name} "
            f"is {list(there)}, not {list(wanted)}{remedy}"
        )
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
        ConfigError: it cannot be loaded, has no end-of-sequence token, more tokens than the model,
            or a chat template that fails.
    """
    with _loading(f"the tokenizer in {path}"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        vocabulary = tokenizer.get_vocab()
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        size = getattr(config.get_text_config(), "vocab_size", math.inf)
    if not vocabulary.keys() - tokenizer.get_added_vocab().keys():
        # transformers makes an empty one where files are missing
        raise ConfigError(f"the tokenizer in {path} knows no words: the folder lacks its files")
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer in {path} has no end-of-sequence token: set eos_token in its "
            "tokenizer_config.json"
        )
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] >= size:
        raise ConfigError(
            f"the tokenizer in {path} has {last!r} as token {vocabulary[last]}, the model's "
            f"vocab_size is {size}: call its resize_token_embeddings, or take the token out"
        )
    check_chat_template(tokenizer)
    return tokenizer


def generation_eos(path: Path) -> list[int]:
    """`eos_token_id` of the model's generation config, a list in several model families.

    Raises:
        ConfigError: that file cannot be read, or holds something else.
    """
    ids = _settings(path / "generation_config.json").get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(type(i) is int for i in listed):
        raise ConfigError(f"{path}/generation_config.json: eos_token_id is {ids}, no token ids")
    return listed


def generation_config(path: Path) -> GenerationConfig:
    """The model's generation config, without settings that transformers reads and ignores but
    refuses to write, such as a temperature without sampling.

    Raises:
        ConfigError: as for `generation_eos`.
    """
    kept: dict[str, Any] = {}
    left_out = []
    # what others depend on comes first
    switches = ("do_sample", "num_beams", "return_dict_in_generate")
    settings = _settings(path / "generation_config.json")
    if not settings:
        # older models have them there
        known = GenerationConfig().to_dict().keys() - {"transformers_version"}
        config = _settings(path / "config.json")
        settings = {name: value for name, value in config.items() if name in known}
    for name in sorted(settings, key=lambda name: name not in switches):
        try:
            GenerationConfig(**kept, **{name: settings[name]}).validate(strict=True)
        except (ValueError, TypeError, AttributeError):
            left_out.append(name)
        else:
            kept[name] = settings[name]
    if left_out:
        _log.info("%s/generation_config.json: left out %s", path, ", ".join(left_out))
    return GenerationConfig(**kept)


def _settings(file: Path) -> dict[str, Any]:
    """What a file of a model says, nothing where it is missing."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): correct or remove it") from error
    return settings
