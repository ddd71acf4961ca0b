"""What a run needs, before it starts: memory per device and tokens per step (`plan=true`).

The model is built without weights and without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from masa.config import RunConfig
from masa.markdown import markdown_table
from masa.rollout.packing import chosen_layout
from masa.training.logprobs import CHUNK_ELEMENTS
from masa.training.memory import moments, size_text
from masa.training.models import Model

GPUS = (24, 48, 80, 141)
"""GiB of common GPUs."""
OFFLOADED = ("weights", "AdamW", "KL reference", "gradients")
"""What `strategy.cpu_offload` keeps off the GPU."""
PROBED = 256
"""Tokens of the shortest of the three forward passes from which the bytes of any are told."""


@dataclass(frozen=True)
class Shapes:
    """Of a policy: parameters, and the bytes that its forward pass keeps for the backward pass."""

    parameters: int
    weights: int
    """Bytes of the parameters."""
    trained: int
    """Bytes of those of them with a gradient."""
    layers: int
    largest_layer: int
    """Parameters of the decoder layer that has most; FSDP2 gathers one layer at a time."""
    root: int
    """Parameters outside the decoder layers."""
    head: int
    """Parameters of the output head, where they have a gradient; else 0."""
    vocabulary: int
    hidden: int
    kept: tuple[float, float, float]
    """Bytes of all layers: whatever the tokens, per token, and per token squared."""
    checkpointing: bool
    """Layers keep their input alone and are recomputed."""
    cache: int
    """Elements per token of the engine's KV cache."""
    attention: str

    def activations(self, tokens: int, row: int, size: int) -> float:
        """Bytes for `tokens` in rows of `row` each, of `size` bytes per element of a layer's
        input."""
        if self.checkpointing:
            return float(self.layers * self.hidden * size * tokens)
        return self._kept(tokens, row)

    def recomputed(self, tokens: int, row: int) -> float:
        """Bytes of the layer that the backward pass computes again, and of its gradients."""
        return 2 * self._kept(tokens, row) / self.layers if self.checkpointing else 0.0

    def _kept(self, tokens: int, row: int) -> float:
        return self.kept[0] + self.kept[1] * tokens + self.kept[2] * tokens * row


def shapes_of(policy: Any, dtype: torch.dtype, autocast: torch.dtype | None = None) -> Shapes:
    """Shapes of a causal LM on the device `meta`, which is used up.

    Args:
        policy: causal LM of transformers, also with an adapter.
        dtype: of the weights of the forward pass.
        autocast: dtype that it computes in beside them; None: in theirs.
    """
    decoder, config = policy.get_decoder(), policy.config.get_text_config()
    layers = list(decoder.layers)
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    parameters = list(policy.parameters())
    count, weights = sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)
    trained = sum(p.nbytes for p in parameters if p.requires_grad)
    head = [p for p in policy.get_output_embeddings().parameters() if p.requires_grad]
    checkpointing = policy.is_gradient_checkpointing
    policy.gradient_checkpointing_disable()
    # shapes on a device with the attention kernels of a real one, which `meta` lacks
    with FakeTensorMode():
        _move(decoder, dtype, policy.dtype)
        # as Lightning's: each cast is made anew, and kept with what it was made for
        computing: AbstractContextManager[Any] = (
            torch.autocast("cpu", autocast, cache_enabled=False) if autocast else nullcontext()
        )
        with computing:
            probes = [_kept(decoder, n * PROBED) for n in (1, 2, 3)]
    quadratic, linear, constant = np.polyfit([PROBED, 2 * PROBED, 3 * PROBED], probes, 2).tolist()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shapes(
        parameters=count,
        weights=weights,
        trained=trained,
        layers=len(layers),
        largest_layer=max(sizes),
        root=count - sum(sizes),
        head=sum(p.numel() for p in head),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        kept=(constant, linear, quadratic),
        checkpointing=checkpointing,
        cache=2 * len(layers) * heads * head_dim,
        attention=policy.config._attn_implementation or "",
    )


