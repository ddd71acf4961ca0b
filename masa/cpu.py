"""What a CPU is slow at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def slow_bfloat16(settings: Mapping[str, bool], capabilities: Mapping[str, Any]) -> str:
    """One line where a run computes in bfloat16 on a CPU that emulates it; else empty.

    On x86, oneDNN's kernels in bfloat16 need AVX-512 or AVX-NE-CONVERT. Without them a product of
    matrices takes more than ten times as long as in float32.

    Args:
        settings: what would change to float32, and whether it is bfloat16 now.
        capabilities: of the CPU, as `torch.cpu.get_capabilities` names them.
    """
    faster = " ".join(name for name, is_slow in settings.items() if is_slow)
    on_x86 = capabilities.get("architecture") == "x86_64"
    kernels = capabilities.get("avx512_bw") or capabilities.get("avx_ne_convert")
    if not faster or not on_x86 or kernels:
        return ""
    return f"this CPU has no instructions for bfloat16 and is many times faster with {faster}"
