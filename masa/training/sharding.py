"""Placement of the policy's parameters: on one device, or with FSDP2 over all devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from masa.errors import ConfigError

_READ_AT_ONCE = 2**24
"""Bytes."""


def shard(
    model: torch.nn.Module, mesh: DeviceMesh, precision: str = "32-true", cpu_offload: bool = False
) -> None:
    """FSDP2: each decoder layer gathers its parameters for itself, the rest with the root.

    Args:
        model: causal LM.
        mesh: replicas x shards.
        precision: bf16-mixed computes in bfloat16; gradients are summed in float32 either way.
        cpu_offload: keep parameters, gradients and optimizer state on the CPU.

    Raises:
        ConfigError: the model's decoder layers are not where those of causal LMs are.
    """
    options: dict[str, Any] = {
        # a dimension of one would cost an all-reduce
        "mesh": mesh if mesh.size(0) > 1 else mesh[mesh.mesh_dim_names[1]],  # type: ignore[index]
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if precision == "bf16-mixed" else None,
            reduce_dtype=torch.float32,
        ),
        "offload_policy": CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
        if cpu_offload
        else OffloadPolicy(),
    }
    for layer in _layers(model):
        fully_shard(layer, **options)
    fully_shard(model, **options)


def set_gradient_sync(model: torch.nn.Module, enabled: bool) -> None:
    """Set whether the next backward pass sums gradients over the copies of the parameters.

    Of the micro-batches of one update only the last needs it (hybrid sharding).
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(enabled)


def free_gathered(model: torch.nn.Module) -> None:
    """Free what a forward pass without a backward pass has left whole: the root's parameters."""
    if isinstance(model, FSDPModule):
        model.reshard()


def _layers(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    decoder: Any = getattr(model, "get_decoder", lambda: None)()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise ConfigError(
            f"strategy=fsdp cannot shard {type(model).__name__}, which has no "
            "get_decoder().layers: use strategy=single or another model"
        )
    return iter(layers)


def full_parameters(
    model: torch.nn.Module, wanted: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Named full parameters, gathered one at a time; a collective call where they are sharded.

    Args:
        model: of this rank.
        wanted: whether that of a name is; None: all are.
    """
    for name, parameter in model.named_parameters():
        if wanted is not None and not wanted(name):
            continue
        tensor = parameter.detach()
        if isinstance(tensor, DTensor):
            # offloaded shards are gathered on the device
            on_device: Any = tensor.to(tensor.device_mesh.device_type)
            tensor = on_device.full_tensor()
        yield name, tensor


def read_shards(model: torch.nn.Module, folder: Path) -> None:
    """Read this rank's part of a sharded model's weights.

    Args:
        model: its parameters have the names of the files, beside adapters, which stay as they are.
        folder: with weights in safetensors.
    """
    files = weights_in_files(folder)
    done: set[torch.nn.Parameter] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        name = name.replace(".base_layer.", ".")
        if name in files and parameter not in done:
            done.add(parameter)
            _read(parameter.detach(), files[name][0], name)


def weights_in_files(folder: Path) -> dict[str, tuple[Path, list[int]]]:
    """File in safetensors and shape of each weight; of the files that transformers would read."""
    names = ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not (folder / names[0]).is_file():
        weight_map = json.loads(index.read_text())["weight_map"] if index.is_file() else {}
        names = sorted(set(weight_map.values()))
    weights: dict[str, tuple[Path, list[int]]] = {}
    for file in (folder / name for name in names):
        with safe_open(file, "pt") as opened:
            weights |= {key: (file, opened.get_slice(key).get_shape()) for key in opened.keys()}
    return weights


def _read(parameter: Any, file: Path, name: str) -> None:
    (chunk,) = parameter.__create_chunk_list__()
    local, first = parameter.to_local(), chunk.offsets[0]
    rows = max(1, _READ_AT_ONCE // max(1, local[:1].nbytes))
    for start in range(0, len(local), rows):
        part = local[start : start + rows]
        # opened for each part: pages of a file count as memory while it is open
        with safe_open(file, "pt") as opened:
            part.copy_(opened.get_slice(name)[first + start : first + start + len(part)])


def local_bytes(model: torch.nn.Module, trained: bool = False) -> int:
    """Memory of this rank's part of the parameters; of those with a gradient if `trained`."""
    return sum(
        (p.to_local() if isinstance(p, DTensor) else p).nbytes
        for p in model.parameters()
        if p.requires_grad or not trained
    )