def _move(model: torch.nn.Module, dtype: torch.dtype, base: torch.dtype) -> None:
    """Have the tensors of a model on the device `meta` on the CPU, without values.

    Args:
        model: with parameters in `base`, and an adapter perhaps in another dtype.
        dtype: of all its parameters from then on; where it is `base`, adapters keep theirs.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            own = parameter.dtype if dtype == base else dtype
            empty = torch.nn.Parameter(
                torch.empty(parameter.shape, dtype=own), parameter.requires_grad
            )
            setattr(module, name, empty)
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _kept(decoder: Any, tokens: int) -> int:
    """Bytes that a forward pass over one row saves; parameters are left out, views counted once."""
    own = {id(parameter) for parameter in decoder.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor if tensor._base is None else tensor._base
        if id(whole) not in own:
            saved[id(whole)] = whole
        return tensor

    dtype = next(decoder.parameters()).dtype
    width = decoder.config.get_text_config().hidden_size
    embedded = torch.empty(1, tokens, width, dtype=dtype, requires_grad=True)
    positions = torch.arange(tokens)[None]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder(inputs_embeds=embedded, position_ids=positions, use_cache=False)
    return sum(tensor.nbytes for tensor in saved.values())


@dataclass(frozen=True)
class Plan:
    """Bytes per device, by what holds them, and the largest number of tokens."""

    always: Mapping[str, float]
    """There all the time."""
    update: Mapping[str, float]
    """On top of that in an update, when the engine has given its memory back (on a GPU)."""
    rollout: Mapping[str, float]
    """On top of that during a rollout."""
    longest: int
    """Tokens of the longest sequence that is sampled."""
    cache: float
    """The engine's cache for one of these."""
    share: float | None
    """Of a GPU's memory that the engine takes, weights included; null: what is free."""
    tokens: Mapping[str, int]
    on_cpu: Mapping[str, float] = field(default_factory=dict)
    """In the CPU's memory instead."""

    def on(self, memory: float) -> tuple[bool, int]:
        """Whether an update fits into `memory`, and how many of the longest sequences fit into the
        engine at once, none where its share is not free."""
        free = memory - sum(self.always.values())
        taken = free if self.share is None else self.share * memory
        room = taken - sum(self.rollout.values()) if taken <= free else 0.0
        return sum(self.update.values()) < free, max(0, int(room // self.cache))


def plan(config: RunConfig, model: Model, path: Path) -> Plan:
    """The plan of a run of the model in `path`, a folder or the name of a repository."""
    strategy, algorithm, trainer = config.strategy, config.algorithm, config.trainer
    attention = getattr(model, "attn_implementation", None) or ""
    probed = copy(model)
    if attention not in ("", "eager", "sdpa"):
        # kernels that run on a GPU alone keep as much as those of sdpa
        probed.attn_implementation = "sdpa"  # type: ignore[attr-defined]
    policy = probed.load(path, weights=False)
    dtype = policy.dtype
    compute = torch.bfloat16 if trainer.precision == "bf16-mixed" else dtype
    # FSDP2 casts the weights themselves
    shapes = (
        shapes_of(policy, compute)
        if strategy.distributed or compute == dtype
        else shapes_of(policy, dtype, compute)
    )
    of_inputs = (compute if strategy.distributed else dtype).itemsize
    # a hint has the prediction in the prompt
    prompt = algorithm.prompt_limit + algorithm.meta.response_limit * algorithm.control.hint
    longest = prompt + max(
        algorithm.response_limit, algorithm.meta.response_limit * algorithm.meta.enabled
    )
    shards = strategy.shards
    always = {"weights": shapes.weights / shards}
    if strategy.distributed:
        # the next layer is gathered while one computes
        always["gathered"] = (2 * shapes.largest_layer + shapes.root) * compute.itemsize
    always["AdamW"] = moments(algorithm.bc) * shapes.trained / shards
    if algorithm.kl_beta > 0 and shapes.trained == shapes.weights:
        always["KL reference"] = always["weights"]
    micro_batch = max(trainer.micro_batch_tokens, longest)
    packed = chosen_layout(trainer.packing, attention) == "packed"
    row = micro_batch if packed else longest
    if shapes.attention != "eager" and (not packed or attention not in ("", "sdpa")):
        # such rows need no mask
        shapes = replace(shapes, kept=(*shapes.kept[:2], 0.0))
    activations = {"activations": shapes.activations(micro_batch, row, of_inputs)}
    # one after the other, as the backward pass comes to them
    phases: list[dict[str, float]] = [
        activations | {"logits": _logits(shapes, micro_batch)},
        activations | {"recomputed layer": shapes.recomputed(micro_batch, row)},
    ]
    if strategy.distributed:
        # a gradient is whole in its own dtype and in float32 until it is reduced
        whole = (compute.itemsize + 4) * shapes.trained / shapes.weights
        phases[1]["whole gradients"] = 2 * whole * shapes.largest_layer
        phases.append({"whole gradients": whole * shapes.root})
    sums = [sum(parts.values()) for parts in phases]
    largest = phases[sums.index(max(sums))]
    training = {"gradients": shapes.trained / shards} | largest
    sampled = prompt + max(config.response_limits.values())
    engine, parts = config.engine or {}, config.ranks_per_engine
    element = getattr(torch, engine.get("dtype", "float32")).itemsize
    share = engine.get("gpu_memory_utilization")
    rollout = {"engine's weights": shapes.parameters * element / parts}
    if share is None:
        # this engine keeps them while the policy is trained
        always, rollout = always | rollout, {}
    sequence = sampled * shapes.cache * element / parts
    on_cpu: dict[str, float] = {}
    if strategy.cpu_offload:
        for parts_of in (always, training):
            on_cpu |= {name: parts_of.pop(name) for name in OFFLOADED if name in parts_of}
    if share is not None and engine.get("lora_rank") is not None:
        # no weight sync brings them again, so they are kept while the engine sleeps
        on_cpu["engine's weights, asleep"] = rollout["engine's weights"]
    return Plan(always, training, rollout, sampled, sequence, share, _tokens(config), on_cpu)


def _logits(shapes: Shapes, tokens: int) -> float:
    """Logits of a chunk of tokens and their gradient, and the head's gradient, in float32."""
    rows = min(tokens, max(1, CHUNK_ELEMENTS // shapes.vocabulary))
    return 4.0 * (2 * rows * shapes.vocabulary + shapes.head)


def _tokens(config: RunConfig) -> dict[str, int]:
    algorithm, meta = config.algorithm, config.algorithm.meta
    prompts = config.trainer.prompts_per_rollout * (1 + algorithm.dynamic_sampling)
    predictions = prompts * meta.predictions
    if algorithm.selection.refill:
        # of prompts that are predicted to fill the places of skipped ones
        further = prompts * (algorithm.selection.max_draws - 1)
        predictions += further * min(meta.predictions, meta.first or meta.predictions)
    return {
        "solutions": prompts * algorithm.group_size * algorithm.response_limit,
        "predictions": predictions * meta.response_limit,
    }


def described(made: Plan) -> str:
    """The plan as text: tables in Markdown."""
    lines = [["memory per device", "when", "size"]]
    phases = {"always": made.always, "update": made.update, "rollout": made.rollout}
    phases["on the CPU"] = made.on_cpu
    for phase, parts in phases.items():
        lines += [[name, phase, size_text(size)] for name, size in parts.items()]
    lines.append([f"KV cache of {made.longest:,} tokens", "rollout", size_text(made.cache)])
    together = sum(made.always.values()) + sum(made.update.values())
    lines.append(["**always and update**", "", size_text(together)])
    gpus = [["memory of a GPU", "an update fits", "longest sequences at once"]]
    for memory in GPUS:
        fits, sequences = made.on(memory * 2**30)
        gpus.append([f"{memory} GiB", "yes" if fits else "no", f"{sequences:,}"])
    tokens = [["tokens per step", "at most, all devices"]]
    tokens += [[name, f"{count:,}"] for name, count in made.tokens.items() if count]
    return "\n\n".join(map(markdown_table, (lines, gpus, tokens)))
