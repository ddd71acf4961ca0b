"""Policies and tokenizers from folders and from the hub, and what is refused of them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from accelerate import init_empty_weights
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
from masa.tasks.chat import check_chat_template
from masa.tracking.cost import ModelSize
from masa.training.sharding import weights_in_files

_log = logging.getLogger(__name__)
_REMEDY = ": correct the folder, or choose another model.name"
WEIGHTS = ("*.safetensors", "*.bin")
"""Patterns of weight files."""


@contextmanager
def loading(what: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Raise ConfigError where something cannot be loaded.

    A folder's files may be of any origin and bring their own code, so reading them may raise any
    exception.
    """
    try:
        yield
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # of OSError only the message: it has the hub's answer, and maybe a remedy
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ConfigError(f"{what} cannot be loaded ({reason[:400]}){remedy}") from error


def check_model(
    name: str,
    folder: Path | None,
    attn_implementation: str | None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> int | None:
    """Raise ConfigError where a model cannot be trained; its weights are not loaded.

    Args:
        name: `model.name`, for messages.
        folder: where it lies; None: in the hub.
        attn_implementation, revision, trust_remote_code: see `HubModel`.

    Returns:
        Tokens that it can read; None where its config does not say.
    """
    source = name if folder is None else str(folder)
    what = f"model.name={name}" + (" is no folder here and" if folder is None else "")
    with loading(what, "" if folder is None else _REMEDY):
        config = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None and not trust_remote_code:
        raise ConfigError(f"model.name={name}: {config.model_type} is no causal language model")
    faithful_attention(config, attn_implementation)
    _require_attention(attn_implementation)
    refuse_recurrent(model_class, source)
    if folder is not None:
        _check_weights(name, folder)
        generation_eos(folder)
        load_tokenizer(folder, trust_remote_code)
    return _context(config)


def _check_weights(name: str, folder: Path) -> None:
    """Raise ConfigError where files of weights are missing or cut off; they are not loaded."""
    weights = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    if not weights:
        raise ConfigError(f"model.name={name}: the folder has no weights ({', '.join(WEIGHTS)})")
    for index in folder.glob("*.index.json"):
        with loading(str(index)):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shards - {path.name for path in weights})
        if missing:
            raise ConfigError(f"model.name={name}: the folder has no {', '.join(missing)}")
    for path in weights:
        with loading(str(path), ": it is damaged, or not the file itself; fetch it again"):
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


def refuse_recurrent(model: object, where: str | Path) -> None:
    """Raise ConfigError for models whose layers carry a state from token to token.

    A packed row has several sequences, and the state of one would leak into the next. Padded rows
    have one sequence, but are untested with such models.
    """
    if getattr(model, "_is_stateful", False):
        raise ConfigError(
            f"model.name={where}: recurrent layers (Mamba, gated DeltaNet and the like) cannot be "
            "trained on packed sequences: use a model with attention alone"
        )


def _require_attention(name: str | None) -> None:
    """Raise ConfigError for an attention implementation that is unknown or not installed."""
    # a kernel of the hub, by its repository
    if name is None or "/" in name:
        return
    supported = ("eager", *sorted(ALL_ATTENTION_FUNCTIONS))
    if name not in supported:
        one_of = ", ".join(supported)
        raise ConfigError(f"model.attn_implementation is {name!r}, it must be one of {one_of}")
    packages = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
    if name in packages and find_spec(packages[name]) is None:
        raise ConfigError(
            f"model.attn_implementation={name}: {packages[name]} is not installed: install it, or "
            "use sdpa"
        )


