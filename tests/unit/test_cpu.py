import platform

import pytest
import torch

from masa.cpu import slow_bfloat16


@pytest.mark.parametrize("capabilities, slow", [
    ({"architecture": "x86_64", "avx2": True, "avx512_bw": False, "avx_ne_convert": False}, True),
    ({"architecture": "x86_64", "avx2": True, "avx512_bw": True}, False),
    ({"architecture": "x86_64", "avx2": True, "avx_ne_convert": True}, False),
    ({"architecture": "aarch64", "neon": True}, False),
    ({}, False),
])  # fmt: skip
def test_what_makes_bfloat16_slow(capabilities, slow):
    line = slow_bfloat16({"a=1": True, "b=2": False, "c=3": True}, capabilities)
    assert line.endswith("faster with a=1 c=3") == slow and bool(line) == slow
    assert not slow_bfloat16({"a=1": False}, capabilities)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86")
def test_pytorch_names_the_capabilities_so():
    known = torch.cpu.get_capabilities()
    assert known["architecture"] == "x86_64" and {"avx512_bw", "avx_ne_convert"} <= known.keys()
