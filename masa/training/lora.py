"""LoRA: adapters that are trained and saved, and the merged weights that the engine gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from masa.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NamedTensors = Iterator[tuple[str, "torch.Tensor"]]


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside frozen linear layers; settings have the names of peft."""

    rank: int | None = None
    """r; null trains the whole model."""
    alpha: int = 16
    """The product of the two factors is scaled by alpha / rank."""
    target_modules: str | Sequence[str] = "all-linear"
    """Names of the linear layers that get an adapter; all-linear leaves out the output head."""

    def __post_init__(self) -> None:
        if self.rank is not None and not (type(self.rank) is int and self.rank >= 1):
            raise ConfigError(
                f"model.lora.rank is {self.rank}, it must be an integer >= 1, or null to train "
                "the whole model"
            )
        if not self.alpha > 0:
            raise ConfigError(f"model.lora.alpha is {self.alpha}, it must be > 0")


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> None:
    """Freeze `model` and give it trainable adapters; its state_dict holds only these from then on.

    Raises:
        ConfigError: no layer, or one that is not linear, has such a name.
    """
    import torch
    from peft import LoraConfig as PeftConfig
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import cast_adapter_dtype

    assert config.rank is not None
    targets = config.target_modules
    peft_config: Any = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        model.add_adapter(peft_config)
    except ValueError as error:
        raise ConfigError(f"model.lora.target_modules={targets}: {error}") from error
    # in 16 bits most updates would round to nothing
    cast_adapter_dtype(model, "default")
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and (
            layer is head or not isinstance(layer.get_base_layer(), torch.nn.Linear)
        ):
            raise ConfigError(f"model.lora.target_modules: {name} cannot have an adapter here")
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in parameters if not parameter.requires_grad}

    def drop_frozen(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def expect_no_frozen(module: Any, incompatible: Any) -> None:
        missing = incompatible.missing_keys
        missing[:] = [key for key in missing if not any(key.endswith(name) for name in frozen)]

    model.register_state_dict_post_hook(drop_frozen)
    model.register_load_state_dict_post_hook(expect_no_frozen)


def has_adapter(model: torch.nn.Module) -> bool:
    """True where `add_adapter` was called on the model."""
    return hasattr(model, "peft_config")


def in_adapter(name: str) -> bool:
    """True for the name of an adapter's parameter."""
    return ".lora_" in name


def base(named: NamedTensors) -> NamedTensors:
    """Parameters beside the adapter, under the names that they have without it."""
    return ((name.replace(".base_layer.", "."), tensor) for name, tensor in named)


def names_of_peft(named: NamedTensors) -> NamedTensors:
    """Parameters of the adapter, under the names of peft's files."""
    return (
        (f"base_model.model.{name.replace('.default.', '.')}", tensor) for name, tensor in named
    )


def merged(named: NamedTensors, model: torch.nn.Module) -> NamedTensors:
    """`named` parameters of `model` under the names and with the effect they have without adapter.

    Args:
        named: full tensors, in the order of `model.named_parameters()`.
        model: has the adapter and its scale.

    Yields:
        W + alpha / rank * B A in float32 where there is an adapter; the other tensors untouched.
    """
    if not has_adapter(model):
        yield from named
        return
    config = model.peft_config["default"]  # type: ignore[index, union-attr]
    scale = config.lora_alpha / config.r  # type: ignore[union-attr]
    parts: list[torch.Tensor] = []
    adapted = ""
    for name, tensor in named:
        plain_name = name.replace(".base_layer.", ".")
        if in_adapter(name):
            parts.append(tensor)
        elif plain_name != name and name.endswith(".weight"):
            adapted, parts = plain_name, [tensor]
        else:
            yield plain_name, tensor
        if len(parts) == 3:
            weight, a, b = (part.float() for part in parts)
            yield adapted, weight + scale * (b @ a)
            parts = []


def merge(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Add the adapter to the weights that it stands beside, in place; the model is used up.

    Returns:
        Parameters and buffers under the names that they have without adapter; tied ones are one.
    """
    import torch

    parameters = dict(base(model.named_parameters(remove_duplicate=False)))
    with torch.no_grad():
        for name, tensor in merged(model.named_parameters(), model):
            parameters[name].copy_(tensor)
    weights = {name: weight for name, weight in parameters.items() if not in_adapter(name)}
    return weights | dict(base(model.named_buffers()))


@contextmanager
def without_adapter(model: torch.nn.Module) -> Iterator[None]:
    """Disable the adapter: the model computes as before training."""
    model.disable_adapters()  # type: ignore[operator]
    try:
        yield
    finally:
        model.enable_adapters()  # type: ignore[operator]
