"""Peak memory of an export: `measure_export.py RUN OUT`, bytes above what was held before."""

import sys
from pathlib import Path

import torch
from memory import peak, resident

import masa.rollout.build
import masa.training.checkpoint  # noqa: F401
from masa.export import export

torch.set_num_threads(1)
before = resident()
export(*map(Path, sys.argv[1:]))
print(peak() - before)