def without_dropout(model: torch.nn.Module) -> None:
    """Switch dropout off in a model in training mode: what is sampled is learned from as it was."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def load_policy(
    path: Path,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    weights: bool = True,
    revision: str | None = None,
) -> PreTrainedModel:
    """The causal LM in `path`; without `weights` its parameters are on the device `meta`.

    `path` may then be a repository of the hub, at a `revision` of it.

    Raises:
        ConfigError: it cannot be loaded with these settings.
    """
    remedy = ": correct the folder, or change model.name or model.attn_implementation"
    with loading(f"the model in {path}", remedy):
        config = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
        if not weights:
            # transformers also takes it away where it turns quantised weights into others
            vars(config).pop("quantization_config", None)
            with init_empty_weights(include_buffers=False):
                empty = AutoModelForCausalLM.from_config(
                    config,
                    dtype=dtype,
                    attn_implementation=faithful_attention(config, attn_implementation),
                    trust_remote_code=trust_remote_code,
                )
            empty.tie_weights()
            empty.generation_config = generation_config(path)
            return empty.eval()  # type: ignore[no-any-return]
        model_and_info: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=faithful_attention(config, attn_implementation),
            trust_remote_code=trust_remote_code,
            generation_config=generation_config(path),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model, info = model_and_info
    # transformers would use random numbers for missing weights; it computes buffers itself
    missing = sorted(set(info["missing_keys"]) & dict(model.named_parameters()).keys())
    if missing:
        raise ConfigError(
            f"the model in {path} has no weights for {', '.join(missing[:3])}{remedy}"
        )
    if info["mismatched_keys"]:
        name, saved, expected = sorted(info["mismatched_keys"])[0]
        raise ConfigError(
            f"the model in {path} has weights of another shape than in its config.json: {name} "
            f"is {list(saved)}, not {list(expected)}{remedy}"
        )
    assert isinstance(model, PreTrainedModel)
    return model


def allocate(model: torch.nn.Module) -> None:
    """Give parameters on the device `meta` memory on the CPU, tied ones once.

    The system gives it when it is written to.
    """
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_meta:
                continue
            if parameter not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                made[parameter] = torch.nn.Parameter(empty, parameter.requires_grad)
            setattr(module, name, made[parameter])


def has_names_of_files(model: torch.nn.Module, path: Path, trust_remote_code: bool) -> bool:
    """True where the model's weights can be read one by one from `path`, as they are.

    Of some families transformers renames or joins what is in the files, or expands it; tied weights
    that the files have twice may differ there; and a wrong shape is an error of the whole load.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    # of the second, other files are the model's
    if any(getattr(config, name, None) for name in ("quantization_config", "transformers_weights")):
        return False
    in_files = {name: shape for name, (_, shape) in weights_in_files(path).items()}
    names = dict(model.named_parameters(remove_duplicate=False))
    known = [name for name in names if in_files.get(name) == list(names[name].shape)]
    # buffers that are saved would have to be read as well
    return model.state_dict().keys() == names.keys() and len(known) == len(
        {names[name] for name in known}
    ) == len(list(model.parameters()))


def model_size(model: torch.nn.Module) -> ModelSize:
    """Numbers of parameters without the input embedding, unless it is the output head as well."""
    table = getattr(model, "get_input_embeddings", lambda: None)()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    lookup = None if table is None or (head and head.weight is table.weight) else table.weight
    computing = [p for p in model.parameters() if p is not lookup]
    return ModelSize(
        sum(p.numel() for p in computing), sum(p.numel() for p in computing if p.requires_grad)
    )


def context_of(path: Path, trust_remote_code: bool) -> int | None:
    """Tokens that the model in `path` can read; None where its config does not say."""
    return _context(AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code))


def _context(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def require_context(
    path: Path, trust_remote_code: bool, needed: int, sequences: str, settings: str
) -> None:
    """Raise ConfigError where sequences of `needed` tokens exceed the model's context.

    Args:
        path: folder of the model.
        trust_remote_code: run the code that comes with the model.
        needed: tokens.
        sequences: what they consist of, for the message.
        settings: those that shorten them, for the message.
    """
    context = context_of(path, trust_remote_code) or needed
    if needed > context:
        raise ConfigError(
            f"{sequences} need {needed} tokens, the model's context holds {context}: lower "
            f"{settings} by {needed - context}, or leave out long prompts"
        )


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`.

    Raises:
        ConfigError: it cannot be loaded, has no end-of-sequence token, more tokens than the model,
            or a chat template that fails.
    """
    with loading(f"the tokenizer in {path}"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        vocabulary = tokenizer.get_vocab()
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        size = getattr(config.get_text_config(), "vocab_size", math.inf)
    if not vocabulary.keys() - tokenizer.get_added_vocab().keys():
        # transformers makes an empty one where files are missing
        raise ConfigError(f"the tokenizer in {path} has no words: the folder lacks its files")
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
        ConfigError: that file cannot be read, or has no token ids.
    """
    ids = _settings(path / "generation_config.json").get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(type(i) is int for i in listed):
        raise ConfigError(f"{path}/generation_config.json: eos_token_id is {ids}, no token ids")
    return listed


def generation_config(path: Path) -> GenerationConfig:
    """The model's generation config, without settings that transformers would refuse to write.

    One of those is a temperature without sampling, which transformers reads and ignores.

    Raises:
        ConfigError: as for `generation_eos`.
    """
    valid: dict[str, Any] = {}
    left_out = []
    # settings that others depend on come first
    switches = ("do_sample", "num_beams", "return_dict_in_generate")
    settings = _settings(path / "generation_config.json")
    if not settings:
        # older models have these settings in config.json
        names = GenerationConfig().to_dict().keys() - {"transformers_version"}
        config = _settings(path / "config.json")
        settings = {name: value for name, value in config.items() if name in names}
    for name in sorted(settings, key=lambda name: name not in switches):
        try:
            GenerationConfig(**valid, **{name: settings[name]}).validate(strict=True)
        except (ValueError, TypeError, AttributeError):
            left_out.append(name)
        else:
            valid[name] = settings[name]
    if left_out:
        _log.info("%s/generation_config.json: left out %s", path, ", ".join(left_out))
    return GenerationConfig(**valid)


def _settings(file: Path) -> dict[str, Any]:
    """The settings in a file of a model, empty where it is missing."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(settings, dict):
            raise ValueError("it has no object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): correct or remove it") from error
    return settings
