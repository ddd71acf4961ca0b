"""The memory that a run needs per device, printed before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from masa.config import BCConfig
from masa.cpu import slow_bfloat16
from masa.training.module import MasaModule
from masa.training.sharding import local_bytes


class MemoryCallback(L.Callback):
    """Prints one line about memory per device when the fit starts.

    Args:
        engine: the engine's settings; None where none is in memory.
    """

    def __init__(self, engine: Mapping[str, Any] | None) -> None:
        self.engine = engine

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print on the first rank."""
        assert isinstance(pl_module, MasaModule)
        if trainer.is_global_zero:
            print(memory_budget(pl_module, self.engine))
            if pl_module.device.type == "cpu":
                used = bfloat16_settings(pl_module, self.engine)
                if line := slow_bfloat16(used, torch.cpu.get_capabilities()):
                    logging.getLogger("masa").warning(line)


def bfloat16_settings(module: MasaModule, engine: Mapping[str, Any] | None) -> dict[str, bool]:
    """Settings that choose float32, and whether bfloat16 is chosen instead."""
    assert module.policy is not None
    return {
        "trainer.precision=32-true": module.settings.precision != "32-true",
        "model.dtype=float32": any(p.dtype == torch.bfloat16 for p in module.policy.parameters()),
        "engine.dtype=float32": (engine or {}).get("dtype") == "bfloat16",
    }


def memory_budget(module: MasaModule, engine: Mapping[str, Any] | None) -> str:
    """Memory per device of policy, gradients, optimizers and engine; activations come on top."""
    policy = module.policy
    assert policy is not None
    weights, trained = local_bytes(policy), local_bytes(policy, trained=True)
    dtype = str(next(policy.parameters()).dtype).removeprefix("torch.")
    parts = [f"policy {size_text(weights)} ({dtype})", f"gradients {size_text(trained)}"]
    parts.append(f"AdamW {size_text(moments(module.algorithm.bc) * trained)}")
    if module.reference is not None:
        parts.append(f"reference {size_text(local_bytes(module.reference))}")
    if engine is None:
        return f"memory per device: {', '.join(parts)}"
    of_engine = engine.get("dtype", "float32")
    itemsize = torch.empty((), dtype=getattr(torch, of_engine)).itemsize
    engine_weights = sum(p.numel() for p in policy.parameters()) * itemsize
    engine_weights //= engine.get("tensor_parallel_size", 1)
    parts.append(f"engine {size_text(engine_weights)} ({of_engine})")
    if "gpu_memory_utilization" in engine and torch.cuda.is_available():
        gpu_share = int(engine["gpu_memory_utilization"] * torch.cuda.mem_get_info()[1])
        parts.append(f"KV cache {size_text(gpu_share - engine_weights)} (freed while training)")
    elif "kv_cache_gib" in engine:
        parts.append(f"KV cache {engine['kv_cache_gib']} GiB")
    return f"memory per device: {', '.join(parts)}"


def moments(cloning: BCConfig) -> int:
    """Numbers that AdamW keeps per trained parameter."""
    return 4 if cloning.mode == "separate" else 2


def size_text(count: float) -> str:
    """Bytes in GiB, or in MiB where that is less than one."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
