"""Run directories -> tables and figures. Imports no torch, no lightning, no engine."""

from masa.analysis.load import load_run
from masa.analysis.seeds import load_sweep

__all__ = ["load_run", "load_sweep"]
