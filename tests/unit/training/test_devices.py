"""What a process that trains on a CPU does with freed memory."""

import platform
import sys

import processes
import pytest

FAULTS = """
import resource
import torch
from masa.training.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (40, 50, 60, 70):
        torch.ones(size * 2**18)  # MiB, above what glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory("cpu")
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_freed_memory_is_taken_again_without_new_pages():
    command = [sys.executable, "-c", FAULTS]
    run = processes.run(command)
    before, after = map(int, run.stdout.split())
    assert after < before / 20
